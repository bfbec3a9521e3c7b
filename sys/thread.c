/* SPDX-License-Identifier: MIT */
/* Threads, and what reaches them: signals, fork(). */
#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/injected.h"

int sys_signal_handler(int signal, void (*handler)(int, siginfo_t *, void *),
		       struct sigaction *ret_before)
{
	struct sigaction action = {
		.sa_sigaction = handler,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	int r = injected(SYS_CALL_SIGACTION);

	if (r < 0)
		return r;
	sigfillset(&action.sa_mask);
	return sigaction(signal, &action, ret_before) < 0 ? -errno : 0;
}

int sys_at_fork_child(void (*function)(void))
{
	static _Atomic int begun;
	int r;

	if (begun || atomic_exchange(&begun, 1))
		return 0;
	r = -pthread_atfork(NULL, NULL, function);
	if (r < 0)
		begun = 0;
	return r;
}

void sys_signals_block(sigset_t *ret_before)
{
	sigset_t any;

	sigfillset(&any);
	sigdelset(&any, SIGSEGV);
	sigdelset(&any, SIGBUS);
	sigdelset(&any, SIGFPE);
	sigdelset(&any, SIGILL);
	sigdelset(&any, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &any, ret_before);
}

void sys_signals_restore(const sigset_t *before)
{
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* The library's own, counted so that the program's can be told: by each itself while it runs, so
 * that there are never fewer. In a child of fork() there are none. */
static struct {
	_Atomic int64_t process;
	_Atomic unsigned count;
} own;

static unsigned own_threads(void)
{
	return own.process == getpid() ? own.count : 0;
}

struct thread_start {
	void *(*run)(void *);
	void *context;
};

static void *run_thread(void *context)
{
	struct thread_start start = *(struct thread_start *)context;
	void *result;

	sys_free(context);
	own.count++;
	result = start.run(start.context);
	own.count--;
	return result;
}

int sys_thread_start(pthread_t *ret_thread, void *(*run)(void *), void *context)
{
	int r = injected(SYS_CALL_THREAD);
	struct thread_start *start;
	sigset_t all, before;

	if (r < 0)
		return r;
	start = sys_alloc(sizeof(*start));
	if (!start)
		return -ENOMEM;
	*start = (struct thread_start){ run, context };
	if (own.process != getpid()) {
		own.count = 0;
		own.process = getpid();
	}
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	r = -pthread_create(ret_thread, NULL, run_thread, start);
	if (r < 0)
		sys_free(start);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

/* The directory has a link from each of its own. */
bool sys_is_alone(void)
{
	struct stat tasks;

	return stat("/proc/self/task", &tasks) == 0 && tasks.st_nlink == 3 + own_threads();
}
