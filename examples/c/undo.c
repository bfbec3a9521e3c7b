/* SPDX-License-Identifier: MIT */
/*
 * A simulator that can go back: a forest fire on a grid of 1024 x 1024 cells, a snapshot after each
 * of 1,000 steps, kept within 4 MiB of memory (the rest goes to a file); what changed between two
 * steps; back to a step in the past, and on from there.
 *
 *   undo [DIRECTORY]       for the file: on a disk
 *
 * The grid is written with ordinary stores: the library notices them by itself.
 */
#include <cow.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIDE  1024
#define CELLS (SIDE * SIDE)
#define STEPS 1000

enum { EMPTY, TREE, FIRE };

struct forest {
	uint64_t random, step, burning;
	uint32_t fires[CELLS]; /* the cells that burn */
	unsigned char cells[CELLS];
};

static void must(int result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "undo: %s: %s\n", what, strerror(-result));
	exit(1);
}

static uint32_t next_random(struct forest *forest)
{
	forest->random = forest->random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(forest->random >> 33);
}

static void ignite(struct forest *forest, uint32_t cell)
{
	if (forest->cells[cell] != TREE || forest->burning == CELLS)
		return;
	forest->cells[cell] = FIRE;
	forest->fires[forest->burning++] = cell;
}

/* What burns spreads and is gone; lightning strikes; a tree grows. */
static void advance(struct forest *forest)
{
	uint64_t burning = forest->burning;
	uint32_t cell;

	for (uint64_t i = 0; i < burning; i++) {
		cell = forest->fires[i];
		ignite(forest, (cell + 1) % CELLS);
		ignite(forest, (cell + CELLS - 1) % CELLS);
		ignite(forest, (cell + SIDE) % CELLS);
		ignite(forest, (cell + CELLS - SIDE) % CELLS);
		forest->cells[cell] = EMPTY;
	}
	forest->burning -= burning;
	memmove(forest->fires, forest->fires + burning, forest->burning * sizeof(forest->fires[0]));
	if (forest->step++ % 10 == 0)
		ignite(forest, next_random(forest) % CELLS);
	cell = next_random(forest) % CELLS;
	if (forest->cells[cell] == EMPTY)
		forest->cells[cell] = TREE;
}

static int add_length(size_t offset, size_t length, void *sum)
{
	(void)offset;
	*(size_t *)sum += length;
	return 0;
}

int main(int argc, char **argv)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_region_stats stats = COW_REGION_STATS_INIT;
	static struct cow_snapshot *past[STEPS];
	struct forest *forest, *end = malloc(sizeof(*end));
	size_t changed = 0;
	struct cow_region *region;

	options.preimage_limit = (size_t)4 << 20;
	options.spill_directory = argc > 1 ? argv[1] : ".";
	must(cow_region_new(sizeof(*forest), &options, &region), "region");
	forest = cow_region_get_base(region);
	forest->random = 1;
	for (uint32_t cell = 0; cell < CELLS; cell++)
		forest->cells[cell] = next_random(forest) % 100 < 55 ? TREE : EMPTY;
	for (int i = 0; i < STEPS; i++) {
		must(cow_region_snapshot(region, &past[i]), "snapshot");
		advance(forest);
	}
	if (end)
		memcpy(end, forest, sizeof(*end));

	must(cow_region_get_stats(region, &stats), "statistics");
	printf("%llu steps kept: %.1f MiB in memory, %.1f MiB in a file; each is %.0f MiB\n",
	       (unsigned long long)stats.snapshots,
	       (double)(stats.preimage_bytes + stats.metadata_bytes + stats.pool_bytes) / 1048576,
	       (double)stats.spilled_bytes / 1048576, (double)sizeof(*forest) / 1048576);
	must(cow_snapshot_diff(past[STEPS - 1], NULL, add_length, &changed), "compare");
	printf("the last step changed %zu KiB\n", changed / 1024);

	for (int to = STEPS / 4; to < STEPS; to += STEPS / 4) {
		must(cow_region_rollback(region, past[to]), "rollback");
		printf("back to step %llu", (unsigned long long)forest->step);
		while (forest->step < STEPS)
			advance(forest);
		printf(", and on again: %s\n",
		       end && memcmp(end, forest, sizeof(*end)) == 0 ? "the same" : "not the same");
	}
	for (int i = 0; i < STEPS; i++)
		cow_snapshot_unref(past[i]);
	cow_region_free(region);
	free(end);
	return 0;
}
