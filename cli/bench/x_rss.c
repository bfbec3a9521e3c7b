/* SPDX-License-Identifier: MIT */
/*
 * rss: what the kernel's counters say of a child that shares, and then writes, its parent's memory.
 *
 * The same steps as the texts' programs: a buffer is filled, a child is made, it reads all of it,
 * writes a quarter, writes the rest. The parent looks at RSS, PSS and USS of both from outside.
 */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench/bench.h"

#define MIB ((uint64_t)1 << 20)

struct buffer {
	char *memory;
	size_t bytes;
};

enum step { STEP_READ, STEP_WRITE_QUARTER, STEP_WRITE_ALL };

static volatile char sink;

/* In the child. */
static int step(void *context, int number)
{
	const struct buffer *buffer = context;
	size_t page = (size_t)sysconf(_SC_PAGESIZE), i;
	size_t end = number == STEP_WRITE_QUARTER ? buffer->bytes / 4 : buffer->bytes;

	for (i = 0; i < end; i += page) {
		if (number == STEP_READ)
			sink = buffer->memory[i];
		else
			buffer->memory[i] = 'Y';
	}
	return 0;
}

static void add(struct bench *bench, const char *when, const char *who, pid_t pid, double text_mb)
{
	struct bench_memory memory;
	int error = bench_memory(pid, &memory);
	const char *text = text_mb > 0 ? bench_text(bench, "%.0f MB", text_mb) : NULL;
	const struct {
		const char *name;
		uint64_t value;
	} kinds[] = { { "RSS", memory.rss }, { "PSS", memory.pss }, { "USS", memory.uss } };
	size_t i;

	if (error)
		bench_fail(bench, error, "cannot read /proc/PID/smaps_rollup");
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && !bench_over(bench); i++)
		bench_add_value(
			bench,
			&(struct bench_row){
				.key = bench_text(bench, "%s/%s/%s", when, who, kinds[i].name),
				.label = bench_text(bench, "%s of the %s, %s", kinds[i].name, who,
						    when),
				.unit = BENCH_BYTES,
				.text = i == 0 ? text : NULL,
				/* All of them would be too many bars. */
				.plot = strcmp(who, "child") == 0 ? "memory" : NULL,
			},
			(double)kinds[i].value);
}

static void add_both(struct bench *bench, const char *when, const struct bench_worker *child)
{
	add(bench, when, "parent", getpid(), 0);
	add(bench, when, "child", child->pid, 0);
}

static void run_steps(struct bench *bench, struct bench_worker *child)
{
	add_both(bench, "after fork", child);
	bench_worker_step(child, STEP_READ);
	add_both(bench, "all read", child);
	bench_worker_step(child, STEP_WRITE_QUARTER);
	add_both(bench, "a quarter written", child);
	if (bench_worker_step(child, STEP_WRITE_ALL) < 0)
		bench_fail(bench, 0, "the child has died");
	add_both(bench, "all written", child);
}

static void run(struct bench *bench)
{
	const uint64_t wanted = BENCH_BY_SCALE(bench, 4 * MIB, 64 * MIB, 200 * MIB, 200 * MIB);
	struct buffer buffer = { .bytes = bench_fit(bench, wanted, 2) };
	struct bench_worker child;
	int error;

	buffer.memory = bench_map(bench, buffer.bytes, false);
	if (!buffer.memory)
		return;
	bench_fill(buffer.memory, buffer.bytes, bench->seed);
	bench_add_value(bench,
			&(struct bench_row){ "buffer", "the buffer", BENCH_BYTES, "200 MB, 50 MB" },
			(double)buffer.bytes);
	add(bench, "before fork", "parent", getpid(), 0);
	error = bench_worker_begin(&child, step, &buffer);
	if (error) {
		bench_fail(bench, error, "cannot start a process");
		return;
	}
	run_steps(bench, &child);
	bench_worker_end(&child);
	add(bench, "child has ended", "parent", getpid(), 0);
	bench_check(bench,
		    bench_median(bench, "after fork/parent/RSS") >
			    0.98 * bench_median(bench, "before fork/parent/RSS"),
		    "the fork takes nothing off the parent's RSS");
	bench_check(bench,
		    bench_median(bench, "all read/child/USS") < 0.1 * (double)buffer.bytes + MIB,
		    "reading un-shares nothing");
	bench_check(bench,
		    bench_median(bench, "all written/child/USS") >= 0.99 * (double)buffer.bytes,
		    "all that is written is the child's own");
	bench_check(bench,
		    bench_median(bench, "child has ended/parent/USS") >=
			    0.99 * (double)buffer.bytes,
		    "when the child has ended all is the parent's own again");
}

