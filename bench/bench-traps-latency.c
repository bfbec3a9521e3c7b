/* SPDX-License-Identifier: MIT */
/*
 * What a running writer feels of a snapshot: the time of each of its writes, from the first arming
 * until one second after the cut, for the traps, for fork(), and with no snapshot at all.
 *
 * The writer goes at full speed over random pages; another thread arms ahead and cuts, or forks
 * (the child stays to the end of the second). Every run is in a process of its own. Times go into
 * a log-linear histogram (within 1/16); the maximum is exact. The control shows what the machine
 * itself takes from a thread now and then; where more threads want to run than there are
 * processors, as a helper and an armer beside the writer, the maxima are the scheduler's. Of the
 * runs' quantiles and maxima the medians are shown.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "bench/bench-traps.h"

#define STEPS   16u /* of a power of two */
#define BUCKETS (64u * STEPS)

enum { P50, P99, P999, MAX, WRITES, ARMED_US, CUT_US, SHOWN };

enum { WAY_NONE, WAY_FORK, WAY_SNAPSHOT };

static const struct variant ways[] = {
	{ .name = "fork()", .way = WAY_FORK, .binds = true },
	{ .name = "no snapshot (control)", .way = WAY_NONE, .binds = true },
	{ .name = "signal", .way = WAY_SNAPSHOT, .trap = COW_TRAP_SIGNAL, .binds = true },
	{ .name = "signal copier=on",
	  .way = WAY_SNAPSHOT,
	  .trap = COW_TRAP_SIGNAL,
	  .flags = COW_REGION_COPY_AHEAD },
	{ .name = "signal frames=off",
	  .way = WAY_SNAPSHOT,
	  .trap = COW_TRAP_SIGNAL,
	  .tune = "frames=off" },
	{ .name = "signal blocks=off",
	  .way = WAY_SNAPSHOT,
	  .trap = COW_TRAP_SIGNAL,
	  .tune = "blocks=off" },
	{ .name = "thread", .way = WAY_SNAPSHOT, .trap = COW_TRAP_THREAD },
	{ .name = "mprotect", .way = WAY_SNAPSHOT, .trap = COW_TRAP_MPROTECT },
};

enum { FORK = 0, SIGNAL = 2, WAYS = COUNT_OF(ways) };

