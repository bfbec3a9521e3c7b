/* SPDX-License-Identifier: MIT */
/* Documents as text: a header, a block for each experiment, and at the end the verdicts. */
#include "cli/bench/print.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "cli/output.h"
#include "cli/table.h"

const char *row_figure(json_object *row, const char *member, char text[BENCH_FIGURE_LENGTH])
{
	double value = document_number(row, member);

	if (isnan(value))
		return "-";
	return bench_format(text, bench_unit_find(document_text(row, "unit")), value);
}

static bool is_single(json_object *row)
{
	double n = document_number(row, "n");

	return isnan(n) || n < 2;
}

static const char *bytes_of(json_object *object, const char *key, char text[UNIT_LENGTH])
{
	double bytes = document_number(object, key);

	return isnan(bytes) || bytes < 0 || bytes > 1e18 ? "?" :
							   format_bytes(text, (uint64_t)bytes);
}

__attribute__((format(printf, 1, 2))) static char *print_line(const char *format, ...)
{
	va_list arguments;
	char *text;

	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0) {
		complain("out of memory");
		exit(1);
	}
	va_end(arguments);
	return text;
}

char *machine_line(json_object *document)
{
	json_object *machine = document_get(document, "machine");
	char memory[UNIT_LENGTH], page[UNIT_LENGTH], huge[UNIT_LENGTH];

	return print_line("Linux %s %s, %.0f x %s, %s of memory, pages of %s and %s (%s)",
			  document_text(machine, "kernel"), document_text(machine, "architecture"),
			  document_number(machine, "cpus"), document_text(machine, "cpu"),
			  bytes_of(machine, "memory_bytes", memory),
			  bytes_of(machine, "page_bytes", page),
			  bytes_of(machine, "huge_page_bytes", huge),
			  document_text(machine, "huge_pages"));
}

char *settings_line(json_object *document)
{
	return print_line(
		"cow %s, scale %s, %.0f run%s after %.0f that do not count, seed %.0f, %s",
		document_text(document, "cow_version"), document_text(document, "scale"),
		document_number(document, "runs"), document_number(document, "runs") < 2 ? "" : "s",
		document_number(document, "warm_ups"), document_number(document, "seed"),
		document_text(document, "time"));
}

/* --- paragraphs --- */

/* Words as they fit, behind so many columns, the first of which hold "first". */
static void print_wrapped(enum style first_style, const char *first, const char *text,
			  unsigned int indent)
{
	printf("%s%-*s%s", style(stdout, first_style), (int)indent, first,
	       style(stdout, STYLE_NONE));
	output_wrap(stdout, indent, text);
}

void print_header(const struct documents *documents)
{
	char *machine, *settings;
	size_t i;

	for (i = 0; i < documents->count; i++) {
		machine = machine_line(documents->at[i]);
		settings = settings_line(documents->at[i]);
		if (documents->count > 1)
			printf("%s%s%s\n", style(stdout, STYLE_BOLD), documents->labels[i],
			       style(stdout, STYLE_NONE));
		output_wrap(stdout, 0, machine);
		output_wrap(stdout, 0, settings);
		free(machine);
		free(settings);
	}
}

/* --- tables --- */

static enum style outcome_style(const char *outcome)
{
	return strcmp(outcome, "holds") == 0         ? STYLE_GOOD :
	       strcmp(outcome, "does not hold") == 0 ? STYLE_BAD :
	       strcmp(outcome, "failed") == 0        ? STYLE_BAD :
	       strcmp(outcome, "holds in part") == 0 ? STYLE_WARN :
						       STYLE_DIM;
}

static const char *const spread_names[] = { "mean", "sigma", "min", "max" };

#define SPREADS (sizeof(spread_names) / sizeof(spread_names[0]))

static void look_for_spread(const struct across *row, void *context)
{
	bool *spread = context;

	*spread |= row->count == 1 && !is_single(row->first);
}

static bool have_spread(const struct across *experiment)
{
	bool spread = false;

	across_each(experiment, "rows", "key", look_for_spread, &spread);
	return spread;
}

void titles_each_cell(const struct documents *documents, const struct across *experiment,
		      row_cell_fn put, void *context)
{
	const bool spread = have_spread(experiment);
	size_t i;

	put(CELL_LABEL, "", context);
	for (i = 0; i < documents->count; i++)
		put(CELL_FIGURE,
		    documents->count > 1 ? documents->labels[i] :
		    spread               ? "median" :
					   "measured",
		    context);
	for (i = 0; spread && i < SPREADS; i++)
		put(CELL_SPREAD, spread_names[i], context);
	put(CELL_SAID, "the text says", context);
}

struct cells {
	row_cell_fn put;
	void *context;
	bool spread;
};

static void each_cell(const struct across *row, void *context)
{
	const char *skipped = document_text(row->first, "skipped");
	const struct cells *cells = context;
	char figure[BENCH_FIGURE_LENGTH], *said;
	size_t i;

	cells->put(CELL_LABEL, document_text(row->first, "label"), cells->context);
	for (i = 0; i < row->count; i++)
		cells->put(CELL_FIGURE, row_figure(row->at[i], "median", figure), cells->context);
	for (i = 0; cells->spread && i < SPREADS; i++)
		cells->put(CELL_SPREAD,
			   is_single(row->first) ? "" :
						   row_figure(row->first, spread_names[i], figure),
			   cells->context);
	said = print_line("%s%s", skipped[0] ? "skipped: " : "",
			  skipped[0] ? skipped : document_text(row->first, "text"));
	cells->put(CELL_SAID, said, cells->context);
	free(said);
}

void rows_each_cell(const struct across *experiment, row_cell_fn put, void *context)
{
	struct cells cells = { put, context, have_spread(experiment) };

	across_each(experiment, "rows", "key", each_cell, &cells);
}

