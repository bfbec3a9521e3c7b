/* SPDX-License-Identifier: MIT */
/*
 * swarm: a thousand children of one parent, each writing a buffer of 4 MiB once a second.
 *
 * Each child writes its buffer in its own part of the second, so that what is measured is a write
 * and not the queue for the processors. Its first write takes the copies, its second does not: the
 * difference is what copy-on-write costs. Results are collected in memory that all share. Twice:
 * with 4 KiB pages and with huge pages.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/bench/forks.h"

#define BUFFER (4 * MIB)

/* Of one child, in shared memory. */
struct child {
	pid_t pid;
	uint64_t first_ns, later_ns; /* of its first write, and of the fastest one after that */
	unsigned int written;        /* atomic: how often */
};

struct swarm {
	size_t count;
	unsigned int seconds; /* or shorter rounds */
	uint64_t second_ns;
	char *buffer;
	struct child *children;
	struct bench_samples forks;
	double rss, pss, tables; /* sums over all processes at the end */
};

static void sleep_until(uint64_t ns)
{
	const struct timespec until = { .tv_sec = (time_t)(ns / 1000000000),
					.tv_nsec = (long)(ns % 1000000000) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

/* Writes once a second, and stays until it is ended, so that its memory can be looked at. */
__attribute__((noreturn)) static void live(const struct swarm *swarm, size_t number, uint64_t start)
{
	struct child *self = &swarm->children[number];
	uint64_t phase = number * swarm->second_ns / swarm->count, ns, begun;
	unsigned int second;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (second = 0; second < swarm->seconds; second++) {
		sleep_until(start + second * swarm->second_ns + phase);
		begun = bench_now();
		memset(swarm->buffer, (int)second + 'A', BUFFER);
		ns = bench_lap(begun);
		if (second == 0)
			self->first_ns = ns;
		else if (!self->later_ns || ns < self->later_ns)
			self->later_ns = ns;
		__atomic_store_n(&self->written, second + 1, __ATOMIC_RELEASE);
	}
	for (;;)
		pause();
}

static bool start_children(struct bench *bench, struct swarm *swarm, uint64_t start)
{
	uint64_t begun;
	size_t i;

	for (i = 0; i < swarm->count; i++) {
		begun = bench_now();
		swarm->children[i].pid = fork();
		if (swarm->children[i].pid == 0)
			live(swarm, i, start);
		bench_samples_add(&swarm->forks, (double)bench_lap(begun));
		if (swarm->children[i].pid < 0) {
			bench_fail(bench, -errno, "cannot start child %zu of %zu", i + 1,
				   swarm->count);
			return false;
		}
	}
	return true;
}

/* However busy the machine is, each child gets to do all its writes; late ones are said to be. */
static void wait_for_all(struct bench *bench, const struct swarm *swarm, uint64_t start)
{
	uint64_t end = start + (swarm->seconds + 1) * swarm->second_ns;
	size_t i, done;

	do {
		usleep(20000);
		for (i = done = 0; i < swarm->count; i++)
			done += __atomic_load_n(&swarm->children[i].written, __ATOMIC_ACQUIRE) ==
				swarm->seconds;
		bench_progress(bench, done, swarm->count);
	} while (done < swarm->count);
	if (bench_now() > end)
		bench_note(bench, "the machine was busy: writes came late");
}

static void look(struct bench *bench, struct swarm *swarm)
{
	struct bench_memory memory;
	size_t i;

	for (i = 0; i <= swarm->count && !bench_over(bench); i++) {
		pid_t pid = i < swarm->count ? swarm->children[i].pid : 0;
		int error = bench_memory(pid, &memory);

		if (error)
			bench_fail(bench, error, "cannot look at child %zu", i + 1);
		swarm->rss += (double)memory.rss;
		swarm->pss += (double)memory.pss;
		swarm->tables += (double)memory.page_tables;
	}
}

static void end_children(struct swarm *swarm)
{
	size_t i;

	for (i = 0; i < swarm->count; i++)
		if (swarm->children[i].pid > 0)
			kill(swarm->children[i].pid, SIGKILL);
	for (i = 0; i < swarm->count; i++)
		if (swarm->children[i].pid > 0)
			waitpid(swarm->children[i].pid, NULL, 0);
}

/* Time for all to be started comes before the first second. */
static void run_swarm(struct bench *bench, struct swarm *swarm, bool huge)
{
	size_t room = swarm->count * sizeof(*swarm->children);
	uint64_t start = bench_now() + 200000000 + swarm->count * UINT64_C(1000000);

	swarm->buffer = bench_map(bench, BUFFER, huge);
	swarm->children = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			       0);
	if (bench_over(bench) || swarm->children == MAP_FAILED)
		return;
	bench_fill(swarm->buffer, BUFFER, bench->seed);
	if (start_children(bench, swarm, start)) {
		wait_for_all(bench, swarm, start);
		look(bench, swarm);
	}
	end_children(swarm);
	munmap(swarm->buffer, BUFFER);
}

static void add(struct bench *bench, const char *pages, const char *key, const char *label,
		enum bench_unit unit, const char *text, const struct bench_samples *samples)
{
	bench_add(bench,
		  &(struct bench_row){ .key = bench_text(bench, "%s/%s", pages, key),
				       .label = bench_text(bench, "%s, %s pages", label, pages),
				       .unit = unit,
				       .text = text,
				       .plot = unit == BENCH_NS ? "latency" : NULL },
		  samples);
}

static void add_rows(struct bench *bench, struct swarm *swarm, const char *pages, bool huge)
{
	struct bench_samples cow = { 0 }, later = { 0 };
	const struct bench_samples rss = { &swarm->rss, 1, 1 }, pss = { &swarm->pss, 1, 1 },
				   tables = { &swarm->tables, 1, 1 };
	size_t i;

	for (i = 0; i < swarm->count && !bench_over(bench); i++) {
		const struct child *child = &swarm->children[i];

		bench_samples_add(&later, (double)child->later_ns);
		bench_samples_add(&cow, (double)child->first_ns - (double)child->later_ns);
	}
	add(bench, pages, "fork", "fork()", BENCH_NS, huge ? "88 us" : "120 / 95 us (5.4, 6.1)",
	    &swarm->forks);
	add(bench, pages, "cow", "write-induced copying of 4 MiB", BENCH_NS,
	    huge ? "1,750 us" : "3,200 / 2,100 us", &cow);
	add(bench, pages, "later", "a later write of 4 MiB", BENCH_NS, NULL, &later);
	add(bench, pages, "rss", "sum of RSS", BENCH_BYTES,
	    huge ? "7,600 MiB for 1,000" : "8,200 / 7,850 MiB for 1,000", &rss);
	add(bench, pages, "pss", "sum of PSS: what it really takes", BENCH_BYTES, NULL, &pss);
	add(bench, pages, "tables", "page tables", BENCH_BYTES, NULL, &tables);
	bench_samples_free(&cow);
	bench_samples_free(&later);
}

static void run(struct bench *bench)
{
	static const char *const names[] = { "4 KiB", "2 MiB" };
	const size_t wanted = BENCH_BY_SCALE(bench, 8, 250, 1000, 1000);
	/* A child takes more than its buffer. */
	size_t count = bench->memory / (BUFFER + MIB), i;

	count = count < wanted ? count : wanted;
	if (count < 2) {
		bench_skip(bench, "needs 10 MiB of memory; give more with --memory");
		return;
	}
	if (count < 1000)
		bench_note(bench, "%zu processes instead of 1,000: %s", count,
			   count < wanted ? "memory allows no more" : "use --full for all");
	bench_add_value(bench,
			&(struct bench_row){ "processes", "processes", BENCH_COUNT, "1,000" },
			(double)count);
	for (i = 0; i < 2 && !bench_over(bench); i++) {
		struct swarm swarm = {
			.count = count,
			.seconds = BENCH_BY_SCALE(bench, 2u, 4u, 10u, 10u),
			.second_ns = BENCH_BY_SCALE(bench, UINT64_C(100000000),
						    UINT64_C(1000000000), UINT64_C(1000000000),
						    UINT64_C(1000000000)),
		};

		run_swarm(bench, &swarm, i == 1);
		add_rows(bench, &swarm, names[i], i == 1);
		bench_samples_free(&swarm.forks);
	}
	bench_check(bench, bench_median(bench, "4 KiB/pss") >= (double)count * (double)BUFFER,
		    "every child has a buffer of its own once all have written");
}

static void judge_forks(struct bench *bench)
{
	double ns = bench_median(bench, "4 KiB/fork");

	bench_judge(bench, "a fork takes about 100 us (120 to 88)",
		    ns < 250e3  ? BENCH_HOLDS :
		    ns < 1000e3 ? BENCH_HOLDS_IN_PART :
				  BENCH_DOES_NOT_HOLD,
		    "%s, for a parent of a few MiB", bench_figure(bench, BENCH_NS, ns));
}

static void judge_copies(struct bench *bench)
{
	double ns = bench_median(bench, "4 KiB/cow"), huge = bench_median(bench, "2 MiB/cow");

	bench_judge(bench, "copying 4 MiB on writing takes 1.75 to 3.2 ms",
		    ns > 0.8e6 && ns < 6.4e6 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD, "%s: %s a page",
		    bench_figure(bench, BENCH_NS, ns), bench_figure(bench, BENCH_NS, ns / 1024));
	bench_judge(bench, "huge pages make that cheaper, since they are not split",
		    bench_is_above(bench, "4 KiB/cow", "2 MiB/cow") ? BENCH_HOLDS :
								      BENCH_DOES_NOT_HOLD,
		    "%s with huge pages, %s without (a shared huge page is split by the first "
		    "write, and copied by pages of 4 KiB)",
		    bench_figure(bench, BENCH_NS, huge), bench_figure(bench, BENCH_NS, ns));
}

static void judge_memory(struct bench *bench)
{
	double count = bench_median(bench, "processes");
	double rss = bench_median(bench, "4 KiB/rss") / count;
	double pss = bench_median(bench, "4 KiB/pss") / count;

	bench_judge(bench, "1,000 processes take some 8 GiB (8.2 MiB each)",
		    pss > 6 * (double)MIB ? BENCH_HOLDS :
		    rss > 6 * (double)MIB ? BENCH_HOLDS_IN_PART :
					    BENCH_DOES_NOT_HOLD,
		    "%s of RSS each, which counts what is shared again for everyone; %s each in "
		    "truth (PSS), its own buffer of 4 MiB included",
		    bench_figure(bench, BENCH_BYTES, rss), bench_figure(bench, BENCH_BYTES, pss));
}

static void judge(struct bench *bench)
{
	judge_forks(bench);
	judge_copies(bench);
	judge_memory(bench);
}

static const struct bench_plot plots[] = {
	{ "latency", "Forks and first writes of a swarm", NULL, "ns", .log_y = true },
	{ 0 },
};

const struct bench_experiment experiment_swarm = {
	.name = "swarm",
	.title = "A thousand processes that each write 4 MiB once a second",
	.source = BENCH_SOURCE_PRODUCTION,
	.claim = "1,000 forked processes, each writing to a 4 MiB buffer once per second, on a "
		 "32-core Xeon with 256 GiB: average fork latency 120 us (Linux 5.4), 95 us (6.1), "
		 "88 us (6.5 with THP); average write-induced copy-on-write 3,200, 2,100, 1,750 "
		 "us; total RSS after 10 s 8,200, 7,850, 7,600 MiB.",
	.method =
		"The same, as many processes as memory and --quick allow, each in its own part of "
		"the second; once with 4 KiB pages, once with huge pages. Write-induced copying "
		"is the first write of the buffer less a later one. Memory is looked at at the "
		"end.",
	.plots = plots,
	.seconds = 20,
	.run = run,
	.judge = judge,
};
