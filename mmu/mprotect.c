/* SPDX-License-Identifier: MIT */
/*
 * The mprotect back end, for where userfaultfd is forbidden (containers): pages are made read-only,
 * a write gets SIGSEGV. Each run of pages with the same protection is a mapping of its own to the
 * kernel, of which a process may have vm.max_map_count (65,530 by default): scattered writes to
 * many thousands of pages between two cuts can run into it, and then more is opened than was
 * written (relief.c). Where not even a kept copy finds a mapping, the process ends with what a
 * write to read-only memory ends with.
 */
#include <errno.h>
#include <signal.h>

#include "mmu/handler.h"
#include "mmu/registry.h"

static struct handler handler = { .signal = SIGSEGV, .code = SEGV_ACCERR };

static void on_sigsegv(int signal, siginfo_t *info, void *context)
{
	handler_run(&handler, signal, info, context);
}

static int change(struct trap *trap, uint64_t first, uint64_t count, int protection)
{
	unsigned shift = trap->space->page_shift;

	return sys_protect(trap->base + (first << shift), (size_t)count << shift, protection);
}

static int mprotect_protect(struct trap *trap, uint64_t first, uint64_t count)
{
	return change(trap, first, count, PROT_READ);
}

static int mprotect_unprotect(struct trap *trap, uint64_t first, uint64_t count)
{
	return change(trap, first, count, PROT_READ | PROT_WRITE);
}

static int change_scratch(void *context, void *address, size_t bytes, bool protect)
{
	(void)context;
	return sys_protect(address, bytes, protect ? PROT_READ : PROT_READ | PROT_WRITE);
}

/* Everything is read-only from here on, so whatever a page holds it has held since before the first
 * cut: the space takes its window as the base. */
static int mprotect_start(struct trap *trap)
{
	int r;

	trap_measure_cost(trap, TRAP_COST_MPROTECT, NULL, change_scratch);
	gate_enter(&trap->space->gate, host_shard(), trap->policy.is_nested());
	r = mprotect_protect(trap, 0, trap->space->pages);
	if (r < 0)
		(void)mprotect_unprotect(trap, 0, trap->space->pages);
	gate_leave(&trap->space->gate, host_shard());
	return r;
}

static void mprotect_stop(struct trap *trap)
{
	mprotect_unprotect(trap, 0, trap->space->pages);
}

static const struct trap_ops mprotect_ops = {
	.protect = mprotect_protect,
	.unprotect = mprotect_unprotect,
	.start = mprotect_start,
	.stop = mprotect_stop,
};

/* The child has one thread, and nobody traps meanwhile. */
static void open_in_child(struct trap *trap)
{
	if (trap->ops == &mprotect_ops && atomic_load(&trap->armed) != TRAP_PLAIN)
		mprotect_unprotect(trap, 0, trap->space->pages);
}

void mprotect_after_fork(void)
{
	registry_each(open_in_child);
}

int trap_new_mprotect(struct space *space, const struct trap_policy *policy, struct trap **ret_trap)
{
	struct trap *trap = sys_alloc(sizeof(*trap));
	int r;

	if (!trap)
		return -ENOMEM;
	r = trap_init(trap, &mprotect_ops, space, policy);
	if (r == 0)
		r = handler_install(&handler, on_sigsegv);
	if (r < 0)
		trap_free(trap);
	else
		*ret_trap = trap;
	return r;
}
