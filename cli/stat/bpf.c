/* SPDX-License-Identifier: MIT */
/*
 * Reading order: first the slots of those alive, then the events. A process that ends in between
 * is in both; the event, its final state, overwrites what the slot said. The other way round it
 * would be in neither.
 */
#include "cli/stat/bpf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bpf/stat.h"
#include "cli/output.h"
#include "cli/stat/processes.h"
#include "bpf/stat.skel.h"
#include "cli/stat/live.h"

struct bpf_source {
	struct session *session;
	struct stat_bpf *skeleton;
	struct ring_buffer *ring;
	struct bpf_stat_process *slots;
	size_t slots_length;
};

static const enum metric metric_of[BPF_STAT_COUNTS] = {
	[BPF_STAT_FORKS] = METRIC_FORKS,
	[BPF_STAT_VFORKS] = METRIC_VFORKS,
	[BPF_STAT_THREADS] = METRIC_THREADS,
	[BPF_STAT_EXECS] = METRIC_EXECS,
	[BPF_STAT_WRITE_FAULTS] = METRIC_PROTECTED,
	[BPF_STAT_SHARED_WRITES] = METRIC_SHARED_WRITES,
	[BPF_STAT_COPIED] = METRIC_COPIED,
	[BPF_STAT_ZERO_FILLED] = METRIC_ZERO_FILLED,
	[BPF_STAT_FILE_COPIED] = METRIC_FILE_COPIED,
	[BPF_STAT_MINOR_FAULTS] = METRIC_MINOR_FAULTS,
	[BPF_STAT_MAJOR_FAULTS] = METRIC_MAJOR_FAULTS,
	/* Not shown by itself: it is neither a copy nor a reuse. */
	[BPF_STAT_ZERO_REPLACED] = METRIC_ZERO_FILLED,
};

static uint64_t minus(uint64_t left, uint64_t right)
{
	return left > right ? left - right : 0;
}

static void take_counts(struct counts *counts, const uint64_t from[BPF_STAT_COUNTS])
{
	const uint64_t fork_ns = counts->value[METRIC_FORK_NS];
	const uint64_t delay_ns = counts->value[METRIC_DELAY_NS];
	uint64_t reused;
	size_t i;

	*counts = (struct counts){ 0 };
	for (i = 0; i < BPF_STAT_COUNTS; i++)
		counts->value[metric_of[i]] += from[i];
	/* A fault is counted when it begins, its copy later: a look in between sees a reuse. */
	reused = minus(from[BPF_STAT_WRITE_FAULTS], from[BPF_STAT_SHARED_WRITES]);
	reused = minus(reused, from[BPF_STAT_COPIED] + from[BPF_STAT_ZERO_REPLACED]);
	counts->value[METRIC_REUSED] = reused;
	counts->value[METRIC_FORK_NS] = fork_ns;
	counts->value[METRIC_DELAY_NS] = delay_ns;
}

/* Faults are the kernel's count for the process's whole life. */
static void take_faults(struct process *process, uint64_t minor, uint64_t major)
{
	process->counts.value[METRIC_MINOR_FAULTS] =
		minus(minor, process->base.value[METRIC_MINOR_FAULTS]);
	process->counts.value[METRIC_MAJOR_FAULTS] =
		minus(major, process->base.value[METRIC_MAJOR_FAULTS]);
}

static struct process *take_process(struct session *session, const struct bpf_stat_process *from)
{
	struct process *process = processes_find(session->processes, from->serial);
	uint64_t minor = 0, major = 0;

	if (!process) {
		process = processes_add(session->processes, from->serial);
		processes_set_pid(session->processes, process, (int)from->pid);
		/* One that was there before the watch: what it did until now is not its count. */
		process->given = session->whole_system && !from->parent_serial;
		if (process->given && live_faults(process->pid, &minor, &major) == 0) {
			process->base.value[METRIC_MINOR_FAULTS] = minor;
			process->base.value[METRIC_MAJOR_FAULTS] = major;
		}
	}
	process->parent = (int)from->parent;
	memcpy(process->command, from->command, sizeof(process->command));
	process->command[sizeof(process->command) - 1] = '\0';
	minor = process->counts.value[METRIC_MINOR_FAULTS];
	major = process->counts.value[METRIC_MAJOR_FAULTS];
	take_counts(&process->counts, (const uint64_t *)from->counts);
	process->counts.value[METRIC_MINOR_FAULTS] = minor;
	process->counts.value[METRIC_MAJOR_FAULTS] = major;
	return process;
}

static void take_slots(struct session *session)
{
	const struct bpf_source *source = session->bpf;
	uint32_t used = __atomic_load_n(&source->skeleton->bss->next_slot, __ATOMIC_ACQUIRE), i;
	struct bpf_stat_process copy;
	uint64_t minor, major;
	struct process *process;

	if (used > BPF_STAT_SLOTS)
		used = BPF_STAT_SLOTS;
	for (i = 1; i < used; i++) {
		if (!__atomic_load_n(&source->slots[i].serial, __ATOMIC_ACQUIRE))
			continue;
		memcpy(&copy, &source->slots[i], sizeof(copy));
#ifndef __SANITIZE_THREAD__ /* does not know fences */
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
#endif
		/* The slot may have changed hands while it was read. */
		if (copy.state != BPF_STAT_COUNTING || source->slots[i].serial != copy.serial)
			continue;
		process = take_process(session, &copy);
		if (live_faults(process->pid, &minor, &major) == 0)
			take_faults(process, minor, major);
	}
	take_counts(processes_rest(session->processes), (const uint64_t *)source->slots[0].counts);
}

