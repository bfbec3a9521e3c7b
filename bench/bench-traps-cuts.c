/* SPDX-License-Identifier: MIT */
/*
 * How long a cut takes, by what was written since the last arming.
 *
 * Two times are shown: that of the call, which is what a program with one thread waits, and the
 * stall, from closing the gate to opening it, which is what other threads wait at most. fork() has
 * only the one.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench-traps.h"

/* What is written between two cuts. */
struct dirt {
	const char *name;
	double share;      /* of the pages */
	unsigned clusters; /* 0: pages at random; 1: one run */
	double bound;      /* fork / cut, at least */
};

static const struct dirt dirts[] = {
	{ "0.1 % in one run", 0.001, 1, 200 },  { "0.1 % in 64 clusters", 0.001, 64, 40 },
	{ "1 % in 64 clusters", 0.01, 64, 25 }, { "0.1 % at random", 0.001, 0, 0 },
	{ "1 % at random", 0.01, 0, 6 },        { "10 % at random", 0.1, 0, 0 },
	{ "everything", 1, 1, 1 / 1.2 },
};

#define DIRTS (sizeof(dirts) / sizeof(dirts[0]))

/* Each one's worth: on in the first, off in its own. */
static const struct variant variants[] = {
	{ "signal", COW_TRAP_SIGNAL, NULL, true, 0 },
	{ "signal cost=off", COW_TRAP_SIGNAL, "cost=off", false, 0 },
	{ "signal blocks=off", COW_TRAP_SIGNAL, "blocks=off", false, 0 },
	{ "signal copier=on", COW_TRAP_SIGNAL, NULL, false, COW_REGION_COPY_AHEAD },
	{ "thread", COW_TRAP_THREAD, NULL, false, 0 },
	{ "mprotect", COW_TRAP_MPROTECT, NULL, false, 0 },
};

#define VARIANTS (sizeof(variants) / sizeof(variants[0]))

struct cut_state {
	struct cow_region *region;
	struct cow_snapshot *snapshot; /* the newest, kept until the next */
	unsigned char *base;
	size_t pages, among; /* what is written is among the first so many */
	uint64_t random;
	size_t *order; /* of those */
	bool arms;
	atomic_bool stop;
};

static void *prepare_among(const struct job *job, size_t among)
{
	struct cut_state *state = calloc(1, sizeof(*state));

	check(state, "out of memory");
	state->region = job_region(job, 0);
	state->base = cow_region_get_base(state->region);
	state->pages = job->size / PAGE;
	state->among = among;
	state->random = job->seed;
	state->order = page_order(among, true, &state->random);
	cow_snapshot_unref(job_snapshot(state->region));
	return state;
}

static void *prepare_cuts(const struct job *job)
{
	return prepare_among(job, job->size / PAGE);
}

static void write_run(struct cut_state *state, size_t first, size_t count)
{
	for (size_t page = first; page < first + count; page++)
		state->base[page * PAGE]++;
}

/* Pages at random are the next of an order in which each stands once. */
static void write_dirt(struct cut_state *state, const struct dirt *dirt)
{
	size_t count = (size_t)((double)state->among * dirt->share), run;

	if (count == 0)
		count = 1;
	if (dirt->clusters == 0) {
		for (size_t i = 0, at = random_next(&state->random); i < count; i++, at++)
			state->base[state->order[at % state->among] * PAGE]++;
		return;
	}
	run = count / dirt->clusters > 0 ? count / dirt->clusters : 1;
	for (unsigned i = 0; i < dirt->clusters; i++)
		write_run(state, random_next(&state->random) % (state->among - run + 1), run);
}

/* figures: the call, the stall. */
static void cut_once(struct cut_state *state, double figures[2])
{
	struct cow_snapshot *before = state->snapshot;

	figures[0] = now_us();
	state->snapshot = job_snapshot(state->region);
	figures[0] = now_us() - figures[0];
	figures[1] = last_cut_us(state->region);
	cow_snapshot_unref(before);
}

static void turn_cuts(void *context, double figures[])
{
	struct cut_state *state = context;

	for (size_t i = 0; i < DIRTS; i++) {
		/* All of it kept would be more memory than there may be. */
		if (dirts[i].share > 0.05)
			state->snapshot = cow_snapshot_unref(state->snapshot);
		write_dirt(state, &dirts[i]);
		cut_once(state, &figures[2 * i]);
	}
	state->snapshot = cow_snapshot_unref(state->snapshot);
}

/* --- the baseline --- */

struct plain_state {
	unsigned char *memory;
	size_t size;
};

