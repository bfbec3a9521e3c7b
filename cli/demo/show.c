/* SPDX-License-Identifier: MIT */
/*
 * A side's rounds are summed up: latencies of all of them in one distribution, the largest of the
 * peaks, the sum of the times.
 */
#include "cli/demo/show.h"

#include <stdarg.h>
#include <string.h>

#include "cli/output.h"
#include "cli/report.h"
#include "cli/table.h"

enum { LINE_WIDTH = 80, LABEL_WIDTH = 10, BUSY_PERCENT = 10 };

struct summary {
	struct histogram stall, near, export, writes;
	uint64_t cuts, window_ns, cpu_ns, waited_ns, extra_bytes, baseline_bytes, samples;
};

static const char *const side_names[SIDES] = { [SIDE_LIBCOW] = "libcow", [SIDE_FORK] = "fork" };

static void add_round(struct summary *summary, const struct round *round)
{
	uint64_t extra = round->peak_bytes - round->baseline_bytes;
	size_t i;

	for (i = 0; i < round->cuts; i++) {
		histogram_add(&summary->stall, round->cut[i].stall_ns);
		histogram_add(&summary->near, round->cut[i].near_ns);
		histogram_add(&summary->export, round->cut[i].export_ns);
	}
	histogram_merge(&summary->writes, &round->writes);
	summary->cuts += round->cuts;
	summary->window_ns += round->window_ns;
	summary->cpu_ns += round->cpu_ns;
	summary->waited_ns += round->waited_ns;
	summary->samples += round->samples;
	if (extra > summary->extra_bytes)
		summary->extra_bytes = extra;
	if (round->baseline_bytes > summary->baseline_bytes)
		summary->baseline_bytes = round->baseline_bytes;
}

static void sum_up(struct demo *demo, struct summary summaries[SIDES])
{
	unsigned int side, round;

	memset(summaries, 0, SIDES * sizeof(summaries[0]));
	for (side = 0; side < SIDES; side++)
		for (round = 0; round < DEMO_ROUNDS; round++)
			add_round(&summaries[side], &demo->shared->rounds[side][round]);
}

static double ratio(uint64_t value, uint64_t by)
{
	return by ? (double)value / (double)by : 0;
}

static uint64_t per_second(const struct summary *summary)
{
	return (uint64_t)(ratio(summary->writes.total, summary->window_ns) * (double)NS_PER_S);
}

/* A paragraph: its label, then words up to the width of a terminal. */
__attribute__((format(printf, 3, 4))) static void say(struct demo *demo, const char *label,
						      const char *format, ...)
{
	int column = fprintf(demo->out, "%-*s", LABEL_WIDTH, label), length;
	va_list arguments;
	char text[1024], *word;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	for (word = text; *word; word += length + (word[length] == ' ')) {
		length = (int)strcspn(word, " ");
		if (column + length + 1 > LINE_WIDTH && column > LABEL_WIDTH)
			column = fprintf(demo->out, "\n%*s", LABEL_WIDTH, "") - 1;
		column += fprintf(demo->out, "%s%.*s", column > LABEL_WIDTH ? " " : "", length,
				  word);
	}
	fputc('\n', demo->out);
	fflush(demo->out);
}

void show_machine(struct demo *demo, const struct machine *machine, const char *sqlite)
{
	char unit[UNIT_LENGTH];

	say(demo, "machine", "%s %s %s; %ld CPUs%s%s; pages of %s%s%s; judge: sqlite3 %s",
	    machine->kernel.sysname, machine->kernel.release, machine->kernel.machine,
	    machine->cpus, machine->cpu[0] ? ": " : "", machine->cpu,
	    format_bytes(unit, machine->page_bytes), machine->huge_pages[0] ? ", huge pages: " : "",
	    machine->huge_pages, sqlite);
}

void show_start(struct demo *demo)
{
	char rows[UNIT_LENGTH];

	if (demo->options->database)
		say(demo, "data", "loading a copy of %s ...", demo->options->database);
	else
		say(demo, "data", "walking the file system of /, for at most %s files ...",
		    format_count(rows, demo->options->rows));
}

static void show_source(struct demo *demo)
{
	const struct demo_data *data = &demo->shared->data;
	char rows[UNIT_LENGTH], other[UNIT_LENGTH], touched[UNIT_LENGTH];

	if (demo->options->database)
		say(demo, "",
		    "a copy of %s: %s rows in %s tables; in the copy, counters for %s of the rows "
		    "of the largest%s",
		    demo->options->database, format_count(rows, data->source_rows),
		    format_count(other, data->source_tables),
		    format_count(touched, data->shape.rows),
		    data->had_demo_tables ? " (an earlier demo's are replaced)" : "");
	else
		say(demo, "",
		    "%s files of this machine%s; %s could not be read, %s vanished meanwhile",
		    format_count(rows, data->source_rows),
		    data->out_of_time                        ? " (found until the time was up)" :
		    data->source_rows >= demo->options->rows ? " (as many as --rows allows)" :
							       "",
		    format_count(other, data->unreadable), format_count(touched, data->vanished));
}

