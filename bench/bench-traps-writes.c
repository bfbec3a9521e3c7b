/* SPDX-License-Identifier: MIT */
/*
 * What writing costs: the first write to a page after a cut beside the kernel's own copy-on-write
 * fault after fork(), what is kept of sparse writes, working sets that repeat, and pages that are
 * open.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include "bench/bench-traps.h"

/* --- first writes --- */

enum { SEQUENTIAL, RANDOM, ORDERS };
static const char *const order_names[ORDERS] = { "sequential", "random" };

struct write_state {
	struct job job;
	struct cow_region *region; /* its frames are recycled */
	unsigned char *memory;
	size_t pages;
	size_t *orders[ORDERS];
};

static struct write_state *write_state(const struct job *job)
{
	struct write_state *state = calloc(1, sizeof(*state));
	uint64_t random = job->seed;

	check(state, "out of memory");
	state->job = *job;
	state->pages = job->size / PAGE;
	for (unsigned o = 0; o < ORDERS; o++)
		state->orders[o] = page_order(state->pages, o == RANDOM, &random);
	return state;
}

static double write_all_us(unsigned char *base, const size_t *order, size_t pages)
{
	double start = now_us();

	for (size_t i = 0; i < pages; i++)
		base[order[i] * PAGE]++;
	return (now_us() - start) / (double)pages;
}

static void sleep_us(unsigned us)
{
	struct timespec time = { .tv_nsec = (long)us * 1000 };

	if (us > 0)
		nanosleep(&time, NULL);
}

/* The writer begins so long after the cut. */
static double first_writes_after(struct cow_region *region, const size_t *order, size_t pages,
				 unsigned pause_us)
{
	struct cow_snapshot *snapshot = job_snapshot(region);
	double us;

	sleep_us(pause_us);
	us = write_all_us(cow_region_get_base(region), order, pages);
	cow_snapshot_unref(snapshot);
	return us;
}

static double first_writes_region(struct cow_region *region, const size_t *order, size_t pages)
{
	return first_writes_after(region, order, pages, 0);
}

static void *prepare_region(const struct job *job)
{
	struct write_state *state = write_state(job);

	state->region = job_region(job, 2 * job->size);
	return state;
}

/* figures: for each order, recycled and fresh frames. */
static void turn_region(void *context, double figures[])
{
	struct write_state *state = context;

	for (unsigned o = 0; o < ORDERS; o++) {
		struct cow_region *fresh;

		figures[2 * o] = first_writes_region(state->region, state->orders[o], state->pages);
		fresh = job_region(&state->job, 0);
		back_memory(6 * state->job.size);
		figures[2 * o + 1] = first_writes_region(fresh, state->orders[o], state->pages);
		cow_region_free(fresh);
	}
}

static void *prepare_kernel(const struct job *job)
{
	struct write_state *state = write_state(job);

	state->memory = job_memory(job);
	return state;
}

static void turn_kernel(void *context, double figures[])
{
	struct write_state *state = context;

	back_memory(6 * state->job.size);
	for (unsigned i = 0; i < 2 * ORDERS; i++) {
		struct held child;

		for (size_t page = 0; page < state->pages; page++)
			state->memory[page * PAGE]++;
		child = hold_child();
		figures[i] = write_all_us(state->memory, state->orders[i / 2], state->pages);
		release_child(&child);
	}
}

static const struct variant write_variants[] = {
	{ "signal", COW_TRAP_SIGNAL, NULL, true, 0 },
	{ "signal blocks=off", COW_TRAP_SIGNAL, "blocks=off", false, 0 },
	{ "signal frames=off", COW_TRAP_SIGNAL, "frames=off", false, 0 },
	{ "thread", COW_TRAP_THREAD, NULL, false, 0 },
	{ "mprotect", COW_TRAP_MPROTECT, NULL, false, 0 },
};

struct write_samples {
	struct samples kernel, control, recycled, fresh, ratio, fresh_ratio;
};

static void report_writes(const struct variant *variant, unsigned o, struct write_samples *samples)
{
	enum bench_bound kind = variant->binds ? AT_MOST : BOUND_NONE;
	double bound = o == RANDOM ? 3 : 0.5;
	char name[100];

	snprintf(name, sizeof(name), "%s: recycled frames", order_names[o]);
	bench_result(name, "us", &samples->recycled, BOUND_NONE, 0);
	bench_result("  fresh frames", "us", &samples->fresh, BOUND_NONE, 0);
	bench_result("  kernel's COW fault after fork()", "us", &samples->kernel, BOUND_NONE, 0);
	bench_result("  ratio, recycled frames", "", &samples->ratio, kind, bound);
	bench_result("  ratio, fresh frames", "", &samples->fresh_ratio, kind, bound);
	bench_result("  A/A control: kernel / kernel", "", &samples->control, BOUND_NONE, 0);
	samples_free(&samples->recycled);
	samples_free(&samples->fresh);
	samples_free(&samples->kernel);
	samples_free(&samples->ratio);
	samples_free(&samples->fresh_ratio);
	samples_free(&samples->control);
}

