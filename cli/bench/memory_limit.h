/* SPDX-License-Identifier: MIT */
/*
 * A memory cgroup with a limit, for processes that are to run out of memory without harm to others.
 * Version 2 or 1, whichever has the memory controller here; needs root.
 */
#ifndef CLI_BENCH_MEMORY_LIMIT_H
#define CLI_BENCH_MEMORY_LIMIT_H

#include "cli/bench/bench.h"

struct memory_limit {
	const char *directory; /* in bench's memory */
	bool unified;          /* version 2 */
};

/* NULL, or why there is none. Swap counts as memory, where it is counted. */
const char *memory_limit_make(struct bench *bench, uint64_t bytes, struct memory_limit *ret_limit);
/* Moves the calling process into it: 0 or a negative errno. Its children are born there. */
int memory_limit_enter(const struct memory_limit *limit);
/* How many processes were killed there for lack of memory. */
uint64_t memory_limit_kills(const struct memory_limit *limit);
uint64_t
memory_limit_peak(const struct memory_limit *limit); /* bytes; 0: the kernel does not tell */
/* When no process is in it any more. */
void memory_limit_remove(const struct memory_limit *limit);

#endif
