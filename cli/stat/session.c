/* SPDX-License-Identifier: MIT */
/*
 * The order of preference: bpf, which knows each write's outcome and costs a tenth of a fault;
 * perf, which needs no BPF; taskstats, which is free but knows copies alone; basic. taskstats
 * joins the others for the time spent copying, and with perf tells copies from reuses.
 */
#include "cli/stat/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/output.h"
#include "cli/stat/bpf.h"
#include "cli/stat/live.h"
#include "cli/stat/perf.h"
#include "cli/stat/processes.h"
#include "cli/stat/taskstats.h"
#include "cli/stat/tuning.h"

static const char *const backends[] = { "auto", "bpf", "perf", "taskstats", "basic" };

uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

bool session_knows_backend(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
		if (strcmp(name, backends[i]) == 0)
			return true;
	return false;
}

void session_add_fork(struct session *session, struct process *process, uint64_t ns)
{
	histogram_add(&session->fork_ns, ns);
	session->fork_ns_sum += ns;
	if (!process)
		return;
	process->counts.value[METRIC_FORK_NS] += ns;
	if (ns > process->fork_ns_max)
		process->fork_ns_max = ns;
}

static const char *privilege_for(const char *backend)
{
	if (strcmp(backend, "bpf") == 0)
		return "needs root, or CAP_BPF and CAP_PERFMON";
	if (strcmp(backend, "perf") == 0)
		return "needs root, or CAP_PERFMON and a mounted tracefs";
	if (strcmp(backend, "taskstats") == 0)
		return "needs root, or CAP_NET_ADMIN";
	return "counts in one's own processes only, without root or CAP_PERFMON";
}

/* Why a backend does not work, for people. */
static const char *reason(const char *backend, int error)
{
	switch (-error) {
	case EPERM:
	case EACCES:
		return privilege_for(backend);
	case ENODATA:
		return "needs kernel.task_delayacct=1; --allow-tuning sets it for a while";
	case EOPNOTSUPP:
		return strcmp(backend, "bpf") == 0 ? "is not part of this build" :
						     "is not counted by this kernel";
	case ENOENT:
		return "has no such counters in this kernel";
	case EINVAL:
		return strcmp(backend, "taskstats") == 0 ? "does not work in a container" :
							   "is refused by this kernel";
	default:
		return strerror(-error);
	}
}

static bool wants(const struct session *session, const char *backend)
{
	const char *wanted = session->options->backend;

	return strcmp(wanted, "auto") == 0 || strcmp(wanted, backend) == 0;
}

static void note_missing(struct session *session, const char *backend, int error)
{
	size_t used = strlen(session->missing);

	snprintf(session->missing + used, sizeof(session->missing) - used, "%s%s %s",
		 used ? "; " : "", backend, reason(backend, error));
}

static int try_bpf(struct session *session)
{
	int error = bpf_source_start(session);

	if (!error)
		snprintf(session->backend, sizeof(session->backend), "bpf");
	else
		note_missing(session, "bpf", error);
	return error;
}

static int try_perf(struct session *session, const char *name, enum perf_part part)
{
	int error = perf_source_start(session, part);

	if (!error)
		snprintf(session->backend, sizeof(session->backend), "%s", name);
	else
		note_missing(session, name, error);
	return error;
}

static int try_taskstats(struct session *session)
{
	size_t used = strlen(session->backend);
	int error = taskstats_source_start(session);

	if (error)
		note_missing(session, "taskstats", error);
	else
		snprintf(session->backend + used, sizeof(session->backend) - used, "%staskstats",
			 used ? "+" : "");
	return error;
}

/*
 * Taskstats alone knows nobody's children: the records of perf do. Its counters of faults are used
 * for the whole system only: else each fork would have to make and to end one of each, for what
 * taskstats tells, too.
 */
