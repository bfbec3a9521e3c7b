/* SPDX-License-Identifier: MIT */
/*
 * Many runs from one prepared state, as a fuzzer has them: the state is made once and sealed in a
 * snapshot; each run gets a branch of it, does with that what it likes, and is thrown away with
 * all that it did. Nothing is copied but the pages that a run writes.
 *
 *   branches [RUNS]
 *
 * Under the explicit trap a branch costs least: nothing is mapped, nobody is told. A page of it has
 * to be touched before plain memory shows what the snapshot had.
 */
#include <cow.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WORDS ((size_t)8 << 20) /* 64 MiB */

static void must(int result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "branches: %s: %s\n", what, strerror(-result));
	exit(1);
}

static uint64_t prepared(size_t word)
{
	return word * 0x9e3779b97f4a7c15u;
}

static struct cow_snapshot *prepare(void)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_snapshot *sealed;
	struct cow_region *region;
	uint64_t *memory;

	options.trap = COW_TRAP_EXPLICIT;
	must(cow_region_new(WORDS * sizeof(*memory), &options, &region), "region");
	memory = cow_region_get_base(region);
	must(cow_region_write_begin(region, memory, WORDS * sizeof(*memory)), "bracket");
	for (size_t i = 0; i < WORDS; i++)
		memory[i] = prepared(i);
	cow_region_write_end(region, memory, WORDS * sizeof(*memory));
	must(cow_region_snapshot(region, &sealed), "snapshot");
	cow_region_free(region); /* the snapshot holds what it needs */
	return sealed;
}

/* The i-th word that a run looks at: each on a page of its own. */
static size_t place(uint64_t input, unsigned i)
{
	return (prepared(input) + (uint64_t)i * 4099 * 512) % WORDS;
}

/* One input: a few dozen reads and writes wherever it says. */
static uint64_t run(struct cow_region *branch, uint64_t input)
{
	uint64_t *memory = cow_region_get_base(branch), result = 0;

	for (unsigned i = 0; i < 32; i++) {
		uint64_t *word = &memory[place(input, i)];

		must(cow_region_touch(branch, word, sizeof(*word)), "touch");
		result ^= *word;
		*word = input;
	}
	return result;
}

/* What the same run reads where nothing was run before. */
static uint64_t expected(uint64_t input)
{
	uint64_t result = 0;

	for (unsigned i = 0; i < 32; i++)
		result ^= prepared(place(input, i));
	return result;
}

int main(int argc, char **argv)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	unsigned runs = argc > 1 ? (unsigned)atoi(argv[1]) : 10000, wrong = 0;
	struct cow_snapshot *sealed = prepare();
	struct timespec from, to;
	double seconds;

	options.trap =
		COW_TRAP_EXPLICIT; /* AUTO would find out anew for each branch what there is */
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (unsigned input = 1; input <= runs; input++) {
		struct cow_region *branch;

		must(cow_snapshot_branch(sealed, &options, &branch), "branch");
		wrong += run(branch, input) != expected(input);
		cow_region_free(branch);
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
	printf("%u runs from 64 MiB of state, 32 pages written by each: %.0f runs/s, %u wrong\n",
	       runs, runs / seconds, wrong);
	cow_snapshot_unref(sealed);
	return wrong != 0;
}
