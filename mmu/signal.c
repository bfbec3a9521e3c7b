/* SPDX-License-Identifier: MIT */
/*
 * The signal back end: a thread that writes to an armed page gets SIGBUS from userfaultfd and does
 * what has to be done itself: no other thread is woken, so it is the fastest trap. The kernel's own
 * writes (read(2) into an armed page) fail with EFAULT: those need cow_region_write_begin().
 *
 * The handler is installed once in a process and stays. What is not ours goes to the handler that
 * was there before; where there was none, it ends the process as it would have without us.
 */
#include <errno.h>
#include <signal.h>

#include "mmu/handler.h"
#include "mmu/uffd.h"

static struct handler handler = { .signal = SIGBUS, .code = BUS_ADRERR };

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
	handler_run(&handler, signal, info, context);
}

static const struct trap_ops signal_ops = {
	.protect = uffd_protect,
	.unprotect = uffd_unprotect,
	.start = uffd_start,
	.stop = uffd_destroy,
	.covers = uffd_covers,
	.await = uffd_await,
	.convert = uffd_convert,
};

int trap_new_signal(struct space *space, const struct trap_policy *policy, int file,
		    struct trap **ret_trap)
{
	struct uffd *uffd = sys_alloc(sizeof(*uffd));
	int r;

	if (!uffd)
		return -ENOMEM;
	r = uffd_init(uffd, &signal_ops, true, space, policy, file);
	if (r == 0)
		r = handler_install(&handler, on_sigbus);
	if (r < 0)
		trap_free(&uffd->trap);
	else
		*ret_trap = &uffd->trap;
	return r;
}
