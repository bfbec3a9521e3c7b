/* SPDX-License-Identifier: MIT */
/*
 * spawn-rate: workers a second, of masters of several sizes. A worker does what the first moments
 * of one are: it reads its master's configuration, writes a stack and a few tables, and ends.
 */
#include <errno.h>
#include <math.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/bench/forks.h"

#define WORKER_READS  MIB /* configuration */
#define WORKER_WRITES ((size_t)64 << 10)
#define AT_ONCE       8 /* workers alive together, as a pool is started */

static struct {
	char *memory;
	size_t bytes;
} master;

static void work(void)
{
	read_pages(master.memory, master.bytes < WORKER_READS ? master.bytes : WORKER_READS);
	write_pages(master.memory, WORKER_WRITES);
	_exit(0);
}

static int start_pool(int count)
{
	int started;

	for (started = 0; started < count; started++) {
		pid_t pid = fork();

		if (pid == 0)
			work();
		if (pid < 0)
			break;
	}
	return started;
}

/* For a while; the master goes on writing a little, as one that accepts connections does. */
static double measure_rate(struct bench *bench, const struct bench_subject *subject)
{
	uint64_t while_ns = (uint64_t)BENCH_BY_SCALE(bench, 20, 150, 400, 1000) * 1000000;
	uint64_t start, elapsed = 0, workers = 0;
	int started, i;

	master.bytes = subject->number;
	master.memory = bench_map(bench, master.bytes, false);
	if (!master.memory)
		return NAN;
	bench_fill(master.memory, master.bytes, bench->seed);
	start = bench_now();
	while (elapsed < while_ns) {
		started = start_pool(AT_ONCE);
		for (i = 0; i < started; i++)
			wait(NULL);
		if (!started) {
			bench_fail(bench, -errno, "cannot fork");
			break;
		}
		workers += (uint64_t)started;
		write_pages(master.memory, WORKER_WRITES);
		elapsed = bench_lap(start);
	}
	munmap(master.memory, master.bytes);
	return (double)workers * 1e9 / (double)elapsed;
}

static void run(struct bench *bench)
{
	static const unsigned int sizes[] = { 10, 100, 500 };
	struct bench_subject subjects[3];
	size_t i, count = 0;

	for (i = 0; i < 3; i++) {
		if (sizes[i] * MIB >
		    bench_fit(bench, BENCH_BY_SCALE(bench, 10, 500, 500, 500) * MIB, 1))
			continue;
		subjects[count++] = (struct bench_subject){
			.row = { .key = bench_text(bench, "rate/%uMB", sizes[i]),
				 .label = bench_text(bench, "workers of a master of %u MiB",
						     sizes[i]),
				 .unit = BENCH_PER_SECOND,
				 .text = i == 0 ? "thousands" : NULL,
				 .plot = "rate" },
			.measure = measure_rate,
			.number = sizes[i] * MIB,
			.in_child = true,
		};
	}
	bench_take_turns_controlled(bench, subjects, count);
	bench_check(bench, bench_min(bench, "rate/10MB") > 0, "workers start and end");
}

static void judge_one(struct bench *bench, const char *key, const char *part)
{
	double rate = bench_median(bench, key);

	if (isnan(rate))
		return;
	bench_judge(bench, part, rate >= 1000 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD, "%s",
		    bench_figure(bench, BENCH_PER_SECOND, rate));
}

static void judge(struct bench *bench)
{
	judge_one(bench, "rate/10MB", "thousands of workers a second from a master of 10 MiB");
	judge_one(bench, "rate/100MB", "... of 100 MiB");
	judge_one(bench, "rate/500MB", "... of 500 MiB");
}

static const struct bench_plot plots[] = {
	{ "rate", "Workers started and ended", NULL, "per second" },
	{ 0 },
};

const struct bench_experiment experiment_spawn_rate = {
	.name = "spawn-rate",
	.title = "Workers a second",
	.source = BENCH_SOURCE_FORK,
	.claim = "In a web server that spawns thousands of workers per second (the Nginx pre-fork "
		 "model), copy-on-write enables high concurrency without exhausting RAM. (Nginx's "
		 "master has 10 MiB; it starts its workers once, not per second.)",
	.method = "A master of 10, 100, 500 MiB forks workers, eight alive at a time, for a while. "
		  "Each reads 1 MiB of the master's memory, writes 64 KiB of it, and ends.",
	.plots = plots,
	.seconds = 15,
	.run = run,
	.judge = judge,
};
