/* SPDX-License-Identifier: MIT */
/*
 * A signal handler that resolves traps, and passes on what is none of ours.
 */
#ifndef COW_MMU_HANDLER_H
#define COW_MMU_HANDLER_H

#include <pthread.h>

#include "mmu/trap.h"
#include "sys/sys.h"

struct handler {
	int signal;
	int code; /* si_code of a trap; the same signal also says that memory is gone, or broken */
	_Atomic uint32_t installed;
	_Atomic uint32_t
		spent; /* the earlier handler was for one signal (SA_RESETHAND), and had it */
	struct sigaction before; /* written once, before installed */
};

/* Once in a process; later calls do nothing. */
int handler_install(struct handler *handler, void (*function)(int, siginfo_t *, void *));

void handlers_after_fork(void);

/* What the handler function does. */
void handler_run(struct handler *handler, int signal, siginfo_t *info, void *context);

#endif