struct titles {
	struct table_column columns[DOCUMENTS_MAX + SPREADS + 2];
	size_t count;
};

static void add_title(enum row_cell cell, const char *text, void *context)
{
	struct titles *titles = context;

	titles->columns[titles->count++] =
		(struct table_column){ text, cell == CELL_FIGURE || cell == CELL_SPREAD };
}

static void add_cell(enum row_cell cell, const char *text, void *context)
{
	static const enum style styles[] = {
		[CELL_LABEL] = STYLE_NONE,
		[CELL_FIGURE] = STYLE_BOLD,
		[CELL_SPREAD] = STYLE_DIM,
		[CELL_SAID] = STYLE_DIM,
	};

	table_cell(context, styles[cell], "%s%s", cell == CELL_LABEL ? "  " : "", text);
}

static void print_rows(const struct documents *documents, const struct across *experiment)
{
	struct titles titles = { .count = 0 };
	struct table *table;

	titles_each_cell(documents, experiment, add_title, &titles);
	table = table_new(titles.columns, titles.count);
	rows_each_cell(experiment, add_cell, table);
	table_print(table, stdout);
	table_free(table);
}

/* --- an experiment --- */

static void print_parts(json_object *experiment)
{
	size_t i;

	for (i = 0; i < document_count(experiment, "parts"); i++) {
		json_object *part = document_element(experiment, "parts", i);
		const char *verdict = document_verdict(part);
		char *text = print_line("%s: %s", document_text(part, "claim"),
					document_text(part, "reason"));
		char heading[32];

		snprintf(heading, sizeof(heading), "     %.20s", verdict);
		print_wrapped(outcome_style(verdict), heading, text, 19);
		free(text);
	}
}

static void print_said(json_object *experiment)
{
	size_t i;

	for (i = 0; i < document_count(experiment, "notes"); i++)
		print_wrapped(STYLE_DIM, "  note: ", document_line(experiment, "notes", i), 8);
	for (i = 0; i < document_count(experiment, "checks"); i++) {
		json_object *check = document_element(experiment, "checks", i);
		bool holds = json_object_get_boolean(document_get(check, "holds"));

		printf("  %s%s%s  %s\n", style(stdout, holds ? STYLE_GOOD : STYLE_BAD),
		       holds ? "ok    " : "NOT OK", style(stdout, STYLE_NONE),
		       document_text(check, "what"));
	}
}

static void print_outcome(const struct documents *documents, const struct across *experiment)
{
	size_t i;

	for (i = 0; i < experiment->count; i++) {
		const char *outcome = document_outcome(experiment->at[i]), *why;

		if (!experiment->at[i])
			continue;
		if (experiment->count > 1)
			printf("  %s:\n", documents->labels[i]);
		print_said(experiment->at[i]);
		printf("  => %s%s%s", style(stdout, outcome_style(outcome)), outcome,
		       style(stdout, STYLE_NONE));
		why = document_why(experiment->at[i]);
		printf("%s%s\n", why[0] ? ": " : "", why);
		print_parts(experiment->at[i]);
	}
}

void print_experiment(const struct documents *documents, const struct across *experiment,
		      void *context)
{
	char *source;

	(void)context;
	printf("\n%s%s%s: %s\n", style(stdout, STYLE_BOLD),
	       document_text(experiment->first, "name"), style(stdout, STYLE_NONE),
	       document_text(experiment->first, "title"));
	print_wrapped(STYLE_DIM, "  claim   ", document_text(experiment->first, "claim"), 10);
	source = print_line("(%s)", document_text(experiment->first, "source"));
	print_wrapped(STYLE_DIM, "", source, 10);
	free(source);
	print_wrapped(STYLE_DIM, "  method  ", document_text(experiment->first, "method"), 10);
	if (document_count(experiment->first, "rows"))
		print_rows(documents, experiment);
	print_outcome(documents, experiment);
}

/* --- the end --- */

static void add_summary(const struct documents *documents, const struct across *experiment,
			void *context)
{
	struct table *table = context;
	const char *outcome;
	size_t i;

	table_cell(table, STYLE_NONE, "  %s", document_text(experiment->first, "name"));
	for (i = 0; i < documents->count; i++) {
		outcome = experiment->at[i] ? document_outcome(experiment->at[i]) : "-";
		table_cell(table, outcome_style(outcome), "%s", outcome);
	}
	table_cell(table, STYLE_NONE, "%s", document_text(experiment->first, "title"));
}

static void print_harness(json_object *document)
{
	json_object *harness = document_get(document, "harness");
	char overhead[UNIT_LENGTH], shortest[UNIT_LENGTH];

	if (isnan(document_number(harness, "percent")))
		return;
	printf("Timing takes %s, %.3g %% of the shortest interval timed (%s).\n",
	       format_ns(overhead, (uint64_t)document_number(harness, "overhead_ns")),
	       document_number(harness, "percent"),
	       format_ns(shortest, (uint64_t)document_number(harness, "shortest_interval_ns")));
}

void print_summary(const struct documents *documents)
{
	struct table_column columns[DOCUMENTS_MAX + 2] = { { NULL, false } };
	struct table *table;
	size_t i;

	for (i = 0; i < documents->count; i++)
		columns[1 + i].title = documents->count > 1 ? documents->labels[i] : NULL;
	printf("\n%sDo the claims hold here?%s\n", style(stdout, STYLE_BOLD),
	       style(stdout, STYLE_NONE));
	table = table_new(columns, documents->count + 2);
	documents_each_experiment(documents, add_summary, table);
	table_print(table, stdout);
	table_free(table);
	for (i = 0; i < documents->count; i++)
		print_harness(documents->at[i]);
}
