/* SPDX-License-Identifier: MIT */
/*
 * fault-path: the first write to a page, taken apart by difference.
 *
 * Every kind of first write is done to all pages of a buffer, and the time is divided by the
 * pages. Kinds differ in what the kernel has to do besides taking the trap:
 *
 *	reuse		trap, look, make the entry writable (the other process is gone)
 *	zero-fill	trap, allocate, clear
 *	copy		trap, allocate, copy, replace the entry, flush
 *
 * so that copy - reuse is what allocation and copy cost, and a memcpy() of as much (in the cache
 * and out of it) says how much of that the copy is. A second thread on another processor adds what
 * its TLB costs.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __x86_64__
#include <emmintrin.h>
#endif

#include "cli/bench/forks.h"

static struct {
	char *memory;
	size_t bytes, pages;
	char file[4200];
	int fd;
} work;

static volatile sig_atomic_t segfaults; /* seen by a handler: none, if the kernel is as it should */

static void count_segfault(int number)
{
	(void)number;
	segfaults++;
}

static double per_page(uint64_t start)
{
	return (double)bench_lap(start) / (double)work.pages;
}

/* --- kinds of first writes; each leaves no mapping behind --- */

static char *fresh(struct bench *bench)
{
	work.memory = bench_map(bench, work.bytes, false);
	return work.memory;
}

static double finish(double ns)
{
	munmap(work.memory, work.bytes);
	return ns;
}

static double measure_present(struct bench *bench, const struct bench_subject *subject)
{
	uint64_t start;
	int i;

	(void)subject;
	if (!fresh(bench))
		return NAN;
	bench_fill(work.memory, work.bytes, bench->seed);
	start = bench_now();
	/* One round is too short to be timed. */
	for (i = 0; i < 16; i++)
		write_pages(work.memory, work.bytes);
	return finish(per_page(start) / 16);
}

static double timed_writes(void)
{
	uint64_t start = bench_now();

	write_pages(work.memory, work.bytes);
	return per_page(start);
}

/* The first writes to what a child shared: it does nothing, and stays; or it has gone by then. */
static double timed_after_fork(struct bench *bench, bool stays)
{
	pid_t pid = fork_idle();
	double ns;

	if (pid < 0) {
		bench_fail(bench, pid, "cannot fork");
		return NAN;
	}
	if (!stays)
		end_idle(pid);
	ns = timed_writes();
	if (stays)
		end_idle(pid);
	return ns;
}

static double measure_zero_fill(struct bench *bench, const struct bench_subject *subject)
{
	(void)subject;
	return fresh(bench) ? finish(timed_writes()) : NAN;
}

static double measure_zero_read(struct bench *bench, const struct bench_subject *subject)
{
	uint64_t start;

	(void)subject;
	if (!fresh(bench))
		return NAN;
	start = bench_now();
	read_pages(work.memory, work.bytes);
	return finish(per_page(start));
}

/* Read before, so that each entry points to the zero page: a copy of zeroes. */
static double measure_zero_page(struct bench *bench, const struct bench_subject *subject)
{
	(void)subject;
	if (!fresh(bench))
		return NAN;
	read_pages(work.memory, work.bytes);
	return finish(timed_writes());
}

/* With number 1 the child is gone: nobody else has the pages any more. */
static double measure_copy(struct bench *bench, const struct bench_subject *subject)
{
	if (!fresh(bench))
		return NAN;
	bench_fill(work.memory, work.bytes, bench->seed);
	return finish(timed_after_fork(bench, subject->number != 1));
}

static volatile bool spinning, wanted;

static void *spin(void *context)
{
	(void)context;
	spinning = true;
	while (wanted)
		;
	return NULL;
}

/* The same, while another thread of the writer runs: its processor has to be told. */
static double measure_with_thread(struct bench *bench, const struct bench_subject *subject)
{
	pthread_t thread;
	double ns;

	wanted = true;
	spinning = false;
	if (pthread_create(&thread, NULL, spin, NULL) != 0) {
		bench_fail(bench, 0, "cannot start a thread");
		return NAN;
	}
	while (!spinning)
		;
	ns = measure_copy(bench, subject);
	wanted = false;
	pthread_join(thread, NULL);
	return ns;
}

