/* SPDX-License-Identifier: MIT */
/*
 * break-even: at what share of pages written does copy-on-write cost more than copying everything
 * at once?
 *
 * Both sides end with a child that may write its memory, and that has written the same share of
 * it, in an order that no prefetcher knows. Lazy: fork(), and a fault for each page. Eager: the
 * child copies all of it first, as fast as that can be done (one call that makes all pages, then
 * memcpy()), and writes the copy without a fault. fork() is the same on both sides.
 */
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/bench/forks.h"

static struct {
	char *memory; /* of the parent */
	size_t bytes;
	double share;
	uint64_t seed;
} work;

static const unsigned int percents[] = { 1, 10, 25, 50, 75, 100 };
#define SHARES (sizeof(percents) / sizeof(percents[0]))

/* In the child. */
static void write_share(void *context)
{
	(void)context;
	write_random_pages(work.memory, work.bytes, work.share, work.seed);
}

static void copy_and_write_share(void *context)
{
	const bool *huge = context;
	char *copy = mmap(NULL, work.bytes + 2 * MIB, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (copy == MAP_FAILED)
		_exit(1);
	copy += (2 * MIB - (uintptr_t)copy % (2 * MIB)) % (2 * MIB);
	madvise(copy, work.bytes, *huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	/* Kernels before 5.14 do not know it: the copy then makes the pages. */
	madvise(copy, work.bytes, MADV_POPULATE_WRITE);
	memcpy(copy, work.memory, work.bytes);
	write_random_pages(copy, work.bytes, work.share, work.seed);
}

static double measure(struct bench *bench, const struct bench_subject *subject, child_fn child,
		      bool huge)
{
	struct fork_times times;

	write_pages(work.memory, work.bytes);
	work.share = (double)subject->number / 100;
	return fork_timed(bench, child, &huge, &times) ? times.cycle_ns : NAN;
}

static double measure_lazy(struct bench *bench, const struct bench_subject *subject)
{
	return measure(bench, subject, write_share, false);
}

static double measure_eager(struct bench *bench, const struct bench_subject *subject)
{
	return measure(bench, subject, copy_and_write_share, false);
}

static double measure_eager_huge(struct bench *bench, const struct bench_subject *subject)
{
	return measure(bench, subject, copy_and_write_share, true);
}

/* Where the line between two shares crosses 1; NaN where it does not. */
static void add_crossing(struct bench *bench)
{
	double before = NAN, here, at = NAN;
	size_t i;

	for (i = 0; i < SHARES && isnan(at); i++) {
		here = bench_median(bench, bench_text(bench, "ratio/%u%%", percents[i]));
		if (here >= 1)
			at = i == 0 ? percents[0] :
				      percents[i - 1] + (1 - before) / (here - before) *
								(percents[i] - percents[i - 1]);
		before = here;
	}
	const struct bench_row row = { "break_even", "break-even: pages written", BENCH_PERCENT };

	if (isnan(at))
		bench_add_skipped(bench, &row, "copy-on-write is cheaper at any share");
	else
		bench_add_value(bench, &row, at);
}

static void run(struct bench *bench)
{
	struct bench_subject subjects[2 * SHARES + 1] = { 0 };
	size_t i;

	work.bytes = bench_fit(bench, BENCH_BY_SCALE(bench, 4, 64, 128, 512) * MIB, 3);
	work.seed = bench->seed;
	work.memory = bench_map(bench, work.bytes, false);
	if (!work.memory)
		return;
	bench_fill(work.memory, work.bytes, bench->seed);
	bench_add_value(bench, &(struct bench_row){ "memory", "memory of the parent", BENCH_BYTES },
			(double)work.bytes);
	for (i = 0; i < SHARES; i++) {
		const struct bench_row row = { .unit = BENCH_NS, .plot = "cost", .x = percents[i] };

		subjects[i] = (struct bench_subject){ .row = row, .number = percents[i] };
		subjects[SHARES + i] = subjects[i];
		subjects[i].row.key = bench_text(bench, "lazy/%u%%", percents[i]);
		subjects[i].row.label = bench_text(bench, "copy-on-write, %u %% written",
						   percents[i]);
		subjects[i].row.series = "copy-on-write";
		subjects[i].measure = measure_lazy;
		subjects[SHARES + i].row.key = bench_text(bench, "eager/%u%%", percents[i]);
		subjects[SHARES + i].row.label = bench_text(bench, "eager copy, %u %% written",
							    percents[i]);
		subjects[SHARES + i].row.series = "eager copy";
		subjects[SHARES + i].measure = measure_eager;
	}
	subjects[2 * SHARES] = (struct bench_subject){
		.row = { "eager-huge/100%", "eager copy into huge pages, 100 % written", BENCH_NS },
		.measure = measure_eager_huge,
		.number = 100,
	};
	bench_take_turns_controlled(bench, subjects, 2 * SHARES + 1);
	for (i = 0; i < SHARES; i++)
		bench_add_ratio(bench,
				&(struct bench_row){
					.key = bench_text(bench, "ratio/%u%%", percents[i]),
					.label = bench_text(bench,
							    "copy-on-write / eager, %u %% written",
							    percents[i]),
					.text = percents[i] == 100 ? "above 1" : NULL },
				subjects[i].row.key, subjects[SHARES + i].row.key);
	add_crossing(bench);
	bench_check(bench, bench_median(bench, "lazy/100%") > 0, "both sides did their writes");
}

static void judge(struct bench *bench)
{
	double all = bench_median(bench, "ratio/100%"), few = bench_median(bench, "ratio/1%");
	double at = bench_median(bench, "break_even");

	bench_judge(bench,
		    "a child that writes everything pays the full copy and the faults on top",
		    bench_is_above(bench, "lazy/100%", "eager/100%") ? BENCH_HOLDS :
								       BENCH_DOES_NOT_HOLD,
		    isnan(at) ? "%s the cost of an eager copy, and no share at which they meet" :
				"%s the cost of an eager copy; they meet at %s of the pages",
		    bench_figure(bench, BENCH_RATIO, all), bench_figure(bench, BENCH_PERCENT, at));
	bench_judge(bench, "where little is written the deferred copy is (nearly) free",
		    few < 0.5 ? BENCH_HOLDS :
		    few < 1   ? BENCH_HOLDS_IN_PART :
				BENCH_DOES_NOT_HOLD,
		    "%s the cost of an eager copy where 1 %% is written",
		    bench_figure(bench, BENCH_RATIO, few));
}

static const struct bench_plot plots[] = {
	{ "cost", "Copying late against copying at once", "% of pages written", "ns" },
	{ 0 },
};

const struct bench_experiment experiment_break_even = {
	.name = "break-even",
	.title = "How much may be written before copy-on-write costs more than a copy",
	.source = BENCH_SOURCE_ATLAS,
	.claim = "Copy-on-write defers cost, it does not eliminate it: a long-lived child that "
		 "dirties everything pays the full copy anyway, plus a million page faults of "
		 "overhead; heavy write traffic after a fork is sometimes worse than copying "
		 "upfront.",
	.method = "A child of a parent of 64 MiB or more writes 1 to 100 % of the pages, in random "
		  "order: once after fork(), once after the child has copied all of it into memory "
		  "of its own, made in one call. Timed from before the fork until the child has "
		  "ended.",
	.plots = plots,
	.seconds = 20,
	.run = run,
	.judge = judge,
};
