/* SPDX-License-Identifier: MIT */
/*
 * ksm: the kernel's merging of equal pages: what it saves, what a write to a merged page costs,
 * and what that tells whoever can write and look at the clock.
 *
 * Two buffers hold the same pages, a third holds pages that are equal to none; all are offered to
 * the merging. Then each page of one of the equal and of the single buffer is written once, one by
 * one and timed: the time says whether it was merged, so whether somebody else has such a page. The
 * guess is right as often as a threshold half way between the two medians is.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/bench/forks.h"
#include "cli/output.h"

#define KSM "/sys/kernel/mm/ksm/"

static struct {
	char *first, *second; /* equal to each other */
	char *single;
	size_t bytes, pages;
} work;

static bool set(struct bench *bench, const char *path, const char *value)
{
	int error = bench_tune(bench, path, value);

	if (error)
		bench_fail(bench, error, "cannot set %s", path);
	return !error;
}

static bool offer(struct bench *bench, char *memory)
{
	if (memory && madvise(memory, work.bytes, MADV_MERGEABLE) == 0)
		return true;
	bench_fail(bench, -errno, "cannot offer memory for merging");
	return false;
}

/* Nearly all of the two equal buffers; others' pages are not in it. */
static bool is_merged(void)
{
	uint64_t merging = 0;

	return bench_read_number("/proc/self/ksm_merging_pages", NULL, &merging) == 0 &&
	       merging >= 2 * work.pages - work.pages / 8;
}

static bool wait_for_merging(struct bench *bench, uint64_t *ret_ns)
{
	uint64_t start = bench_now(), limit = UINT64_C(60000000000);

	while (!is_merged()) {
		if (bench_now() - start > limit) {
			bench_skip(bench, "the kernel merged nothing within a minute");
			return false;
		}
		usleep(10000);
	}
	*ret_ns = bench_lap(start);
	return true;
}

/* Writes a byte to each page of a buffer; how long each took goes to times. */
static void time_writes(char *memory, double *times)
{
	size_t page = (size_t)getpagesize(), i;
	volatile char *at = memory;
	uint64_t start;

	for (i = 0; i < work.pages; i++) {
		start = bench_now();
		at[i * page] ^= 1;
		times[i] = (double)(bench_now() - start);
	}
}

static void add_times(struct bench *bench, const char *key, const char *label, const double *times)
{
	const struct bench_samples samples = { (double *)times, work.pages, work.pages };

	bench_add(bench, &(struct bench_row){ key, label, BENCH_NS, NULL, "writes" }, &samples);
}

/* How often a threshold tells which of the two a page was. */
static void add_guess(struct bench *bench, const double *merged, const double *single)
{
	double limit = (bench_median(bench, "write/merged") + bench_median(bench, "write/single")) /
		       2;
	size_t i, right = 0;

	for (i = 0; i < work.pages; i++)
		right += (merged[i] > limit) + (single[i] <= limit);
	bench_add_value(bench,
			&(struct bench_row){ "guess", "pages told apart by one timed write each",
					     BENCH_PERCENT },
			100 * (double)right / (double)(2 * work.pages));
}

/* Merged, alone, and what a forked page costs; the first two one by one, in turns by halves. */
static void measure_writes(struct bench *bench)
{
	double *merged = output_realloc(NULL, work.pages * sizeof(*merged));
	double *single = output_realloc(NULL, work.pages * sizeof(*single));
	double *forked = output_realloc(NULL, work.pages * sizeof(*forked));
	pid_t pid;

	time_writes(work.first, merged);
	time_writes(work.single, single);
	pid = fork_idle();
	time_writes(work.single, forked);
	end_idle(pid);
	add_times(bench, "write/merged", "write to a merged page", merged);
	add_times(bench, "write/single", "write to a page of its own, offered, too", single);
	add_times(bench, "write/forked", "write to a page that a child shares", forked);
	add_guess(bench, merged, single);
	free(merged);
	free(single);
	free(forked);
}