void show_data(struct demo *demo)
{
	const struct demo_data *data = &demo->shared->data;
	char bytes[UNIT_LENGTH], page[UNIT_LENGTH], count[UNIT_LENGTH];

	show_source(demo);
	say(demo, "", "with %s accounts it is a database of %s, in pages of %s",
	    format_count(count, data->shape.accounts), format_bytes(bytes, data->bytes),
	    format_bytes(page, data->page_size));
	say(demo, "load", "a transaction changes 2 accounts and %d rows of %s, and adds 1 transfer",
	    MODEL_TOUCHES, data->table);
}

void show_round(struct demo *demo, enum side side)
{
	const struct round *round = &demo->shared->rounds[side][demo->round];
	char count[UNIT_LENGTH], time[UNIT_LENGTH];

	char label[32];

	snprintf(label, sizeof(label), "round %u", demo->round + 1);
	say(demo, label, "%s: %s transactions in %s, %zu %s", side_names[side],
	    format_count(count, round->writes.total), format_ns(time, round->window_ns),
	    round->cuts, side == SIDE_LIBCOW ? "snapshots exported" : "children wrote their copy");
}

static void add_row(struct table *table, const char *what, const char *left, const char *right)
{
	table_cell(table, STYLE_NONE, "%s", what);
	table_cell(table, STYLE_BOLD, "%s", left);
	table_cell(table, STYLE_NONE, "%s", right);
}

static void add_quantile(struct table *table, const char *what, const struct histogram *left,
			 const struct histogram *right, double share)
{
	char texts[SIDES][UNIT_LENGTH];

	add_row(table, what, format_ns(texts[0], histogram_quantile(left, share)),
		format_ns(texts[1], histogram_quantile(right, share)));
}

static void add_numbers(struct table *table, const struct summary summaries[SIDES])
{
	const struct summary *left = &summaries[SIDE_LIBCOW], *right = &summaries[SIDE_FORK];
	char texts[SIDES][UNIT_LENGTH];

	add_row(table, "writes per second", format_count(texts[0], per_second(left)),
		format_count(texts[1], per_second(right)));
	add_row(table, "process before the first copy (PSS)",
		format_bytes(texts[0], left->baseline_bytes),
		format_bytes(texts[1], right->baseline_bytes));
	add_row(table, "peak extra memory (PSS)", format_bytes(texts[0], left->extra_bytes),
		format_bytes(texts[1], right->extra_bytes));
	add_row(table, "CPU time, all threads and children", format_ns(texts[0], left->cpu_ns),
		format_ns(texts[1], right->cpu_ns));
	add_row(table, "time the writer waited for a CPU", format_ns(texts[0], left->waited_ns),
		format_ns(texts[1], right->waited_ns));
	add_row(table, "CPU time for a write",
		format_ns(texts[0], (uint64_t)ratio(left->cpu_ns, left->writes.total)),
		format_ns(texts[1], (uint64_t)ratio(right->cpu_ns, right->writes.total)));
}

static void print_table(struct demo *demo, const struct summary summaries[SIDES])
{
	static const struct table_column columns[] = { { "", false },
						       { "libcow", true },
						       { "fork()", true } };
	const struct summary *left = &summaries[SIDE_LIBCOW], *right = &summaries[SIDE_FORK];
	struct table *table = table_new(columns, 3);
	char texts[SIDES][UNIT_LENGTH];

	add_row(table, "copies taken and written to files", format_count(texts[0], left->cuts),
		format_count(texts[1], right->cuts));
	add_quantile(table, "stall: cow_snapshot() | fork(), p50", &left->stall, &right->stall, .5);
	add_quantile(table, "                                max", &left->stall, &right->stall, 1);
	add_quantile(table, "slowest write near a copy,      p50", &left->near, &right->near, .5);
	add_quantile(table, "                                max", &left->near, &right->near, 1);
	add_quantile(table, "latency of a write,             p50", &left->writes, &right->writes,
		     .5);
	add_quantile(table, "                                p99", &left->writes, &right->writes,
		     .99);
	add_quantile(table, "                              p99.9", &left->writes, &right->writes,
		     .999);
	add_quantile(table, "                                max", &left->writes, &right->writes,
		     1);
	add_quantile(table, "time to write a copy to a file, p50", &left->export, &right->export,
		     .5);
	add_numbers(table, summaries);
	table_print(table, demo->out);
	table_free(table);
}