static void first_writes_of(const struct variant *variant, size_t size, struct worker *kernel)
{
	struct job job = { .variant = variant,
			   .size = size,
			   .seed = options.seed,
			   .prepare = prepare_region,
			   .turn = turn_region };
	struct write_samples samples[ORDERS] = { 0 };
	struct worker region;

	bench_section("First write to a page after a cut, %zu MiB, %s [fork()]", size / MIB,
		      variant->name);
	if (!worker_start(&region, &job))
		return;
	for (unsigned turn = 0; turn < turns_of(variant) + 2; turn++) {
		double ours[FIGURES], theirs[FIGURES];

		worker_turn(kernel, theirs);
		worker_turn(&region, ours);
		for (unsigned o = 0; turn >= 2 && o < ORDERS; o++) {
			double k = theirs[2 * o + 1];

			samples_add(&samples[o].kernel, k);
			samples_add(&samples[o].control, k / theirs[2 * o]);
			samples_add(&samples[o].recycled, ours[2 * o]);
			samples_add(&samples[o].fresh, ours[2 * o + 1]);
			samples_add(&samples[o].ratio, ours[2 * o] / k);
			samples_add(&samples[o].fresh_ratio, ours[2 * o + 1] / k);
		}
	}
	worker_stop(&region);
	for (unsigned o = 0; o < ORDERS; o++)
		report_writes(variant, o, &samples[o]);
}

void bench_first_writes(void)
{
	struct job job = { .size = (options.quick ? 8 : 512) * MIB,
			   .seed = options.seed,
			   .prepare = prepare_kernel,
			   .turn = turn_kernel };
	struct worker kernel;
	char name[80];

	worker_start(&kernel, &job);
	for (size_t i = 0; i < sizeof(write_variants) / sizeof(write_variants[0]); i++) {
		snprintf(name, sizeof(name), "first-writes/%s", write_variants[i].name);
		if (bench_wants(name))
			first_writes_of(&write_variants[i], job.size, &kernel);
	}
	worker_stop(&kernel);
}

/* --- sparse writes --- */

/* figures: pages kept for each page written. */
static void turn_sparse(void *context, double figures[])
{
	struct write_state *state = context;
	struct cow_region_stats before = COW_REGION_STATS_INIT, after = COW_REGION_STATS_INIT;
	struct cow_snapshot *snapshot = job_snapshot(state->region);
	size_t written = state->pages / 100;

	cow_region_get_stats(state->region, &before);
	for (size_t i = 0; i < written; i++)
		((unsigned char *)cow_region_get_base(
			state->region))[state->orders[RANDOM][i] * PAGE]++;
	cow_region_get_stats(state->region, &after);
	figures[0] = (double)(after.copied_pages - before.copied_pages) / (double)written;
	cow_snapshot_unref(snapshot);
}

void bench_sparse_writes(void)
{
	struct job job = { .variant = &write_variants[0],
			   .size = (options.quick ? 64 : 512) * MIB,
			   .seed = options.seed,
			   .prepare = prepare_region,
			   .turn = turn_sparse };
	struct samples kept = { 0 };
	struct worker region;

	bench_section("Pre-images of random 1 %% of %zu MiB written", job.size / MIB);
	if (!worker_start(&region, &job))
		return;
	for (unsigned turn = 0; turn < options.runs; turn++) {
		double figures[FIGURES];

		worker_turn(&region, figures);
		samples_add(&kept, figures[0]);
	}
	worker_stop(&region);
	bench_result("pages kept / pages written", "", &kept, AT_MOST, 1.5);
	samples_free(&kept);
}

/* --- a working set that repeats --- */

#define SET_SHARE 0.1
#define SET_CUTS  10u /* in a turn */

