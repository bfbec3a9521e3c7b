/* SPDX-License-Identifier: MIT */
/* What was found, as a table with its totals and where the numbers come from, and as JSON. */
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/ps/ps.h"
#include "cli/report.h"
#include "cli/table.h"
#include "proc/name.h"

#define LEAST_COMMAND 15 /* columns, however wide the numbers are */

const char *const ps_sort_names[] = {
	[PS_SORT_PSS] = "pss",       [PS_SORT_RSS] = "rss",         [PS_SORT_USS] = "uss",
	[PS_SORT_INSIDE] = "inside", [PS_SORT_OUTSIDE] = "outside", [PS_SORT_SWAP] = "swap",
	[PS_SORT_KSM] = "ksm",       [PS_SORT_THP] = "thp",         [PS_SORT_TABLES] = "tables",
	[PS_SORT_PID] = "pid",       [PS_SORT_COMMAND] = "command", NULL,
};

/* --- sorting --- */

static uint64_t sort_value(const struct ps_process *process, enum ps_sort key)
{
	const uint64_t values[] = {
		[PS_SORT_PSS] = process->pss,
		[PS_SORT_RSS] = process->rss,
		[PS_SORT_USS] = process->uss,
		[PS_SORT_INSIDE] = process->inside,
		[PS_SORT_OUTSIDE] = process->outside,
		[PS_SORT_SWAP] = process->swap,
		[PS_SORT_KSM] = process->ksm,
		[PS_SORT_THP] = process->thp,
		[PS_SORT_TABLES] = process->page_tables,
	};

	/* What is unknown comes last. */
	return values[key] == PS_UNKNOWN ? 0 : values[key] + 1;
}

static int compare(const void *a, const void *b, void *context)
{
	const struct ps_process *x = a, *y = b;
	enum ps_sort key = *(const enum ps_sort *)context;
	uint64_t x_value, y_value;
	int order = 0;

	if (key == PS_SORT_COMMAND) {
		order = strcmp(x->command, y->command);
	} else if (key != PS_SORT_PID) {
		x_value = sort_value(x, key);
		y_value = sort_value(y, key);
		order = (x_value < y_value) - (x_value > y_value);
	}
	return order ? order : (x->pid > y->pid) - (x->pid < y->pid);
}

/* Sizes descend, PIDs and names ascend. */
void ps_sort(struct ps_result *result, enum ps_sort key)
{
	if (result->count)
		qsort_r(result->processes, result->count, sizeof(*result->processes), compare,
			&key);
}

static bool is_shown(const struct ps_process *process)
{
	switch (process->state) {
	case PS_MEASURED:
	case PS_ESTIMATED:
	case PS_DENIED:
		return true;
	case PS_EMPTY:
		return process->asked;
	default:
		return false;
	}
}

/* --- text --- */

enum column {
	COLUMN_PID,
	COLUMN_RSS,
	COLUMN_PSS,
	COLUMN_USS,
	COLUMN_INSIDE,
	COLUMN_OUTSIDE,
	COLUMN_SWAP,
	COLUMN_KSM,
	COLUMN_THP,
	COLUMN_HUGE_TLB,
	COLUMN_TABLES,
	COLUMN_COMMAND,
	COLUMNS,
};

static const struct table_column titles[COLUMNS] = {
	[COLUMN_PID] = { "PID", true },          [COLUMN_RSS] = { "RSS", true },
	[COLUMN_PSS] = { "PSS", true },          [COLUMN_USS] = { "USS", true },
	[COLUMN_INSIDE] = { "shared in", true }, [COLUMN_OUTSIDE] = { "shared out", true },
	[COLUMN_SWAP] = { "swap", true },        [COLUMN_KSM] = { "KSM", true },
	[COLUMN_THP] = { "THP", true },          [COLUMN_HUGE_TLB] = { "hugetlb", true },
	[COLUMN_TABLES] = { "tables", true },    [COLUMN_COMMAND] = { "command", false },
};

static void fill_values(const struct ps_process *process, uint64_t values[COLUMNS])
{
	memset(values, 0, COLUMNS * sizeof(*values));
	values[COLUMN_RSS] = process->rss;
	values[COLUMN_PSS] = process->pss;
	values[COLUMN_USS] = process->uss;
	values[COLUMN_INSIDE] = process->inside;
	values[COLUMN_OUTSIDE] = process->outside;
	values[COLUMN_SWAP] = process->swap;
	values[COLUMN_KSM] = process->ksm;
	values[COLUMN_THP] = process->thp;
	values[COLUMN_HUGE_TLB] = process->huge_tlb;
	values[COLUMN_TABLES] = process->page_tables;
}

static bool is_zero_everywhere(const struct ps_result *result, enum column column)
{
	uint64_t values[COLUMNS];
	size_t i;

	for (i = 0; i < result->count; i++) {
		if (!is_shown(&result->processes[i]))
			continue;
		fill_values(&result->processes[i], values);
		if (values[column] && values[column] != PS_UNKNOWN)
			return false;
	}
	return true;
}