static void judge_child_rss(struct bench *bench)
{
	double parent = bench_median(bench, "after fork/parent/RSS");
	double child = bench_median(bench, "all read/child/RSS");
	double start = bench_median(bench, "after fork/child/RSS");
	double end = bench_median(bench, "all written/child/RSS");
	double buffer = bench_median(bench, "buffer");
	bool same = fabs(child - parent) < 0.1 * parent + 2 * (double)MIB;
	bool grows = end - start > 0.5 * buffer;

	bench_judge(bench, "after fork() the RSS of parent and child is almost unchanged",
		    same ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD, "parent %s, child %s",
		    bench_figure(bench, BENCH_BYTES, parent),
		    bench_figure(bench, BENCH_BYTES, child));
	bench_judge(
		bench, "the child's resident memory grows only as it writes",
		grows ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		"its RSS is %s just after the fork, %s after writing all of %s%s",
		bench_figure(bench, BENCH_BYTES, start), bench_figure(bench, BENCH_BYTES, end),
		bench_figure(bench, BENCH_BYTES, buffer),
		grows ? "" :
			": RSS counts a shared page in full, so it cannot show this; PSS and USS "
			"do");
}

static void judge_uss(struct bench *bench)
{
	double buffer = bench_median(bench, "buffer");
	double read = bench_median(bench, "all read/child/USS");
	double quarter = bench_median(bench, "a quarter written/child/USS");
	double all = bench_median(bench, "all written/child/USS");
	bool exact = fabs(quarter - read - buffer / 4) < 0.02 * buffer &&
		     fabs(all - read - buffer) < 0.02 * buffer;

	bench_judge(bench, "memory is duplicated only in proportion to what diverges",
		    exact ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "USS of the child: %s after reading all, %s after writing a quarter, %s after "
		    "writing all",
		    bench_figure(bench, BENCH_BYTES, read),
		    bench_figure(bench, BENCH_BYTES, quarter),
		    bench_figure(bench, BENCH_BYTES, all));
}

static void judge_three_answers(struct bench *bench)
{
	double sum = bench_median(bench, "all read/parent/RSS") +
		     bench_median(bench, "all read/child/RSS");
	double pss = bench_median(bench, "all read/parent/PSS") +
		     bench_median(bench, "all read/child/PSS");

	bench_judge(bench, "RSS, PSS and USS give three answers, and naive sums count twice",
		    sum > 1.5 * pss ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "the sum of RSS says %s, the sum of PSS %s",
		    bench_figure(bench, BENCH_BYTES, sum), bench_figure(bench, BENCH_BYTES, pss));
}

static void judge(struct bench *bench)
{
	judge_child_rss(bench);
	judge_uss(bench);
	judge_three_answers(bench);
}

static const struct bench_plot plots[] = {
	{ "memory", "RSS, PSS and USS of the child", NULL, "bytes" },
	{ 0 },
};

const struct bench_experiment experiment_rss = {
	.name = "rss",
	.title = "Who has how much memory, before and after a fork",
	.source = BENCH_SOURCE_ATLAS "; " BENCH_SOURCE_COURSE "; " BENCH_SOURCE_FORK,
	.claim = "A child of a process with a buffer of 200 MB (50 MB) shares all of it: after "
		 "fork() the RSS of both appears almost unchanged while the shared part grows; the "
		 "child's resident memory grows only as it writes, one page of 4 KB a fault (RSS "
		 "after dirtying 50 MB printed as the proof). With pages shared, memory use has "
		 "three answers, RSS, PSS and USS, and naive monitoring counts twice.",
	.method = "A buffer is filled; a child is forked, reads all of it, writes a quarter, then "
		  "all. Before, and after each step, /proc/PID/smaps_rollup of both processes is "
		  "read from outside. RSS counts every mapped page in full, PSS divides it by its "
		  "users, USS is what nobody else maps.",
	.plots = plots,
	.seconds = 5,
	.run = run,
	.judge = judge,
};
