/* SPDX-License-Identifier: MIT */
/*
 * A bucket is an octave's 64th: the top seven bits of a value name it. Values below 64 have a
 * bucket each.
 */
#include "cli/histogram.h"

#include <math.h>
#include <stdbool.h>

#include "cli/output.h"

#define STEP_BITS    6  /* HISTOGRAM_STEPS is its power of two */
#define LINE_WIDTH   80 /* of a terminal, for up to two series */
#define STEP_WIDTH   10
#define COUNT_WIDTH  13
#define BAR_MOST     24
#define BAR_LEAST    8
#define MOST_SERIES  4
#define LARGEST_STEP UINT64_C(1000000000000000000)

static size_t bucket_of(uint64_t value)
{
	unsigned int octave;

	if (value < HISTOGRAM_STEPS)
		return value;
	octave = 63 - (unsigned int)__builtin_clzll(value);
	return (octave - STEP_BITS + 1) * HISTOGRAM_STEPS +
	       ((value >> (octave - STEP_BITS)) & (HISTOGRAM_STEPS - 1));
}

/* The largest value of a bucket. */
static uint64_t bucket_top(size_t bucket)
{
	size_t shift;

	if (bucket < HISTOGRAM_STEPS)
		return bucket;
	shift = bucket / HISTOGRAM_STEPS - 1;
	return ((bucket % HISTOGRAM_STEPS + HISTOGRAM_STEPS + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
	histogram->counts[bucket_of(value)]++;
	if (!histogram->total || value < histogram->min)
		histogram->min = value;
	if (value > histogram->max)
		histogram->max = value;
	histogram->total++;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	size_t i;

	if (!from->total)
		return;
	for (i = 0; i < HISTOGRAM_BUCKETS; i++)
		into->counts[i] += from->counts[i];
	if (!into->total || from->min < into->min)
		into->min = from->min;
	if (from->max > into->max)
		into->max = from->max;
	into->total += from->total;
}

uint64_t histogram_quantile(const struct histogram *histogram, double share)
{
	uint64_t seen = 0, top;
	size_t i;

	for (i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->counts[i];
		if (seen && (double)seen >= share * (double)histogram->total) {
			top = bucket_top(i);
			return top < histogram->max ? top : histogram->max;
		}
	}
	return histogram->max;
}

/* The steps of the printed scale: 1, 2, 5, 10, 20, 50, ... */
static uint64_t next_step(uint64_t step)
{
	uint64_t lead = step;

	while (lead >= 10)
		lead /= 10;
	return lead == 2 ? step / 2 * 5 : step * 2;
}

/* How many values are below a step; a bucket that straddles it counts as above. */
static uint64_t count_below(const struct histogram *histogram, uint64_t step)
{
	uint64_t seen = 0;
	size_t i;

	for (i = 0; i < bucket_of(step); i++)
		seen += histogram->counts[i];
	return seen;
}

/* The step of the line on which a value is counted. */
static uint64_t step_of(uint64_t value)
{
	uint64_t step = 1;

	while (step < LARGEST_STEP && bucket_of(next_step(step)) <= bucket_of(value))
		step = next_step(step);
	return step;
}

/* What a line has left for each series, after its count and the blanks around that. */
static int bar_width(size_t series)
{
	int width = (LINE_WIDTH - STEP_WIDTH) / (int)series - COUNT_WIDTH - 3;

	return width > BAR_MOST ? BAR_MOST : width < BAR_LEAST ? BAR_LEAST : width;
}

/* Padded to its width, unless it is the line's last. */
static void print_bar(FILE *stream, uint64_t count, uint64_t most, int width, bool last)
{
	const char *block = output_has_blocks(stream) ? "\xe2\x96\x88" : "#";
	double share = most ? log2(1 + (double)count) / log2(1 + (double)most) : 0;
	int length = count ? (int)(share * width) : 0, i;

	/* A single value is a bar too. */
	if (count && !length)
		length = 1;
	for (i = 0; i < length; i++)
		fputs(block, stream);
	if (!last)
		fprintf(stream, "%*s", width - length, "");
}

struct scale {
	const struct histogram *const *series;
	size_t count;
	uint64_t first, last; /* the steps of the first and the last line */
	uint64_t most;        /* the largest count of any line */
};

static void measure_scale(struct scale *scale)
{
	uint64_t min = UINT64_MAX, max = 0, step, lower, upper, here;
	size_t i;

	for (i = 0; i < scale->count; i++) {
		if (scale->series[i]->total && scale->series[i]->min < min)
			min = scale->series[i]->min;
		if (scale->series[i]->max > max)
			max = scale->series[i]->max;
	}
	scale->first = step_of(min < max ? min : max);
	scale->last = step_of(max);
	for (i = 0; i < scale->count; i++)
		for (step = scale->first, lower = 0; step <= scale->last; step = next_step(step)) {
			upper = count_below(scale->series[i], next_step(step));
			here = upper - lower;
			lower = upper;
			if (here > scale->most)
				scale->most = here;
		}
}

void histogram_print_ns(FILE *stream, const struct histogram *const series[],
			const char *const names[], size_t count)
{
	struct scale scale = { .series = series, .count = count };
	uint64_t lower[MOST_SERIES] = { 0 }, upper, step;
	char unit[UNIT_LENGTH];
	size_t i;
	int width;

	if (!count || count > MOST_SERIES)
		return;
	width = bar_width(count);
	measure_scale(&scale);
	fprintf(stream, "%*s", STEP_WIDTH, "from");
	for (i = 0; i < count; i++)
		fprintf(stream, "  %s%*s%s%*s", style(stream, STYLE_BOLD), COUNT_WIDTH, names[i],
			style(stream, STYLE_NONE), i + 1 < count ? width + 1 : 0, "");
	fputc('\n', stream);
	for (step = scale.first; step <= scale.last; step = next_step(step)) {
		fprintf(stream, "%*s", STEP_WIDTH, format_ns(unit, step));
		for (i = 0; i < count; i++) {
			upper = count_below(series[i], next_step(step));
			fprintf(stream, "  %*s%s", COUNT_WIDTH,
				format_count(unit, upper - lower[i]),
				i + 1 < count || upper > lower[i] ? " " : "");
			print_bar(stream, upper - lower[i], scale.most, width, i + 1 == count);
			lower[i] = upper;
		}
		fputc('\n', stream);
	}
	fprintf(stream, "%*s  (counts; bars are logarithmic)\n", STEP_WIDTH, "");
}
