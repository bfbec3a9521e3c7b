/* SPDX-License-Identifier: MIT */
/*
 * What a write to an open page costs, before the first cut and after one: nothing, it should be,
 * since nothing of ours is in its way. Both memories are mapped anew for each turn, and a control
 * of plain memory against plain memory says what differs by itself.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "bench/bench-traps.h"

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
static double control_bound(const struct turns *turns)
{
	struct samples control = turns_ratio(turns, THEIRS(1), THEIRS(0));
	double high = samples_quantile(&control, 0.9);

	samples_free(&control);
	return high + 0.01;
}

static void open_of(const struct variant *variant, uint32_t flags, struct worker *plain)
{
	struct job job = { .variant = variant,
			   .size = OPEN_BYTES,
			   .flags = flags,
			   .seed = options.seed,
			   .times = 2,
			   .prepare = prepare_open,
			   .turn = turn_open };
	struct turns turns;

	bench_section("Writes to open pages, %zu MiB of %s pages, %s [plain memory]",
		      job.size / MIB, flags ? "huge" : "4 KiB", variant->name);
	if (!turns_take(&turns, &job, plain))
		return;
	show_figure(&turns, "plain memory, a write", "ns", THEIRS(1));
	show_ratio(&turns, "A/A control: plain / plain", THEIRS(1), THEIRS(0), BOUND_NONE, 0);
	show_ratio(&turns, "before the first cut / plain", OURS(0), THEIRS(1), AT_MOST,
		   control_bound(&turns));
	show_ratio(&turns, "after a cut, opened again / plain", OURS(1), THEIRS(1), BOUND_NONE, 0);
	turns_free(&turns);
}

static void open_small(const struct variant *variant, struct worker *plain)
{
	open_of(variant, 0, plain);
}

static void open_huge(const struct variant *variant, struct worker *plain)
{
	open_of(variant, COW_REGION_HUGE_PAGES, plain);
}

void bench_open_writes(void)
{
	static const struct variant variants[] = {
		{ .name = "signal", .trap = COW_TRAP_SIGNAL, .binds = true },
		{ .name = "thread", .trap = COW_TRAP_THREAD },
		{ .name = "mprotect", .trap = COW_TRAP_MPROTECT },
	};
	struct job plain = { .size = OPEN_BYTES,
			     .seed = options.seed,
			     .prepare = prepare_open,
			     .turn = turn_open_plain };

	each_variant("open-writes", variants, COUNT_OF(variants), &plain, open_small);
	plain.flags = COW_REGION_HUGE_PAGES;
	each_variant("open-writes", variants, COUNT_OF(variants), &plain, open_huge);
}
