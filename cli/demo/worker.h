/* SPDX-License-Identifier: MIT */
/*
 * Steps in processes of their own. A step is a function that runs in a child of the coordinator,
 * returns 0 or -1, and leaves its results in shared memory. The coordinator meanwhile shows
 * progress and, while a load is measured, samples the memory of the step and of its copier.
 *
 * A step ends with the coordinator, whatever ends that; and so does what the step forked.
 */
#ifndef CLI_DEMO_WORKER_H
#define CLI_DEMO_WORKER_H

#include "cli/demo/demo.h"

typedef int (*worker_step)(struct demo *demo);

/* Once, before the first step: signals, and orphans come to us. */
void worker_begin(void);

/* round: where samples of memory go, or NULL. False after a message, or after an interruption. */
bool worker_run(struct demo *demo, worker_step step, struct round *round, const char *label,
		uint64_t total);

/* In a new child: ends with its parent, and leaves ^C to the coordinator. */
void worker_follow_parent(pid_t parent);

#endif
