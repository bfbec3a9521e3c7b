/* SPDX-License-Identifier: MIT */
/*
 * What perf.c, which opens records and counters, perf_groups.c, which tells the counters of the
 * tracepoints apart, and perf_records.c, which reads it all, share.
 */
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

/* Counters in the order in which a group has them, behind its leader. */
enum group_counter {
	GROUP_SWITCHES, /* the leader */
	GROUP_USER_PROTECTED,
	GROUP_KERNEL_PROTECTED,
	GROUP_USER_ABSENT,
	GROUP_KERNEL_ABSENT,
	GROUP_MINOR_FAULTS,
	GROUP_MAJOR_FAULTS,
	GROUP_COUNTERS,
	GROUP_EVENTS = GROUP_COUNTERS + 1 /* and a tracepoint that is sampled */
};

/* The group of a processor. */
struct group {
	int cpu;
	uint64_t seen[GROUP_COUNTERS]; /* what has been given to processes */
	uint32_t ended;                /* the process of which a thread ended here last */
};

struct perf_source {
	struct rings *rings;
	int *fds; /* of all events but counters */
	size_t fd_count;
	struct counter *counters;
	size_t counter_count;
	bool of_system;       /* records come from all processes, not just the target's */
	bool user_only;       /* faults in the kernel are not counted */
	bool child_ready;     /* the command's own exec has been seen in a record */
	bool child_counts;    /* and in a sample */
	struct group *groups; /* one for each ring; NULL: no tracepoints */
	int newtask, exec, enter, leave; /* the numbers of tracepoints */
	int flags_offset;
	struct forking *forking;
	size_t forking_count, forking_room;
};

/* A process that the table did not know. */
struct process *perf_add_process(struct session *session, pid_t pid, pid_t parent);

int perf_open_event(struct perf_event_attr *attr, pid_t pid, int cpu, int group);
void perf_keep_fd(int **fds, size_t *count, int fd);
/* What all events have in common that write to the rings; records of tasks, too. */
struct perf_event_attr perf_record_attr(void);

/* Needs records of the whole system. */
int perf_groups_open(struct session *session);
/* Has what tasks that run just now have counted written to the rings. */
void perf_groups_flush(struct session *session);
/* A sample's counters belong to the task that ran on the processor until then. */
void perf_groups_take(struct session *session, uint32_t cpu, uint32_t pid, const uint64_t *values);
void perf_groups_task_ended(struct perf_source *source, uint32_t cpu, uint32_t pid);
/* Makes a process begin anew with all that the groups count. */
void perf_groups_forget(struct process *process);

/* The process of an ID that the rings named; with the whole system, one not known is added. */
struct process *perf_find_process(struct session *session, uint32_t pid);

/* Takes a record of the rings; context is the session. */
void perf_take_record(const struct perf_event_header *record, uint64_t time_ns, void *context);

#endif
