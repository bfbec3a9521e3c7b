/* SPDX-License-Identifier: MIT */
/* The same as JSON: what was not counted is left out, and `coverage` says so. */
#include <string.h>

#include "cli/report.h"
#include "cli/stat/processes.h"
#include "cli/stat/result.h"
#include "cli/stat/session.h"

static const char *const keys[METRICS] = {
	[METRIC_FORKS] = "forks",
	[METRIC_VFORKS] = "vforks",
	[METRIC_THREADS] = "threads",
	[METRIC_EXECS] = "execs",
	[METRIC_FORK_NS] = "fork_ns",
	[METRIC_PROTECTED] = "protected_writes",
	[METRIC_SHARED_WRITES] = "shared_writes",
	[METRIC_COPIED] = "copied_pages",
	[METRIC_REUSED] = "reused_pages",
	[METRIC_ZERO_FILLED] = "zero_filled_pages",
	[METRIC_FILE_COPIED] = "file_copied_pages",
	[METRIC_DELAY_NS] = "delay_ns",
	[METRIC_MINOR_FAULTS] = "minor",
	[METRIC_MAJOR_FAULTS] = "major",
};

static void add(json_object *to, uint32_t counted, const struct counts *counts, enum metric metric)
{
	if (is_counted(counted, metric))
		report_add_unsigned(to, keys[metric], counts->value[metric]);
}

static json_object *add_cow(json_object *to, uint32_t counted, const struct counts *counts)
{
	json_object *cow = report_add_object(to, "cow");

	add(cow, counted, counts, METRIC_COPIED);
	add(cow, counted, counts, METRIC_REUSED);
	add(cow, counted, counts, METRIC_ZERO_FILLED);
	add(cow, counted, counts, METRIC_FILE_COPIED);
	add(cow, counted, counts, METRIC_PROTECTED);
	add(cow, counted, counts, METRIC_SHARED_WRITES);
	if (is_counted(counted, METRIC_COPIED))
		report_add_unsigned(cow, "copied_bytes", counts->value[METRIC_COPIED] * PAGE_BYTES);
	add(cow, counted, counts, METRIC_DELAY_NS);
	return cow;
}

static void add_faults(json_object *to, uint32_t counted, const struct counts *counts)
{
	json_object *faults = report_add_object(to, "faults");

	add(faults, counted, counts, METRIC_MINOR_FAULTS);
	add(faults, counted, counts, METRIC_MAJOR_FAULTS);
}

static void add_tasks(json_object *to, uint32_t counted, const struct counts *counts)
{
	add(to, counted, counts, METRIC_FORKS);
	add(to, counted, counts, METRIC_VFORKS);
	add(to, counted, counts, METRIC_THREADS);
	add(to, counted, counts, METRIC_EXECS);
}

static void add_fork_ns(json_object *to, const struct result *result)
{
	json_object *fork_ns;

	if (!is_counted(result->counted, METRIC_FORK_NS))
		return;
	fork_ns = report_add_object(to, "fork_ns");
	report_add_unsigned(fork_ns, "count", result->fork_ns.count);
	if (result->fork_ns.count) {
		report_add_unsigned(fork_ns, "p50", result->fork_ns.p50);
		report_add_unsigned(fork_ns, "p99", result->fork_ns.p99);
		report_add_unsigned(fork_ns, "max", result->fork_ns.max);
	}
	report_add_unsigned(fork_ns, "sum", result->fork_ns.sum);
}

static void add_process(json_object *list, const struct session *session,
			const struct process *process)
{
	json_object *object = report_add_object(list, NULL);
	const uint32_t counted = session->counted_by_process;
	json_object *fork_ns;

	report_add_signed(object, "pid", process->pid);
	report_add_signed(object, "ppid", process->parent);
	report_add_string(object, "command", process->command);
	report_add_bool(object, "ended", process->ended);
	add_tasks(object, counted, &process->counts);
	if (is_counted(counted, METRIC_FORK_NS)) {
		fork_ns = report_add_object(object, "fork_ns");
		report_add_unsigned(fork_ns, "max", process->fork_ns_max);
		report_add_unsigned(fork_ns, "sum", process->counts.value[METRIC_FORK_NS]);
	}
	add_cow(object, counted, &process->counts);
	if (is_counted(counted, METRIC_MINOR_FAULTS))
		add_faults(object, counted, &process->counts);
}