/* On a machine that is busy with something else the slowest writes tell of that alone. */
static void warn_if_busy(struct demo *demo, const struct summary summaries[SIDES])
{
	double left = 100 *
		      ratio(summaries[SIDE_LIBCOW].waited_ns, summaries[SIDE_LIBCOW].window_ns),
	       right = 100 * ratio(summaries[SIDE_FORK].waited_ns, summaries[SIDE_FORK].window_ns);

	if (left < BUSY_PERCENT && right < BUSY_PERCENT)
		return;
	fprintf(demo->out,
		"\n%sThe CPUs were busy with other work:%s the writer waited for one "
		"%.0f %% of the\n"
		"time beside libcow, %.0f %% beside fork(). The slowest writes, and writes per\n"
		"second, tell of that; compare again on an idle machine.\n",
		style(demo->out, STYLE_WARN), style(demo->out, STYLE_NONE), left, right);
}

void show_results(struct demo *demo)
{
	static struct summary summaries[SIDES];
	const struct histogram *series[SIDES];
	static const char *const names[SIDES] = { "libcow", "fork()" };

	sum_up(demo, summaries);
	fputc('\n', demo->out);
	print_table(demo, summaries);
	fputs("\nA write is a transaction; \"near\" is from the copy to 10 ms after it. Memory is\n"
	      "the highest sum over the process and its children, sampled 20 times a second,\n"
	      "less what it was before the first copy; the page cache of the written files is\n"
	      "in neither. The writer never pauses: the side that writes more pages shares\n"
	      "fewer.\n",
	      demo->out);
	warn_if_busy(demo, summaries);
	fputs("\nLatency of every write:\n", demo->out);
	series[SIDE_LIBCOW] = &summaries[SIDE_LIBCOW].writes;
	series[SIDE_FORK] = &summaries[SIDE_FORK].writes;
	histogram_print_ns(demo->out, series, names, SIDES);
	fflush(demo->out);
}

/* A line for each kind; what a single proof found follows where there is but one, or it failed. */
static void show_kind(struct demo *demo, enum proof_kind kind)
{
	const struct proof_list *list = &demo->shared->proofs;
	size_t held = 0, total = 0, i;
	bool ok;

	for (i = 0; i < list->count; i++) {
		held += list->items[i].kind == kind && list->items[i].ok;
		total += list->items[i].kind == kind;
	}
	ok = total > 0 && held == total;
	fprintf(demo->out, "%s%s%s  %3zu of %-3zu %-15s  %s\n",
		style(demo->out, ok ? STYLE_GOOD : STYLE_BAD), ok ? "ok  " : "FAIL",
		style(demo->out, STYLE_NONE), held, total, proof_kind_name(kind),
		proof_kind_claim(kind));
	for (i = 0; i < list->count; i++)
		if (list->items[i].kind == kind && (total == 1 || !list->items[i].ok))
			say(demo, "", "%s%s%s", total == 1 ? "" : list->items[i].name,
			    total == 1 ? "" : ": ", list->items[i].detail);
}

void show_proofs(struct demo *demo)
{
	const struct proof_list *list = &demo->shared->proofs;
	size_t held = 0, i;
	int kind;

	fputs("\nProofs:\n", demo->out);
	for (kind = 0; kind < PROOF_KINDS; kind++)
		show_kind(demo, (enum proof_kind)kind);
	for (i = 0; i < list->count; i++)
		held += list->items[i].ok;
	fprintf(demo->out, "%s%zu of %zu proofs hold%s%s\n",
		style(demo->out, proofs_hold(list) ? STYLE_GOOD : STYLE_BAD), held, list->count,
		list->overflow ? "; there were more than can be listed" : "",
		style(demo->out, STYLE_NONE));
	fflush(demo->out);
}

static void add_ns(json_object *to, const char *key, uint64_t ns)
{
	report_add_double(to, key, (double)ns / 1000, 3);
}

static void add_seconds(json_object *to, const char *key, uint64_t ns)
{
	report_add_double(to, key, (double)ns / (double)NS_PER_S, 3);
}

/* So that a reader sees how much the rounds of a side differ. */
static void add_rounds(json_object *object, const struct round rounds[DEMO_ROUNDS])
{
	json_object *array = report_add_array(object, "rounds"), *item;
	static struct summary summary;
	unsigned int i;

	for (i = 0; i < DEMO_ROUNDS; i++) {
		memset(&summary, 0, sizeof(summary));
		add_round(&summary, &rounds[i]);
		item = report_add_object(array, NULL);
		add_seconds(item, "seconds", summary.window_ns);
		report_add_unsigned(item, "writes", summary.writes.total);
		report_add_unsigned(item, "copies", summary.cuts);
		add_ns(item, "stall_us", histogram_quantile(&summary.stall, .5));
		report_add_unsigned(item, "extra_bytes", summary.extra_bytes);
		add_seconds(item, "cpu_s", summary.cpu_ns);
		add_seconds(item, "waited_s", summary.waited_ns);
	}
}

