/* SPDX-License-Identifier: MIT */
/*
 * fork-size: what fork() costs by the size of the process, in 4 KiB and in huge pages; with a child
 * that does nothing and with one that writes all of it; the page tables beside it.
 *
 * Each turn measures every size, each in a process of its own that has this memory and no other, so
 * that a large one does not weigh on a small one. Before each fork the process writes all its
 * pages, as one that is at work does.
 */
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/bench/forks.h"

#define SIZES_MAX 10

/* What a process of one size gives. */
enum figure {
	FORK,        /* fork() alone */
	CYCLE,       /* with a child that ends at once, until it was waited for */
	WRITTEN,     /* with a child that writes all */
	COPY,        /* memcpy() of as much into fresh memory */
	TABLES,      /* bytes of the child's page tables */
	HUGE_FORK,   /* in huge pages */
	HUGE_TABLES, /* bytes */
	HUGE_PART,   /* how much of the memory really was in huge pages */
	FIGURES
};

struct one_size {
	size_t bytes;
	struct bench_samples samples[FIGURES];
};

/* --- in a process of its own --- */

static char *memory_of_size;

static void write_all(void *context)
{
	const struct one_size *size = context;

	memset(memory_of_size, 'B', size->bytes);
}

static int child_tables(double *ret_bytes)
{
	struct bench_memory memory;
	pid_t pid = fork_idle();
	int error = pid < 0 ? pid : bench_memory(pid, &memory);

	if (pid > 0)
		end_idle(pid);
	if (!error)
		*ret_bytes = (double)memory.page_tables;
	return error;
}

static double copy_eagerly(struct bench *bench, size_t bytes)
{
	char *copy = bench_map(bench, bytes, false);
	uint64_t start = bench_now();
	double ns;

	if (!copy)
		return NAN;
	memcpy(copy, memory_of_size, bytes);
	ns = (double)bench_lap(start);
	munmap(copy, bytes);
	return ns;
}

static int measure_small_pages(struct bench *bench, struct one_size *size, double *values)
{
	struct fork_times times;

	memory_of_size = bench_map(bench, size->bytes, false);
	if (!memory_of_size)
		return -ENOMEM;
	bench_fill(memory_of_size, size->bytes, bench->seed);
	if (!fork_timed(bench, NULL, NULL, &times))
		return -ECHILD;
	values[FORK] = times.fork_ns;
	values[CYCLE] = times.cycle_ns;
	write_pages(memory_of_size, size->bytes);
	if (!fork_timed(bench, write_all, size, &times))
		return -ECHILD;
	values[WRITTEN] = times.cycle_ns;
	values[COPY] = copy_eagerly(bench, size->bytes);
	return child_tables(&values[TABLES]);
}

static int measure_huge_pages(struct bench *bench, struct one_size *size, double *values)
{
	struct bench_memory memory;
	struct fork_times times;
	int error;

	munmap(memory_of_size, size->bytes);
	memory_of_size = bench_map(bench, size->bytes, true);
	if (!memory_of_size)
		return -ENOMEM;
	bench_fill(memory_of_size, size->bytes, bench->seed);
	error = bench_memory(0, &memory);
	if (error)
		return error;
	values[HUGE_PART] = (double)memory.huge / (double)size->bytes;
	if (!fork_timed(bench, NULL, NULL, &times))
		return -ECHILD;
	values[HUGE_FORK] = times.fork_ns;
	return child_tables(&values[HUGE_TABLES]);
}

static int measure(struct bench *bench, void *context, double *ret_values)
{
	struct one_size *size = context;
	int error = measure_small_pages(bench, size, ret_values);

	return error ? error : measure_huge_pages(bench, size, ret_values);
}

/* --- all sizes --- */

static size_t choose_sizes(struct bench *bench, struct one_size *sizes)
{
	static const size_t mib[] = { 1, 10, 50, 200, 500, 1024, 2048, 4096, 8192, 16384 };
	uint64_t most = BENCH_BY_SCALE(bench, 10 * MIB, 500 * MIB, 2048 * MIB, 16384 * MIB);
	size_t i, count = 0;

	/* A writing child doubles it; the eager copy, too. */
	most = bench_fit(bench, most, 2);
	for (i = 0; i < SIZES_MAX && mib[i] * MIB <= most; i++)
		sizes[count++] = (struct one_size){ .bytes = mib[i] * MIB };
	if (count && sizes[count - 1].bytes < BENCH_BY_SCALE(bench, 10, 500, 500, 500) * MIB)
		bench_note(bench, "memory allows %zu MiB at most", sizes[count - 1].bytes / MIB);
	return count;
}

