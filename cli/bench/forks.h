/* SPDX-License-Identifier: MIT */
/* What the experiments on processes share: children that are timed, pages that are touched. */
#ifndef CLI_BENCH_FORKS_H
#define CLI_BENCH_FORKS_H

#include "cli/bench/bench.h"

#define MIB ((uint64_t)1 << 20)

/* Writes, or reads, a byte of each page. */
void write_pages(char *memory, size_t bytes);
void read_pages(const char *memory, size_t bytes);

/* Copies a byte of each page in an order that no prefetcher knows; share: how many, of 1. */
void write_random_pages(char *memory, size_t bytes, double share, uint64_t seed);

/* A region of libcow under the explicit trap, all of it written; NULL after bench_fail(). */
struct cow_region *region_filled(struct bench *bench, size_t bytes);

/* What the child does between fork() and its end; NULL: nothing. */
typedef void (*child_fn)(void *context);

struct fork_times {
	double fork_ns;  /* until fork() has returned to the parent */
	double cycle_ns; /* until the child has done its work and was waited for */
};

/* fork(), the child's work, _exit(), waitpid(). Returns false after bench_fail(). */
bool fork_timed(struct bench *bench, child_fn child, void *context, struct fork_times *ret_times);

/* A child that does nothing until it is ended; -errno. */
pid_t fork_idle(void);
void end_idle(pid_t pid);

#endif
