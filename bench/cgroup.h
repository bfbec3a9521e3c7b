/* SPDX-License-Identifier: MIT */
/*
 * A memory cgroup for one process, to see memory as the kernel charges it: page cache and idle
 * memory included. Version 1 or 2, whichever has the memory controller; without privilege there is
 * none.
 */
#ifndef COW_BENCH_CGROUP_H
#define COW_BENCH_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

bool cgroup_enter(void);          /* the calling process, into one of its own */
void cgroup_remove(pid_t member); /* after its only process has gone */
uint64_t cgroup_usage(void);
uint64_t cgroup_peak(void);
void cgroup_reset_peak(void);

#endif
