/* SPDX-License-Identifier: MIT */
/*
 * What perf events tell: which processes there are (records of forks, execs and exits), how many
 * faults they take, and, with tracepoints, write faults by kind and how long forks take.
 *
 * Records and tracepoints are taken from the whole system, and told apart here (perf_groups.c):
 * what a child inherits makes each fork slower, tracepoints most. Only plain counters of faults are
 * inherited, by those who may not look at the whole system; they know no processes, only totals.
 *
 * Limits: a write fault that is counted may have been a copy, a reuse, or in shared memory; which,
 * taskstats can tell in part. x86-64 only, as in bpf/stat.bpf.c.
 */
#ifndef CLI_STAT_PERF_H
#define CLI_STAT_PERF_H

#include "cli/stat/stat.h"

/* What of it is to be used; each includes those before. */
enum perf_part {
	PERF_PART_RECORDS,   /* forks, execs, exits: the processes that there are */
	PERF_PART_PROCESSES, /* and faults in total */
	PERF_PART_TRACEPOINTS,
};

/* 0 or a negative errno: -EACCES, -EPERM without privilege, -ENOENT without the tracepoints. */
int perf_source_start(struct session *session, enum perf_part part);

/* Brings processes, totals and the distribution of fork times up to date. */
void perf_source_read(struct session *session);

/* Whether faults that the kernel takes on behalf of the target are left out. */
bool perf_source_user_only(const struct perf_source *source);

/* A descriptor that polls readable when buffers have to be drained soon. */
int perf_source_wakeups(const struct perf_source *source);
/* Takes what waits in buffers, before they are full. */
void perf_source_drain(struct session *session);

void perf_source_free(struct perf_source *source);

#endif
