/* SPDX-License-Identifier: MIT */
/* What perf.c, which opens the events, and perf_records.c, which reads them, share. */
#ifndef CLI_STAT_PERF_SOURCE_H
#define CLI_STAT_PERF_SOURCE_H

#include <linux/perf_event.h>

#include "cli/stat/stat.h"

/* A counter's descriptors: one for each thread of the target, or for each processor. */
struct counter {
	enum metric metric;
	int *fds;
	size_t count;
};

/* A thread that is in fork(). */
struct forking {
	uint32_t thread;
	bool copied; /* it made a process that does not share its memory */
	uint64_t began_ns;
};

struct perf_source {
	struct rings *rings;
	int *fds; /* of all events but counters */
	size_t fd_count;
	struct counter *counters;
	size_t counter_count;
	bool of_system;            /* records come from all processes, not just the target's */
	bool user_only;            /* faults in the kernel are not counted */
	bool child_ready;          /* the command's own exec has been seen */
	int enter, leave, newtask; /* the numbers of tracepoints, 0: not used */
	int flags_offset;
	struct forking *forking;
	size_t forking_count, forking_room;
};

/* A process that the table did not know. */
struct process *perf_add_process(struct session *session, pid_t pid, pid_t parent);

/* Takes a record of the rings; context is the session. */
void perf_take_record(const struct perf_event_header *record, uint64_t time_ns, void *context);

#endif
