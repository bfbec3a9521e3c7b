/* SPDX-License-Identifier: MIT */
#include "cli/stat/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static sigset_t original_mask;

int child_take_signals(void)
{
	sigset_t wanted;
	int fd;

	sigemptyset(&wanted);
	sigaddset(&wanted, SIGINT);
	sigaddset(&wanted, SIGTERM);
	sigaddset(&wanted, SIGHUP);
	sigaddset(&wanted, SIGQUIT);
	sigaddset(&wanted, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &wanted, &original_mask) < 0)
		return -errno;
	fd = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static _Noreturn void become(const struct child *child, char **command)
{
	char byte;
	int error;

	/* main() ignores SIGPIPE, and ignored signals outlive exec. */
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &original_mask, NULL);
	if (read(child->go, &byte, 1) != 1)
		_exit(125);
	execvp(command[0], command);
	error = errno;
	if (write(child->failed, &error, sizeof(error)) != sizeof(error))
		_exit(125);
	_exit(127);
}

int child_start(struct child *child, char **command)
{
	int go[2], failed[2], error;
	struct child inner;

	if (pipe2(go, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(failed, O_CLOEXEC) < 0) {
		error = -errno;
		close(go[0]);
		close(go[1]);
		return error;
	}
	inner = (struct child){ .go = go[0], .failed = failed[1] };
	child->pid = fork();
	if (child->pid == 0) {
		/* Else the end of `cow` would not be seen. */
		close(go[1]);
		become(&inner, command);
	}
	error = child->pid < 0 ? -errno : 0;
	close(go[0]);
	close(failed[1]);
	child->go = go[1];
	child->failed = failed[0];
	if (error) {
		close(child->go);
		close(child->failed);
		child->pid = 0;
	}
	return error;
}

int child_release(struct child *child)
{
	ssize_t length = write(child->go, "", 1);
	int error = 0;

	close(child->go);
	child->go = -1;
	if (length != 1)
		return -EPIPE;
	do {
		length = read(child->failed, &error, sizeof(error));
	} while (length < 0 && errno == EINTR);
	close(child->failed);
	child->failed = -1;
	return length == sizeof(error) ? -error : 0;
}

void child_abandon(struct child *child)
{
	if (!child->pid)
		return;
	if (child->go >= 0)
		close(child->go);
	if (child->failed >= 0)
		close(child->failed);
	waitpid(child->pid, NULL, 0);
	child->pid = 0;
}

int child_next_signal(int signals, const struct child *with_child)
{
	struct signalfd_siginfo info;
	int number;

	if (read(signals, &info, sizeof(info)) != sizeof(info))
		return 0;
	number = (int)info.ssi_signo;
	if (number != SIGCHLD && with_child && with_child->pid && info.ssi_code <= 0)
		kill(with_child->pid, number);
	return number;
}

int child_exit_status(int wait_status)
{
	if (WIFSIGNALED(wait_status))
		return 128 + WTERMSIG(wait_status);
	return WEXITSTATUS(wait_status);
}