static int try_taskstats_alone(struct session *session)
{
	int error = perf_source_start(session, session->whole_system ? PERF_PART_PROCESSES :
								       PERF_PART_RECORDS);

	if (!error)
		error = try_taskstats(session);
	if (error && session->perf) {
		perf_source_free(session->perf);
		session->perf = NULL;
		session->counted = session->counted_by_process = 0;
		processes_free(session->processes);
		session->processes = processes_new();
	}
	return error;
}

/* Without any: the faults that the kernel adds up for the command and for given processes. */
static int start_rusage(struct session *session)
{
	struct process *process;
	unsigned int parent = 0;
	size_t i;

	if (session->whole_system)
		return -EPERM;
	snprintf(session->backend, sizeof(session->backend), "rusage");
	session->counted = METRIC_BIT(METRIC_MINOR_FAULTS) | METRIC_BIT(METRIC_MAJOR_FAULTS);
	session->counted_by_process = session->counted;
	for (i = 0; i < session->pid_count; i++) {
		process = processes_add(session->processes, (uint64_t)session->pids[i]);
		processes_set_pid(session->processes, process, session->pids[i]);
		process->given = true;
		live_identity(process->pid, process->command, sizeof(process->command), &parent);
		process->parent = (int)parent;
		live_faults(process->pid, &process->base.value[METRIC_MINOR_FAULTS],
			    &process->base.value[METRIC_MAJOR_FAULTS]);
	}
	return 0;
}

static int start_basic(struct session *session)
{
	int error = try_perf(session, "basic", PERF_PART_PROCESSES);

	return error ? start_rusage(session) : 0;
}

void session_tune(const struct stat_options *wanted)
{
	int error = 0;

	if (wanted->allow_tuning && strcmp(wanted->backend, "basic") != 0)
		error = tuning_count_delays();
	if (error)
		complain_errno(error, "--allow-tuning: cannot set kernel.task_delayacct; it is "
				      "needed for the time spent copying, and root may set it");
}

int session_start(struct session *session)
{
	int error = -EINVAL;

	session->processes = processes_new();
	if (wants(session, "bpf"))
		error = try_bpf(session);
	if (error && wants(session, "perf"))
		error = try_perf(session, "perf", PERF_PART_TRACEPOINTS);
	if (!error) {
		try_taskstats(session);
		return 0;
	}
	if (wants(session, "taskstats"))
		error = try_taskstats_alone(session);
	if (error && wants(session, "basic"))
		error = start_basic(session);
	if (!error)
		return 0;
	if (session->missing[0])
		complain("cannot count: %s", session->missing);
	else
		complain_errno(error, "cannot count");
	return error;
}

int session_wakeups(const struct session *session)
{
	return session->perf ? perf_source_wakeups(session->perf) : -1;
}

void session_drain(struct session *session)
{
	if (session->bpf)
		bpf_source_drain(session);
	if (session->perf)
		perf_source_drain(session);
	if (session->taskstats)
		taskstats_source_drain(session);
}

static void read_rusage(struct session *session)
{
	struct process *process;
	uint64_t minor, major;
	size_t i;

	for (i = 0; i < processes_count(session->processes); i++) {
		process = processes_at(session->processes, i);
		if (live_faults(process->pid, &minor, &major) != 0)
			continue;
		process->counts.value[METRIC_MINOR_FAULTS] =
			minor - process->base.value[METRIC_MINOR_FAULTS];
		process->counts.value[METRIC_MAJOR_FAULTS] =
			major - process->base.value[METRIC_MAJOR_FAULTS];
	}
}

static void derive_from(struct counts *counts)
{
	uint64_t protected_writes = counts->value[METRIC_PROTECTED];
	uint64_t copied = counts->value[METRIC_COPIED];

	counts->value[METRIC_REUSED] = protected_writes > copied ? protected_writes - copied : 0;
}

/* The kinds of writes that perf counts together are told apart by what taskstats counts. */
static void derive_reused(struct session *session)
{
	size_t i;

	for (i = 0; i < processes_count(session->processes); i++)
		derive_from(&processes_at(session->processes, i)->counts);
	derive_from(&session->totals);
	session->counted |= METRIC_BIT(METRIC_REUSED);
	session->counted_by_process |= METRIC_BIT(METRIC_REUSED);
}

