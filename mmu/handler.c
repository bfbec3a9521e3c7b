/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "mmu/handler.h"
#include "mmu/registry.h"

static struct lock install_lock;

int handler_install(struct handler *handler, void (*function)(int, siginfo_t *, void *))
{
	struct sigaction before;
	int r = 0;

	lock_take(&install_lock);
	if (!atomic_load(&handler->installed)) {
		r = sys_signal_handler(handler->signal, function, &before);
		/* A child of fork() may find it installed already, and not know: it never passes on
		 * to itself. */
		if (r == 0 && before.sa_sigaction != function)
			handler->before = before;
		if (r == 0)
			atomic_store(&handler->installed, 1);
	}
	lock_drop(&install_lock);
	return r;
}

void handlers_after_fork(void)
{
	install_lock = (struct lock){ 0 };
}

/* The default action is set and the instruction runs into it again. What was sent, and not caused
 * by an instruction that would repeat it, is sent again; it is let in when this handler returns. */
static void end_by_default(struct handler *handler, int signal, const siginfo_t *info)
{
	struct sigaction standard = { .sa_handler = SIG_DFL };

	sigaction(signal, &standard, NULL);
	atomic_store(&handler->installed, 0);
	if (info->si_code <= 0)
		raise(signal);
}

/* The mask that the kernel would have set for the earlier handler: one that leaves by longjmp()
 * would else go on with every signal blocked. */
static void block_as_before(const struct sigaction *before, int signal, void *context)
{
	const ucontext_t *interrupted = context;
	sigset_t mask;

	sigorset(&mask, &interrupted->uc_sigmask, &before->sa_mask);
	if (!(before->sa_flags & SA_NODEFER))
		sigaddset(&mask, signal);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

/* As if we were not there. */
static void pass_on(struct handler *handler, int signal, siginfo_t *info, void *context)
{
	const struct sigaction *before = &handler->before;
	bool sent = info->si_code <= 0;

	if (before->sa_handler == SIG_IGN && sent)
		return;
	if (before->sa_handler == SIG_DFL || before->sa_handler == SIG_IGN ||
	    ((before->sa_flags & SA_RESETHAND) && atomic_exchange(&handler->spent, 1))) {
		end_by_default(handler, signal, info);
		return;
	}
	block_as_before(before, signal, context);
	if (before->sa_flags & SA_SIGINFO)
		before->sa_sigaction(signal, info, context);
	else
		before->sa_handler(signal);
}

/* Executing what lies in a region is no write: opening the page would not help. */
static bool is_fetch(const void *context)
{
#ifdef __x86_64__
	const ucontext_t *interrupted = context;

	return interrupted->uc_mcontext.gregs[REG_ERR] & 0x10;
#else
	(void)context;
	return false;
#endif
}

void handler_run(struct handler *handler, int signal, siginfo_t *info, void *context)
{
	struct trap *trap = NULL;
	int saved = errno;

	if (info->si_code == handler->code && !is_fetch(context))
		trap = registry_find((uintptr_t)info->si_addr);
	if (!trap || trap_handle(trap, (uintptr_t)info->si_addr, trap->policy.is_nested()) < 0)
		pass_on(handler, signal, info, context);
	errno = saved;
}
