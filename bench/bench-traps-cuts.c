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

#define DIRTS COUNT_OF(dirts)

/* More than that kept would be more memory than there may be. */
#define KEPT_SHARE 0.05

/* Each one's worth: on in the first, off in its own. */
static const struct variant variants[] = {
	{ .name = "signal", .trap = COW_TRAP_SIGNAL, .binds = true },
	{ .name = "signal cost=off", .trap = COW_TRAP_SIGNAL, .tune = "cost=off" },
	{ .name = "signal blocks=off", .trap = COW_TRAP_SIGNAL, .tune = "blocks=off" },
	{ .name = "signal copier=on", .trap = COW_TRAP_SIGNAL, .flags = COW_REGION_COPY_AHEAD },
	{ .name = "thread", .trap = COW_TRAP_THREAD },
	{ .name = "mprotect", .trap = COW_TRAP_MPROTECT },
};

struct cut_state {
	struct cow_region *region;
	struct cow_snapshot *snapshot; /* the newest, kept until the next */
	unsigned char *base;
	size_t pages, among; /* what is written is among the first so many */
	uint64_t random;
	size_t *order; /* of those */
	bool arms;     /* ahead, by a call */
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
		if (dirts[i].share > KEPT_SHARE)
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

static size_t cut_size(void)
{
	return options.quick ? 64 * MIB : 4096 * MIB;
}

static struct job plain_job(uint32_t flags)
{
	return (struct job){
		.size = cut_size(), .flags = flags, .prepare = prepare_plain, .turn = turn_plain
	};
}

static void show_forks(const struct turns *turns)
{
	show_figure(turns, "fork()", "us", THEIRS(1));
	show_ratio(turns, "A/A control: fork / fork", THEIRS(1), THEIRS(0), BOUND_NONE, 0);
}

/* --- cuts by what was written --- */

static void cuts_of(const struct variant *variant, struct worker *plain)
{
	struct job job = { .variant = variant,
			   .size = cut_size(),
			   .seed = options.seed,
			   .prepare = prepare_cuts,
			   .turn = turn_cuts };
	struct turns turns;
	char name[120];

	bench_section("Cut of %zu MiB, %s [fork()]", job.size / MIB, variant->name);
	if (!turns_take(&turns, &job, plain))
		return;
	for (unsigned i = 0; i < DIRTS; i++) {
		snprintf(name, sizeof(name), "%s: call", dirts[i].name);
		show_figure(&turns, name, "us", OURS(2 * i));
		show_figure(&turns, "  stall", "us", OURS(2 * i + 1));
		show_ratio(&turns, "  fork / call", THEIRS(1), OURS(2 * i), AT_LEAST,
			   dirts[i].bound);
	}
	show_forks(&turns);
	turns_free(&turns);
}

void bench_cuts(void)
{
	struct job plain = plain_job(0);

	each_variant("cuts", variants, COUNT_OF(variants), &plain, cuts_of);
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
	for (size_t i = 0; i < DIRTS && dirts[i].share <= KEPT_SHARE; i++) {
		write_dirt(state, &dirts[i]);
		cut_once(state, &figures[2 * i]);
	}
}

static void cuts_by_size(const struct variant *variant, struct worker *small)
{
	struct job job = { .variant = variant,
			   .size = cut_size(),
			   .seed = options.seed,
			   .prepare = prepare_same,
			   .turn = turn_same };
	struct turns turns;
	char name[120];

	bench_section("Cut of %zu MiB, the same pages of a quarter of it written, %s [of %zu MiB]",
		      job.size / MIB, variant->name, job.size / 4 / MIB);
	if (!turns_take(&turns, &job, small))
		return;
	for (unsigned i = 0; i < DIRTS && dirts[i].share <= KEPT_SHARE; i++) {
		snprintf(name, sizeof(name), "%s: call", dirts[i].name);
		show_figure(&turns, name, "us", OURS(2 * i));
		show_ratio(&turns, "  large / small", OURS(2 * i), THEIRS(2 * i), AT_MOST, 1.3);
	}
	turns_free(&turns);
}

void bench_cuts_by_size(void)
{
	struct job small = { .size = cut_size() / 4,
			     .seed = options.seed,
			     .prepare = prepare_same,
			     .turn = turn_same };
	char name[80];

	for (size_t i = 0; i < COUNT_OF(variants); i++) {
		struct worker worker;

		snprintf(name, sizeof(name), "cuts-size/%s", variants[i].name);
		if (variants[i].tune || variants[i].flags || !bench_wants(name))
			continue;
		small.variant = &variants[i];
		if (worker_start(&worker, &small)) {
			cuts_by_size(&variants[i], &worker);
			worker_stop(&worker);
		}
	}
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
enum { ARMED_BY_PROGRAM, ARMED_BY_CUT };

static const struct variant armed[] = {
	{ .name = "signal", .trap = COW_TRAP_SIGNAL, .binds = true },
	{ .name = "signal armed by the cut", .trap = COW_TRAP_SIGNAL, .way = ARMED_BY_CUT },
	{ .name = "signal rounds=off",
	  .trap = COW_TRAP_SIGNAL,
	  .tune = "rounds=off",
	  .way = ARMED_BY_CUT },
	{ .name = "thread", .trap = COW_TRAP_THREAD },
	{ .name = "mprotect", .trap = COW_TRAP_MPROTECT },
};

static void *prepare_beside_writer(const struct job *job)
{
	struct cut_state *state = prepare_cuts(job);

	state->arms = job->variant->way == ARMED_BY_PROGRAM;
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
	struct turns turns;

	bench_section("Cut of %zu MiB beside a writer of random pages, %s [fork()]", job.size / MIB,
		      variant->name);
	if (!turns_take(&turns, &job, plain))
		return;
	show_figure(&turns, "arming ahead", "us", OURS(2));
	show_figure(&turns, "cut: call", "us", OURS(0));
	show_figure(&turns, "  stall", "us", OURS(1));
	show_ratio(&turns, "  fork / call", THEIRS(1), OURS(0), AT_LEAST, 20);
	show_forks(&turns);
	turns_free(&turns);
}

void bench_cuts_beside_writer(void)
{
	struct job plain = plain_job(0);

	each_variant("cuts-writer", armed, COUNT_OF(armed), &plain, beside_writer);
}

/* --- huge pages --- */

static const struct variant huge_variants[] = {
	{ .name = "signal", .trap = COW_TRAP_SIGNAL, .binds = true },
	{ .name = "signal huge=off", .trap = COW_TRAP_SIGNAL, .tune = "huge=off" },
	{ .name = "thread", .trap = COW_TRAP_THREAD },
	{ .name = "mprotect", .trap = COW_TRAP_MPROTECT },
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
	static const char *const names[] = { "first cut: call", "second, the same run: call",
					     "third, another run: call" };
	struct job job = { .variant = variant,
			   .size = cut_size(),
			   .flags = COW_REGION_HUGE_PAGES,
			   .seed = options.seed,
			   .prepare = prepare_huge,
			   .turn = turn_huge };
	struct turns turns;

	bench_section("Cut of %zu MiB of huge pages, 0.1 %% in one run, %s [fork(), huge pages]",
		      job.size / MIB, variant->name);
	if (!turns_take(&turns, &job, plain))
		return;
	for (unsigned i = 0; i < COUNT_OF(names); i++) {
		show_figure(&turns, names[i], "us", OURS(2 * i));
		show_figure(&turns, "  stall", "us", OURS(2 * i + 1));
		show_ratio(&turns, "  fork / call", THEIRS(1), OURS(2 * i), AT_LEAST, 5);
	}
	show_forks(&turns);
	turns_free(&turns);
}

void bench_cuts_huge(void)
{
	struct job plain = plain_job(COW_REGION_HUGE_PAGES);

	each_variant("cuts-huge", huge_variants, COUNT_OF(huge_variants), &plain, huge_of);
}
