/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "mmu/handler.h"

static struct lock install_lock;

int handler_install(struct handler *handler, void (*function)(int, siginfo_t *, void *))
{
	int r = 0;

	lock_take(&install_lock);
	if (!atomic_load(&handler->installed)) {
		r = sys_signal_handler(handler->signal, function, &handler->before);
		if (r == 0)
			atomic_store(&handler->installed, 1);
	}
	lock_drop(&install_lock);
	return r;
}

/* As if we were not there. Without a handler the default action is set and the instruction runs
 * into it again. */
static void pass_on(struct handler *handler, int signal, siginfo_t *info, void *context)
{
	const struct sigaction *before = &handler->before;

	if ((before->sa_flags & SA_SIGINFO) && before->sa_sigaction) {
		before->sa_sigaction(signal, info, context);
	} else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN) {
		before->sa_handler(signal);
	} else {
		struct sigaction standard = { .sa_handler = SIG_DFL };

		sigaction(signal, &standard, NULL);
		atomic_store(&handler->installed, 0);
		if (info->si_code <=
		    0) /* sent, not caused by an instruction that would repeat it */
			raise(signal);
	}
}

void handler_run(struct handler *handler, int signal, siginfo_t *info, void *context)
{
	struct trap *trap = NULL;
	int saved = errno;

	if (info->si_code > 0)
		trap = registry_find((uintptr_t)info->si_addr);
	if (!trap || trap_handle(trap, (uintptr_t)info->si_addr, trap->policy.is_nested()) < 0)
		pass_on(handler, signal, info, context);
	errno = saved;
}