static void *prepare_plain(const struct job *job)
{
	struct plain_state *state = calloc(1, sizeof(*state));

	check(state, "out of memory");
	state->memory = job_memory(job);
	state->size = job->size;
	return state;
}

static void turn_plain(void *context, double figures[])
{
	struct plain_state *state = context;

	figures[0] = rewrite_and_fork_us(state->memory, state->size);
	figures[1] = rewrite_and_fork_us(state->memory, state->size);
}

static void start_plain(struct worker *worker, size_t size, uint32_t flags)
{
	struct job job = {
		.size = size, .flags = flags, .prepare = prepare_plain, .turn = turn_plain
	};

	worker_start(worker, &job);
}

/* --- cuts by what was written --- */

struct cut_samples {
	struct samples call[DIRTS], stall[DIRTS], ratio[DIRTS], fork, control;
};

static void report_cuts(const struct variant *variant, struct cut_samples *samples)
{
	char name[120];

	for (size_t i = 0; i < DIRTS; i++) {
		bool binds = variant->binds && dirts[i].bound > 0;

		snprintf(name, sizeof(name), "%s: call", dirts[i].name);
		bench_result(name, "us", &samples->call[i], BOUND_NONE, 0);
		bench_result("  stall", "us", &samples->stall[i], BOUND_NONE, 0);
		bench_result("  fork / call", "x", &samples->ratio[i],
			     binds ? AT_LEAST : BOUND_NONE, dirts[i].bound);
		samples_free(&samples->call[i]);
		samples_free(&samples->stall[i]);
		samples_free(&samples->ratio[i]);
	}
	bench_result("fork()", "us", &samples->fork, BOUND_NONE, 0);
	bench_result("A/A control: fork / fork", "", &samples->control, BOUND_NONE, 0);
	samples_free(&samples->fork);
	samples_free(&samples->control);
}

static void cuts_of(const struct variant *variant, size_t size, struct worker *plain)
{
	struct job job = { .variant = variant,
			   .size = size,
			   .seed = options.seed,
			   .prepare = prepare_cuts,
			   .turn = turn_cuts };
	struct cut_samples samples = { 0 };
	struct worker region;

	bench_section("Cut of %zu MiB, %s [fork()]", size / MIB, variant->name);
	if (!worker_start(&region, &job))
		return;
	for (unsigned turn = 0; turn < turns_of(variant) + 2; turn++) {
		double cut[FIGURES], fork[FIGURES];

		worker_turn(plain, fork);
		worker_turn(&region, cut);
		if (turn < 2)
			continue;
		samples_add(&samples.fork, fork[1]);
		samples_add(&samples.control, fork[1] / fork[0]);
		for (size_t i = 0; i < DIRTS; i++) {
			samples_add(&samples.call[i], cut[2 * i]);
			samples_add(&samples.stall[i], cut[2 * i + 1]);
			samples_add(&samples.ratio[i], fork[1] / cut[2 * i]);
		}
	}
	worker_stop(&region);
	report_cuts(variant, &samples);
}

static size_t cut_size(void)
{
	return options.quick ? 64 * MIB : 4096 * MIB;
}

void bench_cuts(void)
{
	struct worker plain;
	char name[80];

	start_plain(&plain, cut_size(), 0);
	for (size_t i = 0; i < VARIANTS; i++) {
		snprintf(name, sizeof(name), "cuts/%s", variants[i].name);
		if (bench_wants(name))
			cuts_of(&variants[i], cut_size(), &plain);
	}
	worker_stop(&plain);
}

/* --- the same pages written in a larger region --- */

static void *prepare_same(const struct job *job)
{
	return prepare_among(job, cut_size() / 4 / PAGE);
}

static void turn_same(void *context, double figures[])
{
	struct cut_state *state = context;

	/* Each size draws the same numbers. */
	for (size_t i = 0; i < DIRTS; i++) {
		if (dirts[i].share > 0.05)
			break;
		write_dirt(state, &dirts[i]);
		cut_once(state, &figures[2 * i]);
	}
}

