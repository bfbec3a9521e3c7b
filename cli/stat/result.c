/* SPDX-License-Identifier: MIT */
#include "cli/stat/result.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/stat/processes.h"
#include "cli/stat/session.h"
#include "cli/table.h"
#include "proc/keyed.h"
#include "proc/name.h"

#define MOST_LISTED 10 /* processes, in text */
#define VALUE_WIDTH 14
#define NAME_WIDTH  31

/* The kernel's name for a metric; NULL: shown in another way. */
static const struct {
	enum metric metric;
	const char *name;
} lines[] = {
	{ METRIC_COPIED, "pages copied" },
	{ METRIC_REUSED, "pages reused" },
	{ METRIC_PROTECTED, "writes to protected pages" },
	{ METRIC_SHARED_WRITES, "writes to shared pages" },
	{ METRIC_ZERO_FILLED, "pages zero-filled" },
	{ METRIC_FILE_COPIED, "pages copied from private files" },
	{ METRIC_FORKS, "forks" },
	{ METRIC_VFORKS, "of them vfork, sharing memory" },
	{ METRIC_THREADS, "threads" },
	{ METRIC_EXECS, "execs" },
	{ METRIC_MINOR_FAULTS, "minor faults" },
	{ METRIC_MAJOR_FAULTS, "major faults" },
};

#define LINES (sizeof(lines) / sizeof(lines[0]))

static void describe_processes(const struct stat_options *options, char *text, size_t size)
{
	if (options->tree)
		snprintf(text, size, "process %s and its descendants", options->tree);
	else
		snprintf(text, size, "process%s %s", strchr(options->pids, ',') ? "es" : "",
			 options->pids);
}

void result_target(const struct session *session, char *text, size_t size)
{
	char *const *word = session->options->command;
	char escaped[256];
	size_t used;

	if (!word && session->whole_system) {
		snprintf(text, size, "the whole system");
		return;
	}
	if (!word) {
		describe_processes(session->options, text, size);
		return;
	}
	snprintf(text, size, "%s'", session->whole_system ? "the whole system during " : "");
	for (; *word; word++) {
		used = strlen(text);
		proc_name_escape(*word, escaped, sizeof(escaped));
		snprintf(text + used, size - used, "%s%s", escaped, word[1] ? " " : "");
	}
	used = strlen(text);
	snprintf(text + used, size - used, "'");
}

/* --- several runs --- */

static double mean_of(const struct runs *runs, enum metric metric)
{
	double sum = 0;
	size_t i;

	for (i = 0; i < runs->count; i++)
		sum += (double)runs->results[i].totals.value[metric];
	return sum / (double)runs->count;
}

/* The standard error of the mean, as a share of it, as perf stat prints it. */
static double spread(const double *values, size_t count)
{
	double mean = 0, squares = 0;
	size_t i;

	for (i = 0; i < count; i++)
		mean += values[i] / (double)count;
	for (i = 0; i < count; i++)
		squares += (values[i] - mean) * (values[i] - mean);
	if (count < 2 || mean <= 0)
		return 0;
	return sqrt(squares / (double)(count - 1) / (double)count) / mean;
}

/* A run's figure; METRICS stands for the time elapsed. */
static double value_of(const struct result *result, enum metric metric)
{
	return (double)(metric == METRICS ? result->elapsed_ns : result->totals.value[metric]);
}

static double spread_of(const struct runs *runs, enum metric metric)
{
	double *values = output_realloc(NULL, runs->count * sizeof(double)), result;
	size_t i;

	for (i = 0; i < runs->count; i++)
		values[i] = value_of(&runs->results[i], metric);
	result = spread(values, runs->count);
	free(values);
	return result;
}

struct result result_mean(const struct runs *runs)
{
	struct result mean = runs->results[runs->count - 1];
	uint64_t elapsed = 0, p50 = 0, p99 = 0, sum = 0, forks = 0;
	size_t i;

