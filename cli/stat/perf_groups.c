/* SPDX-License-Identifier: MIT */
/*
 * Write faults by kind, by process, without anything that a fork would have to copy.
 *
 * Model. Each processor has one group of counters for all that runs on it. The leader counts
 * context switches and writes a sample at each, in the name of the task that stops, with the values
 * of the whole group: what they grew by since the processor's sample before is that task's.
 * Counters that children inherit would say the same, but the kernel makes each of them anew for
 * each task and looks for its tracepoint in the list of all: half as much again as a small fork.
 *
 * - The tracepoints that tell how long forks take are groups of one: raw_syscalls with a filter.
 *   Those of the single system calls would be asked less, but each tracepoint takes the kernel
 *   35 ms to close.
 * - A task that ends is switched away from once more after its record of the end; by then its ID
 *   may have gone, and the sample says -1: it is whoever ended on that processor last.
 * - A task that runs on shows at its next switch. To know more, the reader goes to every processor
 *   itself, which makes the task there stop for a moment.
 *
 * Where samples were lost, the next one has their counts, too: totals of the system stay right, but
 * a process may get another's. A hundred thousand switches a second are too many for the kernel,
 * which then stops counting for a moment. Both are told as lost events.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <linux/perf_event.h>

#include "cli/output.h"
#include "cli/stat/perf_source.h"
#include "cli/stat/processes.h"
#include "cli/stat/ring.h"
#include "cli/stat/tracefs.h"

#define USER_FAULT   "exceptions/page_fault_user"
#define KERNEL_FAULT "exceptions/page_fault_kernel"
#define NEWTASK      "task/task_newtask"
#define EXEC         "sched/sched_process_exec"
#define ENTER        "raw_syscalls/sys_enter"
#define LEAVE        "raw_syscalls/sys_exit"

/* clone, fork, vfork, clone3 of x86-64. */
#define MAKES_TASK "id == 56 || id == 57 || id == 58 || id == 435"

/* CLONE_VM; that there is a new task a record says anyway. */
#define SHARES_MEMORY "clone_flags & 256"

#define NO_PROCESS UINT32_MAX

/* Bits of the error code: 1 the page was present, 2 a write, 4 in user mode. */
static const struct {
	const char *tracepoint, *filter; /* or a software event: */
	uint64_t config;
	enum metric metric;
} counters[GROUP_COUNTERS] = {
	[GROUP_SWITCHES] = { NULL, NULL, PERF_COUNT_SW_CONTEXT_SWITCHES, METRICS },
	[GROUP_USER_PROTECTED] = { USER_FAULT, "error_code == 7", 0, METRIC_PROTECTED },
	[GROUP_KERNEL_PROTECTED] = { KERNEL_FAULT, "error_code == 3", 0, METRIC_PROTECTED },
	[GROUP_USER_ABSENT] = { USER_FAULT, "error_code == 6", 0, METRIC_ZERO_FILLED },
	[GROUP_KERNEL_ABSENT] = { KERNEL_FAULT, "error_code == 2", 0, METRIC_ZERO_FILLED },
	[GROUP_MINOR_FAULTS] = { NULL, NULL, PERF_COUNT_SW_PAGE_FAULTS_MIN, METRIC_MINOR_FAULTS },
	[GROUP_MAJOR_FAULTS] = { NULL, NULL, PERF_COUNT_SW_PAGE_FAULTS_MAJ, METRIC_MAJOR_FAULTS },
};

/* One more event of a group (-1: the first of one): its descriptor, or a negative errno. */
static int add_event(struct perf_source *source, size_t ring, int group,
		     struct perf_event_attr *attr, const char *filter)
{
	int fd;

	attr->read_format = PERF_FORMAT_GROUP;
	attr->use_clockid = 1; /* one for the whole group */
	attr->clockid = CLOCK_MONOTONIC;
	fd = perf_open_event(attr, -1, rings_cpu(source->rings, ring), group);
	if (fd < 0)
		return fd;
	perf_keep_fd(&source->fds, &source->fd_count, fd);
	if (filter && ioctl(fd, PERF_EVENT_IOC_SET_FILTER, filter) < 0)
		return -errno;
	if (attr->sample_period &&
	    ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, rings_fd(source->rings, ring)) < 0)
		return -errno;
	return fd;
}

static struct perf_event_attr sample_attr(void)
{
	struct perf_event_attr attr = perf_record_attr();

	attr.sample_type |= PERF_SAMPLE_READ | PERF_SAMPLE_RAW;
	attr.sample_period = 1;
	attr.task = attr.comm = attr.comm_exec = 0;
	attr.exclude_kernel = 0;
	return attr;
}

static int add_sample(struct perf_source *source, size_t ring, int group, int tracepoint,
		      const char *filter)
{
	struct perf_event_attr attr = sample_attr();

	attr.type = PERF_TYPE_TRACEPOINT;
	attr.config = (uint64_t)tracepoint;
	return add_event(source, ring, group, &attr, filter);
}

static int add_counter(struct perf_source *source, size_t ring, int group, size_t i, int events)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE, .config = counters[i].config };
	int id;

	if (counters[i].tracepoint) {
		id = tracefs_id(events, counters[i].tracepoint);
		if (id < 0)
			return id;
		attr.type = PERF_TYPE_TRACEPOINT;
		attr.config = (uint64_t)id;
	}
	return add_event(source, ring, group, &attr, counters[i].filter);
}