static void measure_all(struct bench *bench, struct one_size *sizes, size_t count)
{
	unsigned int turns = bench->warm_ups + bench->runs, turn;
	double values[FIGURES];
	size_t i, at, j;

	for (turn = 0; turn < turns && !bench_over(bench); turn++)
		for (i = 0; i < count && !bench_over(bench); i++) {
			bench_progress(bench, turn * count + i, turns * count);
			at = turn % 2 ? count - 1 - i : i;
			if (!bench_in_child(bench, measure, &sizes[at], values, FIGURES) ||
			    turn < bench->warm_ups)
				continue;
			for (j = 0; j < FIGURES; j++)
				bench_samples_add(&sizes[at].samples[j], values[j]);
		}
	bench_progress(bench, turns * count, turns * count);
}

/* --- rows --- */

static const struct {
	const char *key, *label, *plot, *series;
	enum bench_unit unit;
} figures[FIGURES] = {
	[FORK] = { "fork", "fork()", "latency", "fork(), 4 KiB pages", BENCH_NS },
	[CYCLE] = { "cycle", "fork(), exit, wait", "latency", "until the child has ended",
		    BENCH_NS },
	[WRITTEN] = { "written", "fork(), write all, exit, wait", "latency", "child writes all",
		      BENCH_NS },
	[COPY] = { "copy", "memcpy() of all", "latency", "memcpy() of all", BENCH_NS },
	[TABLES] = { "tables", "page tables of the child", "tables", "4 KiB pages", BENCH_BYTES },
	[HUGE_FORK] = { "huge-fork", "fork(), huge pages", "latency", "fork(), huge pages",
			BENCH_NS },
	[HUGE_TABLES] = { "huge-tables", "page tables of the child, huge pages", "tables",
			  "huge pages", BENCH_BYTES },
};

static const char *figure_of_text(enum figure figure, size_t mib)
{
	if (figure == FORK && mib == 1024)
		return "microseconds";
	if (figure == FORK && mib == 200)
		return "microseconds, whatever the size";
	if (figure == CYCLE && mib == 50)
		return "about that of 1 MB";
	if (figure == CYCLE && mib == 500)
		return "milliseconds";
	if (figure == COPY && mib == 500)
		return "seconds";
	return NULL;
}

static void add_rows(struct bench *bench, const struct one_size *sizes, size_t count)
{
	size_t i, j, mib;

	for (j = 0; j < FIGURES; j++)
		for (i = 0; i < count && j != HUGE_PART; i++) {
			const struct bench_row row = {
				.key = bench_text(bench, "%s/%zuMB", figures[j].key,
						  sizes[i].bytes / MIB),
				.label = bench_text(bench, "%s, %zu MiB", figures[j].label,
						    sizes[i].bytes / MIB),
				.unit = figures[j].unit,
				.text = figure_of_text((enum figure)j, sizes[i].bytes / MIB),
				.plot = figures[j].plot,
				.series = figures[j].series,
				.x = (double)sizes[i].bytes / (double)MIB,
			};

			mib = sizes[i].bytes / MIB;
			if ((j == HUGE_FORK || j == HUGE_TABLES) && mib > 1 &&
			    sizes[i].samples[HUGE_PART].values[0] < 0.5)
				bench_add_skipped(bench, &row, "no huge pages were to be had");
			else
				bench_add(bench, &row, &sizes[i].samples[j]);
		}
}

/* How the cost grows with size: 0 constant, 1 linear; from 10 MiB to the largest. */
static void add_growth(struct bench *bench, const struct one_size *sizes, size_t count)
{
	const struct one_size *small = &sizes[1], *large = &sizes[count - 1];
	struct bench_samples samples = { 0 };
	size_t i;

	if (count < 3)
		return;
	for (i = 0; i < large->samples[FORK].count; i++)
		bench_samples_add(
			&samples,
			log(large->samples[FORK].values[i] / small->samples[FORK].values[i]) /
				log((double)large->bytes / (double)small->bytes));
	bench_add(bench,
		  &(struct bench_row){ "growth",
				       "growth of fork() with size (0 constant, 1 linear)",
				       BENCH_COUNT, "0: O(1)" },
		  &samples);
	bench_samples_free(&samples);
}