static double cpu_us(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static size_t set_pages(const struct write_state *state)
{
	return (size_t)((double)state->pages * SET_SHARE);
}

/* The first writes of the working set are not the repeating ones. */
static void *prepare_set(const struct job *job)
{
	struct write_state *state = prepare_region(job);

	for (unsigned i = 0; i < 3; i++)
		first_writes_region(state->region, state->orders[RANDOM], set_pages(state));
	return state;
}

/* When the writer goes on: at once, or when it has done something else first. */
static const struct pause {
	const char *name;
	unsigned us;
	double bound;
} pauses[] = {
	{ "at once", 0, 1 },
	{ "10 ms after the cut", 10000, 0 },
};

#define PAUSES 2u

/* figures: for each pause the time of a write, and the CPU of all threads for each cut. */
static void turn_set(void *context, double figures[])
{
	struct write_state *state = context;

	for (unsigned p = 0; p < PAUSES; p++) {
		double *us = &figures[2 * p], *cpu = &figures[2 * p + 1];

		*cpu = cpu_us(RUSAGE_SELF);
		for (unsigned i = 0; i < SET_CUTS; i++)
			*us += first_writes_after(state->region, state->orders[RANDOM],
						  set_pages(state), pauses[p].us) /
			       SET_CUTS;
		*cpu = (cpu_us(RUSAGE_SELF) - *cpu) / SET_CUTS;
	}
}

static double cpu_with_children_us(void)
{
	return cpu_us(RUSAGE_SELF) + cpu_us(RUSAGE_CHILDREN);
}

static void turn_set_kernel(void *context, double figures[])
{
	struct write_state *state = context;

	for (unsigned i = 0; i < PAUSES * SET_CUTS; i++) {
		double *us = &figures[2 * (i % PAUSES)], *cpu = us + 1, before;
		struct held child;

		for (size_t page = 0; page < state->pages; page++)
			state->memory[page * PAGE]++;
		before = cpu_with_children_us();
		child = hold_child();
		sleep_us(pauses[i % PAUSES].us);
		*us += write_all_us(state->memory, state->orders[RANDOM], set_pages(state)) /
		       SET_CUTS;
		release_child(&child);
		*cpu += (cpu_with_children_us() - before) / SET_CUTS;
	}
}

static const struct variant set_variants[] = {
	{ "signal copier=on", COW_TRAP_SIGNAL, NULL, true, COW_REGION_COPY_AHEAD },
	{ "signal copier=off", COW_TRAP_SIGNAL, NULL, false, 0 },
	{ "thread copier=on", COW_TRAP_THREAD, NULL, false, COW_REGION_COPY_AHEAD },
	{ "mprotect copier=on", COW_TRAP_MPROTECT, NULL, false, COW_REGION_COPY_AHEAD },
};

struct set_samples {
	struct samples ours, theirs, ratio;
};

static void report_set(const char *what, const char *baseline, struct set_samples *samples,
		       enum bench_bound kind, double bound)
{
	bench_result(what, "us", &samples->ours, BOUND_NONE, 0);
	bench_result(baseline, "us", &samples->theirs, BOUND_NONE, 0);
	bench_result("  ratio", "", &samples->ratio, kind, bound);
	samples_free(&samples->ours);
	samples_free(&samples->theirs);
	samples_free(&samples->ratio);
}

static void set_of(const struct variant *variant, size_t size, struct worker *kernel)
{
	struct job job = { .variant = variant,
			   .size = size,
			   .seed = options.seed,
			   .prepare = prepare_set,
			   .turn = turn_set };
	struct set_samples samples[2 * PAUSES] = { 0 };
	struct worker region;
	char name[100];

	bench_section("A random %g %% of %zu MiB written again after each cut, %s [fork()]",
		      SET_SHARE * 100, size / MIB, variant->name);
	if (!worker_start(&region, &job))
		return;
	for (unsigned turn = 0; turn < turns_of(variant) + 2; turn++) {
		double ours[FIGURES], theirs[FIGURES];

		worker_turn(kernel, theirs);
		worker_turn(&region, ours);
		for (unsigned i = 0; turn >= 2 && i < 2 * PAUSES; i++) {
			samples_add(&samples[i].ours, ours[i]);
			samples_add(&samples[i].theirs, theirs[i]);
			samples_add(&samples[i].ratio, ours[i] / theirs[i]);
		}
	}
	worker_stop(&region);
	for (unsigned p = 0; p < PAUSES; p++) {
		bool binds = variant->binds && pauses[p].bound > 0;

		snprintf(name, sizeof(name), "a write, %s", pauses[p].name);
		report_set(name, "  kernel's COW fault after fork()", &samples[2 * p],
			   binds ? AT_MOST : BOUND_NONE, pauses[p].bound);
		report_set("CPU of all threads, for each cut", "  fork(), the child's end included",
			   &samples[2 * p + 1], variant->binds ? AT_MOST : BOUND_NONE, 2);
	}
}

void bench_copier(void)
{
	struct job job = { .size = (options.quick ? 16 : 512) * MIB,
			   .seed = options.seed,
			   .prepare = prepare_kernel,
			   .turn = turn_set_kernel };
	struct worker kernel;
	char name[80];

	worker_start(&kernel, &job);
	for (size_t i = 0; i < sizeof(set_variants) / sizeof(set_variants[0]); i++) {
		snprintf(name, sizeof(name), "copier/%s", set_variants[i].name);
		if (bench_wants(name))
			set_of(&set_variants[i], job.size, &kernel);
	}
	worker_stop(&kernel);
}

/* --- open pages --- */

#define OPEN_BYTES  ((options.quick ? 16 : 256) * MIB)
#define OPEN_WRITES (options.quick ? 200000u : 4000000u)

static double write_open_ns(unsigned char *base, size_t size, uint64_t seed)
{
	size_t pages = size / PAGE;
	double start = now_us();

	for (unsigned i = 0; i < OPEN_WRITES; i++) {
		uint64_t number = random_next(&seed);

		base[number % pages * PAGE + (number >> 52)]++;
	}
	return (now_us() - start) * 1e3 / OPEN_WRITES;
}

static void *prepare_open(const struct job *job)
{
	struct job *own = calloc(1, sizeof(*own));

	check(own, "out of memory");
	*own = *job;
	return own;
}

/* Mapped anew each turn: which physical pages it gets is part of the noise. */
static void turn_open_plain(void *context, double figures[])
{
	struct job *job = context;

	for (unsigned i = 0; i < 2; i++) {
		unsigned char *memory = job_memory(job);

		figures[i] = write_open_ns(memory, job->size, job->seed);
		munmap(memory, job->size);
	}
}

/* figures: before the first cut, after one, when every page was opened again. */
static void turn_open(void *context, double figures[])
{
	struct job *job = context;
	struct cow_region *region = job_region(job, 0);
	unsigned char *base = cow_region_get_base(region);
	struct cow_snapshot *snapshot;

	figures[0] = write_open_ns(base, job->size, job->seed);
	snapshot = job_snapshot(region);
	for (size_t at = 0; at < job->size; at += PAGE)
		base[at]++;
	figures[1] = write_open_ns(base, job->size, job->seed);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

/* The turns of the control spread over an interval; a difference inside it is none. */
static void open_of(const struct variant *variant, uint32_t flags)
{
	struct job job = {
		.size = OPEN_BYTES, .flags = flags, .seed = options.seed, .prepare = prepare_open
	};
	struct samples before = { 0 }, after = { 0 }, control = { 0 }, ns = { 0 };
	struct worker plain, region;

	bench_section("Writes to open pages, %zu MiB of %s pages, %s [plain memory]",
		      job.size / MIB, flags ? "huge" : "4 KiB", variant->name);
	job.turn = turn_open_plain;
	worker_start(&plain, &job);
	job.variant = variant;
	job.turn = turn_open;
	if (worker_start(&region, &job)) {
		for (unsigned turn = 0; turn < 2 * turns_of(variant) + 2; turn++) {
			double theirs[FIGURES], ours[FIGURES];

			worker_turn(&plain, theirs);
			worker_turn(&region, ours);
			if (turn < 2)
				continue;
			samples_add(&ns, theirs[1]);
			samples_add(&control, theirs[1] / theirs[0]);
			samples_add(&before, ours[0] / theirs[1]);
			samples_add(&after, ours[1] / theirs[1]);
		}
		worker_stop(&region);
		bench_result("plain memory, a write", "ns", &ns, BOUND_NONE, 0);
		bench_result("A/A control: plain / plain", "", &control, BOUND_NONE, 0);
		bench_result("before the first cut / plain", "", &before,
			     variant->binds ? AT_MOST : BOUND_NONE,
			     samples_quantile(&control, 0.9) + 0.01);
		bench_result("after a cut, opened again / plain", "", &after, BOUND_NONE, 0);
	}
	worker_stop(&plain);
	samples_free(&ns);
	samples_free(&control);
	samples_free(&before);
	samples_free(&after);
}

void bench_open_writes(void)
{
	static const struct variant variants[] = {
		{ "signal", COW_TRAP_SIGNAL, NULL, true, 0 },
		{ "thread", COW_TRAP_THREAD, NULL, false, 0 },
		{ "mprotect", COW_TRAP_MPROTECT, NULL, false, 0 },
	};
	char name[80];

	for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++) {
		snprintf(name, sizeof(name), "open-writes/%s", variants[i].name);
		if (!bench_wants(name))
			continue;
		open_of(&variants[i], 0);
		open_of(&variants[i], COW_REGION_HUGE_PAGES);
	}
}
