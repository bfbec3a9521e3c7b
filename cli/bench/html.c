/* SPDX-License-Identifier: MIT */
/*
 * Documents as one page, DIR/index.html, that needs nothing else: style, plots' library (Chart.js,
 * built in where Debian's libjs-chart.js was there) and data are in it. Everything but the plots is
 * plain HTML, so it reads without scripts, too.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <json-c/json.h>

#include "cli/bench/embedded.h"
#include "cli/bench/print.h"
#include "cli/output.h"

static void put(FILE *out, const char *text)
{
	for (; *text; text++)
		switch (*text) {
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		case '&':
			fputs("&amp;", out);
			break;
		case '"':
			fputs("&quot;", out);
			break;
		default:
			fputc(*text, out);
		}
}

/* <tag class="...">text</tag>; class NULL: none */
static void put_element(FILE *out, const char *tag, const char *class, const char *text)
{
	if (class)
		fprintf(out, "<%s class=\"%s\">", tag, class);
	else
		fprintf(out, "<%s>", tag);
	put(out, text);
	fprintf(out, "</%s>", tag);
}

/* The class of a verdict: what style.css knows. */
static const char *outcome_class(const char *outcome)
{
	return strcmp(outcome, "holds") == 0         ? "verdict holds" :
	       strcmp(outcome, "holds in part") == 0 ? "verdict part" :
	       strcmp(outcome, "does not hold") == 0 ? "verdict not" :
	       strcmp(outcome, "failed") == 0        ? "verdict not" :
						       "verdict none";
}

/* --- rows --- */

struct table_of {
	FILE *out;
	const char *tag; /* of cells apart from labels */
};

static void put_cell(enum row_cell cell, const char *text, void *context)
{
	static const char *const classes[] = {
		[CELL_LABEL] = NULL,
		[CELL_FIGURE] = "figure",
		[CELL_SPREAD] = "spread",
		[CELL_SAID] = "said",
	};
	const struct table_of *table = context;

	if (cell == CELL_LABEL)
		fputs("<tr>", table->out);
	put_element(table->out, cell == CELL_LABEL ? "th" : table->tag, classes[cell], text);
	if (cell == CELL_SAID)
		fputs("</tr>\n", table->out);
}

static void put_rows(const struct documents *documents, const struct across *experiment, FILE *out)
{
	struct table_of head = { out, "th" }, body = { out, "td" };

	fputs("<div class=\"scroll\"><table><thead>", out);
	titles_each_cell(documents, experiment, put_cell, &head);
	fputs("</thead><tbody>\n", out);
	rows_each_cell(experiment, put_cell, &body);
	fputs("</tbody></table></div>\n", out);
}

/* --- what was found --- */

static void put_parts(json_object *experiment, FILE *out)
{
	size_t i;

	fputs("<ul class=\"parts\">\n", out);
	for (i = 0; i < document_count(experiment, "parts"); i++) {
		json_object *part = document_element(experiment, "parts", i);
		const char *verdict = document_verdict(part);

		fputs("<li>", out);
		put_element(out, "span", outcome_class(verdict), verdict);
		fputs(" ", out);
		put_element(out, "b", NULL, document_text(part, "claim"));
		fputs(": ", out);
		put(out, document_text(part, "reason"));
		fputs("</li>\n", out);
	}
	fputs("</ul>\n", out);
}

static void put_notes(json_object *experiment, FILE *out)
{
	size_t i;

	for (i = 0; i < document_count(experiment, "notes"); i++) {
		fputs("<p class=\"note\">Note: ", out);
		put(out, document_line(experiment, "notes", i));
		fputs("</p>\n", out);
	}
	if (!document_count(experiment, "checks"))
		return;
	fputs("<details><summary>Facts that were checked</summary><ul>\n", out);
	for (i = 0; i < document_count(experiment, "checks"); i++) {
		json_object *check = document_element(experiment, "checks", i);
		bool holds = json_object_get_boolean(document_get(check, "holds"));

		fputs(holds ? "<li>ok: " : "<li class=\"wrong\">NOT OK: ", out);
		put(out, document_text(check, "what"));
		fputs("</li>\n", out);
	}
	fputs("</ul></details>\n", out);
}

static void put_outcome(const struct documents *documents, const struct across *experiment,
			size_t i, FILE *out)
{
	const char *outcome = document_outcome(experiment->at[i]);

	fputs("<p>", out);
	if (documents->count > 1)
		put_element(out, "b", NULL, documents->labels[i]);
	fputs(" ", out);
	put_element(out, "span", outcome_class(outcome), outcome);
	fputs(" ", out);
	put(out, document_why(experiment->at[i]));
	fputs("</p>\n", out);
	put_parts(experiment->at[i], out);
	put_notes(experiment->at[i], out);
}

static void put_plots(json_object *experiment, FILE *out)
{
	size_t i;

	for (i = 0; i < document_count(experiment, "plots"); i++) {
		json_object *plot = document_element(experiment, "plots", i);

		fputs("<figure class=\"plot\" data-experiment=\"", out);
		put(out, document_text(experiment, "name"));
		fputs("\" data-plot=\"", out);
		put(out, document_text(plot, "name"));
		fputs("\"><figcaption>", out);
		put(out, document_text(plot, "title"));
		fputs("</figcaption><div><canvas role=\"img\"></canvas></div></figure>\n", out);
	}
}