static void add_extremes(struct bench *bench, const struct one_size *sizes, size_t count)
{
	bench_add_value(bench, &(struct bench_row){ "smallest", "the smallest size", BENCH_BYTES },
			(double)sizes[0].bytes);
	bench_add_value(bench, &(struct bench_row){ "largest", "the largest size", BENCH_BYTES },
			(double)sizes[count - 1].bytes);
	bench_add(bench,
		  &(struct bench_row){ "fork/smallest", "fork() of the smallest", BENCH_NS,
				       "a few dozen cycles" },
		  &sizes[0].samples[FORK]);
	bench_add(bench, &(struct bench_row){ "fork/largest", "fork() of the largest", BENCH_NS },
		  &sizes[count - 1].samples[FORK]);
	bench_add(bench,
		  &(struct bench_row){ "cycle/largest", "fork(), exit, wait, of the largest",
				       BENCH_NS },
		  &sizes[count - 1].samples[CYCLE]);
	bench_add(bench,
		  &(struct bench_row){ "written/largest", "... with a child that writes all",
				       BENCH_NS },
		  &sizes[count - 1].samples[WRITTEN]);
	bench_add(bench,
		  &(struct bench_row){ "tables/smallest", "page tables of the smallest's child",
				       BENCH_BYTES },
		  &sizes[0].samples[TABLES]);
	bench_add(bench,
		  &(struct bench_row){ "tables/largest", "page tables of the largest's child",
				       BENCH_BYTES },
		  &sizes[count - 1].samples[TABLES]);
}

static void run(struct bench *bench)
{
	struct one_size sizes[SIZES_MAX] = { { 0 } };
	size_t count = choose_sizes(bench, sizes), i, j;

	if (count < 2) {
		bench_skip(bench, "needs 20 MiB of memory; give more with --memory");
		return;
	}
	measure_all(bench, sizes, count);
	if (!bench_over(bench)) {
		add_rows(bench, sizes, count);
		add_extremes(bench, sizes, count);
		add_growth(bench, sizes, count);
	}
	bench_note(bench,
		   "with huge pages the kernel keeps a page table in reserve for each, to split "
		   "it: VmPTE is the same");
	bench_check(bench,
		    bench_median(bench, "tables/largest") > bench_median(bench, "tables/smallest"),
		    "page-table memory grows with size");
	bench_check(bench,
		    bench_median(bench, "tables/largest") >=
			    8 * (double)(sizes[count - 1].bytes - sizes[0].bytes) /
				    (double)getpagesize(),
		    "the child has page tables of its own: 8 bytes for each page");
	for (i = 0; i < count; i++)
		for (j = 0; j < FIGURES; j++)
			bench_samples_free(&sizes[i].samples[j]);
}

/* --- verdicts --- */

static void judge_constant(struct bench *bench)
{
	double growth = bench_median(bench, "growth");
	double one = bench_median(bench, "cycle/1MB"), fifty = bench_median(bench, "cycle/50MB");

	if (isnan(growth))
		bench_judge(bench, "fork() is O(1)", BENCH_NOT_JUDGED, "too few sizes");
	else
		bench_judge(bench, "fork() is O(1), constant-time whatever the size",
			    growth < 0.2 ? BENCH_HOLDS :
			    growth < 0.5 ? BENCH_HOLDS_IN_PART :
					   BENCH_DOES_NOT_HOLD,
			    "time grows with the power %.2f of the size (1 is linear): %s for %s",
			    growth,
			    bench_figure(bench, BENCH_NS, bench_median(bench, "fork/largest")),
			    bench_figure(bench, BENCH_BYTES, bench_median(bench, "largest")));
	if (!isnan(one) && !isnan(fifty))
		bench_judge(bench, "a fork of 50 MB takes roughly as long as one of 1 MB",
			    fifty < 1.5 * one ? BENCH_HOLDS :
			    fifty < 3 * one   ? BENCH_HOLDS_IN_PART :
						BENCH_DOES_NOT_HOLD,
			    "%s beside %s, %.1f times", bench_figure(bench, BENCH_NS, fifty),
			    bench_figure(bench, BENCH_NS, one), fifty / one);
}

/* At 5 GHz, so in favour of the claim. */
static void judge_cycles(struct bench *bench)
{
	double ns = bench_median(bench, "fork/smallest");

	bench_judge(bench, "fork() takes a few dozen CPU cycles",
		    ns < 20 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "the smallest takes %s: some %.0f,000 cycles",
		    bench_figure(bench, BENCH_NS, ns), ceil(ns * 3 / 1000));
}

