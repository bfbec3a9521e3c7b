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

int perf_open_event(struct perf_event_attr *attr, pid_t pid, int cpu, int group)
{
	long fd;

	attr->size = sizeof(*attr);
	fd = syscall(SYS_perf_event_open, attr, pid, cpu, group, PERF_FLAG_FD_CLOEXEC);
	return fd < 0 ? -errno : (int)fd;
}

void perf_keep_fd(int **fds, size_t *count, int fd)
{
	*fds = output_realloc(*fds, (*count + 1) * sizeof(int));
	(*fds)[(*count)++] = fd;
}

/* --- records --- */

struct perf_event_attr perf_record_attr(void)
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
		.wakeup_watermark = RING_WATERMARK,
		.exclude_kernel = 1,
	};

	return attr;
}

static int open_ring(struct perf_source *source, struct perf_event_attr *attr, pid_t pid, int cpu)
{
	int fd = perf_open_event(attr, pid, cpu, -1);

	if (fd < 0)
		return fd == -ENODEV ? 0 : fd; /* a processor that is offline */
	perf_keep_fd(&source->fds, &source->fd_count, fd);
	return rings_add(source->rings, fd, cpu);
}

static int open_records_of_system(struct perf_source *source)
{
	struct perf_event_attr attr = perf_record_attr();
	int cpus = (int)sysconf(_SC_NPROCESSORS_CONF), cpu, error = 0;

	for (cpu = 0; cpu < cpus && !error; cpu++)
		error = open_ring(source, &attr, -1, cpu);
	source->of_system = !error;
	return error;
}

/* A ring that is inherited has to belong to one processor. */
static int open_records_of(struct perf_source *source, pid_t pid)
{
	struct perf_event_attr attr = perf_record_attr();
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
	for (i = 0; i < session->pid_count && !error; i++) {
		error = open_records_of(source, session->pids[i]);
		if (error == -ESRCH)
			error = 0; /* that process has just ended */
	}
	if (!error && session->child)
		error = open_records_of(source, session->child);
	return error;
}

/* --- counters --- */

static int add_counter_fd(struct counter *counter, const struct perf_event_attr *attr,
			  const char *filter, pid_t pid, int cpu)
{
	struct perf_event_attr copy = *attr;
	int fd = perf_open_event(&copy, pid, cpu, -1);

	if (fd == -ENODEV)
		return 0;
	if (fd < 0)
		return fd;
	perf_keep_fd(&counter->fds, &counter->count, fd);
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
	for (i = 0; i < session->pid_count && !error; i++) {
		error = add_of_process(counter, attr, filter, session->pids[i]);
		if (error == -ESRCH)
			error = 0; /* that process has just ended */
	}
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
	if (!error && part == PERF_PART_PROCESSES)
		error = open_fault_counters(session);
	if (!error && part == PERF_PART_TRACEPOINTS)
		error = perf_groups_open(session);
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

	if (source->groups)
		perf_groups_flush(session);
	perf_source_drain(session);
	/* Counters know no processes: what they count is nobody's. */
	for (i = 0; i < source->counter_count; i++)
		rest->value[source->counters[i].metric] = 0;
	for (i = 0; i < source->counter_count; i++)
		rest->value[source->counters[i].metric] += read_counter(&source->counters[i]);
}

int perf_source_wakeups(const struct perf_source *source)
{
	return rings_wakeups(source->rings);
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
	free(source->groups);
	free(source->fds);
	free(source->forking);
	free(source);
}
