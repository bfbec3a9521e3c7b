/* SPDX-License-Identifier: MIT */
#include "cli/stat/processes.h"

#include <stdlib.h>

#include "cli/output.h"

#define BUCKETS    4096
#define MOST_ENDED 32768

struct processes {
	struct process *buckets[BUCKETS];
	struct process *pids[BUCKETS];
	struct process **list;
	size_t used, room;
	size_t ended;
	uint64_t next_order;
	uint64_t omitted;
	struct counts rest; /* of no process, or of those omitted */
};

static size_t bucket_of(uint64_t key)
{
	return (key * UINT64_C(0x9e3779b97f4a7c15)) >> 52;
}

static void add_counts(struct counts *to, const struct counts *from)
{
	size_t i;

	for (i = 0; i < METRICS; i++)
		to->value[i] += from->value[i];
}

struct processes *processes_new(void)
{
	struct processes *processes = output_realloc(NULL, sizeof(*processes));

	*processes = (struct processes){ 0 };
	return processes;
}

void processes_free(struct processes *processes)
{
	size_t i;

	if (!processes)
		return;
	for (i = 0; i < processes->used; i++)
		free(processes->list[i]);
	free(processes->list);
	free(processes);
}

struct process *processes_find(const struct processes *processes, uint64_t key)
{
	struct process *process = processes->buckets[bucket_of(key)];

	while (process && process->key != key)
		process = process->next;
	return process;
}

struct process *processes_add(struct processes *processes, uint64_t key)
{
	struct process *process = processes_find(processes, key);
	struct process **bucket = &processes->buckets[bucket_of(key)];

	if (process)
		processes_end(processes, process);
	if (processes->used == processes->room) {
		processes->room = processes->room ? 2 * processes->room : 64;
		processes->list = output_realloc(processes->list,
						 processes->room * sizeof(struct process *));
	}
	process = output_realloc(NULL, sizeof(*process));
	*process =
		(struct process){ .next = *bucket, .key = key, .order = processes->next_order++ };
	*bucket = process;
	processes->list[processes->used++] = process;
	return process;
}

void processes_set_pid(struct processes *processes, struct process *process, int pid)
{
	struct process **bucket = &processes->pids[bucket_of((uint64_t)pid)];

	process->pid = pid;
	process->same = *bucket;
	*bucket = process;
}

struct process *processes_of_pid(const struct processes *processes, int pid)
{
	struct process *process = processes->pids[bucket_of((uint64_t)pid)];

	while (process && process->pid != pid)
		process = process->same;
	return process;
}

static void forget_pid(struct processes *processes, const struct process *process)
{
	struct process **link = &processes->pids[bucket_of((uint64_t)process->pid)];

	while (*link && *link != process)
		link = &(*link)->same;
	if (*link)
		*link = process->same;
}

static int by_order(const void *left, const void *right)
{
	const struct process *a = *(struct process *const *)left;
	const struct process *b = *(struct process *const *)right;

	return a->order < b->order ? -1 : a->order > b->order;
}

/* Those alive first, then those that copied most. */
static int by_weight(const void *left, const void *right)
{
	const struct process *a = *(struct process *const *)left;
	const struct process *b = *(struct process *const *)right;
	uint64_t x = a->counts.value[METRIC_COPIED], y = b->counts.value[METRIC_COPIED];

	if (a->ended != b->ended)
		return a->ended ? 1 : -1;
	return x > y ? -1 : x < y;
}

static void omit_half(struct processes *processes)
{
	size_t drop = processes->ended / 2;
	struct process *process;

	qsort(processes->list, processes->used, sizeof(struct process *), by_weight);
	for (; drop; drop--) {
		process = processes->list[--processes->used];
		add_counts(&processes->rest, &process->counts);
		processes->ended--;
		processes->omitted++;
		forget_pid(processes, process);
		free(process);
	}
	qsort(processes->list, processes->used, sizeof(struct process *), by_order);
}

void processes_end(struct processes *processes, struct process *process)
{
	struct process **link = &processes->buckets[bucket_of(process->key)];

	while (*link && *link != process)
		link = &(*link)->next;
	if (*link)
		*link = process->next;
	process->next = NULL;
	process->ended = true;
	processes->ended++;
	if (processes->ended > MOST_ENDED)
		omit_half(processes);
}

void processes_sum(const struct processes *processes, struct counts *ret_counts)
{
	struct counts sum = processes->rest;
	size_t i;

	for (i = 0; i < processes->used; i++)
		add_counts(&sum, &processes->list[i]->counts);
	*ret_counts = sum;
}

struct counts *processes_rest(struct processes *processes)
{
	return &processes->rest;
}

size_t processes_count(const struct processes *processes)
{
	return processes->used;
}

struct process *processes_at(const struct processes *processes, size_t index)
{
	return processes->list[index];
}

uint64_t processes_omitted(const struct processes *processes)
{
	return processes->omitted;
}
