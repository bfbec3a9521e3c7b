/* SPDX-License-Identifier: MIT */
/*
 * What writing costs: the first write to a page after a cut beside the kernel's own copy-on-write
 * fault after fork(), what is kept of sparse writes, and working sets that repeat.
 */
#include <stdio.h>
#include <stdlib.h>
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
	{ .name = "signal", .trap = COW_TRAP_SIGNAL, .binds = true },
	{ .name = "signal blocks=off", .trap = COW_TRAP_SIGNAL, .tune = "blocks=off" },
	{ .name = "signal frames=off", .trap = COW_TRAP_SIGNAL, .tune = "frames=off" },
	{ .name = "thread", .trap = COW_TRAP_THREAD },
	{ .name = "mprotect", .trap = COW_TRAP_MPROTECT },
};

static size_t write_size(void)
{
	return (options.quick ? 16 : 512) * MIB;
}

static void first_writes_of(const struct variant *variant, struct worker *kernel)
{
	static const double bounds[ORDERS] = { [SEQUENTIAL] = 0.5, [RANDOM] = 3 };
	struct job job = { .variant = variant,
			   .size = write_size(),
			   .seed = options.seed,
			   .prepare = prepare_region,
			   .turn = turn_region };
	struct turns turns;
	char name[100];

	bench_section("First write to a page after a cut, %zu MiB, %s [fork()]", job.size / MIB,
		      variant->name);
	if (!turns_take(&turns, &job, kernel))
		return;
	for (unsigned o = 0; o < ORDERS; o++) {
		unsigned recycled = OURS(2 * o), fresh = OURS(2 * o + 1);

		snprintf(name, sizeof(name), "%s: recycled frames", order_names[o]);
		show_figure(&turns, name, "us", recycled);
		show_figure(&turns, "  fresh frames", "us", fresh);
		show_figure(&turns, "  kernel's COW fault after fork()", "us", THEIRS(2 * o + 1));
		show_ratio(&turns, "  recycled / kernel", recycled, THEIRS(2 * o + 1), AT_MOST,
			   bounds[o]);
		show_ratio(&turns, "  fresh / kernel", fresh, THEIRS(2 * o + 1), AT_MOST,
			   bounds[o]);
		show_ratio(&turns, "  A/A control: kernel / kernel", THEIRS(2 * o + 1),
			   THEIRS(2 * o), BOUND_NONE, 0);
	}
	turns_free(&turns);
}

void bench_first_writes(void)
{
	struct job kernel = { .size = write_size(),
			      .seed = options.seed,
			      .prepare = prepare_kernel,
			      .turn = turn_kernel };

	each_variant("first-writes", write_variants, COUNT_OF(write_variants), &kernel,
		     first_writes_of);
}

/* --- sparse writes --- */

/* figures: pages kept, pages written. */
static void turn_sparse(void *context, double figures[])
{
	struct write_state *state = context;
	struct cow_region_stats before = COW_REGION_STATS_INIT, after = COW_REGION_STATS_INIT;
	struct cow_snapshot *snapshot = job_snapshot(state->region);
	unsigned char *base = cow_region_get_base(state->region);
	size_t written = state->pages / 100;

	cow_region_get_stats(state->region, &before);
	for (size_t i = 0; i < written; i++)
		base[state->orders[RANDOM][i] * PAGE]++;
	cow_region_get_stats(state->region, &after);
	figures[0] = (double)(after.copied_pages - before.copied_pages);
	figures[1] = (double)written;
	cow_snapshot_unref(snapshot);
}

void bench_sparse_writes(void)
{
	struct job job = { .size = write_size(),
			   .seed = options.seed,
			   .prepare = prepare_region,
			   .turn = turn_sparse };
	struct turns turns;
	char name[80];

	bench_section("Pre-images of random 1 %% of %zu MiB written", job.size / MIB);
	for (size_t i = 0; i < COUNT_OF(write_variants); i++) {
		snprintf(name, sizeof(name), "sparse/%s", write_variants[i].name);
		if (!bench_wants(name))
			continue;
		job.variant = &write_variants[i];
		if (!turns_take(&turns, &job, NULL))
			continue;
		snprintf(name, sizeof(name), "%s: kept / written", job.variant->name);
		show_ratio(&turns, name, OURS(0), OURS(1), AT_MOST, 1.5);
		turns_free(&turns);
	}
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

/* figures: for each pause the time of a write, and the CPU of all threads for each cut. */
static void turn_set(void *context, double figures[])
{
	struct write_state *state = context;

	for (unsigned p = 0; p < COUNT_OF(pauses); p++) {
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

	for (unsigned i = 0; i < COUNT_OF(pauses) * SET_CUTS; i++) {
		double *us = &figures[2 * (i % COUNT_OF(pauses))], *cpu = us + 1, before;
		struct held child;

		for (size_t page = 0; page < state->pages; page++)
			state->memory[page * PAGE]++;
		before = cpu_with_children_us();
		child = hold_child();
		sleep_us(pauses[i % COUNT_OF(pauses)].us);
		*us += write_all_us(state->memory, state->orders[RANDOM], set_pages(state)) /
		       SET_CUTS;
		release_child(&child);
		*cpu += (cpu_with_children_us() - before) / SET_CUTS;
	}
}

static const struct variant set_variants[] = {
	{ .name = "signal copier=on",
	  .trap = COW_TRAP_SIGNAL,
	  .binds = true,
	  .flags = COW_REGION_COPY_AHEAD },
	{ .name = "signal copier=off", .trap = COW_TRAP_SIGNAL },
	{ .name = "thread copier=on", .trap = COW_TRAP_THREAD, .flags = COW_REGION_COPY_AHEAD },
	{ .name = "mprotect copier=on", .trap = COW_TRAP_MPROTECT, .flags = COW_REGION_COPY_AHEAD },
};

static void set_of(const struct variant *variant, struct worker *kernel)
{
	struct job job = { .variant = variant,
			   .size = write_size(),
			   .seed = options.seed,
			   .prepare = prepare_set,
			   .turn = turn_set };
	struct turns turns;
	char name[100];

	bench_section("A random %g %% of %zu MiB written again after each cut, %s [fork()]",
		      SET_SHARE * 100, job.size / MIB, variant->name);
	if (!turns_take(&turns, &job, kernel))
		return;
	for (unsigned p = 0; p < COUNT_OF(pauses); p++) {
		unsigned us = 2 * p, cpu = 2 * p + 1;

		snprintf(name, sizeof(name), "a write, %s", pauses[p].name);
		show_figure(&turns, name, "us", OURS(us));
		show_figure(&turns, "  kernel's COW fault after fork()", "us", THEIRS(us));
		show_ratio(&turns, "  ratio", OURS(us), THEIRS(us), AT_MOST, pauses[p].bound);
		show_figure(&turns, "  CPU of all threads, for each cut", "us", OURS(cpu));
		show_figure(&turns, "  of fork(), the child's end included", "us", THEIRS(cpu));
		show_ratio(&turns, "  ratio of the CPU", OURS(cpu), THEIRS(cpu), AT_MOST, 2);
	}
	turns_free(&turns);
}

void bench_copier(void)
{
	struct job kernel = { .size = write_size(),
			      .seed = options.seed,
			      .prepare = prepare_kernel,
			      .turn = turn_set_kernel };

	each_variant("copier", set_variants, COUNT_OF(set_variants), &kernel, set_of);
}
