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

struct way {
	struct variant variant; /* first */
	enum { WAY_NONE, WAY_FORK, WAY_SNAPSHOT } kind;
};

static const struct way ways[] = {
	{ { "no snapshot (control)", 0, NULL, true, 0 }, WAY_NONE },
	{ { "fork()", 0, NULL, true, 0 }, WAY_FORK },
	{ { "signal", COW_TRAP_SIGNAL, NULL, true, 0 }, WAY_SNAPSHOT },
	{ { "signal copier=on", COW_TRAP_SIGNAL, NULL, true, COW_REGION_COPY_AHEAD },
	  WAY_SNAPSHOT },
	{ { "signal frames=off", COW_TRAP_SIGNAL, "frames=off", false, 0 }, WAY_SNAPSHOT },
	{ { "signal blocks=off", COW_TRAP_SIGNAL, "blocks=off", false, 0 }, WAY_SNAPSHOT },
	{ { "thread", COW_TRAP_THREAD, NULL, true, 0 }, WAY_SNAPSHOT },
	{ { "mprotect", COW_TRAP_MPROTECT, NULL, true, 0 }, WAY_SNAPSHOT },
};

enum { FORK = 1, SIGNAL = 2, WAYS = sizeof(ways) / sizeof(ways[0]) };

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
	const struct way *way;
};

static const struct way *way_of(const struct job *job)
{
	return (const struct way *)(const void *)job->variant;
}

static void *prepare_latency(const struct job *job)
{
	struct latency_state *state = calloc(1, sizeof(*state));
	struct writer *writer;

	check(state, "out of memory");
	state->way = way_of(job);
	writer = &state->writer;
	if (state->way->kind == WAY_SNAPSHOT) {
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
	if (state->way->kind == WAY_NONE)
		sleep_us(after_cut_us());
	else if (state->way->kind == WAY_FORK)
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

struct latency_samples {
	struct samples of[SHOWN];
	bool here;
};

static void run_way(const struct way *way, size_t size, unsigned turn,
		    struct latency_samples *samples)
{
	struct job job = { .variant = &way->variant,
			   .size = size,
			   .seed = options.seed + turn,
			   .prepare = prepare_latency,
			   .turn = turn_latency };
	double figures[FIGURES];
	struct worker worker;

	samples->here = worker_start(&worker, &job);
	if (!samples->here)
		return;
	worker_turn(&worker, figures);
	worker_stop(&worker);
	for (unsigned i = 0; i < SHOWN; i++)
		if (figures[i] > 0)
			samples_add(&samples->of[i], figures[i]);
}

static void report_ways(struct latency_samples samples[])
{
	static const struct bench_column columns[SHOWN] = {
		{ "p50", "us" },        { "p99", "us" }, { "p99.9", "us" }, { "max", "us" },
		{ "writes", "per ms" }, { "arm", "us" }, { "cut", "us" },
	};

	bench_columns(columns, SHOWN);
	for (unsigned way = 0; way < WAYS; way++)
		if (samples[way].here)
			bench_row(ways[way].variant.name, samples[way].of);
}

/* Of maxima the median of the runs is taken, of either side. */
static double median_ratio(struct latency_samples samples[], unsigned shown)
{
	return samples_quantile(&samples[SIGNAL].of[shown], 0.5) /
	       samples_quantile(&samples[FORK].of[shown], 0.5);
}

void bench_latencies(void)
{
	size_t size = (options.quick ? 64 : 4096) * MIB;
	struct latency_samples samples[WAYS] = { 0 };
	char name[80];

	bench_section("Writes beside a snapshot of %zu MiB, from the first arming to %g s after "
		      "the cut",
		      size / MIB, after_cut_us() / 1e6);
	for (unsigned turn = 0; turn < options.runs; turn++)
		for (unsigned way = 0; way < WAYS; way++) {
			snprintf(name, sizeof(name), "latencies/%s", ways[way].variant.name);
			if (bench_wants(name) && turn < turns_of(&ways[way].variant) &&
			    (turn == 0 || samples[way].here))
				run_way(&ways[way], size, turn, &samples[way]);
		}
	report_ways(samples);
	if (samples[SIGNAL].here && samples[FORK].here) {
		bench_value("max, signal / fork()", "", median_ratio(samples, MAX), AT_MOST, 0.1);
		bench_value("p99.9, signal / fork()", "", median_ratio(samples, P999), AT_MOST, 3);
	}
	for (unsigned way = 0; way < WAYS; way++)
		for (unsigned shown = 0; shown < SHOWN; shown++)
			samples_free(&samples[way].of[shown]);
}