struct writer {
	unsigned char *base;
	size_t pages;
	uint64_t random;
	atomic_bool counts, stop;
	uint64_t buckets[BUCKETS], most;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static unsigned bucket_of(uint64_t ns)
{
	unsigned power;

	if (ns < STEPS)
		return (unsigned)ns;
	power = 63u - (unsigned)__builtin_clzll(ns);
	return (power - 3) * STEPS + (unsigned)((ns >> (power - 4)) & (STEPS - 1));
}

static double bucket_ns(unsigned bucket)
{
	if (bucket < STEPS)
		return bucket;
	return (double)((uint64_t)(STEPS + bucket % STEPS) << (bucket / STEPS - 1));
}

static void *write_on(void *context)
{
	struct writer *writer = context;
	uint64_t before = now_ns(), after;

	while (!atomic_load_explicit(&writer->stop, memory_order_relaxed)) {
		writer->base[random_next(&writer->random) % writer->pages * PAGE]++;
		after = now_ns();
		if (atomic_load_explicit(&writer->counts, memory_order_relaxed)) {
			writer->buckets[bucket_of(after - before)]++;
			if (after - before > writer->most)
				writer->most = after - before;
		}
		before = after;
	}
	return NULL;
}

static double quantile_us(const struct writer *writer, double share)
{
	uint64_t total = 0, seen = 0;

	for (unsigned i = 0; i < BUCKETS; i++)
		total += writer->buckets[i];
	for (unsigned i = 0; i < BUCKETS; i++) {
		seen += writer->buckets[i];
		if ((double)seen >= share * (double)total)
			return bucket_ns(i) / 1e3;
	}
	return 0;
}

static void sleep_us(double us)
{
	struct timespec time = { .tv_sec = (time_t)(us / 1e6),
				 .tv_nsec = (long)((us - (double)(time_t)(us / 1e6) * 1e6) * 1e3) };

	nanosleep(&time, NULL);
}

static double after_cut_us(void)
{
	return options.quick ? 1e5 : 1e6;
}

static void snapshot_beside(struct cow_region *region, double figures[])
{
	double start = now_us();
	struct cow_snapshot *snapshot;

	check_errno(cow_region_arm(region), "cow_region_arm");
	figures[ARMED_US] = now_us() - start;
	start = now_us();
	snapshot = job_snapshot(region);
	figures[CUT_US] = now_us() - start;
	sleep_us(after_cut_us());
	cow_snapshot_unref(snapshot);
}

static void fork_beside(double figures[])
{
	double start = now_us();
	struct held child = hold_child();

	figures[CUT_US] = now_us() - start;
	sleep_us(after_cut_us());
	release_child(&child);
}

struct latency_state {
	struct writer writer;
	struct cow_region *region;
	int way;
};

static void *prepare_latency(const struct job *job)
{
	struct latency_state *state = calloc(1, sizeof(*state));
	struct writer *writer;

	check(state, "out of memory");
	state->way = job->variant->way;
	writer = &state->writer;
	if (state->way == WAY_SNAPSHOT) {
		state->region = job_region(job, 0);
		writer->base = cow_region_get_base(state->region);
	} else {
		writer->base = job_memory(job);
	}
	writer->pages = job->size / PAGE;
	writer->random = job->seed;
	back_memory(job->size / 2);
	return state;
}

static void turn_latency(void *context, double figures[])
{
	struct latency_state *state = context;
	struct writer *writer = &state->writer;
	pthread_t thread;
	double start;

	check(pthread_create(&thread, NULL, write_on, writer) == 0, "pthread_create");
	sleep_us(after_cut_us() / 10);
	start = now_us();
	atomic_store(&writer->counts, true);
	if (state->way == WAY_NONE)
		sleep_us(after_cut_us());
	else if (state->way == WAY_FORK)
		fork_beside(figures);
	else
		snapshot_beside(state->region, figures);
	atomic_store(&writer->counts, false);
	atomic_store(&writer->stop, true);
	pthread_join(thread, NULL);
	figures[P50] = quantile_us(writer, 0.5);
	figures[P99] = quantile_us(writer, 0.99);
	figures[P999] = quantile_us(writer, 0.999);
	figures[MAX] = (double)writer->most / 1e3;
	for (unsigned i = 0; i < BUCKETS; i++)
		figures[WRITES] += (double)writer->buckets[i];
	figures[WRITES] /= (now_us() - start) / 1e3;
}

/* --- the table --- */

/* One run, in a process of its own; false: not to be had here. */
static bool run_way(const struct variant *way, size_t size, unsigned turn, double figures[FIGURES])
{
	struct job job = { .variant = way,
			   .size = size,
			   .seed = options.seed + turn,
			   .prepare = prepare_latency,
			   .turn = turn_latency };
	struct worker worker;

	if (!worker_start(&worker, &job))
		return false;
	worker_turn(&worker, figures);
	worker_stop(&worker);
	return true;
}

/* All ways once, fork() first: its figures stand beside each one's. */
static void run_ways(size_t size, unsigned turn, struct turns results[])
{
	double forks[FIGURES] = { 0 }, figures[FIGURES];
	char name[80];

	for (unsigned way = 0; way < WAYS; way++) {
		snprintf(name, sizeof(name), "latencies/%s", ways[way].name);
		if (!bench_wants(name) || turn >= turns_of(&ways[way]) ||
		    results[way].count < turn || !run_way(&ways[way], size, turn, figures))
			continue;
		if (way == FORK)
			memcpy(forks, figures, sizeof(forks));
		turns_add(&results[way], figures, forks);
	}
}

static void show_way(const char *name, const struct turns *turns)
{
	struct samples cells[SHOWN] = { 0 };

	/* Who takes no snapshot neither arms nor cuts. */
	for (unsigned i = 0; i < SHOWN; i++)
		if (turns->figures[0][i] > 0)
			cells[i] = turns_figure(turns, i);
	bench_row(name, cells);
	for (unsigned i = 0; i < SHOWN; i++)
		samples_free(&cells[i]);
}

static void show_beside_fork(const char *name, const struct turns *turns)
{
	static const struct {
		const char *name;
		unsigned figure;
		double bound;
	} bounds[] = { { "max", MAX, 0.1 }, { "p99.9", P999, 3 } };
	char full[100];

	for (unsigned i = 0; i < COUNT_OF(bounds); i++) {
		snprintf(full, sizeof(full), "%s, %s / fork()", bounds[i].name, name);
		show_ratio(turns, full, OURS(bounds[i].figure), THEIRS(bounds[i].figure), AT_MOST,
			   bounds[i].bound);
	}
}

void bench_latencies(void)
{
	static const struct bench_column columns[SHOWN] = {
		{ "p50", "us" },        { "p99", "us" }, { "p99.9", "us" }, { "max", "us" },
		{ "writes", "per ms" }, { "arm", "us" }, { "cut", "us" },
	};
	size_t size = (options.quick ? 64 : 4096) * MIB;
	struct turns results[WAYS] = { 0 };

	bench_section("Writes beside a snapshot of %zu MiB, from the first arming to %g s after "
		      "the cut",
		      size / MIB, after_cut_us() / 1e6);
	for (unsigned turn = 0; turn < options.runs; turn++)
		run_ways(size, turn, results);
	bench_columns(columns, SHOWN);
	for (unsigned way = 0; way < WAYS; way++) {
		if (results[way].count > 0)
			show_way(ways[way].name, &results[way]);
	}
	for (unsigned way = 0; way < WAYS; way++) {
		results[way].binds = way == SIGNAL;
		if (way != FORK && results[way].count > 0 && results[FORK].count > 0)
			show_beside_fork(ways[way].name, &results[way]);
	}
	for (unsigned way = 0; way < WAYS; way++)
		turns_free(&results[way]);
}