	for (i = 0; i < METRICS; i++)
		mean.totals.value[i] = (uint64_t)(mean_of(runs, i) + 0.5);
	for (i = 0; i < runs->count; i++) {
		elapsed += runs->results[i].elapsed_ns;
		p50 += runs->results[i].fork_ns.p50;
		p99 += runs->results[i].fork_ns.p99;
		sum += runs->results[i].fork_ns.sum;
		forks += runs->results[i].fork_ns.count;
		if (runs->results[i].fork_ns.max > mean.fork_ns.max)
			mean.fork_ns.max = runs->results[i].fork_ns.max;
		if (i + 1 < runs->count)
			mean.lost += runs->results[i].lost;
	}
	mean.elapsed_ns = elapsed / runs->count;
	mean.fork_ns.p50 = p50 / runs->count;
	mean.fork_ns.p99 = p99 / runs->count;
	mean.fork_ns.sum = sum / runs->count;
	mean.fork_ns.count = forks / runs->count;
	mean.before = runs->results[0].before;
	return mean;
}

/* --- text --- */

static void print_line(FILE *stream, const char *value, const char *name, const char *ratio,
		       double deviation)
{
	fprintf(stream, "%*s  ", VALUE_WIDTH, value);
	if (ratio[0] || deviation > 0)
		fprintf(stream, "%-*s  # %s", NAME_WIDTH, name, ratio);
	else
		fputs(name, stream);
	if (deviation > 0)
		fprintf(stream, "%s( +- %.2f%% )", ratio[0] ? "  " : "", 100 * deviation);
	fputc('\n', stream);
}

/* "12.3 /s", "1,234 /s". */
static const char *format_rate(char text[UNIT_LENGTH], const struct result *result,
			       enum metric metric)
{
	double seconds = (double)result->elapsed_ns / 1e9;
	double rate = seconds > 0 ? (double)result->totals.value[metric] / seconds : 0;

	if (rate < 99.95)
		snprintf(text, UNIT_LENGTH, "%.1f", rate);
	else
		format_count(text, (uint64_t)(rate + 0.5));
	return text;
}

static void format_ratio(char *text, size_t size, const struct result *result, enum metric metric)
{
	const uint64_t *value = result->totals.value;
	uint64_t outcomes = value[METRIC_COPIED] + value[METRIC_REUSED];
	char bytes[UNIT_LENGTH], rate[UNIT_LENGTH];

	text[0] = '\0';
	if (!value[metric])
		return;
	format_rate(rate, result, metric);
	switch (metric) {
	case METRIC_COPIED:
	case METRIC_ZERO_FILLED:
	case METRIC_FILE_COPIED:
		snprintf(text, size, "%s /s, %s", rate,
			 format_bytes(bytes, value[metric] * PAGE_BYTES));
		break;
	case METRIC_REUSED:
		snprintf(text, size, "%s /s, %.1f %% not copied", rate,
			 100.0 * (double)value[metric] / (double)outcomes);
		break;
	default:
		snprintf(text, size, "%s /s", rate);
		break;
	}
}

/* Figures that are the sum of others, or that say nothing when they are 0, are left out. */
static bool is_shown(const struct result *result, enum metric metric)
{
	if (!is_counted(result->counted, metric))
		return false;
	if (metric == METRIC_PROTECTED)
		return !is_counted(result->counted, METRIC_REUSED);
	if (metric == METRIC_SHARED_WRITES || metric == METRIC_VFORKS ||
	    metric == METRIC_FILE_COPIED)
		return result->totals.value[metric] > 0;
	return true;
}

static void print_counts(FILE *stream, const struct result *mean, const struct runs *runs)
{
	char value[UNIT_LENGTH], ratio[128];
	size_t i;

	for (i = 0; i < LINES; i++) {
		if (!is_shown(mean, lines[i].metric))
			continue;
		format_ratio(ratio, sizeof(ratio), mean, lines[i].metric);
		print_line(stream, format_count(value, mean->totals.value[lines[i].metric]),
			   lines[i].name, ratio,
			   runs->count > 1 ? spread_of(runs, lines[i].metric) : 0);
	}
}