static void add_side(struct demo *demo, json_object *report, enum side side,
		     const struct summary *summary)
{
	json_object *object = report_add_object(report, side_names[side]), *writes;

	add_ns(object, "stall_us", histogram_quantile(&summary->stall, .5));
	add_ns(object, "stall_max_us", summary->stall.max);
	add_ns(object, "near_write_us", histogram_quantile(&summary->near, .5));
	add_ns(object, "near_write_max_us", summary->near.max);
	writes = report_add_object(object, "write_us");
	add_ns(writes, "p50", histogram_quantile(&summary->writes, .5));
	add_ns(writes, "p99", histogram_quantile(&summary->writes, .99));
	add_ns(writes, "p999", histogram_quantile(&summary->writes, .999));
	add_ns(writes, "max", summary->writes.max);
	report_add_unsigned(object, "extra_bytes", summary->extra_bytes);
	add_seconds(object, "cpu_s", summary->cpu_ns);
	add_seconds(object, "waited_s", summary->waited_ns);
	add_seconds(object, "seconds", summary->window_ns);
	report_add_unsigned(object, "writes", summary->writes.total);
	report_add_unsigned(object, "copies", summary->cuts);
	add_ns(object, "export_us", histogram_quantile(&summary->export, .5));
	report_add_unsigned(object, "baseline_bytes", summary->baseline_bytes);
	report_add_unsigned(object, "memory_samples", summary->samples);
	add_rounds(object, demo->shared->rounds[side]);
}

static void add_proofs(struct demo *demo, json_object *report)
{
	const struct proof_list *list = &demo->shared->proofs;
	json_object *array = report_add_array(report, "proofs"), *object;
	size_t i;

	for (i = 0; i < list->count; i++) {
		object = report_add_object(array, NULL);
		report_add_string(object, "name", list->items[i].name);
		report_add_bool(object, "ok", list->items[i].ok);
		report_add_string(object, "detail", list->items[i].detail);
	}
}

static void add_export(struct demo *demo, json_object *array, const struct cut *cut)
{
	json_object *object = report_add_object(array, NULL);

	report_add_string(object, "name", cut->name);
	report_add_string(object, "path", demo->options->keep ? cut->path : NULL);
	report_add_unsigned(object, "bytes", cut->bytes);
	report_add_unsigned(object, "transactions", cut->transactions);
}

static void add_exports(struct demo *demo, json_object *report)
{
	json_object *array = report_add_array(report, "exports");
	const struct round *round;
	unsigned int i;
	size_t j;

	for (i = 0; i < DEMO_ROUNDS; i++) {
		round = &demo->shared->rounds[SIDE_LIBCOW][i];
		for (j = 0; j < round->cuts; j++)
			add_export(demo, array, &round->cut[j]);
	}
	add_export(demo, array, &demo->shared->past);
	add_export(demo, array, &demo->shared->restored);
	add_export(demo, array, &demo->shared->stored);
}

static void add_data(struct demo *demo, json_object *report)
{
	const struct demo_data *data = &demo->shared->data;
	json_object *object = report_add_object(report, "data");

	report_add_string(object, "source", demo->options->database);
	report_add_unsigned(object, "rows", data->source_rows);
	report_add_unsigned(object, "tables", data->source_tables);
	report_add_unsigned(object, "unreadable", data->unreadable);
	report_add_unsigned(object, "vanished", data->vanished);
	report_add_bool(object, "out_of_time", data->out_of_time);
	report_add_unsigned(object, "bytes", data->bytes);
	report_add_unsigned(object, "page_size", data->page_size);
	report_add_unsigned(object, "accounts", data->shape.accounts);
	report_add_unsigned(object, "touchable_rows", data->shape.rows);
}

json_object *show_json(struct demo *demo, const struct machine *machine, const char *sqlite)
{
	static struct summary summaries[SIDES];
	json_object *report = report_new("demo");
	char kernel[sizeof(machine->kernel)];
	int side;

	sum_up(demo, summaries);
	snprintf(kernel, sizeof(kernel), "%s %s %s", machine->kernel.sysname,
		 machine->kernel.release, machine->kernel.machine);
	report_add_string(report, "kernel", kernel);
	report_add_word(report, "cpu", machine->cpu);
	report_add_signed(report, "cpus", machine->cpus);
	report_add_unsigned(report, "page_size", machine->page_bytes);
	report_add_word(report, "huge_pages", machine->huge_pages);
	report_add_string(report, "sqlite3", sqlite);
	add_data(demo, report);
	for (side = 0; side < SIDES; side++)
		add_side(demo, report, (enum side)side, &summaries[side]);
	add_proofs(demo, report);
	add_exports(demo, report);
	return report;
}