static void add_processes(json_object *to, const struct session *session)
{
	json_object *list = report_add_array(to, "processes");
	size_t i;

	for (i = 0; i < processes_count(session->processes); i++)
		add_process(list, session, processes_at(session->processes, i));
	report_add_unsigned(to, "processes_omitted", processes_omitted(session->processes));
}

static void add_coverage(json_object *to, const struct session *session)
{
	json_object *coverage = report_add_object(to, "coverage");
	const char *text;
	size_t i;

	report_add_string(coverage, "target",
			  session->whole_system ? "whole system" :
			  session->child        ? "command and descendants" :
						  "processes and their descendants from now on");
	for (i = 0; i < METRICS; i++) {
		text = session_coverage(session, i);
		if (text)
			report_add_string(coverage, keys[i], text);
	}
	report_add_string(coverage, "huge_splits", "whole system (thp_split_pmd)");
	report_add_string(coverage, "missing", session->missing[0] ? session->missing : NULL);
}

static void add_system(json_object *to, const struct result *result)
{
	json_object *system = report_add_object(to, "system");
	uint64_t delta;
	size_t i;

	for (i = 0; i < VMSTAT_COUNTERS; i++)
		if (vmstat_delta(&result->before, &result->after, i, &delta))
			report_add_unsigned(system, vmstat_names[i], delta);
}

static void add_sharing(json_object *to, const struct sharing *sharing)
{
	json_object *object;

	if (!sharing->processes) {
		report_add_string(to, "sharing", NULL);
		return;
	}
	object = report_add_object(to, "sharing");
	report_add_unsigned(object, "at_ns", sharing->at_ns);
	report_add_unsigned(object, "processes", sharing->processes);
	report_add_unsigned(object, "refused", sharing->refused);
	report_add_unsigned(object, "rss_bytes", sharing->rss_bytes);
	report_add_unsigned(object, "pss_bytes", sharing->pss_bytes);
	report_add_unsigned(object, "uss_bytes", sharing->uss_bytes);
}

void result_report(json_object *to, const struct session *session, const struct result *result,
		   bool with_processes)
{
	json_object *cow;
	uint64_t delta;

	report_add_string(to, "backend", session->backend);
	add_coverage(to, session);
	report_add_unsigned(to, "lost_events", result->lost);
	report_add_unsigned(to, "elapsed_ns", result->elapsed_ns);
	add_tasks(to, result->counted, &result->totals);
	add_fork_ns(to, result);
	cow = add_cow(to, result->counted, &result->totals);
	if (vmstat_delta(&result->before, &result->after, VMSTAT_PMD_SPLITS, &delta))
		report_add_unsigned(cow, "huge_splits", delta);
	add_faults(to, result->counted, &result->totals);
	add_system(to, result);
	if (with_processes)
		add_processes(to, session);
	add_sharing(to, &result->sharing);
	if (result->has_exit_status) {
		report_add_signed(to, "max_rss_bytes", result->usage.ru_maxrss * 1024);
		report_add_signed(to, "exit_status", result->exit_status);
	} else {
		report_add_string(to, "exit_status", NULL);
	}
}

void interval_report(json_object *to, const struct session *session, const struct counts *delta,
		     uint64_t at_ns, const char *rises)
{
	json_object *object = report_add_object(to, NULL);

	report_add_unsigned(object, "at_ns", at_ns);
	add_tasks(object, session->counted, delta);
	add_cow(object, session->counted, delta);
	add_faults(object, session->counted, delta);
	report_add_string(object, "rises", rises[0] ? rises : NULL);
}
