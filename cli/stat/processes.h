/* SPDX-License-Identifier: MIT */
/*
 * The processes of a session, alive and ended, with their counts.
 *
 * While it is alive a process is found by its key: its process ID, or a backend's serial number.
 * After its end it stays in the list, up to a number; beyond it those that copied least are added
 * up in one sum, so that a watch over weeks does not grow.
 */
#ifndef CLI_STAT_PROCESSES_H
#define CLI_STAT_PROCESSES_H

#include "cli/stat/stat.h"

#define PROCESS_COMMAND 16

struct process {
	struct process *next; /* in its bucket, while alive */
	struct process *same; /* in the bucket of its process ID, newest first */
	uint64_t key;
	uint64_t order; /* of appearance */
	int pid, parent;
	char command[PROCESS_COMMAND];
	bool ended;
	bool given; /* was there before the session */
	struct counts counts;
	struct counts base; /* of what counts for a process's whole life, at the start */
	int threads;        /* alive; of the backends that see them come and go */
	uint64_t fork_ns_max;
	uint64_t delay_ended; /* taskstats: threads that have ended */
	uint64_t copied_ended;
	uint64_t minor_ended, major_ended;
};

struct processes;

struct processes *processes_new(void);
void processes_free(struct processes *processes);

struct process *processes_find(const struct processes *processes, uint64_t key);
/* A new one, even if one with this key is alive: that one has ended unnoticed. */
struct process *processes_add(struct processes *processes, uint64_t key);
/* By process ID, which may have been given anew: the newest, alive or ended. */
void processes_set_pid(struct processes *processes, struct process *process, int pid);
struct process *processes_of_pid(const struct processes *processes, int pid);
void processes_end(struct processes *processes, struct process *process);

/* Sums what each counted, of all there ever were. */
void processes_sum(const struct processes *processes, struct counts *ret_counts);
/* What belongs to no process of the list. */
struct counts *processes_rest(struct processes *processes);

/* In order of appearance; those added up are left out, their number is given by _omitted. */
size_t processes_count(const struct processes *processes);
struct process *processes_at(const struct processes *processes, size_t index);
uint64_t processes_omitted(const struct processes *processes);

#endif
