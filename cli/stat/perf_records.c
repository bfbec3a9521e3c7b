/* SPDX-License-Identifier: MIT */
/*
 * Records of forks, execs and exits make the table of processes; samples of tracepoints tell how
 * long a fork took. In the order of one thread: enter, record of the fork, a new task that shares
 * memory, leave. Samples of context switches bring their processor's counters.
 */
#include <stdio.h>
#include <string.h>

#include <linux/sched.h>

#include "cli/output.h"
#include "cli/stat/live.h"
#include "cli/stat/perf_source.h"
#include "cli/stat/processes.h"

struct process *perf_add_process(struct session *session, pid_t pid, pid_t parent)
{
	struct process *process = processes_add(session->processes, (uint64_t)pid);

	processes_set_pid(session->processes, process, pid);
	process->parent = parent;
	process->threads = 1;
	return process;
}

struct process *perf_find_process(struct session *session, uint32_t pid)
{
	struct process *process = processes_find(session->processes, pid);
	unsigned int parent = 0;

	if (process || !session->whole_system)
		return process;
	/* The idle task makes processes only before there are any. */
	process = perf_add_process(session, (pid_t)pid, 0);
	process->given = true;
	live_identity((pid_t)pid, process->command, sizeof(process->command), &parent);
	process->parent = (int)parent;
	return process;
}

struct task_record {
	struct perf_event_header header;
	uint32_t pid, parent, thread, parent_thread;
};

static struct forking *find_forking(struct perf_source *source, uint32_t thread)
{
	size_t i;

	for (i = 0; i < source->forking_count; i++)
		if (source->forking[i].thread == thread)
			return &source->forking[i];
	return NULL;
}

static void on_fork(struct session *session, const struct task_record *record)
{
	struct process *parent = perf_find_process(session, record->parent), *child;
	struct forking *forking;

	if (!parent)
		return;
	if (record->pid == record->parent) {
		parent->threads++;
		parent->counts.value[METRIC_THREADS]++;
		return;
	}
	parent->counts.value[METRIC_FORKS]++;
	child = perf_add_process(session, (pid_t)record->pid, (pid_t)record->parent);
	memcpy(child->command, parent->command, sizeof(child->command));
	forking = find_forking(session->perf, record->parent_thread);
	if (forking)
		forking->copied = true; /* unless a sample will say otherwise */
}

/* What the events of RING_SAMPLE_TYPE end a record with, other than a sample. */
static uint32_t cpu_of(const struct perf_event_header *header)
{
	uint32_t cpu;

	memcpy(&cpu, (const char *)header + header->size - 8, sizeof(cpu));
	return cpu;
}

static void on_exit_record(struct session *session, const struct task_record *record)
{
	struct process *process = processes_find(session->processes, record->pid);

	perf_groups_task_ended(session->perf, cpu_of(&record->header), record->pid);
	if (process && --process->threads <= 0)
		processes_end(session->processes, process);
}

struct command_record {
	struct perf_event_header header;
	uint32_t pid, thread;
	char command[];
};

static void on_command(struct session *session, const struct command_record *record)
{
	struct process *process = perf_find_process(session, record->pid);
	bool exec = record->header.misc & PERF_RECORD_MISC_COMM_EXEC;

	if (!process)
		return;
	if (record->thread == record->pid || exec)
		snprintf(process->command, sizeof(process->command), "%s", record->command);
	if (!exec)
		return;
	process->threads = 1;
	if ((pid_t)record->pid == session->child && !session->perf->child_ready)
		session->perf->child_ready = true; /* that was the start of the command itself */
	else
		process->counts.value[METRIC_EXECS]++;
}

/*
 * After the counters of the event's group comes what its tracepoint tells, which at a context
 * switch is nothing: struct raw.
 */
struct sample_record {
	struct perf_event_header header;
	uint32_t pid, thread;
	uint64_t time_ns;
	uint32_t cpu, unused;
	uint64_t count; /* of the values */
	uint64_t values[];
};

struct raw {
	uint32_t length;
	unsigned char bytes[];
};