void bench_cuts_by_size(void)
{
	size_t sizes[2] = { cut_size() / 4, cut_size() };
	struct worker workers[2];
	struct samples ratio[DIRTS] = { 0 };
	char name[120];

	bench_section("Cut, signal: the same pages of 1/4 of %zu MiB written", sizes[1] / MIB);
	for (unsigned i = 0; i < 2; i++) {
		struct job job = { .variant = &variants[0],
				   .size = sizes[i],
				   .seed = options.seed,
				   .prepare = prepare_same,
				   .turn = turn_same };

		if (!worker_start(&workers[i], &job))
			return;
	}
	for (unsigned turn = 0; turn < options.runs + 2; turn++) {
		double small[FIGURES], large[FIGURES];

		worker_turn(&workers[0], small);
		worker_turn(&workers[1], large);
		for (size_t i = 0; turn >= 2 && i < DIRTS; i++)
			if (dirts[i].share <= 0.05)
				samples_add(&ratio[i], large[2 * i] / small[2 * i]);
	}
	for (size_t i = 0; i < DIRTS; i++) {
		if (ratio[i].count == 0)
			continue;
		snprintf(name, sizeof(name), "%s: %zu MiB / %zu MiB", dirts[i].name, sizes[1] / MIB,
			 sizes[0] / MIB);
		bench_result(name, "", &ratio[i], AT_MOST, 1.3);
		samples_free(&ratio[i]);
	}
	worker_stop(&workers[0]);
	worker_stop(&workers[1]);
}

/* --- beside a writer at full speed --- */

static void *write_on(void *context)
{
	struct cut_state *state = context;
	uint64_t random = state->random;

	while (!atomic_load_explicit(&state->stop, memory_order_relaxed))
		for (unsigned i = 0; i < 64; i++)
			state->base[random_next(&random) % state->pages * PAGE]++;
	return NULL;
}

/* Who arms ahead: the program, by a call of its own, or the cut, which does it where other threads
 * write. */
static const struct ahead {
	struct variant variant; /* first */
	bool by_program;
} aheads[] = {
	{ { "signal", COW_TRAP_SIGNAL, NULL, true, 0 }, true },
	{ { "signal armed by the cut", COW_TRAP_SIGNAL, NULL, false, 0 }, false },
	{ { "signal rounds=off", COW_TRAP_SIGNAL, "rounds=off", false, 0 }, false },
	{ { "thread", COW_TRAP_THREAD, NULL, false, 0 }, true },
	{ { "mprotect", COW_TRAP_MPROTECT, NULL, false, 0 }, true },
};

static void *prepare_beside_writer(const struct job *job)
{
	struct cut_state *state = prepare_cuts(job);

	state->arms = ((const struct ahead *)(const void *)job->variant)->by_program;
	return state;
}

/* figures: the call, the stall, arming ahead. */
static void turn_beside_writer(void *context, double figures[])
{
	struct cut_state *state = context;
	pthread_t writer;
	double start;

	atomic_store(&state->stop, false);
	check(pthread_create(&writer, NULL, write_on, state) == 0, "pthread_create");
	start = now_us();
	while (now_us() - start < (options.quick ? 1e4 : 2e5))
		;
	start = now_us();
	if (state->arms)
		check_errno(cow_region_arm(state->region), "cow_region_arm");
	figures[2] = now_us() - start;
	cut_once(state, figures);
	atomic_store(&state->stop, true);
	pthread_join(writer, NULL);
	state->snapshot = cow_snapshot_unref(state->snapshot);
}

static void beside_writer(const struct variant *variant, struct worker *plain)
{
	struct job job = { .variant = variant,
			   .size = cut_size(),
			   .seed = options.seed,
			   .prepare = prepare_beside_writer,
			   .turn = turn_beside_writer };
	struct samples call = { 0 }, stall = { 0 }, arm = { 0 }, ratio = { 0 }, control = { 0 };
	struct worker region;

	bench_section("Cut of %zu MiB beside a writer of random pages, %s [fork()]", job.size / MIB,
		      variant->name);
	if (!worker_start(&region, &job))
		return;
	for (unsigned turn = 0; turn < turns_of(variant) + 2; turn++) {
		double cut[FIGURES], fork[FIGURES];

		worker_turn(plain, fork);
		worker_turn(&region, cut);
		if (turn < 2)
			continue;
		samples_add(&call, cut[0]);
		samples_add(&stall, cut[1]);
		samples_add(&arm, cut[2]);
		samples_add(&ratio, fork[1] / cut[0]);
		samples_add(&control, fork[1] / fork[0]);
	}
	worker_stop(&region);
	bench_result("arming ahead", "us", &arm, BOUND_NONE, 0);
	bench_result("cut: call", "us", &call, BOUND_NONE, 0);
	bench_result("  stall", "us", &stall, BOUND_NONE, 0);
	bench_result("  fork / call", "x", &ratio, variant->binds ? AT_LEAST : BOUND_NONE, 20);
	bench_result("A/A control: fork / fork", "", &control, BOUND_NONE, 0);
	samples_free(&call);
	samples_free(&stall);
	samples_free(&arm);
	samples_free(&ratio);
	samples_free(&control);
}