static void print_times(FILE *stream, const struct session *session, const struct result *mean)
{
	char value[UNIT_LENGTH], p99[UNIT_LENGTH], max[UNIT_LENGTH], ratio[160] = "";
	uint64_t delay = mean->totals.value[METRIC_DELAY_NS];
	uint64_t copied = mean->totals.value[METRIC_COPIED];

	if (is_counted(mean->counted, METRIC_FORK_NS) && mean->fork_ns.count) {
		if (mean->fork_ns.count > 1)
			snprintf(ratio, sizeof(ratio), "p99 %s, max %s",
				 format_ns(p99, mean->fork_ns.p99),
				 format_ns(max, mean->fork_ns.max));
		print_line(stream, format_ns(value, mean->fork_ns.p50),
			   ratio[0] ? "fork latency, median" : "fork latency", ratio, 0);
		if (ratio[0])
			print_line(stream, format_ns(value, mean->fork_ns.sum), "forking in all",
				   "", 0);
	}
	if (!is_counted(mean->counted, METRIC_DELAY_NS))
		return;
	ratio[0] = '\0';
	if (session_is_of_the_later(session))
		snprintf(ratio, sizeof(ratio), "by processes begun since");
	else if (copied)
		snprintf(ratio, sizeof(ratio), "%s a page", format_ns(p99, delay / copied));
	print_line(stream, format_ns(value, delay), "spent copying", ratio, 0);
}

