/* SPDX-License-Identifier: MIT */
/*
 * Children of an experiment: for one measurement, as a partner that does steps when told, or other
 * programs. Each dies with the experiment's process.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/bench/bench.h"
#include "cli/bench/result.h"
#include "cli/bench/run.h"
#include "cli/fd.h"
#include "cli/output.h"
#include "cli/progress.h"

/* Of the child: the parent may have died before it said so. */
static void die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status;
}

/* --- a child for one measurement --- */

struct answer {
	int error;
	bool failed; /* with this text */
	char text[400];
};

static void answer(struct bench *bench, int fd, bench_child_fn work, void *context, double *values,
		   size_t count)
{
	struct answer answer = { 0 };
	const char *text;

	progress_forget();
	answer.error = work(bench, context, values);
	text = bench_result_failure(bench->result);
	if (text) {
		answer.failed = true;
		snprintf(answer.text, sizeof(answer.text), "%s", text);
	}
	if (fd_write_all(fd, &answer, sizeof(answer)) == 0)
		fd_write_all(fd, values, count * sizeof(*values));
	_exit(0);
}

static bool receive(struct bench *bench, int fd, pid_t pid, double *ret_values, double *values,
		    size_t count)
{
	struct answer answer = { 0 };
	int error, status;

	error = fd_read_all(fd, &answer, sizeof(answer));
	if (!error)
		error = fd_read_all(fd, values, count * sizeof(*values));
	close(fd);
	kill(-pid, SIGKILL);
	status = wait_for(pid);
	if (answer.failed)
		bench_fail(bench, 0, "%s", answer.text);
	else if (answer.error)
		bench_fail(bench, answer.error, "a measurement failed");
	else if (error && WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
		bench_fail(bench, 0, "a measuring process died: %s", strsignal(WTERMSIG(status)));
	else if (error)
		bench_fail(bench, 0, "a measuring process was killed: out of memory?");
	else
		memcpy(ret_values, values, count * sizeof(*values));
	return !bench_over(bench);
}

bool bench_in_child(struct bench *bench, bench_child_fn work, void *context, double *ret_values,
		    size_t count)
{
	double *values = output_realloc(NULL, count * sizeof(*values));
	pid_t pid, parent = getpid();
	bool received;
	int fds[2];

	memset(values, 0, count * sizeof(*values));
	if (bench_over(bench) || pipe2(fds, O_CLOEXEC) < 0) {
		bench_fail(bench, -errno, "cannot make a pipe");
		free(values);
		return false;
	}
	pid = fork();
	if (pid == 0) {
		die_with(parent);
		setpgid(0, 0);
		close(fds[0]);
		answer(bench, fds[1], work, context, values, count);
	}
	if (pid > 0)
		setpgid(pid, pid);
	close(fds[1]);
	if (pid < 0) {
		bench_fail(bench, -errno, "cannot start a process");
		close(fds[0]);
		free(values);
		return false;
	}
	received = receive(bench, fds[0], pid, ret_values, values, count);
	free(values);
	return received;
}

/* --- a partner --- */

__attribute__((noreturn)) static void work_off(int socket, bench_step_fn step, void *context)
{
	int number;

	while (fd_read_all(socket, &number, sizeof(number)) == 0) {
		number = step(context, number);
		if (fd_write_all(socket, &number, sizeof(number)) < 0)
			break;
	}
	_exit(0);
}

int bench_worker_begin(struct bench_worker *worker, bench_step_fn step, void *context)
{
	int sockets[2], error;
	pid_t pid, parent = getpid();

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		die_with(parent);
		close(sockets[0]);
		work_off(sockets[1], step, context);
	}
	error = pid < 0 ? -errno : 0;
	close(sockets[1]);
	if (error) {
		close(sockets[0]);
		return error;
	}
	*worker = (struct bench_worker){ .pid = pid, .socket = sockets[0] };
	return 0;
}

