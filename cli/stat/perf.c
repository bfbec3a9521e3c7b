/* SPDX-License-Identifier: MIT */
#include "cli/stat/perf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/perf_event.h>

#include "cli/output.h"
#include "cli/stat/live.h"
#include "cli/stat/processes.h"
#include "cli/stat/perf_source.h"
#include "cli/stat/ring.h"
#include "cli/stat/tracefs.h"

#define NEWTASK "task/task_newtask"
#define ENTER   "raw_syscalls/sys_enter"
#define LEAVE   "raw_syscalls/sys_exit"

/* clone, fork, vfork, clone3 of x86-64. */
#define MAKES_TASK "id == 56 || id == 57 || id == 58 || id == 435"

static int open_event(struct perf_event_attr *attr, pid_t pid, int cpu)
{
	long fd;

	attr->size = sizeof(*attr);
	fd = syscall(SYS_perf_event_open, attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	return fd < 0 ? -errno : (int)fd;
}

static void keep_fd(int **fds, size_t *count, int fd)
{
	*fds = output_realloc(*fds, (*count + 1) * sizeof(int));
	(*fds)[(*count)++] = fd;
}

/* --- records --- */

static struct perf_event_attr record_attr(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.config = PERF_COUNT_SW_DUMMY,
		.sample_type = RING_SAMPLE_TYPE,
		.sample_id_all = 1,
		.task = 1,
		.comm = 1,
		.comm_exec = 1,
		.use_clockid = 1,
		.clockid = CLOCK_MONOTONIC,
		.watermark = 1,
		.wakeup_watermark = 1 << 30,
		.exclude_kernel = 1,
	};

	return attr;
}

static int open_ring(struct perf_source *source, struct perf_event_attr *attr, pid_t pid, int cpu)
{
	int fd = open_event(attr, pid, cpu);

	if (fd < 0)
		return fd == -ENODEV ? 0 : fd; /* a processor that is offline */
	keep_fd(&source->fds, &source->fd_count, fd);
	return rings_add(source->rings, fd, cpu);
}

static int open_records_of_system(struct perf_source *source)
{
	struct perf_event_attr attr = record_attr();
	int cpus = (int)sysconf(_SC_NPROCESSORS_CONF), cpu, error = 0;

	for (cpu = 0; cpu < cpus && !error; cpu++)
		error = open_ring(source, &attr, -1, cpu);
	source->of_system = !error;
	return error;
}

/* A ring that is inherited has to belong to one processor. */
static int open_records_of(struct perf_source *source, pid_t pid)
{
	struct perf_event_attr attr = record_attr();
	int cpus = (int)sysconf(_SC_NPROCESSORS_CONF), cpu, error;
	size_t count, i;
	pid_t *threads;

	attr.inherit = 1;
	error = live_threads(pid, &threads, &count);
	if (error)
		return error;
	for (i = 0; i < count && !error; i++)
		for (cpu = 0; cpu < cpus && !error; cpu++)
			error = open_ring(source, &attr, threads[i], cpu);
	free(threads);
	return error;
}

static int open_records(struct session *session)
{
	struct perf_source *source = session->perf;
	int error = open_records_of_system(source);
	size_t i;

	if (!error || session->whole_system)
		return error;
	error = 0;
	for (i = 0; i < session->pid_count && !error; i++)
		error = open_records_of(source, session->pids[i]);
	if (!error && session->child)
		error = open_records_of(source, session->child);
	return error;
}

/* --- counters --- */

static int add_counter_fd(struct counter *counter, const struct perf_event_attr *attr,
			  const char *filter, pid_t pid, int cpu)
{
	struct perf_event_attr copy = *attr;
	int fd = open_event(&copy, pid, cpu);

	if (fd == -ENODEV)
		return 0;
	if (fd < 0)
		return fd;
	keep_fd(&counter->fds, &counter->count, fd);
	if (filter && ioctl(fd, PERF_EVENT_IOC_SET_FILTER, filter) < 0)
		return -errno;
	return 0;
}

static int add_of_process(struct counter *counter, const struct perf_event_attr *attr,
			  const char *filter, pid_t pid)
{
	size_t count, i;
	pid_t *threads;
	int error;

	error = live_threads(pid, &threads, &count);
	if (error)
		return error;
	for (i = 0; i < count && !error; i++) {
		error = add_counter_fd(counter, attr, filter, threads[i], -1);
		if (error == -ESRCH)
			error = 0; /* that thread has just ended */
	}
	free(threads);
	return error;
}