static void put_experiment(const struct documents *documents, const struct across *experiment,
			   void *context)
{
	FILE *out = context;
	size_t i;

	fputs("<section id=\"", out);
	put(out, document_text(experiment->first, "name"));
	fputs("\">\n<h2>", out);
	put(out, document_text(experiment->first, "title"));
	fputs(" <code>", out);
	put(out, document_text(experiment->first, "name"));
	fputs("</code></h2>\n<blockquote><p>", out);
	put(out, document_text(experiment->first, "claim"));
	fputs("</p><footer>", out);
	put(out, document_text(experiment->first, "source"));
	fputs("</footer></blockquote>\n", out);
	for (i = 0; i < experiment->count; i++)
		if (experiment->at[i])
			put_outcome(documents, experiment, i, out);
	put_plots(experiment->first, out);
	put_element(out, "p", "method", document_text(experiment->first, "method"));
	fputs("\n", out);
	if (document_count(experiment->first, "rows"))
		put_rows(documents, experiment, out);
	fputs("</section>\n", out);
}

/* --- the page --- */

static void put_summary_row(const struct documents *documents, const struct across *experiment,
			    void *context)
{
	FILE *out = context;
	const char *outcome;
	size_t i;

	fputs("<tr><th><a href=\"#", out);
	put(out, document_text(experiment->first, "name"));
	fputs("\">", out);
	put(out, document_text(experiment->first, "title"));
	fputs("</a></th>", out);
	for (i = 0; i < documents->count; i++) {
		outcome = experiment->at[i] ? document_outcome(experiment->at[i]) : "-";
		fputs("<td>", out);
		put_element(out, "span", outcome_class(outcome), outcome);
		fputs("</td>", out);
	}
	fputs("</tr>\n", out);
}

static void put_summary(const struct documents *documents, FILE *out)
{
	size_t i;

	fputs("<table class=\"summary\"><thead><tr><th></th>", out);
	for (i = 0; i < documents->count; i++)
		put_element(out, "th", NULL,
			    documents->count > 1 ? documents->labels[i] : "does it hold here?");
	fputs("</tr></thead><tbody>\n", out);
	documents_each_experiment(documents, put_summary_row, out);
	fputs("</tbody></table>\n", out);
}

static void put_head(const struct documents *documents, FILE *out)
{
	char *machine, *settings;
	size_t i;

	fprintf(out,
		"<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
		"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
		"<meta name=\"color-scheme\" content=\"light dark\">\n"
		"<title>What is said of copy-on-write, tried</title>\n"
		"<link rel=\"icon\" href=\"data:,\">\n<style>\n%s</style>\n</head>\n<body>\n"
		"<header><h1>What is said of copy-on-write, tried</h1>\n"
		"<p>Claims that texts make about copy-on-write on Linux, each measured on one "
		"machine by <code>cow bench</code>, beside libcow.</p>\n",
		embedded_style);
	for (i = 0; i < documents->count; i++) {
		machine = machine_line(documents->at[i]);
		settings = settings_line(documents->at[i]);
		fputs("<p class=\"machine\">", out);
		put(out, machine);
		fputs("<br>", out);
		put(out, settings);
		fputs("</p>\n", out);
		free(machine);
		free(settings);
	}
	put_summary(documents, out);
	fputs("</header>\n<main>\n", out);
}

/* In a script's text nothing may look like its end. */
static void put_json(FILE *out, json_object *object)
{
	const char *text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN);

	for (; text && *text; text++) {
		if (*text == '<')
			fputs("\\u003c", out);
		else
			fputc(*text, out);
	}
}

static void put_data(const struct documents *documents, FILE *out)
{
	size_t i;

	fputs("</main>\n<script type=\"application/json\" id=\"data\">[", out);
	for (i = 0; i < documents->count; i++) {
		fprintf(out, "%s{\"label\":", i ? "," : "");
		json_object *label = json_object_new_string(documents->labels[i]);

		put_json(out, label);
		json_object_put(label);
		fputs(",\"document\":", out);
		put_json(out, documents->at[i]);
		fputs("}", out);
	}
	fprintf(out, "]</script>\n<script>%s</script>\n<script>\n%s</script>\n</body>\n</html>\n",
		embedded_chart, embedded_plots);
}

static bool make_directory(const char *directory)
{
	if (mkdir(directory, 0777) == 0 || errno == EEXIST)
		return true;
	complain_errno(-errno, "cannot make the directory %s", directory);
	return false;
}

bool write_html(const struct documents *documents, const char *directory)
{
	struct report_text page;
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/index.html", directory) >= (int)sizeof(path)) {
		complain("--html: %s is too long a path", directory);
		return false;
	}
	if (!make_directory(directory))
		return false;
	report_text_begin(&page);
	put_head(documents, page.out);
	documents_each_experiment(documents, put_experiment, page.out);
	put_data(documents, page.out);
	return report_text_end(&page, path);
}
