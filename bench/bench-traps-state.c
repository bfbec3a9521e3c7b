/* SPDX-License-Identifier: MIT */
/*
 * Going back, and going on in several directions: rollback beside a child that does the work and
 * is thrown away; the memory of branches.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench-traps.h"
#include "bench/cgroup.h"

static const struct variant variants[] = {
	{ .name = "signal", .trap = COW_TRAP_SIGNAL, .binds = true },
	{ .name = "signal blocks=off", .trap = COW_TRAP_SIGNAL, .tune = "blocks=off" },
	{ .name = "thread", .trap = COW_TRAP_THREAD },
	{ .name = "mprotect", .trap = COW_TRAP_MPROTECT },
};

/* --- rollback --- */

#define DIRTY_PAGES 64u
#define CYCLES      (options.quick ? 20u : 200u) /* in a turn */

/* Each cycle writes the same pages, or others. */
enum { SAME, OTHER, KINDS };

struct rollback_state {
	struct cow_region *region;
	struct cow_snapshot *snapshot;
	unsigned char *base;
	size_t pages;
	uint64_t seed;
};

static void write_pages(const struct rollback_state *state, uint64_t seed)
{
	check(state->pages > 0, "no pages");
	for (unsigned i = 0; i < DIRTY_PAGES; i++)
		state->base[random_next(&seed) % state->pages * PAGE]++;
}

static struct rollback_state *rollback_state(const struct job *job)
{
	struct rollback_state *state = calloc(1, sizeof(*state));

	check(state, "out of memory");
	state->pages = job->size / PAGE;
	state->seed = job->seed;
	return state;
}

static void *prepare_rollback(const struct job *job)
{
	struct rollback_state *state = rollback_state(job);

	state->region = job_region(job, 0);
	state->base = cow_region_get_base(state->region);
	return state;
}

/* figures: for each kind a cycle, and the call of it. */
static void turn_rollback(void *context, double figures[])
{
	struct rollback_state *state = context;

	for (unsigned kind = 0; kind < KINDS; kind++) {
		struct cow_snapshot *snapshot = job_snapshot(state->region);

		for (unsigned i = 0; i < CYCLES; i++) {
			double start = now_us(), written;

			write_pages(state, state->seed + (kind == SAME ? 1 : i + 2));
			written = now_us();
			check_errno(cow_region_rollback(state->region, snapshot),
				    "cow_region_rollback");
			figures[2 * kind + 1] += (now_us() - written) / CYCLES;
			figures[2 * kind] += (now_us() - start) / CYCLES;
		}
		cow_snapshot_unref(snapshot);
	}
}

static void *prepare_children(const struct job *job)
{
	struct rollback_state *state = rollback_state(job);

	state->base = job_memory(job);
	return state;
}

/* The parent's memory is what the child is thrown away for: nothing has to be put back in it. */
static double child_us(const struct rollback_state *state, uint64_t seed)
{
	double start;
	pid_t child;

	for (size_t page = 0; page < state->pages; page++)
		state->base[page * PAGE]++;
	start = now_us();
	child = fork();
	if (child == 0) {
		write_pages(state, seed);
		_exit(0);
	}
	check(child > 0, "fork");
	waitpid(child, NULL, 0);
	return now_us() - start;
}

static void turn_children(void *context, double figures[])
{
	struct rollback_state *state = context;

	unsigned count = CYCLES / 10;

	for (unsigned i = 0; i < count; i++) {
		figures[0] += child_us(state, state->seed + i) / count;
		figures[1] += child_us(state, state->seed + i) / count;
	}
}

static size_t rollback_size(void)
{
	return (options.quick ? 32 : 256) * MIB;
}

static void rollback_of(const struct variant *variant, struct worker *children)
{
	static const char *const kinds[KINDS] = { "the same pages", "other pages each time" };
	struct job job = { .variant = variant,
			   .size = rollback_size(),
			   .seed = options.seed,
			   .prepare = prepare_rollback,
			   .turn = turn_rollback };
	struct turns turns;
	char name[100];

	bench_section("Rollback of %u pages of %zu MiB, %s [fork, write, exit, wait]", DIRTY_PAGES,
		      job.size / MIB, variant->name);
	if (!turns_take(&turns, &job, children))
		return;
	for (unsigned i = 0; i < 2 * KINDS; i++) {
		snprintf(name, sizeof(name), "%s: %s", kinds[i / 2],
			 i % 2 ? "cow_region_rollback()" : "writing and rolling back");
		show_figure(&turns, name, "us", OURS(i));
		show_ratio(&turns, "  fork / this", THEIRS(1), OURS(i), AT_LEAST, i % 2 ? 30 : 0);
	}
	show_figure(&turns, "fork, write, exit, wait", "us", THEIRS(1));
	show_ratio(&turns, "A/A control: fork / fork", THEIRS(1), THEIRS(0), BOUND_NONE, 0);
	turns_free(&turns);
}

