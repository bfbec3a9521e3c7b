/* SPDX-License-Identifier: MIT */
/* Clocks, and what the kernel counts of a process. What cannot be read is 0. */
#ifndef CLI_DEMO_MEASURE_H
#define CLI_DEMO_MEASURE_H

#include <stdint.h>
#include <sys/types.h>

uint64_t now_ns(void); /* CLOCK_MONOTONIC */
void sleep_until_ns(uint64_t time);

/* Proportional set size: memory shared by n processes counts 1/n in each, so that a sum over
 * processes counts every page once. The page cache of written files is in no process's. */
uint64_t pss_bytes(pid_t pid);

/* User and system time of all threads, ended ones too, and of children that were waited for. */
uint64_t cpu_ns(void);

/* How long the calling thread was ready to run while others had the CPUs; 0 where the kernel does
 * not count it (CONFIG_SCHED_INFO). */
uint64_t thread_waited_ns(void);

#endif