int bench_worker_step(struct bench_worker *worker, int number)
{
	if (send(worker->socket, &number, sizeof(number), MSG_NOSIGNAL) != (ssize_t)sizeof(number))
		return -EPIPE;
	return fd_read_all(worker->socket, &number, sizeof(number)) < 0 ? -EPIPE : number;
}

void bench_worker_end(struct bench_worker *worker)
{
	if (worker->pid <= 0)
		return;
	/* A later worker has a copy of the descriptor: closing this one alone would end nothing. */
	shutdown(worker->socket, SHUT_RDWR);
	close(worker->socket);
	wait_for(worker->pid);
	*worker = (struct bench_worker){ 0 };
}

/* --- other programs --- */

const char *bench_find_program(struct bench *bench, const char *name)
{
	const char *path = getenv("PATH");
	const char *all = bench_text(bench, "%s:/usr/local/sbin:/usr/sbin:/sbin",
				     path ? path : "/usr/bin:/bin");
	const char *at, *found;
	size_t length;

	for (at = all; *at; at += length + (at[length] == ':')) {
		length = strcspn(at, ":");
		found = bench_text(bench, "%.*s/%s", (int)length, at, name);
		if (access(found, X_OK) == 0)
			return found;
	}
	return NULL;
}

__attribute__((noreturn)) static void become(const char *path, const char *const argv[], int out,
					     int err)
{
	int null = open("/dev/null", O_RDWR);

	dup2(null, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	setenv("LC_ALL", "C", 1);
	signal(SIGPIPE, SIG_DFL);
	execv(path, (char *const *)argv);
	dprintf(STDERR_FILENO, "%s: %s\n", path, strerror(errno));
	_exit(127);
}

static void take_all(const int fds[2], struct fd_text streams[2])
{
	struct pollfd polled[2] = { { fds[0], POLLIN, 0 }, { fds[1], POLLIN, 0 } };
	int i;

	while (polled[0].fd >= 0 || polled[1].fd >= 0) {
		if (poll(polled, 2, -1) < 0)
			continue;
		for (i = 0; i < 2; i++)
			if (polled[i].fd >= 0 && polled[i].revents && !fd_take(fds[i], &streams[i]))
				polled[i].fd = -1;
	}
}

static const char *last_line(char *text)
{
	char *line;
	size_t length = strlen(text);

	while (length && text[length - 1] == '\n')
		text[--length] = '\0';
	line = strrchr(text, '\n');
	return line ? line + 1 : text;
}

static int finish_run(struct bench *bench, pid_t pid, const int fds[2], char **ret_output)
{
	struct fd_text streams[2] = { { 0 }, { 0 } };
	int status;

	take_all(fds, streams);
	status = wait_for(pid);
	if (streams[1].length)
		bench_keep_error(bench, last_line(streams[1].text));
	free(streams[1].text);
	if (ret_output)
		*ret_output = streams[0].text;
	else
		free(streams[0].text);
	return status < 0 ? status : WIFEXITED(status) ? WEXITSTATUS(status) : -EINTR;
}

int bench_run(struct bench *bench, const char *const argv[], char **ret_output)
{
	const char *path = strchr(argv[0], '/') ? argv[0] : bench_find_program(bench, argv[0]);
	int out[2], err[2], status;
	pid_t pid, parent = getpid();

	if (!path)
		return -ENOENT;
	if (pipe2(out, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(err, O_CLOEXEC) < 0) {
		close(out[0]);
		close(out[1]);
		return -EMFILE;
	}
	pid = fork();
	if (pid == 0) {
		die_with(parent);
		become(path, argv, out[1], err[1]);
	}
	status = pid < 0 ? -errno : 0;
	close(out[1]);
	close(err[1]);
	if (!status)
		status = finish_run(bench, pid, (const int[2]){ out[0], err[0] }, ret_output);
	close(out[0]);
	close(err[0]);
	return status;
}