/* It counts when it is complete: what joins a group that does may never begin to. */
static int add_group(struct perf_source *source, size_t ring, int events)
{
	struct perf_event_attr attr = sample_attr();
	int leader, fd = 0;
	size_t i;

	attr.config = PERF_COUNT_SW_CONTEXT_SWITCHES;
	attr.disabled = 1;
	leader = add_event(source, ring, -1, &attr, NULL);
	if (leader < 0)
		return leader;
	for (i = GROUP_SWITCHES + 1; i < GROUP_COUNTERS && fd >= 0; i++)
		fd = add_counter(source, ring, leader, i, events);
	if (fd >= 0)
		fd = add_sample(source, ring, leader, source->exec, NULL);
	if (fd < 0)
		return fd;
	return ioctl(leader, PERF_EVENT_IOC_ENABLE, 0) < 0 ? -errno : 0;
}

static int add_forks(struct perf_source *source, size_t ring)
{
	int fd = add_sample(source, ring, -1, source->newtask, SHARES_MEMORY);

	if (fd >= 0)
		fd = add_sample(source, ring, -1, source->enter, MAKES_TASK);
	if (fd >= 0)
		fd = add_sample(source, ring, -1, source->leave, MAKES_TASK);
	return fd < 0 ? fd : 0;
}

static int find_tracepoints(struct perf_source *source, int events)
{
	source->newtask = tracefs_id(events, NEWTASK);
	source->exec = tracefs_id(events, EXEC);
	source->enter = tracefs_id(events, ENTER);
	source->leave = tracefs_id(events, LEAVE);
	source->flags_offset = tracefs_offset(events, NEWTASK, "clone_flags");
	if (source->newtask < 0 || source->exec < 0 || source->enter < 0 || source->leave < 0 ||
	    source->flags_offset < 0)
		return -ENOENT;
	return 0;
}

static int open_groups(struct perf_source *source, int events)
{
	size_t count = rings_count(source->rings), i;
	int error = find_tracepoints(source, events);

	source->groups = output_realloc(NULL, count * sizeof(*source->groups));
	for (i = 0; i < count && !error; i++) {
		source->groups[i] = (struct group){ .cpu = rings_cpu(source->rings, i),
						    .ended = NO_PROCESS };
		error = add_group(source, i, events);
		if (!error)
			error = add_forks(source, i);
	}
	return error;
}

int perf_groups_open(struct session *session)
{
	uint32_t metrics = METRIC_BIT(METRIC_VFORKS) | METRIC_BIT(METRIC_FORK_NS);
	int events, error;
	size_t i;

#ifndef __x86_64__
	return -ENOENT; /* the bits of the error code and the system calls are those of x86-64 */
#endif
	if (!session->perf->of_system)
		return -EPERM;
	events = tracefs_open();
	if (events < 0)
		return events;
	error = open_groups(session->perf, events);
	close(events);
	if (error)
		return error;
	for (i = 0; i < GROUP_COUNTERS; i++)
		if (counters[i].metric < METRICS)
			metrics |= METRIC_BIT(counters[i].metric);
	session->counted |= metrics;
	session->counted_by_process |= metrics;
	return 0;
}

void perf_groups_flush(struct session *session)
{
	const struct perf_source *source = session->perf;
	size_t count = rings_count(source->rings), i;
	cpu_set_t before, one;

	if (sched_getaffinity(0, sizeof(before), &before) < 0)
		return;
	for (i = 0; i < count; i++) {
		if (source->groups[i].cpu >= CPU_SETSIZE)
			continue;
		CPU_ZERO(&one);
		CPU_SET(source->groups[i].cpu, &one);
		/* Where this process may not go, the next switch has to be waited for. */
		(void)sched_setaffinity(0, sizeof(one), &one);
	}
	(void)sched_setaffinity(0, sizeof(before), &before);
}

static struct group *find_group(struct perf_source *source, uint32_t cpu)
{
	size_t count = rings_count(source->rings), i;

	for (i = 0; i < count; i++)
		if (source->groups[i].cpu == (int)cpu)
			return &source->groups[i];
	return NULL;
}

void perf_groups_task_ended(struct perf_source *source, uint32_t cpu, uint32_t pid)
{
	struct group *group = source->groups ? find_group(source, cpu) : NULL;

	if (group)
		group->ended = pid;
}

/* Where the counts of a process go, those that have ended included; NULL if it is not watched. */
static struct counts *find_counts(struct session *session, uint32_t pid)
{
	struct process *process = NULL;

	if (pid != NO_PROCESS) {
		process = processes_of_pid(session->processes, (int)pid);
		if (!process)
			process = perf_find_process(session, pid);
	}
	if (process)
		return &process->counts;
	return session->whole_system ? processes_rest(session->processes) : NULL;
}

void perf_groups_take(struct session *session, uint32_t cpu, uint32_t pid, const uint64_t *values)
{
	struct group *group = find_group(session->perf, cpu);
	struct counts *counts = NULL;
	bool looked = false;
	uint64_t by;
	size_t i;

	if (!group)
		return;
	for (i = GROUP_SWITCHES + 1; i < GROUP_COUNTERS; i++) {
		by = values[i] - group->seen[i];
		group->seen[i] = values[i];
		if (!by)
			continue;
		if (!looked)
			counts = find_counts(session, pid == NO_PROCESS ? group->ended : pid);
		looked = true;
		if (counts)
			counts->value[counters[i].metric] += by;
	}
}

void perf_groups_forget(struct process *process)
{
	size_t i;

	for (i = GROUP_SWITCHES + 1; i < GROUP_COUNTERS; i++)
		process->counts.value[counters[i].metric] = 0;
}
