/* SPDX-License-Identifier: MIT */
/*
 * Rows, checks, notes and verdicts of one experiment, and statistics over a row's samples. All
 * texts are copied into the result and live as long as it does. Quantiles are interpolated between
 * neighbours; sigma is that of a sample (n - 1).
 */
#include "cli/bench/result.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"

struct stored_row {
	struct bench_row row;
	const char *skipped; /* why there are no values */
	double *values;      /* as taken */
	double *sorted;
	size_t count;
};

struct check {
	const char *what;
	bool holds;
};

struct part {
	const char *what, *reason;
	enum bench_verdict verdict;
};

/* A growing array: its elements, how many, and room for how many. */
#define LIST(type)                  \
	struct {                    \
		type *at;           \
		size_t count, room; \
	}

struct bench_result {
	LIST(struct stored_row) rows;
	LIST(struct check) checks;
	LIST(struct part) parts;
	LIST(const char *) notes;
	LIST(char *) texts;
	const char *skipped, *failed;
	const char *run_error; /* of the last program that was run */
};

#define APPEND(list, ...)                                                                \
	do {                                                                             \
		if ((list)->count == (list)->room) {                                     \
			(list)->room = (list)->room ? 2 * (list)->room : 16;             \
			(list)->at = output_realloc((list)->at,                          \
						    (list)->room * sizeof(*(list)->at)); \
		}                                                                        \
		(list)->at[(list)->count++] = __VA_ARGS__;                               \
	} while (0)

struct bench_result *bench_result_new(void)
{
	struct bench_result *result = output_realloc(NULL, sizeof(*result));

	*result = (struct bench_result){ 0 };
	return result;
}

void bench_result_free(struct bench_result *result)
{
	size_t i;

	if (!result)
		return;
	for (i = 0; i < result->rows.count; i++) {
		free(result->rows.at[i].values);
		free(result->rows.at[i].sorted);
	}
	for (i = 0; i < result->texts.count; i++)
		free(result->texts.at[i]);
	free(result->rows.at);
	free(result->checks.at);
	free(result->parts.at);
	free(result->notes.at);
	free(result->texts.at);
	free(result);
}

/* --- texts --- */

__attribute__((format(printf, 2, 0))) static const char *
keep_text(struct bench *bench, const char *format, va_list arguments)
{
	char *text;

	if (vasprintf(&text, format, arguments) < 0) {
		complain("out of memory");
		exit(1);
	}
	APPEND(&bench->result->texts, text);
	return text;
}

const char *bench_text(struct bench *bench, const char *format, ...)
{
	va_list arguments;
	const char *text;

	va_start(arguments, format);
	text = keep_text(bench, format, arguments);
	va_end(arguments);
	return text;
}

static const char *keep(struct bench *bench, const char *text)
{
	return text ? bench_text(bench, "%s", text) : NULL;
}

/* --- samples --- */

void bench_samples_add(struct bench_samples *samples, double value)
{
	if (samples->count == samples->room) {
		samples->room = samples->room ? 2 * samples->room : 16;
		samples->values = output_realloc(samples->values,
						 samples->room * sizeof(*samples->values));
	}
	samples->values[samples->count++] = value;
}

