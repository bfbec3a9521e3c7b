/* SPDX-License-Identifier: MIT */
/*
 * Time, and taking turns: things that are compared are measured one after the other, over and over,
 * so that a machine that gets slower gets slower for all of them.
 */
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "cli/bench/bench.h"
#include "cli/bench/run.h"
#include "cli/output.h"
#include "cli/progress.h"

uint64_t bench_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t bench_lap(uint64_t start)
{
	uint64_t interval = bench_now() - start;

	bench_shared_interval(interval);
	return interval;
}

void bench_progress(struct bench *bench, uint64_t done, uint64_t total)
{
	if (done == 0)
		progress_begin(bench->experiment->name, total);
	progress_update(done);
	if (done >= total)
		progress_end();
}

static int measure_in_child(struct bench *bench, void *context, double *ret_values)
{
	const struct bench_subject *subject = *(const struct bench_subject **)context;

	*ret_values = subject->measure(bench, subject);
	return isfinite(*ret_values) ? 0 : -1;
}

static double measure(struct bench *bench, const struct bench_subject *subject)
{
	double value = NAN;

	if (!subject->in_child)
		value = subject->measure(bench, subject);
	else if (!bench_in_child(bench, measure_in_child, &subject, &value, 1))
		value = NAN;
	if (!isfinite(value))
		bench_fail(bench, 0, "cannot measure %s", subject->row.key);
	return value;
}

struct turns {
	const struct bench_subject *subjects;
	size_t count;
	struct bench_samples *samples; /* a list for each */
	struct bench_samples control;
	bool controlled;
};

/* The control is one subject more, at the other end of the turn: the first once again. */
static void measure_one(struct bench *bench, struct turns *turns, size_t i, bool counts)
{
	bool is_control = i == turns->count;
	double value = measure(bench, &turns->subjects[is_control ? 0 : i]);

	if (counts && !bench_over(bench))
		bench_samples_add(is_control ? &turns->control : &turns->samples[i], value);
}

static void add_noise(struct bench *bench, const struct turns *turns)
{
	const struct bench_row row = {
		.key = "noise",
		.label = bench_text(bench, "noise: %s, against itself",
				    turns->subjects[0].row.label),
		.unit = BENCH_RATIO,
	};
	struct bench_samples ratios = { 0 };
	size_t i;

	for (i = 0; i < turns->control.count; i++)
		bench_samples_add(&ratios, turns->control.values[i] / turns->samples[0].values[i]);
	bench_add(bench, &row, &ratios);
	bench_samples_free(&ratios);
}

static void add_rows(struct bench *bench, const struct turns *turns)
{
	size_t i;

	for (i = 0; i < turns->count && !bench_over(bench); i++)
		bench_add(bench, &turns->subjects[i].row, &turns->samples[i]);
	if (turns->controlled && !bench_over(bench))
		add_noise(bench, turns);
}

static void take_turns(struct bench *bench, struct turns *turns)
{
	unsigned int turn, all = bench->warm_ups + bench->runs;
	size_t each = turns->count + turns->controlled, i;
	uint64_t total = (uint64_t)all * each, done = 0;

	turns->samples = output_realloc(NULL, turns->count * sizeof(*turns->samples));
	for (i = 0; i < turns->count; i++)
		turns->samples[i] = (struct bench_samples){ 0 };
	for (turn = 0; turn < all && !bench_over(bench); turn++)
		for (i = 0; i < each && !bench_over(bench); i++) {
			bench_progress(bench, done++, total);
			measure_one(bench, turns, turn % 2 ? each - 1 - i : i,
				    turn >= bench->warm_ups);
		}
	bench_progress(bench, total, total);
	add_rows(bench, turns);
	for (i = 0; i < turns->count; i++)
		bench_samples_free(&turns->samples[i]);
	bench_samples_free(&turns->control);
	free(turns->samples);
}

void bench_take_turns(struct bench *bench, const struct bench_subject *subjects, size_t count)
{
	struct turns turns = { .subjects = subjects, .count = count };

	take_turns(bench, &turns);
}

void bench_take_turns_controlled(struct bench *bench, const struct bench_subject *subjects,
				 size_t count)
{
	struct turns turns = { .subjects = subjects, .count = count, .controlled = true };

	take_turns(bench, &turns);
}
