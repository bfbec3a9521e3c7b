/* SPDX-License-Identifier: MIT */
/*
 * page-granularity: a child writes ten elements of a global array of a million; how many pages
 * does it then have of its own? By frame numbers where they may be seen. The same with huge pages,
 * with a shared mapping, and in a region of libcow.
 */
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cow.h>

#include "cli/bench/forks.h"

#define ELEMENTS (1024 * 1024) /* integers: 4 MiB, as in the text */

/* A global, as in the text; page aligned, so that ten elements cannot lie in two pages. */
static int array[ELEMENTS] __attribute__((aligned(1 << 21)));

static int step(void *context, int number)
{
	int *elements = context, i;

	for (i = 0; i < number; i++)
		elements[i] = -1;
	return 0;
}

struct counted {
	uint64_t diverged, shared;
	struct bench_memory memory; /* of the child */
};

/* Forks, lets the child write so many elements, counts. */
static bool count(struct bench *bench, int *elements, size_t bytes, int written,
		  struct counted *ret_counted)
{
	struct bench_worker child;
	int error = bench_worker_begin(&child, step, elements);

	if (error) {
		bench_fail(bench, error, "cannot start a process");
		return false;
	}
	if (bench_worker_step(&child, written) < 0)
		error = -EPIPE;
	if (!error)
		error = bench_diverged_pages(child.pid, getpid(), elements, bytes,
					     &ret_counted->diverged, &ret_counted->shared);
	if (!error)
		error = bench_memory(child.pid, &ret_counted->memory);
	bench_worker_end(&child);
	if (error)
		bench_fail(bench, error, "cannot look at the child's pages");
	return !error;
}

static void add(struct bench *bench, const char *key, const char *label, double value,
		const char *text)
{
	bench_add_value(bench, &(struct bench_row){ key, label, BENCH_PAGES, text }, value);
}

static void count_array(struct bench *bench)
{
	struct counted none, ten, all;
	int i;

	madvise(array, sizeof(array), MADV_NOHUGEPAGE);
	for (i = 0; i < ELEMENTS; i++)
		array[i] = i;
	if (!count(bench, array, sizeof(array), 0, &none) ||
	    !count(bench, array, sizeof(array), 10, &ten) ||
	    !count(bench, array, sizeof(array), ELEMENTS, &all))
		return;
	add(bench, "pages", "pages of the array", (double)sizeof(array) / (double)getpagesize(),
	    NULL);
	add(bench, "unwritten/diverged_pages", "own pages of the child before it writes",
	    (double)none.diverged, "0");
	add(bench, "diverged_pages", "... after it has written ten elements", (double)ten.diverged,
	    "1");
	add(bench, "shared_pages", "pages still shared then", (double)ten.shared, "999+");
	add(bench, "all/diverged_pages", "own pages after it has written all", (double)all.diverged,
	    NULL);
	bench_check(bench, none.diverged == 0, "nothing is copied before somebody writes");
	bench_check(bench, ten.diverged == 1, "exactly one page diverges");
	bench_check(bench, all.shared == 0, "all pages diverge when all are written");
	bench_check(bench, array[0] == 0 && array[9] == 9, "the parent sees its own values");
}

/* What a huge page costs the first who writes a byte of it. */
static void count_huge(struct bench *bench)
{
	const size_t bytes = 4 * MIB;
	int *memory = bench_map(bench, bytes, true);
	struct bench_memory before = { 0 };
	struct counted ten;
	struct bench_row row = { "huge/diverged_pages",
				 "own pages after ten elements, in huge pages", BENCH_PAGES };

	if (!memory)
		return;
	bench_fill(memory, bytes, bench->seed);
	if (bench_memory(0, &before) < 0 || before.huge < bytes)
		bench_add_skipped(bench, &row, "no huge pages were to be had");
	else if (count(bench, memory, bytes, 10, &ten))
		bench_add_value(bench, &row, (double)ten.diverged);
	munmap(memory, bytes);
}

static void count_shared(struct bench *bench)
{
	int *memory = mmap(NULL, sizeof(array), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			   -1, 0);
	struct counted all;

	if (memory == MAP_FAILED)
		return;
	bench_fill(memory, sizeof(array), bench->seed);
	if (count(bench, memory, sizeof(array), ELEMENTS, &all)) {
		add(bench, "map-shared/diverged_pages",
		    "own pages after it has written all of a MAP_SHARED mapping",
		    (double)all.diverged, "0");
		bench_check(bench, all.diverged == 0 && memory[0] == -1,
			    "MAP_SHARED copies nothing: the parent sees what the child writes");
	}
	munmap(memory, sizeof(array));
}

static void count_libcow(struct bench *bench)
{
	struct cow_region *region = region_filled(bench, sizeof(array));
	struct cow_region_stats stats = COW_REGION_STATS_INIT;
	struct cow_snapshot *snapshot;
	const int written[10] = { -1, -1, -1, -1, -1, -1, -1, -1, -1, -1 };
	int error;

	if (!region)
		return;
	error = cow_region_snapshot(region, &snapshot);
	if (!error)
		error = cow_region_write(region, 0, written, sizeof(written));
	if (!error)
		error = cow_region_get_stats(region, &stats);
	if (error) {
		bench_fail(bench, error, "libcow");
		return;
	}
	add(bench, "libcow/copied_pages", "libcow: pages kept for a snapshot after ten elements",
	    (double)stats.copied_pages, NULL);
	bench_check(bench, stats.copied_pages == 1, "libcow keeps exactly one page");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

static void run(struct bench *bench)
{
	count_array(bench);
	count_huge(bench);
	count_shared(bench);
	count_libcow(bench);
	if (geteuid() != 0)
		bench_note(bench, "frame numbers need root: pages were told apart by the kernel's "
				  "'mapped once' bit");
}

static void judge(struct bench *bench)
{
	double one = bench_median(bench, "diverged_pages");
	double huge = bench_median(bench, "huge/diverged_pages");

	bench_judge(bench, "ten elements cost exactly one page, the others stay shared",
		    fabs(one - 1) < 0.5 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%.0f of %.0f pages diverged", one, bench_median(bench, "pages"));
	if (isnan(huge))
		bench_judge(bench, "a huge page is split rather than copied whole",
			    BENCH_NOT_JUDGED, "no huge pages were to be had");
	else
		bench_judge(bench, "a huge page is split rather than copied whole",
			    huge < 2 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
			    "%.0f pages of 4 KiB diverged in a huge page of 512", huge);
	bench_judge(bench, "MAP_SHARED mappings are not copied",
		    bench_median(bench, "map-shared/diverged_pages") < 0.5 ? BENCH_HOLDS :
									     BENCH_DOES_NOT_HOLD,
		    "%.0f pages diverged", bench_median(bench, "map-shared/diverged_pages"));
}

const struct bench_experiment experiment_page_granularity = {
	.name = "page-granularity",
	.title = "How much is copied when ten elements of an array change",
	.source = BENCH_SOURCE_COURSE "; " BENCH_SOURCE_FAULTS "; " BENCH_SOURCE_PRODUCTION,
	.claim = "A child that modifies only the first ten elements of a global array of a million "
		 "integers (4 MB) triggers the copy of just one page; the 999+ other pages remain "
		 "shared until written. Of a huge page the kernel may copy a part instead of the "
		 "whole 2 MiB. MAP_SHARED mappings are not eligible.",
	.method = "The text's program; then the page tables of parent and child are compared page "
		  "by page. Again with huge pages, with a MAP_SHARED mapping, and in a region of "
		  "libcow.",
	.seconds = 5,
	.run = run,
	.judge = judge,
};