static int add_of_target(struct session *session, struct counter *counter,
			 struct perf_event_attr *attr, const char *filter)
{
	int cpus = (int)sysconf(_SC_NPROCESSORS_CONF), cpu, error = 0;
	size_t i;

	if (session->whole_system) {
		for (cpu = 0; cpu < cpus && !error; cpu++)
			error = add_counter_fd(counter, attr, filter, -1, cpu);
		return error;
	}
	attr->inherit = 1;
	for (i = 0; i < session->pid_count && !error; i++)
		error = add_of_process(counter, attr, filter, session->pids[i]);
	if (error || !session->child)
		return error;
	/* What the command's process does before it becomes the command does not count. */
	attr->disabled = 1;
	attr->enable_on_exec = 1;
	return add_counter_fd(counter, attr, filter, session->child, -1);
}

static int add_counter(struct session *session, enum metric metric, uint32_t type, uint64_t config,
		       const char *filter)
{
	struct perf_source *source = session->perf;
	struct perf_event_attr attr = { .type = type,
					.config = config,
					.exclude_kernel = source->user_only };
	struct counter *counter;
	int error;

	source->counters = output_realloc(source->counters,
					  (source->counter_count + 1) * sizeof(struct counter));
	counter = &source->counters[source->counter_count++];
	*counter = (struct counter){ .metric = metric };
	error = add_of_target(session, counter, &attr, filter);
	if (!error)
		session->counted |= METRIC_BIT(metric);
	return error;
}

static void drop_counters(struct perf_source *source)
{
	size_t i, j;

	for (i = 0; i < source->counter_count; i++) {
		for (j = 0; j < source->counters[i].count; j++)
			close(source->counters[i].fds[j]);
		free(source->counters[i].fds);
	}
	source->counter_count = 0;
}

static int add_fault_counters(struct session *session)
{
	int error = add_counter(session, METRIC_MINOR_FAULTS, PERF_TYPE_SOFTWARE,
				PERF_COUNT_SW_PAGE_FAULTS_MIN, NULL);

	if (error)
		return error;
	return add_counter(session, METRIC_MAJOR_FAULTS, PERF_TYPE_SOFTWARE,
			   PERF_COUNT_SW_PAGE_FAULTS_MAJ, NULL);
}

/* Without privilege only what happens in user mode may be counted. */
static int open_fault_counters(struct session *session)
{
	int error = add_fault_counters(session);

	if (error != -EACCES && error != -EPERM)
		return error;
	drop_counters(session->perf);
	session->perf->user_only = true;
	return add_fault_counters(session);
}

/* --- tracepoints --- */

/* Bits of the error code: 1 the page was present, 2 a write, 4 in user mode. */
static int open_write_counters(struct session *session, int events)
{
	static const struct {
		const char *tracepoint, *filter;
		enum metric metric;
	} wanted[] = {
		{ "exceptions/page_fault_user", "error_code == 7", METRIC_PROTECTED },
		{ "exceptions/page_fault_kernel", "error_code == 3", METRIC_PROTECTED },
		{ "exceptions/page_fault_user", "error_code == 6", METRIC_ZERO_FILLED },
		{ "exceptions/page_fault_kernel", "error_code == 2", METRIC_ZERO_FILLED },
	};
	size_t i;
	int id, error = 0;

	for (i = 0; i < sizeof(wanted) / sizeof(wanted[0]) && !error; i++) {
		id = tracefs_id(events, wanted[i].tracepoint);
		if (id < 0)
			return id;
		error = add_counter(session, wanted[i].metric, PERF_TYPE_TRACEPOINT, (uint64_t)id,
				    wanted[i].filter);
	}
	return error;
}

/* Samples go to the ring of their processor. */
static int open_samples(struct perf_source *source, int id, const char *filter)
{
	struct perf_event_attr attr = record_attr();
	size_t i;
	int fd;

	attr.type = PERF_TYPE_TRACEPOINT;
	attr.config = (uint64_t)id;
	attr.sample_type |= PERF_SAMPLE_RAW;
	attr.sample_period = 1;
	attr.task = attr.comm = attr.comm_exec = 0;
	attr.exclude_kernel = 0;
	for (i = 0; i < rings_count(source->rings); i++) {
		fd = open_event(&attr, -1, rings_cpu(source->rings, i));
		if (fd < 0)
			return fd;
		keep_fd(&source->fds, &source->fd_count, fd);
		if (filter && ioctl(fd, PERF_EVENT_IOC_SET_FILTER, filter) < 0)
			return -errno;
		if (ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, rings_fd(source->rings, i)) < 0)
			return -errno;
	}
	return 0;
}