static void judge_microseconds(struct bench *bench)
{
	double ns = bench_median(bench, "fork/largest");

	bench_judge(bench, "fork() returns in microseconds even for large processes",
		    ns < 200e3  ? BENCH_HOLDS :
		    ns < 1000e3 ? BENCH_HOLDS_IN_PART :
				  BENCH_DOES_NOT_HOLD,
		    "%s for %s", bench_figure(bench, BENCH_NS, ns),
		    bench_figure(bench, BENCH_BYTES, bench_median(bench, "largest")));
}

static void judge_half_a_gigabyte(struct bench *bench)
{
	double cycle = bench_median(bench, "cycle/500MB"), copy = bench_median(bench, "copy/500MB");

	if (isnan(cycle) || isnan(copy)) {
		bench_judge(bench, "fork and exit of 500 MB: milliseconds, not seconds",
			    BENCH_NOT_JUDGED, "memory, or the scale, allowed no 500 MiB");
		return;
	}
	bench_judge(bench, "fork and exit of 500 MB take milliseconds, a real copy seconds",
		    cycle < 100e6 && copy > 1e9       ? BENCH_HOLDS :
		    cycle < 100e6 && copy > 3 * cycle ? BENCH_HOLDS_IN_PART :
							BENCH_DOES_NOT_HOLD,
		    "%s beside %s", bench_figure(bench, BENCH_NS, cycle),
		    bench_figure(bench, BENCH_NS, copy));
}

static void judge_tables(struct bench *bench)
{
	double small = bench_median(bench, "tables/smallest");
	double large = bench_median(bench, "tables/largest");
	bool shared = large < 1.2 * small;

	bench_judge(bench, "parent and child share page tables",
		    shared ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "the child's own take %s for %s and %s for %s%s",
		    bench_figure(bench, BENCH_BYTES, small),
		    bench_figure(bench, BENCH_BYTES, bench_median(bench, "smallest")),
		    bench_figure(bench, BENCH_BYTES, large),
		    bench_figure(bench, BENCH_BYTES, bench_median(bench, "largest")),
		    shared ? "" : ": they are copied, which is what a fork costs");
}

static void judge_writing(struct bench *bench)
{
	double without = bench_median(bench, "cycle/largest");
	double with = bench_median(bench, "written/largest");

	bench_judge(bench, "a child that writes pays for each page",
		    with > 2 * without ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%s with a child that writes all, %s with one that writes nothing",
		    bench_figure(bench, BENCH_NS, with), bench_figure(bench, BENCH_NS, without));
}

static void judge(struct bench *bench)
{
	judge_constant(bench);
	judge_cycles(bench);
	judge_microseconds(bench);
	judge_half_a_gigabyte(bench);
	judge_tables(bench);
	judge_writing(bench);
}

static const struct bench_plot plots[] = {
	{ "latency", "What a fork costs, by size", "MiB", "ns", .log_x = true, .log_y = true },
	{ "tables", "Page tables of the child", "MiB", "bytes", .log_x = true, .log_y = true },
	{ 0 },
};

const struct bench_experiment experiment_fork_size = {
	.name = "fork-size",
	.title = "What a fork costs by the size of the process",
	.source = BENCH_SOURCE_ATLAS "; " BENCH_SOURCE_COURSE "; " BENCH_SOURCE_PRODUCTION
				     "; " BENCH_SOURCE_FAULTS,
	.claim = "fork() becomes a few dozen CPU cycles. It is O(1) in the common case: "
		 "~microseconds for a large process, constant-time no matter how big; clone() "
		 "completes in microseconds for a 1 GB process. A fork of a 50 MB process takes "
		 "roughly as long as one of 1 MB; the difference shows only when the child writes. "
		 "fork and exit of a 500 MB process take milliseconds, not the seconds that a real "
		 "copy would take. Parent and child share the same pages by sharing page tables.",
	.method =
		"Processes of 1, 10, 50, 200, 500 MiB and more, all pages written, fork: a child "
		"that ends at once, and one that writes everything. Again with huge pages. Beside "
		"it, a memcpy() of as much, and the child's page tables (VmPTE). Each size is a "
		"process of its own; the sizes take turns.",
	.plots = plots,
	.seconds = 45,
	.run = run,
	.judge = judge,
};