bool session_is_of_the_later(const struct session *session)
{
	return session->taskstats && tuning_is_ours() &&
	       (session->pid_count || session->whole_system);
}

static void forget(struct session *session, enum metric metric, const char *what)
{
	const size_t used = strlen(session->missing);

	session->counted &= ~METRIC_BIT(metric);
	session->counted_by_process &= ~METRIC_BIT(metric);
	if (what)
		snprintf(session->missing + used, sizeof(session->missing) - used, "%s%s",
			 used ? "; " : "", what);
}

/* Nothing of those that began since says nothing of the others. */
void session_settle(struct session *session)
{
	if (!session_is_of_the_later(session))
		return;
	if (!session->bpf && !session->totals.value[METRIC_COPIED])
		forget(session, METRIC_COPIED, NULL);
	if (!session->totals.value[METRIC_DELAY_NS])
		forget(session, METRIC_DELAY_NS,
		       "taskstats knows no process that was there before "
		       "kernel.task_delayacct=1");
}

void session_read(struct session *session)
{
	/* Whoever knows the processes comes before taskstats, which does not. */
	if (session->bpf)
		bpf_source_read(session);
	if (session->perf)
		perf_source_read(session);
	if (session->taskstats)
		taskstats_source_read(session);
	if (!session->bpf && !session->perf)
		read_rusage(session);
	processes_sum(session->processes, &session->totals);
	if (session->perf && session->taskstats && !session_is_of_the_later(session) &&
	    is_counted(session->counted, METRIC_PROTECTED))
		derive_reused(session);
}

void session_end(struct session *session)
{
	bpf_source_free(session->bpf);
	perf_source_free(session->perf);
	taskstats_source_free(session->taskstats);
	processes_free(session->processes);
	session->bpf = NULL;
	session->perf = NULL;
	session->taskstats = NULL;
	session->processes = NULL;
}

static const char *coverage_of_copies(const struct session *session)
{
	if (session->bpf)
		return "present pages that a write found protected and the kernel copied";
	return session_is_of_the_later(session) ?
		       "by the kernel's accounting, which processes that were there before it was "
		       "switched on do not have" :
		       "by the kernel's accounting; replaced pages of zeroes and hugetlb included";
}

static const char *coverage_with_bpf(enum metric metric)
{
	switch (metric) {
	case METRIC_REUSED:
		return "present pages that a write found protected and the kernel opened in place; "
		       "not in shared mappings";
	case METRIC_ZERO_FILLED:
		return "4 KiB pages of zeroes that writes made: where nothing was, or the kernel's "
		       "page of zeroes; a huge page counts as 512";
	case METRIC_FILE_COPIED:
		return "pages of private file mappings that were not present when written to";
	default:
		return NULL;
	}
}

static const char *coverage_with_perf(const struct session *session, enum metric metric)
{
	switch (metric) {
	case METRIC_PROTECTED:
		return "write faults on present pages: copied, reused, or in shared mappings";
	case METRIC_REUSED:
		return "write faults on present pages less those that copied; shared mappings "
		       "included";
	case METRIC_ZERO_FILLED:
		return "write faults where no page was present: files and shared mappings "
		       "included; a huge page counts once";
	case METRIC_MINOR_FAULTS:
	case METRIC_MAJOR_FAULTS:
		return perf_source_user_only(session->perf) ? "in user mode only" : NULL;
	default:
		return NULL;
	}
}

const char *session_coverage(const struct session *session, enum metric metric)
{
	if (!is_counted(session->counted, metric))
		return "not counted";
	if (metric == METRIC_COPIED)
		return coverage_of_copies(session);
	if (metric == METRIC_FORK_NS)
		return "clone and fork system calls that copied an address space; not vfork";
	if (metric == METRIC_DELAY_NS)
		return "copies after write faults, by the kernel's accounting";
	return session->bpf  ? coverage_with_bpf(metric) :
	       session->perf ? coverage_with_perf(session, metric) :
			       NULL;
}