static void begin_fork(struct perf_source *source, const struct sample_record *sample)
{
	struct forking *forking = find_forking(source, sample->thread);

	if (!forking) {
		if (source->forking_count == source->forking_room) {
			source->forking_room = 2 * source->forking_room + 16;
			source->forking = output_realloc(
				source->forking, source->forking_room * sizeof(struct forking));
		}
		forking = &source->forking[source->forking_count++];
	}
	*forking = (struct forking){ .thread = sample->thread, .began_ns = sample->time_ns };
}

/* A new task that shares its maker's memory. */
static void note_sharer(struct session *session, const struct sample_record *sample,
			const struct raw *raw)
{
	struct forking *forking = find_forking(session->perf, sample->thread);
	struct process *process = perf_find_process(session, sample->pid);
	size_t offset = (size_t)session->perf->flags_offset;
	uint64_t flags;

	if (offset + sizeof(flags) > raw->length)
		return;
	memcpy(&flags, raw->bytes + offset, sizeof(flags));
	if (flags & CLONE_THREAD)
		return;
	if (process)
		process->counts.value[METRIC_VFORKS]++;
	if (forking)
		forking->copied = false;
}

static void end_fork(struct session *session, const struct sample_record *sample)
{
	struct perf_source *source = session->perf;
	struct forking *forking = find_forking(source, sample->thread);
	struct process *process = perf_find_process(session, sample->pid);

	/* The child leaves the system call, too, but has not entered it. */
	if (!forking)
		return;
	if (forking->copied && process)
		session_add_fork(session, process, sample->time_ns - forking->began_ns);
	*forking = source->forking[--source->forking_count];
}

/* The first exec of the command is where its counts begin. */
static void begin_counting(struct session *session, const struct sample_record *sample)
{
	struct process *process = perf_find_process(session, sample->pid);

	if ((pid_t)sample->pid != session->child || session->perf->child_counts)
		return;
	session->perf->child_counts = true;
	if (process)
		perf_groups_forget(process);
}

static void take_tracepoint(struct session *session, const struct sample_record *sample,
			    const struct raw *raw)
{
	const struct perf_source *source = session->perf;
	uint16_t type;

	memcpy(&type, raw->bytes, sizeof(type));
	if (type == source->newtask)
		note_sharer(session, sample, raw);
	else if (type == source->exec)
		begin_counting(session, sample);
	else if (type == source->enter)
		begin_fork(session->perf, sample);
	else if (type == source->leave)
		end_fork(session, sample);
}

static void on_sample(struct session *session, const struct sample_record *sample)
{
	const struct raw *raw;
	size_t room;

	if (sample->header.size < sizeof(*sample) || sample->count > GROUP_EVENTS)
		return;
	room = sample->header.size - sizeof(*sample);
	if (room < sample->count * sizeof(uint64_t) + sizeof(*raw))
		return;
	raw = (const struct raw *)&sample->values[sample->count];
	room -= sample->count * sizeof(uint64_t) + sizeof(*raw);
	if (sample->count == GROUP_EVENTS)
		perf_groups_take(session, sample->cpu, sample->pid, sample->values);
	if (raw->length >= sizeof(uint16_t) && raw->length <= room)
		take_tracepoint(session, sample, raw);
}

void perf_take_record(const struct perf_event_header *record, uint64_t time_ns, void *context)
{
	struct session *session = context;
	const struct {
		struct perf_event_header header;
		uint64_t id, lost;
	} *lost = (const void *)record;

	switch (record->type) {
	case PERF_RECORD_FORK:
		on_fork(session, (const void *)record);
		break;
	case PERF_RECORD_EXIT:
		on_exit_record(session, (const void *)record);
		break;
	case PERF_RECORD_COMM:
		on_command(session, (const void *)record);
		break;
	case PERF_RECORD_SAMPLE:
		on_sample(session, (const void *)record);
		break;
	case PERF_RECORD_THROTTLE:
		session->lost++;
		break;
	case PERF_RECORD_LOST:
		session->lost += lost->lost;
		break;
	default:
		break;
	}
}