/* number: MAP_PRIVATE or MAP_SHARED; the file is in the page cache. */
static double measure_file(struct bench *bench, const struct bench_subject *subject)
{
	work.memory = mmap(NULL, work.bytes, PROT_READ | PROT_WRITE, (int)subject->number, work.fd,
			   0);
	if (work.memory == MAP_FAILED) {
		bench_fail(bench, -errno, "cannot map a file");
		return NAN;
	}
	read_pages(work.memory, work.bytes);
	return finish(timed_writes());
}

/* Shared with a child that lives: written by both, copied by nobody. */
static double measure_shared(struct bench *bench, const struct bench_subject *subject)
{
	(void)subject;
	work.memory = mmap(NULL, work.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			   0);
	if (work.memory == MAP_FAILED) {
		bench_fail(bench, -errno, "cannot map memory");
		return NAN;
	}
	bench_fill(work.memory, work.bytes, bench->seed);
	return finish(timed_after_fork(bench, true));
}

/* Pages of 4 KiB in a huge page that a child shares: the first write splits it. */
static double measure_huge(struct bench *bench, const struct bench_subject *subject)
{
	(void)subject;
	work.memory = bench_map(bench, work.bytes, true);
	if (!work.memory)
		return NAN;
	bench_fill(work.memory, work.bytes, bench->seed);
	return finish(timed_after_fork(bench, true));
}

/* --- what a copy alone costs --- */

/* Ways to copy a page: the C library's, and two that processors offer beside it. */
typedef void (*copy_fn)(char *to, const char *from, size_t bytes);

static void copy_by_library(char *to, const char *from, size_t bytes)
{
	memcpy(to, from, bytes);
}

#ifdef __x86_64__
/* NOLINTNEXTLINE(readability-non-const-parameter): it is written to. */
static void copy_by_string(char *to, const char *from, size_t bytes)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

/* Past the caches. */
static void copy_by_stream(char *to, const char *from, size_t bytes)
{
	size_t i;

	for (i = 0; i < bytes; i += 16)
		_mm_stream_si128((__m128i *)(void *)(to + i),
				 _mm_load_si128((const __m128i *)(const void *)(from + i)));
	_mm_sfence();
}
#endif

/* number: bytes that are gone through, so whether they are in a cache. */
static double measure_memcpy(struct bench *bench, const struct bench_subject *subject)
{
	char *from = bench_map(bench, subject->number, false);
	char *to = bench_map(bench, subject->number, false);
	const copy_fn *copy = subject->context;
	size_t page = (size_t)getpagesize(), i, done = 0;
	uint64_t start;
	double ns;

	if (!from || !to)
		return NAN;
	bench_fill(from, subject->number, bench->seed);
	memset(to, 1, subject->number);
	start = bench_now();
	while (done < work.pages)
		for (i = 0; i < subject->number && done < work.pages; i += page, done++)
			(*copy)(to + i, from + i, page);
	ns = per_page(start);
	munmap(from, subject->number);
	munmap(to, subject->number);
	return ns;
}

/* --- the experiment --- */

