/* SPDX-License-Identifier: MIT */
/* Documents as Markdown (with GitHub's tables), and as comma-separated values (RFC 4180). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "cli/bench/print.h"
#include "cli/output.h"

/* --- Markdown --- */

/* What would end a cell, or begin something, is taken for what it is. */
static void put(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (strchr("\\`*_[]<>|#", *text))
			fputc('\\', out);
		fputc(*text == '\n' ? ' ' : *text, out);
	}
}

static void put_cell(FILE *out, const char *text)
{
	fputs(" ", out);
	put(out, text);
	fputs(" |", out);
}

static void put_row_cell(enum row_cell cell, const char *text, void *context)
{
	if (cell == CELL_LABEL)
		fputs("|", context);
	put_cell(context, text);
	if (cell == CELL_SAID)
		fputc('\n', context);
}

/* The line below the titles, which aligns the columns. */
static void put_alignment(enum row_cell cell, const char *text, void *context)
{
	(void)text;
	fputs(cell == CELL_LABEL                         ? "|---|" :
	      cell == CELL_FIGURE || cell == CELL_SPREAD ? "---:|" :
							   "---|\n",
	      context);
}

static void put_rows(const struct documents *documents, const struct across *experiment, FILE *out)
{
	fputc('\n', out);
	titles_each_cell(documents, experiment, put_row_cell, out);
	titles_each_cell(documents, experiment, put_alignment, out);
	rows_each_cell(experiment, put_row_cell, out);
}

static void put_parts(json_object *experiment, FILE *out)
{
	size_t i;

	for (i = 0; i < document_count(experiment, "parts"); i++) {
		json_object *part = document_element(experiment, "parts", i);

		fprintf(out, "- **%s**: ", document_verdict(part));
		put(out, document_text(part, "claim"));
		fputs(" -- ", out);
		put(out, document_text(part, "reason"));
		fputc('\n', out);
	}
	for (i = 0; i < document_count(experiment, "notes"); i++) {
		fputs("- Note: ", out);
		put(out, document_line(experiment, "notes", i));
		fputc('\n', out);
	}
}

static void put_experiment(const struct documents *documents, const struct across *experiment,
			   void *context)
{
	FILE *out = context;
	size_t i;

	fprintf(out, "\n## %s: ", document_text(experiment->first, "name"));
	put(out, document_text(experiment->first, "title"));
	fputs("\n\n> ", out);
	put(out, document_text(experiment->first, "claim"));
	fputs("\n>\n> -- ", out);
	put(out, document_text(experiment->first, "source"));
	fputs("\n\n", out);
	put(out, document_text(experiment->first, "method"));
	fputc('\n', out);
	if (document_count(experiment->first, "rows"))
		put_rows(documents, experiment, out);
	for (i = 0; i < experiment->count; i++) {
		const char *why = document_why(experiment->at[i]);

		if (!experiment->at[i])
			continue;
		fputs("\n", out);
		if (documents->count > 1)
			fprintf(out, "%s: ", documents->labels[i]);
		fprintf(out, "**%s**", document_outcome(experiment->at[i]));
		if (why[0]) {
			fputs(": ", out);
			put(out, why);
		}
		fputs("\n\n", out);
		put_parts(experiment->at[i], out);
	}
}

static void put_summary_row(const struct documents *documents, const struct across *experiment,
			    void *context)
{
	FILE *out = context;
	size_t i;

	fprintf(out, "| [%s](#%s) |", document_text(experiment->first, "name"),
		document_text(experiment->first, "name"));
	put_cell(out, document_text(experiment->first, "title"));
	for (i = 0; i < documents->count; i++)
		put_cell(out, experiment->at[i] ? document_outcome(experiment->at[i]) : "-");
	fputc('\n', out);
}

static void put_head(const struct documents *documents, FILE *out)
{
	char *machine, *settings;
	size_t i;

	fputs("# What is said of copy-on-write, tried\n\n", out);
	for (i = 0; i < documents->count; i++) {
		machine = machine_line(documents->at[i]);
		settings = settings_line(documents->at[i]);
		fputs("- ", out);
		put(out, machine);
		fputs("; ", out);
		put(out, settings);
		fputc('\n', out);
		free(machine);
		free(settings);
	}
	fputs("\n| experiment | |", out);
	for (i = 0; i < documents->count; i++)
		put_cell(out, documents->count > 1 ? documents->labels[i] : "does the claim hold?");
	fputs("\n|---|---|", out);
	for (i = 0; i < documents->count; i++)
		fputs("---|", out);
	fputc('\n', out);
	documents_each_experiment(documents, put_summary_row, out);
}

bool write_markdown(const struct documents *documents, const char *path)
{
	struct report_text text;

	report_text_begin(&text);
	put_head(documents, text.out);
	documents_each_experiment(documents, put_experiment, text.out);
	return report_text_end(&text, path);
}

/* --- CSV --- */

static void put_field(FILE *out, const char *text, bool last)
{
	bool quoted = strpbrk(text, ",\"\r\n");

	if (quoted)
		fputc('"', out);
	for (; *text; text++) {
		if (*text == '"')
			fputc('"', out);
		fputc(*text, out);
	}
	fputs(quoted ? "\"" : "", out);
	fputs(last ? "\r\n" : ",", out);
}

static void put_number(FILE *out, json_object *row, const char *member)
{
	double value = document_number(row, member);
	char text[400] = "";

	if (!isnan(value))
		snprintf(text, sizeof(text), "%.10g", value);
	put_field(out, text, false);
}

static void put_csv_rows(const char *label, json_object *experiment, FILE *out)
{
	static const char *const numbers[] = { "n", "median", "mean", "sigma", "min", "max" };
	json_object *row;
	size_t i, j;

	for (i = 0; i < document_count(experiment, "rows"); i++) {
		row = document_element(experiment, "rows", i);
		put_field(out, label, false);
		put_field(out, document_text(experiment, "name"), false);
		put_field(out, document_outcome(experiment), false);
		put_field(out, document_text(row, "key"), false);
		put_field(out, document_text(row, "label"), false);
		put_field(out, document_text(row, "unit"), false);
		for (j = 0; j < sizeof(numbers) / sizeof(numbers[0]); j++)
			put_number(out, row, numbers[j]);
		put_field(out, document_text(row, "text"), false);
		put_field(out, document_text(row, "skipped"), true);
	}
}

bool write_csv(const struct documents *documents, const char *path)
{
	struct report_text text;
	size_t i, j;

	report_text_begin(&text);
	fputs("kernel,experiment,verdict,key,label,unit,n,", text.out);
	fputs("median,mean,sigma,min,max,text,skipped\r\n", text.out);
	for (i = 0; i < documents->count; i++)
		for (j = 0; j < document_count(documents->at[i], "experiments"); j++)
			put_csv_rows(documents->labels[i],
				     document_element(documents->at[i], "experiments", j),
				     text.out);
	return report_text_end(&text, path);
}