static int open_fork_samples(struct session *session, int events)
{
	struct perf_source *source = session->perf;
	int enter = tracefs_id(events, ENTER), leave = tracefs_id(events, LEAVE), error;
	int newtask = tracefs_id(events, NEWTASK);

	source->flags_offset = tracefs_offset(events, NEWTASK, "clone_flags");
	if (enter < 0 || leave < 0 || newtask < 0 || source->flags_offset < 0)
		return -ENOENT;
	error = open_samples(source, enter, MAKES_TASK);
	if (!error)
		error = open_samples(source, newtask, NULL);
	if (!error)
		error = open_samples(source, leave, MAKES_TASK);
	if (error)
		return error;
	source->enter = enter;
	source->leave = leave;
	source->newtask = newtask;
	session->counted |= METRIC_BIT(METRIC_VFORKS) | METRIC_BIT(METRIC_FORK_NS);
	session->counted_by_process |= METRIC_BIT(METRIC_VFORKS) | METRIC_BIT(METRIC_FORK_NS);
	return 0;
}

static int open_tracepoints(struct session *session)
{
	int events, error;

#ifndef __x86_64__
	return -ENOENT; /* the bits of the error code and the system calls are those of x86-64 */
#endif
	if (!session->perf->of_system)
		return -EPERM;
	events = tracefs_open();
	if (events < 0)
		return events;
	error = open_write_counters(session, events);
	if (!error)
		error = open_fork_samples(session, events);
	close(events);
	return error;
}

/* --- the source --- */

static void add_target(struct session *session, pid_t pid)
{
	struct process *process = perf_add_process(session, pid, 0);
	unsigned int parent = 0;
	pid_t *threads;
	size_t count;

	process->given = true;
	live_identity(pid, process->command, sizeof(process->command), &parent);
	process->parent = (int)parent;
	if (live_threads(pid, &threads, &count) == 0) {
		process->threads = (int)count;
		free(threads);
	}
}

int perf_source_start(struct session *session, enum perf_part part)
{
	const uint32_t by_records = METRIC_BIT(METRIC_FORKS) | METRIC_BIT(METRIC_THREADS) |
				    METRIC_BIT(METRIC_EXECS);
	size_t i;
	int error;

	session->perf = output_realloc(NULL, sizeof(*session->perf));
	*session->perf = (struct perf_source){ .rings = rings_new() };
	error = open_records(session);
	if (!error && part >= PERF_PART_PROCESSES)
		error = open_fault_counters(session);
	if (!error && part >= PERF_PART_TRACEPOINTS)
		error = open_tracepoints(session);
	if (error) {
		perf_source_free(session->perf);
		session->perf = NULL;
		session->counted = session->counted_by_process = 0;
		return error;
	}
	for (i = 0; i < session->pid_count; i++)
		add_target(session, session->pids[i]);
	if (session->child)
		add_target(session, session->child);
	session->counted |= by_records;
	session->counted_by_process |= by_records;
	return 0;
}

static uint64_t read_counter(const struct counter *counter)
{
	uint64_t sum = 0, value;
	size_t i;

	for (i = 0; i < counter->count; i++)
		if (read(counter->fds[i], &value, sizeof(value)) == sizeof(value))
			sum += value;
	return sum;
}

void perf_source_drain(struct session *session)
{
	rings_drain(session->perf->rings, perf_take_record, session);
}

void perf_source_read(struct session *session)
{
	struct perf_source *source = session->perf;
	struct counts *rest = processes_rest(session->processes);
	size_t i;

	perf_source_drain(session);
	/* Counters know no processes: what they count is nobody's. */
	for (i = 0; i < source->counter_count; i++)
		rest->value[source->counters[i].metric] = 0;
	for (i = 0; i < source->counter_count; i++)
		rest->value[source->counters[i].metric] += read_counter(&source->counters[i]);
}

bool perf_source_user_only(const struct perf_source *source)
{
	return source->user_only;
}

void perf_source_free(struct perf_source *source)
{
	size_t i;

	if (!source)
		return;
	rings_free(source->rings);
	for (i = 0; i < source->fd_count; i++)
		close(source->fds[i]);
	drop_counters(source);
	free(source->counters);
	free(source->fds);
	free(source->forking);
	free(source);
}