/* Columns of what most machines do not have are left out where all of it is zero. */
static bool is_needed(const struct ps_result *result, enum column column)
{
	switch (column) {
	case COLUMN_SWAP:
	case COLUMN_KSM:
	case COLUMN_THP:
	case COLUMN_HUGE_TLB:
		return !is_zero_everywhere(result, column);
	case COLUMN_INSIDE:
	case COLUMN_OUTSIDE:
		return result->backend == PS_PAGEMAP;
	default:
		return true;
	}
}

static void size_cell(struct table *table, enum style cell_style, uint64_t value)
{
	char unit[UNIT_LENGTH];

	if (value == PS_UNKNOWN)
		table_cell(table, STYLE_DIM, "-");
	else
		table_cell(table, cell_style, "%s", format_bytes(unit, value));
}

/* Of the program only the name: its directory would take the room of what tells processes apart. */
static const char *shown_command(const struct ps_process *process)
{
	const char *line = process->arguments ? process->arguments : process->command;
	const char *at, *name = line;

	for (at = line; line[0] == '/' && *at && *at != ' '; at++)
		if (at[0] == '/' && at[1] && at[1] != ' ')
			name = at + 1;
	return name;
}

static void add_row(struct table *table, const struct ps_process *process)
{
	const char *command = shown_command(process);
	uint64_t values[COLUMNS];
	enum column column;
	char name[1024];

	fill_values(process, values);
	for (column = 0; column < COLUMNS; column++)
		if (column == COLUMN_PID)
			table_cell(table, STYLE_NONE, "%d", (int)process->pid);
		else if (column == COLUMN_COMMAND)
			table_cell(table, STYLE_NONE, "%s",
				   proc_name_escape(command, name, sizeof(name)));
		else
			size_cell(table, STYLE_NONE, values[column]);
}

static void add_total(struct table *table, const struct ps_result *result)
{
	const struct ps_totals *totals = &result->totals;
	const uint64_t values[COLUMNS] = {
		[COLUMN_RSS] = totals->rss,           [COLUMN_PSS] = totals->pss,
		[COLUMN_USS] = totals->uss,           [COLUMN_SWAP] = totals->swap,
		[COLUMN_KSM] = totals->ksm,           [COLUMN_THP] = totals->thp,
		[COLUMN_HUGE_TLB] = totals->huge_tlb, [COLUMN_TABLES] = totals->page_tables,
	};
	enum column column;

	for (column = 0; column < COLUMNS; column++)
		if (column == COLUMN_PID)
			table_cell(table, STYLE_BOLD, "sum");
		else if (column == COLUMN_COMMAND)
			table_cell(table, STYLE_BOLD, "%zu process%s", result->measured,
				   result->measured == 1 ? "" : "es");
		/* Sums of what is shared would count it once for each who has it. */
		else if (column == COLUMN_INSIDE || column == COLUMN_OUTSIDE)
			table_cell(table, STYLE_NONE, "%s", "");
		else
			size_cell(table, STYLE_BOLD,
				  result->measured ? values[column] : PS_UNKNOWN);
}

static size_t print_rows(const struct ps_result *result, size_t limit)
{
	struct table *table = table_new(titles, COLUMNS);
	size_t shown = 0, hidden = 0, i;
	enum column column;

	for (column = 0; column < COLUMNS; column++)
		if (!is_needed(result, column))
			table_hide(table, column);
	for (i = 0; i < result->count; i++) {
		if (!is_shown(&result->processes[i]))
			continue;
		if (limit && shown == limit) {
			hidden++;
			continue;
		}
		add_row(table, &result->processes[i]);
		shown++;
	}
	add_total(table, result);
	table_set_width(table, output_columns(stdout), LEAST_COMMAND);
	table_print(table, stdout);
	table_free(table);
	return hidden;
}

static void print_estimate(const char *label, uint64_t value, uint64_t error, const char *remark)
{
	char unit[UNIT_LENGTH], error_unit[UNIT_LENGTH];

	printf("%-15s %s", label, format_bytes(unit, value));
	if (error)
		printf(" +- %s (99 %%)", format_bytes(error_unit, error));
	printf("  %s%s%s\n", style(stdout, STYLE_DIM), remark, style(stdout, STYLE_NONE));
}

static void print_totals(const struct ps_result *result)
{
	const struct ps_totals *totals = &result->totals;

	if (result->sampled)
		print_estimate("PSS", totals->pss, totals->pss_error,
			       "their part of what they map");
	if (!result->measured)
		return;
	if (totals->unique == PS_UNKNOWN) {
		printf("unique          unknown, at least the sum of PSS: %s\n",
		       result->captured ? "a captured tree has no frame numbers" :
					  "frame numbers need CAP_SYS_ADMIN");
		return;
	}
	print_estimate("unique", totals->unique, totals->unique_error,
		       "distinct pages, each counted once");
	print_estimate("shared outside", totals->outside, totals->outside_error,
		       "of these, mapped by others, too");
}

