/* SPDX-License-Identifier: MIT */
#include "cli/demo/worker.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/demo/measure.h"
#include "cli/output.h"
#include "cli/progress.h"

#define SAMPLE_NS (50 * NS_PER_MS) /* 20 a second */

volatile sig_atomic_t demo_interrupted;

static void note_signal(int signal)
{
	demo_interrupted = signal;
}

void worker_begin(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action = { .sa_handler = note_signal };
	size_t i;

	sigemptyset(&action.sa_mask);
	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
	/* Past a limit on the size of files a write is to fail, as on a full disk. */
	signal(SIGXFSZ, SIG_IGN);
	/* A copier whose step was killed is waited for here, so that nothing writes into the
	 * directory that is about to be removed. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
}

void worker_follow_parent(pid_t parent)
{
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
}

int demo_fail(struct demo *demo, const char *format, ...)
{
	va_list arguments;

	if (atomic_exchange(&demo->shared->failed, true))
		return -1;
	va_start(arguments, format);
	vsnprintf(demo->shared->error, sizeof(demo->shared->error), format, arguments);
	va_end(arguments);
	return -1;
}

bool demo_path(struct demo *demo, const char *name, char path[DEMO_PATH_LENGTH])
{
	int length = snprintf(path, DEMO_PATH_LENGTH, "%s/%s", demo->scratch, name);

	if (length >= 0 && length < DEMO_PATH_LENGTH)
		return true;
	demo_fail(demo, "the path of the temporary directory is too long: set TMPDIR");
	return false;
}

/* Two processes are not looked at in the same instant: what moves from shared to own in between
 * is counted a little wrong, once in a while. */
static void sample(struct demo *demo, pid_t pid, struct round *round)
{
	pid_t copier = atomic_load(&demo->shared->copier);
	uint64_t bytes = pss_bytes(pid);

	if (copier)
		bytes += pss_bytes(copier);
	if (bytes > round->peak_bytes)
		round->peak_bytes = bytes;
	round->samples++;
}

/* Ends it, and whatever it left behind. */
static void end_all(pid_t pid)
{
	kill(pid, SIGKILL);
	while (waitpid(-1, NULL, 0) >= 0 || errno == EINTR)
		;
}

static bool explain(struct demo *demo, int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	if (demo->shared->error[0])
		complain("%s", demo->shared->error);
	else if (WIFSIGNALED(status))
		complain("a step was ended by signal %d (%s)%s", WTERMSIG(status),
			 strsignal(WTERMSIG(status)),
			 WTERMSIG(status) == SIGKILL ? "; did memory run out?" : "");
	else
		complain("a step failed without saying why");
	return false;
}

static bool wait_for(struct demo *demo, pid_t pid, struct round *round)
{
	uint64_t next = now_ns();
	int status;
	pid_t ended;

	for (;;) {
		ended = waitpid(pid, &status, WNOHANG);
		if (ended == pid)
			break;
		if (demo_interrupted || (ended < 0 && errno != EINTR)) {
			end_all(pid);
			return false;
		}
		if (round && atomic_load(&demo->shared->measuring))
			sample(demo, pid, round);
		progress_update(atomic_load(&demo->shared->progress));
		next += SAMPLE_NS;
		if (next < now_ns())
			next = now_ns();
		sleep_until_ns(next);
	}
	return explain(demo, status);
}

bool worker_run(struct demo *demo, worker_step step, struct round *round, const char *label,
		uint64_t total)
{
	pid_t coordinator = getpid(), pid;
	bool ok;

	atomic_store(&demo->shared->progress, 0);
	atomic_store(&demo->shared->measuring, false);
	atomic_store(&demo->shared->copier, 0);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		worker_follow_parent(coordinator);
		_exit(step(demo) == 0 ? 0 : 1);
	}
	if (pid < 0) {
		complain_errno(-errno, "cannot start a step");
		return false;
	}
	progress_begin(label, total);
	ok = wait_for(demo, pid, round);
	progress_end();
	return ok;
}