static void measure(struct bench *bench)
{
	struct bench_memory before = { 0 }, after = { 0 };
	uint64_t ns;

	/* The same and other contents; write_pages() has made all of them. */
	bench_fill(work.first, work.bytes, bench->seed);
	bench_fill(work.second, work.bytes, bench->seed);
	bench_fill(work.single, work.bytes, bench->seed + UINT64_C(0x123456789));
	bench_memory(0, &before);
	if (!wait_for_merging(bench, &ns))
		return;
	bench_memory(0, &after);
	bench_add_value(bench,
			&(struct bench_row){ "buffer", "each of two equal buffers", BENCH_BYTES },
			(double)work.bytes);
	bench_add_value(bench, &(struct bench_row){ "saved", "memory won by merging", BENCH_BYTES },
			(double)before.pss - (double)after.pss);
	bench_add_value(bench, &(struct bench_row){ "merge", "until they were merged", BENCH_NS },
			(double)ns);
	bench_check(bench, memcmp(work.first, work.second, work.bytes) == 0,
		    "merged pages hold what they held");
	measure_writes(bench);
	bench_check(bench, memcmp(work.first, work.second, work.bytes) != 0,
		    "a write to a merged page is not seen in its twin");
}

static void run(struct bench *bench)
{
	uint64_t running = 0;

	if (bench_read_number(KSM "run", NULL, &running) < 0 ||
	    access("/proc/self/ksm_merging_pages", R_OK) < 0) {
		bench_skip(bench, "this kernel has no KSM (CONFIG_KSM)");
		return;
	}
	work.bytes = bench_fit(bench, BENCH_BY_SCALE(bench, 1, 8, 32, 128) * MIB, 4);
	work.pages = work.bytes / (size_t)getpagesize();
	work.first = bench_map(bench, work.bytes, false);
	work.second = bench_map(bench, work.bytes, false);
	work.single = bench_map(bench, work.bytes, false);
	if (bench_over(bench) || !offer(bench, work.first) || !offer(bench, work.second) ||
	    !offer(bench, work.single))
		return;
	/* A smart scan passes over pages that were not merged before, so all are written anew. */
	if (!set(bench, KSM "pages_to_scan", "20000") || !set(bench, KSM "sleep_millisecs", "1") ||
	    (running != 1 && !set(bench, KSM "run", "1")))
		return;
	measure(bench);
}

static void judge(struct bench *bench)
{
	double saved = bench_median(bench, "saved"), buffer = bench_median(bench, "buffer");
	double merged = bench_median(bench, "write/merged"), guess = bench_median(bench, "guess");
	double single = bench_median(bench, "write/single");

	bench_judge(bench, "equal pages are merged, a second layer of copy-on-write",
		    saved > 0.8 * buffer ? BENCH_HOLDS :
		    saved > 0            ? BENCH_HOLDS_IN_PART :
					   BENCH_DOES_NOT_HOLD,
		    "%s won of two buffers of %s, in %s", bench_figure(bench, BENCH_BYTES, saved),
		    bench_figure(bench, BENCH_BYTES, buffer),
		    bench_figure(bench, BENCH_NS, bench_median(bench, "merge")));
	bench_judge(bench, "it reduces the cost of the copy operation",
		    merged < single ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "a write to a merged page takes %s, to one that is not %s%s",
		    bench_figure(bench, BENCH_NS, merged), bench_figure(bench, BENCH_NS, single),
		    merged < single ? "" : ": merging makes the next write a copy");
	bench_judge(bench, "sharing can be seen through the clock (a side channel)",
		    guess > 90 ? BENCH_HOLDS :
		    guess > 65 ? BENCH_HOLDS_IN_PART :
				 BENCH_DOES_NOT_HOLD,
		    "one timed write tells merged from unmerged pages in %s of the cases (50 is "
		    "chance)",
		    bench_figure(bench, BENCH_PERCENT, guess));
}

static const struct bench_plot plots[] = {
	{ "writes", "The first write, merged or not", NULL, "ns" },
	{ 0 },
};

const struct bench_experiment experiment_ksm = {
	.name = "ksm",
	.title = "Merging equal pages: what it saves, costs and tells",
	.source = BENCH_SOURCE_PRODUCTION "; " BENCH_SOURCE_FORK,
	.claim = "Kernel Samepage Merging deduplicates identical pages across processes, in effect "
		 "a second layer of copy-on-write; with SIMD copies and huge pages it is among "
		 "what reduces the cost of the copy operation. Copy-on-write is open to certain "
		 "side-channel exploits.",
	.method = "Two equal buffers and one that is like nothing else are offered for merging. "
		  "When the kernel has merged, each page is written once and timed, beside a page "
		  "shared by a fork. How well the times tell merged pages from others is the side "
		  "channel. KSM is switched on for it (needs --allow-tuning).",
	.needs = BENCH_NEEDS_ROOT | BENCH_NEEDS_TUNING,
	.plots = plots,
	.seconds = 30,
	.run = run,
	.judge = judge,
};
