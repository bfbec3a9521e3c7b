/* SPDX-License-Identifier: MIT */
/*
 * `cow stat`: what is counted, of whom, and who counts it.
 *
 * Model
 * - A session watches a target: a command and all its descendants, given processes and what they
 *   start from then on, or the whole system. Backends fill the session's table of processes and
 *   its totals; printing knows no backend.
 * - A metric is counted or it is not: `counted` says which of the totals mean something,
 *   `counted_by_process` which of a process's. Nothing that was not counted is ever shown as 0.
 * - Backends: bpf counts all but the time spent copying; perf counts faults and forks, but cannot
 *   by itself tell a copy from a reuse; taskstats counts copies and their time; basic is what a
 *   user without privilege gets. taskstats joins bpf and perf where the kernel's accounting is on.
 */
#ifndef CLI_STAT_STAT_H
#define CLI_STAT_STAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cli/histogram.h"

enum metric {
	METRIC_FORKS,
	METRIC_VFORKS,
	METRIC_THREADS,
	METRIC_EXECS,
	METRIC_FORK_NS,       /* of one process: the sum */
	METRIC_PROTECTED,     /* write faults on pages that were present */
	METRIC_SHARED_WRITES, /* of them, those in shared mappings */
	METRIC_COPIED,
	METRIC_REUSED,
	METRIC_ZERO_FILLED,
	METRIC_FILE_COPIED,
	METRIC_DELAY_NS,
	METRIC_MINOR_FAULTS,
	METRIC_MAJOR_FAULTS,
	METRICS
};

#define PAGE_BYTES 4096 /* backends that count pages work on x86-64 alone */

#define METRIC_BIT(metric) (UINT32_C(1) << (metric))

struct counts {
	uint64_t value[METRICS];
};

/* What the user asked for. */
struct stat_options {
	const char *pids, *tree;
	bool whole_system;
	uint64_t interval_ns;
	uint64_t repeat;
	uint64_t duration_ns;
	const char *output;
	const char *backend;
	bool allow_tuning;
	bool per_process;
	char **command; /* NULL-terminated, or NULL */
};

struct processes;
struct bpf_source;
struct perf_source;
struct taskstats_source;

struct session {
	const struct stat_options *options;
	const pid_t *pids; /* the given processes */
	size_t pid_count;
	bool whole_system;
	pid_t child; /* the command, 0 if none; it has not yet been let go when backends start */

	struct processes *processes;
	uint32_t counted, counted_by_process;
	struct counts totals; /* since the start */
	struct histogram fork_ns;
	uint64_t fork_ns_sum;
	uint64_t lost;

	struct bpf_source *bpf;
	struct perf_source *perf;
	struct taskstats_source *taskstats;
	char backend[32];
	char missing[512]; /* what would be needed for more, or empty */
};

static inline bool is_counted(uint32_t set, enum metric metric)
{
	return set & METRIC_BIT(metric);
}

uint64_t monotonic_ns(void);

/* Records a fork's latency; process may be NULL. */
struct process;
void session_add_fork(struct session *session, struct process *process, uint64_t ns);

#endif