static bool make_file(struct bench *bench)
{
	char *mapped;

	snprintf(work.file, sizeof(work.file), "%s/file", bench->directory);
	work.fd = open(work.file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (work.fd < 0 || ftruncate(work.fd, (off_t)work.bytes) < 0) {
		bench_fail(bench, -errno, "cannot make a file of %zu bytes", work.bytes);
		return false;
	}
	mapped = mmap(NULL, work.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, work.fd, 0);
	if (mapped == MAP_FAILED) {
		bench_fail(bench, -errno, "cannot map a file");
		return false;
	}
	bench_fill(mapped, work.bytes, bench->seed);
	munmap(mapped, work.bytes);
	return true;
}

/* Turn by turn, so with a spread: one row less another. */
static void add_difference(struct bench *bench, const char *key, const char *label, const char *row,
			   const char *less)
{
	bench_add_value(bench, &(struct bench_row){ key, label, BENCH_NS, NULL, "parts" },
			bench_median(bench, row) - bench_median(bench, less));
}

static void add_parts(struct bench *bench)
{
	if (bench_over(bench))
		return;
	bench_add_value(bench,
			&(struct bench_row){ "part/trap", "the trap, and making the entry writable",
					     BENCH_NS, NULL, "parts" },
			bench_median(bench, "reuse") - bench_median(bench, "present"));
	add_difference(bench, "part/allocate-copy", "allocation, copy, replacing the entry", "copy",
		       "reuse");
	bench_add_value(bench,
			&(struct bench_row){ "part/copy", "of that the copy (memcpy, not cached)",
					     BENCH_NS, NULL, "parts" },
			bench_median(bench, "memcpy/uncached"));
	add_difference(bench, "part/other-tlb", "another processor's TLB", "copy/thread", "copy");
}

/* What diverges in a huge page when one byte is written; and whether a signal was seen. */
static void check_structure(struct bench *bench)
{
	struct bench_memory before = { 0 }, after = { 0 };
	char *memory = bench_map(bench, 2 * MIB, true);
	pid_t pid;
	int error;

	if (!memory)
		return;
	bench_fill(memory, 2 * MIB, bench->seed);
	error = bench_memory(0, &before);
	pid = fork_idle();
	memory[0]++;
	if (!error)
		error = bench_memory(0, &after);
	end_idle(pid);
	if (error)
		bench_fail(bench, error, "cannot read /proc/self/smaps_rollup");
	else if (before.huge < 2 * MIB)
		bench_add_skipped(bench,
				  &(struct bench_row){ "huge/grown",
						       "memory copied by one byte in a huge page",
						       BENCH_BYTES, "less than 2 MiB" },
				  "no huge page was to be had");
	else
		bench_add_value(bench,
				&(struct bench_row){ "huge/grown",
						     "memory copied by one byte in a huge page",
						     BENCH_BYTES, "less than 2 MiB" },
				(double)after.rss - (double)before.rss + (double)getpagesize());
	bench_add_value(bench,
			&(struct bench_row){ "segfaults", "SIGSEGV seen by a handler, all writes",
					     BENCH_COUNT, "one a copy" },
			(double)segfaults);
	bench_check(bench, segfaults == 0, "no write raised a signal");
	munmap(memory, 2 * MIB);
}

static void measure(struct bench *bench)
{
	static const copy_fn library = copy_by_library;
#ifdef __x86_64__
	static const copy_fn string = copy_by_string, stream = copy_by_stream;
#endif
	const struct bench_subject subjects[] = {
		{ { "copy", "write to a page that a child shares: copy", BENCH_NS, NULL, "kinds" },
		  measure_copy },
		{ { "reuse", "... that it shared, but has ended: reuse", BENCH_NS,
		    "no copy where page_count is 1", "kinds" },
		  measure_copy,
		  1 },
		{ { "copy/thread", "copy, with another thread running", BENCH_NS, NULL, "kinds" },
		  measure_with_thread },
		{ { "zero-fill", "write to an untouched page: zero-fill", BENCH_NS, NULL, "kinds" },
		  measure_zero_fill },
		{ { "zero-read", "read of an untouched page: the zero page", BENCH_NS, NULL,
		    "kinds" },
		  measure_zero_read },
		{ { "zero-page", "write to it then", BENCH_NS, NULL, "kinds" }, measure_zero_page },
		{ { "file/private", "write to a MAP_PRIVATE page of a file: copy", BENCH_NS,
		    "as a forked page", "kinds" },
		  measure_file,
		  MAP_PRIVATE },
		{ { "file/shared", "write to a MAP_SHARED page of a file", BENCH_NS, NULL,
		    "kinds" },
		  measure_file,
		  MAP_SHARED },
		{ { "map-shared", "write to MAP_SHARED memory that a child shares", BENCH_NS,
		    "no copy", "kinds" },
		  measure_shared },
		{ { "huge", "write to a huge page that a child shares, by 4 KiB", BENCH_NS, NULL,
		    "kinds" },
		  measure_huge },
		{ { "present", "write to a page that is its own", BENCH_NS, NULL, "kinds" },
		  measure_present },
		{ { "memcpy/cached", "memcpy() of a page, cached", BENCH_NS },
		  measure_memcpy,
		  65536,
		  &library },
		{ { "memcpy/uncached", "memcpy() of a page, not cached", BENCH_NS },
		  measure_memcpy,
		  work.bytes,
		  &library },
#ifdef __x86_64__
		{ { "string/uncached", "string instruction of a page, not cached", BENCH_NS },
		  measure_memcpy,
		  work.bytes,
		  &string },
		{ { "stream/uncached", "stores past the caches, not cached", BENCH_NS },
		  measure_memcpy,
		  work.bytes,
		  &stream },
#endif
	};

	bench_take_turns_controlled(bench, subjects, sizeof(subjects) / sizeof(subjects[0]));
	bench_add_ratio(bench, &(struct bench_row){ "copy/reuse", "copy / reuse" }, "copy",
			"reuse");
}

static void run(struct bench *bench)
{
	work.bytes = bench_fit(bench, BENCH_BY_SCALE(bench, 2, 32, 64, 128) * MIB, 4);
	work.pages = work.bytes / (size_t)getpagesize();
	signal(SIGSEGV, count_segfault);
	if (!make_file(bench))
		return;
	measure(bench);
	add_parts(bench);
	check_structure(bench);
	close(work.fd);
}

static void judge_hot_spot(struct bench *bench)
{
	double copy = bench_median(bench, "copy"), reuse = bench_median(bench, "reuse");
	double share = (copy - reuse) / copy;

	bench_judge(bench, "the hot spot is allocating and copying the page",
		    share > 0.5 ? BENCH_HOLDS :
		    share > 0.3 ? BENCH_HOLDS_IN_PART :
				  BENCH_DOES_NOT_HOLD,
		    "%.0f %% of %s; the trap and the rest take %s", 100 * share,
		    bench_figure(bench, BENCH_NS, copy), bench_figure(bench, BENCH_NS, reuse));
	bench_judge(bench, "a page that nobody else has is made writable without a copy",
		    bench_is_above(bench, "copy", "reuse") ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%s beside %s", bench_figure(bench, BENCH_NS, reuse),
		    bench_figure(bench, BENCH_NS, copy));
}

static void judge_kinds(struct bench *bench)
{
	double private = bench_median(bench, "file/private"), copy = bench_median(bench, "copy");
	double ratio = private / copy;

	bench_judge(bench, "a MAP_PRIVATE file page is copied like a forked page",
		    ratio > 0.4 && ratio < 2.5 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD, "%s beside %s",
		    bench_figure(bench, BENCH_NS, private), bench_figure(bench, BENCH_NS, copy));
	bench_judge(bench, "MAP_SHARED memory is written without a copy",
		    bench_is_above(bench, "copy", "map-shared") ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%s beside %s",
		    bench_figure(bench, BENCH_NS, bench_median(bench, "map-shared")),
		    bench_figure(bench, BENCH_NS, copy));
}

static void judge_huge(struct bench *bench)
{
	double grown = bench_median(bench, "huge/grown");

	if (isnan(grown))
		bench_judge(bench, "a huge page is split instead of copied whole", BENCH_NOT_JUDGED,
			    "no huge page was to be had");
	else
		bench_judge(bench, "a huge page is split instead of copied whole",
			    grown < (double)MIB ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
			    "one byte written in it copies %s",
			    bench_figure(bench, BENCH_BYTES, grown));
}

static void judge(struct bench *bench)
{
	double segv = bench_median(bench, "segfaults");

	judge_hot_spot(bench);
	judge_kinds(bench);
	judge_huge(bench);
	bench_judge(bench, "a write triggers a SIGSEGV that the kernel intercepts",
		    segv > 0 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%.0f signals in all these writes%s", segv,
		    segv > 0 ? "" :
			       ": the kernel handles the page fault; a signal is what it sends "
			       "when it finds no right to write");
}

static const struct bench_plot plots[] = {
	{ "kinds", "First writes, by what the kernel has to do", NULL, "ns a page" },
	{ "parts", "A copying first write, by difference", NULL, "ns a page" },
	{ 0 },
};

const struct bench_experiment experiment_fault_path = {
	.name = "fault-path",
	.title = "The first write to a page, taken apart",
	.source = BENCH_SOURCE_PRODUCTION "; " BENCH_SOURCE_FORK "; " BENCH_SOURCE_FAULTS,
	.claim = "A write to a shared page looks the area up, validates permissions, allocates a "
		 "page, copies the contents and sets the entry; allocation and copy are the "
		 "critical hot spot. Any write triggers a SIGSEGV that the kernel intercepts. "
		 "Where page_count is 1 the page is made writable without a copy. Of a huge page "
		 "the kernel may split lazily instead of copying 2 MiB. MAP_PRIVATE writes to a "
		 "file are treated as writes to a forked page; MAP_SHARED is not eligible.",
	.method =
		"Each kind of first write is done to all pages of a buffer of 32 MiB or more, in "
		"turns; shown is the time a page. Differences between the kinds give the parts; a "
		"second thread, spinning, adds what another processor's TLB costs.",
	.plots = plots,
	.seconds = 15,
	.run = run,
	.judge = judge,
};