static void take_end(struct session *session, const struct bpf_stat_event_end *event)
{
	const struct bpf_stat_process *from = &event->process;
	struct process *process;

	if (from->counts[BPF_STAT_MINOR_FAULTS] == 0 && !from->serial)
		return;
	process = take_process(session, from);
	take_faults(process, from->counts[BPF_STAT_MINOR_FAULTS],
		    from->counts[BPF_STAT_MAJOR_FAULTS]);
	processes_end(session->processes, process);
}

static void take_fork(struct session *session, const struct bpf_stat_event_fork *event)
{
	struct process *process = processes_find(session->processes, event->serial);

	/* Forks of a process whose slot has not been read yet. */
	if (!process && event->serial) {
		process = processes_add(session->processes, event->serial);
		processes_set_pid(session->processes, process, (int)event->pid);
	}
	session_add_fork(session, process, event->ns);
}

static int take_event(void *context, void *data, size_t size)
{
	struct session *session = context;
	const struct bpf_stat_event_fork *fork = data;

	if (size >= sizeof(*fork) && fork->type == BPF_STAT_EVENT_FORK)
		take_fork(session, fork);
	else if (size >= sizeof(struct bpf_stat_event_end) && fork->type == BPF_STAT_EVENT_END)
		take_end(session, data);
	return 0;
}

void bpf_source_drain(struct session *session)
{
	ring_buffer__consume(session->bpf->ring);
}

void bpf_source_read(struct session *session)
{
	take_slots(session);
	bpf_source_drain(session);
	session->lost = session->bpf->skeleton->bss->lost;
}

/* Before the programs run, the command hands out slots and serials itself. */
static int place(struct session *session, pid_t pid, enum bpf_stat_state state, bool atomic)
{
	struct bpf_source *source = session->bpf;
	struct stat_bpf__bss *shared = source->skeleton->bss;
	struct bpf_stat_task task = { .slot = shared->next_slot, .serial = shared->next_serial };
	struct bpf_stat_process *slot = &source->slots[task.slot];
	struct process *process;
	uint64_t minor = 0, major = 0;
	int pidfd, error;

	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return -errno;
	error = bpf_map_update_elem(bpf_map__fd(source->skeleton->maps.tasks), &pidfd, &task,
				    BPF_ANY);
	close(pidfd);
	if (error)
		return error;
	shared->next_slot++;
	shared->next_serial++;
	*slot = (struct bpf_stat_process){
		.serial = task.serial, .state = state, .pid = (unsigned int)pid, .shared = atomic
	};
	live_identity(pid, slot->command, sizeof(slot->command), &slot->parent);
	process = processes_add(session->processes, task.serial);
	processes_set_pid(session->processes, process, pid);
	process->given = true;
	process->parent = (int)slot->parent;
	memcpy(process->command, slot->command, sizeof(process->command));
	if (live_faults(pid, &minor, &major) == 0) {
		process->base.value[METRIC_MINOR_FAULTS] = minor;
		process->base.value[METRIC_MAJOR_FAULTS] = major;
	}
	return 0;
}

static int place_targets(struct session *session)
{
	size_t i;
	int error = 0;

	for (i = 0; i < session->pid_count && !error; i++) {
		error = place(session, session->pids[i], BPF_STAT_COUNTING, true);
		if (error == -ESRCH)
			error = 0; /* that process has just ended */
	}
	if (!error && session->child && !session->whole_system)
		error = place(session, session->child, BPF_STAT_WAITING, false);
	return error;
}

__attribute__((format(printf, 2, 0))) static int no_messages(enum libbpf_print_level level,
							     const char *format, va_list arguments)
{
	if (!getenv("COW_DEBUG"))
		return 0;
	return vfprintf(stderr, format, arguments);
}

static int map_slots(struct bpf_source *source)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t length = (sizeof(struct bpf_stat_process) + 7) / 8 * 8 * BPF_STAT_SLOTS;
	void *slots;

	length = (length + page - 1) / page * page;
	slots = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED,
		     bpf_map__fd(source->skeleton->maps.processes), 0);
	if (slots == MAP_FAILED)
		return -errno;
	source->slots = slots;
	source->slots_length = length;
	source->slots[0].shared = true; /* by all who found no slot of their own */
	return 0;
}

static int start(struct session *session)
{
	struct bpf_source *source = session->bpf;
	int error;

	libbpf_set_print(no_messages);
	source->skeleton = stat_bpf__open();
	if (!source->skeleton)
		return -errno;
	source->skeleton->rodata->whole_system = session->whole_system;
	error = stat_bpf__load(source->skeleton);
	if (error)
		return error;
	source->skeleton->bss->next_slot = 1;
	source->skeleton->bss->next_serial = 1;
	error = map_slots(source);
	if (error)
		return error;
	source->ring = ring_buffer__new(bpf_map__fd(source->skeleton->maps.events), take_event,
					session, NULL);
	if (!source->ring)
		return -errno;
	error = place_targets(session);
	if (error)
		return error;
	return stat_bpf__attach(source->skeleton);
}

int bpf_source_start(struct session *session)
{
	int error;

	session->bpf = output_realloc(NULL, sizeof(*session->bpf));
	*session->bpf = (struct bpf_source){ .session = session };
	error = start(session);
	if (error) {
		bpf_source_free(session->bpf);
		session->bpf = NULL;
		return error;
	}
	session->counted |= METRIC_BIT(METRICS) - 1 - METRIC_BIT(METRIC_DELAY_NS);
	session->counted_by_process |= METRIC_BIT(METRICS) - 1 - METRIC_BIT(METRIC_DELAY_NS);
	return 0;
}

void bpf_source_free(struct bpf_source *source)
{
	if (!source)
		return;
	ring_buffer__free(source->ring);
	if (source->slots)
		munmap(source->slots, source->slots_length);
	stat_bpf__destroy(source->skeleton);
	free(source);
}
