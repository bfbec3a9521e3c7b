/* SPDX-License-Identifier: MIT */
#include "lib/fork.h"

#include "lib/adopt.h"
#include "lib/helper.h"
#include "mmu/handler.h"
#include "mmu/registry.h"
#include "mmu/workers.h"

static void in_child(void)
{
	log_after_fork();
	adopted_after_fork();
	helper_after_fork();
	workers_after_fork();
	handlers_after_fork();
	registry_after_fork();
	trap_costs_after_fork();
	mprotect_after_fork();
}

int fork_is_coming(void)
{
	return sys_at_fork_child(in_child);
}