void bench_samples_free(struct bench_samples *samples)
{
	free(samples->values);
	*samples = (struct bench_samples){ 0 };
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double quantile(const struct stored_row *row, double share)
{
	double at = share * (double)(row->count - 1);
	size_t low = (size_t)at;
	double part = at - (double)low;

	if (low + 1 >= row->count)
		return row->sorted[row->count - 1];
	return row->sorted[low] + part * (row->sorted[low + 1] - row->sorted[low]);
}

static double mean(const struct stored_row *row)
{
	double sum = 0;
	size_t i;

	for (i = 0; i < row->count; i++)
		sum += row->values[i];
	return sum / (double)row->count;
}

static double sigma(const struct stored_row *row)
{
	double center = mean(row), sum = 0;
	size_t i;

	for (i = 0; i < row->count; i++)
		sum += (row->values[i] - center) * (row->values[i] - center);
	return row->count > 1 ? sqrt(sum / (double)(row->count - 1)) : 0;
}

/* --- rows --- */

static const struct stored_row *find(const struct bench *bench, const char *key)
{
	const struct bench_result *result = bench->result;
	size_t i;

	for (i = 0; i < result->rows.count; i++)
		if (strcmp(result->rows.at[i].row.key, key) == 0)
			return result->rows.at[i].count ? &result->rows.at[i] : NULL;
	return NULL;
}

static struct stored_row *append_row(struct bench *bench, const struct bench_row *row)
{
	struct stored_row stored = { .row = *row };

	stored.row.key = keep(bench, row->key);
	stored.row.label = keep(bench, row->label ? row->label : row->key);
	stored.row.text = keep(bench, row->text);
	stored.row.plot = keep(bench, row->plot);
	stored.row.series = keep(bench, row->series);
	APPEND(&bench->result->rows, stored);
	return &bench->result->rows.at[bench->result->rows.count - 1];
}

static void set_values(struct stored_row *row, const double *values, size_t count)
{
	row->values = output_realloc(NULL, count * sizeof(*values));
	row->sorted = output_realloc(NULL, count * sizeof(*values));
	memcpy(row->values, values, count * sizeof(*values));
	memcpy(row->sorted, values, count * sizeof(*values));
	qsort(row->sorted, count, sizeof(*values), compare);
	row->count = count;
}

static bool all_finite(const struct bench_samples *samples)
{
	size_t i;

	for (i = 0; i < samples->count; i++)
		if (!isfinite(samples->values[i]))
			return false;
	return samples->count > 0;
}

void bench_add(struct bench *bench, const struct bench_row *row,
	       const struct bench_samples *samples)
{
	if (bench_over(bench))
		return;
	if (!all_finite(samples)) {
		bench_fail(bench, 0, "no figure for %s", row->key);
		return;
	}
	set_values(append_row(bench, row), samples->values, samples->count);
}

void bench_add_value(struct bench *bench, const struct bench_row *row, double value)
{
	const struct bench_samples samples = { .values = &value, .count = 1 };

	bench_add(bench, row, &samples);
}

void bench_add_skipped(struct bench *bench, const struct bench_row *row, const char *format, ...)
{
	va_list arguments;

	if (bench_over(bench))
		return;
	va_start(arguments, format);
	append_row(bench, row)->skipped = keep_text(bench, format, arguments);
	va_end(arguments);
}

void bench_add_ratio(struct bench *bench, const struct bench_row *row, const char *numerator,
		     const char *denominator)
{
	const struct stored_row *top = find(bench, numerator), *bottom = find(bench, denominator);
	struct bench_samples samples = { 0 };
	struct bench_row ratio = *row;
	size_t i;

	if (bench_over(bench) || !top || !bottom)
		return;
	assert(top->count == bottom->count);
	for (i = 0; i < top->count; i++)
		bench_samples_add(&samples, top->values[i] / bottom->values[i]);
	ratio.unit = BENCH_RATIO;
	bench_add(bench, &ratio, &samples);
	bench_samples_free(&samples);
}

/* --- other things to be said --- */

void bench_check(struct bench *bench, bool holds, const char *format, ...)
{
	va_list arguments;

	if (bench_over(bench))
		return;
	va_start(arguments, format);
	APPEND(&bench->result->checks,
	       (struct check){ keep_text(bench, format, arguments), holds });
	va_end(arguments);
}

void bench_note(struct bench *bench, const char *format, ...)
{
	va_list arguments;

	if (bench_over(bench))
		return;
	va_start(arguments, format);
	APPEND(&bench->result->notes, keep_text(bench, format, arguments));
	va_end(arguments);
}

void bench_skip(struct bench *bench, const char *format, ...)
{
	va_list arguments;

	if (bench_over(bench))
		return;
	va_start(arguments, format);
	bench->result->skipped = keep_text(bench, format, arguments);
	va_end(arguments);
}

void bench_fail(struct bench *bench, int error, const char *format, ...)
{
	va_list arguments;
	const char *text;

	if (bench_over(bench))
		return;
	va_start(arguments, format);
	text = keep_text(bench, format, arguments);
	va_end(arguments);
	bench->result->failed = error ? bench_text(bench, "%s: %s", text, strerror(-error)) : text;
}

bool bench_over(const struct bench *bench)
{
	return bench->result->skipped || bench->result->failed;
}

const char *bench_result_failure(const struct bench_result *result)
{
	return result->failed;
}

void bench_keep_error(struct bench *bench, const char *line)
{
	bench->result->run_error = keep(bench, line);
}

const char *bench_run_error(const struct bench *bench)
{
	return bench->result->run_error ? bench->result->run_error : "it said nothing";
}

/* --- judging --- */

double bench_median(const struct bench *bench, const char *key)
{
	const struct stored_row *row = find(bench, key);

	return row ? quantile(row, 0.5) : NAN;
}

double bench_min(const struct bench *bench, const char *key)
{
	const struct stored_row *row = find(bench, key);

	return row ? row->sorted[0] : NAN;
}

double bench_max(const struct bench *bench, const char *key)
{
	const struct stored_row *row = find(bench, key);

	return row ? row->sorted[row->count - 1] : NAN;
}

bool bench_is_above(const struct bench *bench, const char *key, const char *other)
{
	const struct stored_row *above = find(bench, key), *below = find(bench, other);

	return above && below && quantile(above, 0.25) > quantile(below, 0.75);
}

void bench_judge(struct bench *bench, const char *part, enum bench_verdict verdict,
		 const char *format, ...)
{
	va_list arguments;

	if (bench_over(bench))
		return;
	va_start(arguments, format);
	APPEND(&bench->result->parts,
	       (struct part){ keep(bench, part), keep_text(bench, format, arguments), verdict });
	va_end(arguments);
}

enum bench_verdict bench_result_verdict(const struct bench_result *result)
{
	size_t i, held = 0, refuted = 0, judged = 0;

	for (i = 0; i < result->parts.count; i++) {
		held += result->parts.at[i].verdict == BENCH_HOLDS;
		refuted += result->parts.at[i].verdict == BENCH_DOES_NOT_HOLD;
		judged += result->parts.at[i].verdict != BENCH_NOT_JUDGED;
	}
	if (!judged)
		return BENCH_NOT_JUDGED;
	return held == judged    ? BENCH_HOLDS :
	       refuted == judged ? BENCH_DOES_NOT_HOLD :
				   BENCH_HOLDS_IN_PART;
}

/* What does not hold is what a reader wants to know first. */
const char *bench_result_reason(struct bench *bench)
{
	static const enum bench_verdict order[] = { BENCH_DOES_NOT_HOLD, BENCH_HOLDS_IN_PART,
						    BENCH_HOLDS };
	const struct bench_result *result = bench->result;
	const char *reason = NULL;
	size_t i, j;

	for (i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		for (j = 0; j < result->parts.count; j++) {
			const struct part *part = &result->parts.at[j];

			if (part->verdict != order[i])
				continue;
			reason = reason ? bench_text(bench, "%s; %s: %s", reason, part->what,
						     part->reason) :
					  bench_text(bench, "%s: %s", part->what, part->reason);
		}
	return reason;
}

/* --- names and figures --- */

const char *bench_verdict_name(enum bench_verdict verdict)
{
	static const char *const names[] = {
		[BENCH_HOLDS] = "holds",
		[BENCH_HOLDS_IN_PART] = "holds in part",
		[BENCH_DOES_NOT_HOLD] = "does not hold",
	};

	return names[verdict];
}

static const char *const unit_names[] = {
	[BENCH_NS] = "ns",
	[BENCH_BYTES] = "bytes",
	[BENCH_PAGES] = "pages",
	[BENCH_COUNT] = "count",
	[BENCH_RATIO] = "ratio",
	[BENCH_PERCENT] = "percent",
	[BENCH_PER_SECOND] = "per second",
};

const char *bench_unit_name(enum bench_unit unit)
{
	return unit_names[unit];
}

enum bench_unit bench_unit_find(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(unit_names) / sizeof(unit_names[0]); i++)
		if (strcmp(unit_names[i], name) == 0)
			return (enum bench_unit)i;
	return BENCH_COUNT;
}

/* Three significant digits, and thousands apart. */
static void format_plain(char *text, double value, const char *unit)
{
	char digits[UNIT_LENGTH];

	if (value >= 999.5)
		snprintf(text, BENCH_FIGURE_LENGTH, "%s%s",
			 format_count(digits, (uint64_t)llround(value)), unit);
	else if (value < 0.0005 || fabs(value - round(value)) < 1e-9)
		snprintf(text, BENCH_FIGURE_LENGTH, "%.0f%s", value, unit);
	else
		snprintf(text, BENCH_FIGURE_LENGTH, "%.*f%s",
			 value < 9.995 ? 2 + (value < 0.0995) :
			 value < 99.95 ? 1 :
					 0,
			 value, unit);
}

static void format_positive(char *text, enum bench_unit unit, double value)
{
	char figure[UNIT_LENGTH];

	switch (unit) {
	case BENCH_NS:
		snprintf(text, BENCH_FIGURE_LENGTH, "%s",
			 format_ns(figure, (uint64_t)llround(value)));
		break;
	case BENCH_BYTES:
		snprintf(text, BENCH_FIGURE_LENGTH, "%s",
			 format_bytes(figure, (uint64_t)llround(value)));
		break;
	case BENCH_RATIO:
		format_plain(text, value, " x");
		break;
	case BENCH_PERCENT:
		format_plain(text, value, " %");
		break;
	case BENCH_PER_SECOND:
		format_plain(text, value, "/s");
		break;
	case BENCH_PAGES:
	case BENCH_COUNT:
		format_plain(text, value, "");
		break;
	}
}

const char *bench_format(char text[BENCH_FIGURE_LENGTH], enum bench_unit unit, double value)
{
	char positive[BENCH_FIGURE_LENGTH];

	if (!isfinite(value) || fabs(value) > 1e18) {
		snprintf(text, BENCH_FIGURE_LENGTH, "?");
		return text;
	}
	format_positive(positive, unit, fabs(value));
	snprintf(text, BENCH_FIGURE_LENGTH, "%s%.46s", value < 0 ? "-" : "", positive);
	return text;
}

const char *bench_figure(struct bench *bench, enum bench_unit unit, double value)
{
	char text[BENCH_FIGURE_LENGTH];

	return keep(bench, bench_format(text, unit, value));
}

/* --- JSON --- */

#define MOST_SAMPLES 100 /* of a row, written out */

static void report_values(const struct stored_row *row, json_object *to)
{
	json_object *samples;
	size_t i;

	report_add_unsigned(to, "n", row->count);
	if (!row->count)
		return;
	report_add_double(to, "median", quantile(row, 0.5), 4);
	report_add_double(to, "mean", mean(row), 4);
	report_add_double(to, "sigma", sigma(row), 4);
	report_add_double(to, "min", row->sorted[0], 4);
	report_add_double(to, "max", row->sorted[row->count - 1], 4);
	if (row->count == 1 || row->count > MOST_SAMPLES)
		return;
	samples = report_add_array(to, "samples");
	for (i = 0; i < row->count; i++)
		report_add_double(samples, NULL, row->values[i], 4);
}

static void report_rows(const struct bench_result *result, json_object *to)
{
	json_object *rows = report_add_array(to, "rows"), *object;
	size_t i;

	for (i = 0; i < result->rows.count; i++) {
		const struct stored_row *row = &result->rows.at[i];

		object = report_add_object(rows, NULL);
		report_add_string(object, "key", row->row.key);
		report_add_string(object, "label", row->row.label);
		report_add_string(object, "unit", bench_unit_name(row->row.unit));
		report_values(row, object);
		report_add_string(object, "text", row->row.text);
		if (row->skipped)
			report_add_string(object, "skipped", row->skipped);
		if (!row->row.plot)
			continue;
		report_add_string(object, "plot", row->row.plot);
		report_add_string(object, "series", row->row.series);
		report_add_double(object, "x", row->row.x, 4);
	}
}

static void report_plots(const struct bench_experiment *experiment, json_object *to)
{
	json_object *plots = report_add_array(to, "plots"), *object;
	const struct bench_plot *plot;

	for (plot = experiment->plots; plot && plot->name; plot++) {
		object = report_add_object(plots, NULL);
		report_add_string(object, "name", plot->name);
		report_add_string(object, "title", plot->title);
		report_add_string(object, "x_label", plot->x_label);
		report_add_string(object, "y_label", plot->y_label);
		report_add_bool(object, "log_x", plot->log_x);
		report_add_bool(object, "log_y", plot->log_y);
		report_add_string(object, "x_unit", plot->bytes_x ? "bytes" : NULL);
	}
}

static void report_said(const struct bench_result *result, json_object *to)
{
	json_object *list = report_add_array(to, "parts"), *object;
	size_t i;

	for (i = 0; i < result->parts.count; i++) {
		object = report_add_object(list, NULL);
		report_add_string(object, "claim", result->parts.at[i].what);
		report_add_string(object, "verdict",
				  bench_verdict_name(result->parts.at[i].verdict));
		report_add_string(object, "reason", result->parts.at[i].reason);
	}
	list = report_add_array(to, "checks");
	for (i = 0; i < result->checks.count; i++) {
		object = report_add_object(list, NULL);
		report_add_string(object, "what", result->checks.at[i].what);
		report_add_bool(object, "holds", result->checks.at[i].holds);
	}
	list = report_add_array(to, "notes");
	for (i = 0; i < result->notes.count; i++)
		report_add_string(list, NULL, result->notes.at[i]);
}

void bench_result_report(struct bench *bench, json_object *to)
{
	const struct bench_result *result = bench->result;
	const struct bench_experiment *experiment = bench->experiment;
	bool judged = !bench_over(bench);

	report_add_string(to, "name", experiment->name);
	report_add_string(to, "title", experiment->title);
	report_add_string(to, "source", experiment->source);
	report_add_string(to, "claim", experiment->claim);
	report_add_string(to, "method", experiment->method);
	report_add_string(to, "verdict",
			  judged ? bench_verdict_name(bench_result_verdict(result)) : NULL);
	report_add_string(to, "reason", judged ? bench_result_reason(bench) : NULL);
	report_add_string(to, "skipped", result->skipped);
	report_add_string(to, "failed", result->failed);
	report_rows(result, to);
	report_said(result, to);
	report_plots(experiment, to);
}
