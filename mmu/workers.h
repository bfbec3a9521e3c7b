/* SPDX-License-Identifier: MIT */
/*
 * The handler threads of the process, which serve the userfaultfds of all its regions with the
 * thread trap.
 *
 * A few are enough: a fault is a few microseconds of work. One whose writer has to wait for room at
 * a limit is put aside and tried again in a moment, so that nobody else waits with it. The threads
 * start with the first client and stay. A child of fork() has none of them, and starts its own.
 */
#ifndef COW_MMU_WORKERS_H
#define COW_MMU_WORKERS_H

#include <stdint.h>

struct worker_client {
	int uffd;
	/* 0: done with; -EBUSY: to be tried again in a moment. *deadline_ns: 0 at the first
	 * attempt, the client's own afterwards. */
	int (*serve)(struct worker_client *client, uintptr_t address, uint64_t *deadline_ns);

	uint64_t id; /* the rest is the workers' */
	struct worker_client *next;
	unsigned users; /* threads that are at it, and faults put aside */
};

int workers_add(struct worker_client *client);

/* Returns when no thread has a hand on it. Does nothing for one that was not added. */
void workers_remove(struct worker_client *client);

void workers_after_fork(void);

#endif