static const char *ps_backend_name(const struct ps_result *result)
{
	if (result->backend == PS_ROLLUP)
		return "smaps_rollup";
	return result->sampled ? "pagemap+kpagecount, sampled" : "pagemap+kpagecount";
}

static void print_source(const struct ps_result *result)
{
	const size_t others = result->denied + result->vanished + result->unreadable;

	printf("%s# %s; ", style(stdout, STYLE_DIM), ps_backend_name(result));
	if (result->sampled)
		printf("%.4g %% of the pages looked at", 100 * result->coverage);
	else if (others)
		printf("%zu of %zu processes measured", result->measured,
		       result->measured + others);
	else
		printf("all processes measured");
	printf("%s\n", style(stdout, STYLE_NONE));
	if (result->vanished)
		printf("# %zu ended meanwhile and are left out\n", result->vanished);
	if (result->unreadable)
		printf("# %zu left out: their files in /proc make no sense\n", result->unreadable);
	if (result->denied)
		printf("# of %zu only RSS could be had, in no sum; more needs root or "
		       "CAP_SYS_PTRACE\n",
		       result->denied);
}

void ps_print_text(const struct ps_result *result, size_t limit)
{
	size_t hidden = print_rows(result, limit);

	if (hidden)
		printf("# %zu more rows; their sizes are in the sum\n", hidden);
	print_totals(result);
	print_source(result);
}

/* --- JSON --- */

static uint64_t shared_bytes(const struct ps_process *process)
{
	if (process->rss == PS_UNKNOWN || process->uss == PS_UNKNOWN || process->uss > process->rss)
		return PS_UNKNOWN;
	return process->rss - process->uss;
}

static void add_process(json_object *list, const struct ps_process *process)
{
	json_object *row = report_add_object(list, NULL);
	bool empty = process->state == PS_EMPTY;

	report_add_signed(row, "pid", process->pid);
	report_add_signed(row, "ppid", process->ppid);
	report_add_string(row, "command", process->command);
	report_add_string(row, "arguments", process->arguments);
	report_add_known(row, "rss_bytes", empty ? 0 : process->rss);
	report_add_known(row, "pss_bytes", empty ? 0 : process->pss);
	report_add_known(row, "pss_error_bytes", process->pss_error);
	report_add_known(row, "uss_bytes", empty ? 0 : process->uss);
	report_add_known(row, "shared_bytes", empty ? 0 : shared_bytes(process));
	report_add_known(row, "shared_inside_bytes", empty ? 0 : process->inside);
	report_add_known(row, "shared_outside_bytes", empty ? 0 : process->outside);
	report_add_known(row, "swap_bytes", empty ? 0 : process->swap);
	report_add_known(row, "ksm_bytes", empty ? 0 : process->ksm);
	report_add_known(row, "thp_bytes", empty ? 0 : process->thp);
	report_add_known(row, "hugetlb_bytes", process->huge_tlb);
	report_add_known(row, "page_table_bytes", empty ? 0 : process->page_tables);
}

static void add_totals(json_object *report, const struct ps_result *result)
{
	json_object *total = report_add_object(report, "total");
	const struct ps_totals *totals = &result->totals;

	report_add_known(total, "rss_bytes", totals->rss);
	report_add_known(total, "pss_bytes", totals->pss);
	report_add_known(total, "uss_bytes", totals->uss);
	report_add_known(total, "unique_bytes", totals->unique);
	report_add_known(total, "shared_outside_bytes", totals->outside);
	/* Half the widths of the 99 % intervals of a sample; else 0. */
	report_add_known(total, "pss_error_bytes", totals->pss_error);
	report_add_known(total, "unique_error_bytes", totals->unique_error);
	report_add_known(total, "shared_outside_error_bytes", totals->outside_error);
	report_add_known(total, "swap_bytes", totals->swap);
	report_add_known(total, "ksm_bytes", totals->ksm);
	report_add_known(total, "thp_bytes", totals->thp);
	report_add_known(total, "hugetlb_bytes", totals->huge_tlb);
	report_add_known(total, "page_table_bytes", totals->page_tables);
}

bool ps_print_json(const struct ps_result *result, size_t limit)
{
	json_object *report = report_new("ps"), *list;
	size_t shown = 0, i;
	bool written;

	report_add_string(report, "backend", ps_backend_name(result));
	report_add_double(report, "coverage", result->coverage, 6);
	/* There are no events here; the processes that ended before they were measured are. */
	report_add_unsigned(report, "lost_events", result->vanished);
	report_add_unsigned(report, "measured", result->measured);
	report_add_unsigned(report, "denied", result->denied);
	report_add_unsigned(report, "vanished", result->vanished);
	report_add_unsigned(report, "unreadable", result->unreadable);
	list = report_add_array(report, "processes");
	for (i = 0; i < result->count && (!limit || shown < limit); i++) {
		if (!is_shown(&result->processes[i]))
			continue;
		add_process(list, &result->processes[i]);
		shown++;
	}
	add_totals(report, result);
	written = report_write(report, NULL);
	json_object_put(report);
	return written;
}