/* Of the whole system: nobody else counts these. Those of faults only where they are rare. */
static void print_system(FILE *stream, const struct result *mean, size_t runs)
{
	static const struct {
		enum vmstat_counter counter;
		const char *name;
	} shown[] = {
		{ VMSTAT_PMD_SPLITS, "huge-page splits" },
		{ VMSTAT_KSM_COPIED, "KSM pages copied" },
		{ VMSTAT_SCANNED_KSWAPD, "pages scanned by kswapd" },
		{ VMSTAT_SCANNED_DIRECT, "pages scanned by tasks" },
		{ VMSTAT_RECLAIMED_KSWAPD, "pages reclaimed by kswapd" },
		{ VMSTAT_RECLAIMED_DIRECT, "pages reclaimed by tasks" },
		{ VMSTAT_SWAPPED_IN, "pages swapped in" },
		{ VMSTAT_SWAPPED_OUT, "pages swapped out" },
		{ VMSTAT_OOM_KILLS, "killed for want of memory" },
	};
	char value[UNIT_LENGTH];
	uint64_t delta;
	size_t i;

	for (i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
		if (vmstat_delta(&mean->before, &mean->after, shown[i].counter, &delta) && delta)
			print_line(stream, format_count(value, delta), shown[i].name,
				   runs > 1 ? "whole system, all runs" : "whole system", 0);
}

static int by_copies(const void *left, const void *right)
{
	const uint64_t *a = (*(struct process *const *)left)->counts.value;
	const uint64_t *b = (*(struct process *const *)right)->counts.value;
	static const enum metric keys[] = { METRIC_COPIED, METRIC_ZERO_FILLED, METRIC_REUSED,
					    METRIC_FORKS, METRIC_MINOR_FAULTS };
	size_t i;

	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (a[keys[i]] != b[keys[i]])
			return a[keys[i]] > b[keys[i]] ? -1 : 1;
	return 0;
}

static struct process **sorted_processes(const struct session *session, size_t *ret_count)
{
	size_t count = processes_count(session->processes), i;
	struct process **list = output_realloc(NULL, (count + 1) * sizeof(struct process *));

	for (i = 0; i < count; i++)
		list[i] = processes_at(session->processes, i);
	qsort(list, count, sizeof(struct process *), by_copies);
	*ret_count = count;
	return list;
}

static void add_cell(struct table *table, const struct session *session,
		     const struct process *process, enum metric metric)
{
	char value[UNIT_LENGTH];

	if (is_counted(session->counted_by_process, metric))
		table_cell(table, STYLE_NONE, "%s",
			   format_count(value, process->counts.value[metric]));
	else
		table_cell(table, STYLE_DIM, "-");
}

static void print_processes(FILE *stream, const struct session *session)
{
	static const struct table_column columns[] = {
		{ "PID", true },    { "FORKS", true },  { "COPIED", true }, { "REUSED", true },
		{ "ZEROED", true }, { "FAULTS", true }, { "", false },      { "COMMAND", false },
	};
	struct table *table = table_new(columns, sizeof(columns) / sizeof(columns[0]));
	char name[PROC_NAME_ROOM(PROCESS_COMMAND)];
	struct process **list;
	size_t count, i;

	list = sorted_processes(session, &count);
	for (i = 0; i < count && (i < MOST_LISTED || session->options->per_process); i++) {
		table_cell(table, STYLE_NONE, "%d", list[i]->pid);
		add_cell(table, session, list[i], METRIC_FORKS);
		add_cell(table, session, list[i], METRIC_COPIED);
		add_cell(table, session, list[i], METRIC_REUSED);
		add_cell(table, session, list[i], METRIC_ZERO_FILLED);
		add_cell(table, session, list[i], METRIC_MINOR_FAULTS);
		table_cell(table, STYLE_DIM, "%s", list[i]->ended ? "ended" : "");
		table_cell(table, STYLE_NONE, "%s",
			   proc_name_escape(list[i]->command, name, sizeof(name)));
	}
	table_print(table, stream);
	if (i < count)
		fprintf(stream, "and %zu more; --per-process lists them\n", count - i);
	table_free(table);
	free(list);
}

static void print_sharing(FILE *stream, const struct result *result)
{
	const struct sharing *sharing = &result->sharing;
	char rss[UNIT_LENGTH], pss[UNIT_LENGTH], uss[UNIT_LENGTH], at[UNIT_LENGTH];

	if (!sharing->processes)
		return;
	fprintf(stream, "\nmemory of %" PRIu64 " process%s at %s: RSS %s, PSS %s, USS %s\n",
		sharing->processes, sharing->processes == 1 ? "" : "es",
		format_ns(at, sharing->at_ns), format_bytes(rss, sharing->rss_bytes),
		format_bytes(pss, sharing->pss_bytes), format_bytes(uss, sharing->uss_bytes));
}

static void print_missing(FILE *stream, const struct session *session, const struct result *mean)
{
	static const struct {
		enum metric metric;
		const char *name;
	} wanted[] = {
		{ METRIC_COPIED, "pages copied" },
		{ METRIC_REUSED, "pages reused" },
		{ METRIC_ZERO_FILLED, "pages zero-filled" },
		{ METRIC_FORKS, "forks" },
		{ METRIC_FORK_NS, "fork latency" },
		{ METRIC_DELAY_NS, "time spent copying" },
	};
	char text[1024] = "";
	size_t used = 0, i;

	for (i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		if (!is_counted(mean->counted, wanted[i].metric))
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s",
						 used ? ", " : "", wanted[i].name);
	if (used && session->missing[0])
		snprintf(text + used, sizeof(text) - used, " (%s)", session->missing);
	if (used) {
		fputs("\nnot counted: ", stream);
		output_wrap(stream, 13, text);
	}
	if (mean->lost)
		fprintf(stream, "%s%" PRIu64 " events were lost: the figures are lower bounds%s\n",
			style(stream, STYLE_WARN), mean->lost, style(stream, STYLE_NONE));
}

static void print_elapsed(FILE *stream, const struct result *mean, const struct runs *runs)
{
	char text[UNIT_LENGTH];

	snprintf(text, sizeof(text), "%.9f", (double)mean->elapsed_ns / 1e9);
	fputc('\n', stream);
	print_line(stream, text, "seconds elapsed", "",
		   runs->count > 1 ? spread_of(runs, METRICS) : 0);
	if (!mean->has_exit_status || runs->count > 1)
		return;
	fprintf(stream, "%*ld.%06ld  seconds user\n", VALUE_WIDTH - 7, mean->usage.ru_utime.tv_sec,
		mean->usage.ru_utime.tv_usec);
	fprintf(stream, "%*ld.%06ld  seconds sys\n", VALUE_WIDTH - 7, mean->usage.ru_stime.tv_sec,
		mean->usage.ru_stime.tv_usec);
}

void result_print(FILE *stream, const struct session *session, const struct runs *runs)
{
	struct result mean = result_mean(runs);
	char target[512];

	result_target(session, target, sizeof(target));
	fprintf(stream, "\n%sCopy-on-write of %s%s (backend %s", style(stream, STYLE_BOLD), target,
		style(stream, STYLE_NONE), session->backend);
	if (runs->count > 1)
		fprintf(stream, "; mean of %zu runs", runs->count);
	fprintf(stream, "):\n\n");
	print_counts(stream, &mean, runs);
	print_times(stream, session, &mean);
	print_system(stream, &mean, runs->count);
	if (processes_count(session->processes) > 1 && runs->count == 1) {
		fputc('\n', stream);
		print_processes(stream, session);
	}
	print_sharing(stream, &mean);
	print_missing(stream, session, &mean);
	print_elapsed(stream, &mean, runs);
	fputc('\n', stream);
}