void bench_rollback(void)
{
	struct job children = { .size = rollback_size(),
				.seed = options.seed,
				.prepare = prepare_children,
				.turn = turn_children };

	each_variant("rollback", variants, COUNT_OF(variants), &children, rollback_of);
}

/* --- branches --- */

#define BRANCHES 8u

enum { PSS_LIVE, PSS_READ, PSS_REWRITTEN, CGROUP_LIVE, CGROUP_READ, CGROUP_REWRITTEN };

struct branch_state {
	struct job job;
	bool in_cgroup;
};

static void *prepare_branches(const struct job *job)
{
	struct branch_state *state = calloc(1, sizeof(*state));

	check(state, "out of memory");
	state->job = *job;
	state->in_cgroup = cgroup_enter();
	return state;
}

static void note_memory(const struct branch_state *state, double figures[], unsigned which)
{
	figures[which] = (double)pss_bytes() / (double)state->job.size;
	if (state->in_cgroup)
		figures[CGROUP_LIVE + which] = (double)cgroup_usage() / (double)state->job.size;
}

static void read_all(struct cow_region *region)
{
	const volatile unsigned char *base = cow_region_get_base(region);
	size_t length = cow_region_get_length(region);

	for (size_t at = 0; at < length; at += PAGE)
		check(base[at] == (unsigned char)(at / PAGE), "a branch reads something else");
}

static void fill(unsigned char *base, size_t length)
{
	for (size_t at = 0; at < length; at += PAGE)
		memset(base + at, (int)(at / PAGE), PAGE);
}

/* figures: shares of the region's size. */
static void turn_branches(void *context, double figures[])
{
	struct branch_state *state = context;
	struct cow_region_options o = COW_REGION_OPTIONS_INIT;
	struct cow_region *region = job_region(&state->job, 0), *branches[BRANCHES];
	unsigned char *base = cow_region_get_base(region);
	struct cow_snapshot *snapshot;

	fill(base, state->job.size);
	note_memory(state, figures, PSS_LIVE);
	snapshot = job_snapshot(region);
	o.trap = state->job.variant->trap;
	for (unsigned i = 0; i < BRANCHES; i++) {
		check_errno(cow_snapshot_branch(snapshot, &o, &branches[i]), "cow_snapshot_branch");
		read_all(branches[i]);
	}
	note_memory(state, figures, PSS_READ);
	for (size_t at = 0; at < state->job.size; at += PAGE)
		base[at]++;
	note_memory(state, figures, PSS_REWRITTEN);
	for (unsigned i = 0; i < BRANCHES; i++)
		read_all(branches[i]);
	for (unsigned i = 0; i < BRANCHES; i++)
		cow_region_free(branches[i]);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

static void report_memory(const char *name, double value, bool binds)
{
	if (value > 0)
		bench_value(name, "", value, binds ? AT_MOST : BOUND_NONE, 2.05);
	else
		bench_note("%s: not measured, no memory cgroup can be made here", name);
}

static void branches_of(const struct variant *variant)
{
	struct job job = { .variant = variant,
			   .size = (options.quick ? 16 : 256) * MIB,
			   .seed = options.seed,
			   .prepare = prepare_branches,
			   .turn = turn_branches };
	double figures[FIGURES];
	struct worker worker;
	bool binds = variant->binds;

	bench_section("Memory of %u branches of %zu MiB, all read, as a share of it, %s", BRANCHES,
		      job.size / MIB, variant->name);
	if (!worker_start(&worker, &job))
		return;
	worker_turn(&worker, figures);
	worker_stop(&worker);
	cgroup_remove(worker.pid);
	bench_value("the region alone, PSS", "", figures[PSS_LIVE], BOUND_NONE, 0);
	bench_value("and branches, PSS", "", figures[PSS_READ], binds ? AT_MOST : BOUND_NONE, 2.05);
	report_memory("and branches, cgroup", figures[CGROUP_READ], binds);
	/* The image and the pre-images, which the snapshot reads, may be two copies then. */
	bench_value("and the region rewritten, PSS", "", figures[PSS_REWRITTEN], BOUND_NONE, 0);
	report_memory("and the region rewritten, cgroup", figures[CGROUP_REWRITTEN], false);
}

void bench_branches(void)
{
	char name[80];

	for (size_t i = 0; i < COUNT_OF(variants); i++) {
		snprintf(name, sizeof(name), "branches/%s", variants[i].name);
		if (!variants[i].tune && bench_wants(name))
			branches_of(&variants[i]);
	}
}