void bench_cuts_beside_writer(void)
{
	struct worker plain;
	char name[80];

	start_plain(&plain, cut_size(), 0);
	for (size_t i = 0; i < sizeof(aheads) / sizeof(aheads[0]); i++) {
		snprintf(name, sizeof(name), "cuts-writer/%s", aheads[i].variant.name);
		if (bench_wants(name))
			beside_writer(&aheads[i].variant, &plain);
	}
	worker_stop(&plain);
}

/* --- huge pages --- */

static const struct variant huge_variants[] = {
	{ "signal", COW_TRAP_SIGNAL, NULL, true, 0 },
	{ "signal huge=off", COW_TRAP_SIGNAL, "huge=off", false, 0 },
	{ "thread", COW_TRAP_THREAD, NULL, false, 0 },
	{ "mprotect", COW_TRAP_MPROTECT, NULL, false, 0 },
};

struct huge_state {
	struct job job;
	uint64_t random;
};

static void *prepare_huge(const struct job *job)
{
	struct huge_state *state = calloc(1, sizeof(*state));

	check(state, "out of memory");
	state->job = *job;
	state->random = job->seed;
	return state;
}

/* A region of its own for each turn, since the first write to a huge page splits it. figures: call
 * and stall of the first cut, then of the later ones: the same run written again, and another
 * one. */
static void turn_huge(void *context, double figures[])
{
	struct huge_state *huge = context;
	struct cut_state state = { .random = huge->random };
	uint64_t run = huge->job.size / PAGE / 1000, first;

	state.region = job_region(&huge->job, 0);
	state.base = cow_region_get_base(state.region);
	state.pages = huge->job.size / PAGE;
	check_errno(cow_region_arm(state.region), "cow_region_arm");
	first = random_next(&huge->random) % (state.pages - run);
	for (unsigned i = 0; i < 3; i++) {
		if (i == 2)
			first = random_next(&huge->random) % (state.pages - run);
		write_run(&state, first, run);
		cut_once(&state, &figures[2 * i]);
	}
	cow_snapshot_unref(state.snapshot);
	cow_region_free(state.region);
}

static void huge_of(const struct variant *variant, struct worker *plain)
{
	static const char *const names[] = { "first cut", "second, the same run",
					     "third, another" };
	struct job job = { .variant = variant,
			   .size = cut_size(),
			   .flags = COW_REGION_HUGE_PAGES,
			   .seed = options.seed,
			   .prepare = prepare_huge,
			   .turn = turn_huge };
	struct samples call[3] = { 0 }, ratio[3] = { 0 }, fork_us = { 0 }, control = { 0 };
	struct worker region;
	char name[120];

	bench_section("Cut of %zu MiB of huge pages, 0.1 %% in one run, %s [fork(), huge pages]",
		      job.size / MIB, variant->name);
	if (!worker_start(&region, &job))
		return;
	for (unsigned turn = 0; turn < turns_of(variant) + 2; turn++) {
		double cut[FIGURES], fork[FIGURES];

		worker_turn(plain, fork);
		worker_turn(&region, cut);
		if (turn < 2)
			continue;
		samples_add(&fork_us, fork[1]);
		samples_add(&control, fork[1] / fork[0]);
		for (unsigned i = 0; i < 3; i++) {
			samples_add(&call[i], cut[2 * i]);
			samples_add(&ratio[i], fork[1] / cut[2 * i]);
		}
	}
	worker_stop(&region);
	for (unsigned i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "%s: call", names[i]);
		bench_result(name, "us", &call[i], BOUND_NONE, 0);
		bench_result("  fork / call", "x", &ratio[i],
			     variant->binds ? AT_LEAST : BOUND_NONE, 5);
		samples_free(&call[i]);
		samples_free(&ratio[i]);
	}
	bench_result("fork(), huge pages", "us", &fork_us, BOUND_NONE, 0);
	bench_result("A/A control: fork / fork", "", &control, BOUND_NONE, 0);
	samples_free(&fork_us);
	samples_free(&control);
}

void bench_cuts_huge(void)
{
	struct worker plain;
	char name[80];

	start_plain(&plain, cut_size(), COW_REGION_HUGE_PAGES);
	for (size_t i = 0; i < sizeof(huge_variants) / sizeof(huge_variants[0]); i++) {
		snprintf(name, sizeof(name), "cuts-huge/%s", huge_variants[i].name);
		if (bench_wants(name))
			huge_of(&huge_variants[i], &plain);
	}
	worker_stop(&plain);
}
