/* SPDX-License-Identifier: MIT */
/*
 * persistent-structure: copy-on-write without page faults. A vector kept in a tree of 32-way nodes;
 * a change copies the nodes from the root to the leaf (path copying) and shares all others with the
 * versions before. Beside it: a full copy for each version, and a snapshot of libcow for each.
 *
 * Nodes come from one arena, so that counting bytes is subtraction. Every version stays readable;
 * some are checked against what they must hold.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cow.h>

#include "cli/bench/forks.h"
#include "cli/output.h"

#define WAYS 32

/* Inner nodes hold nodes, leaves hold values. */
union node {
	union node *to[WAYS];
	uint64_t values[WAYS];
};

static struct {
	union node *nodes; /* the arena */
	size_t used, room;
	unsigned int depth; /* levels of nodes */
	size_t elements, versions;
	uint64_t seed;
	union node **roots; /* of each version */
} tree;

static union node *new_node(const union node *from)
{
	union node *node = &tree.nodes[tree.used++];

	memcpy(node, from, sizeof(*node));
	return node;
}

static uint64_t random_of(size_t version)
{
	uint64_t x = (version + 1 + tree.seed) * UINT64_C(0x9e3779b97f4a7c15);

	x ^= x >> 29;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	return x ^ x >> 32;
}

/* A full tree; element i holds i. */
static union node *build(unsigned int level, size_t first)
{
	union node *node = &tree.nodes[tree.used++];
	size_t span = 1, i;
	unsigned int l;

	for (l = 1; l < level; l++)
		span *= WAYS;
	for (i = 0; i < WAYS; i++) {
		if (level == 1)
			node->values[i] = first + i;
		else
			node->to[i] = build(level - 1, first + i * span);
	}
	return node;
}

/* A new version with one element changed: a node of each level is copied. */
static union node *update(const union node *root, size_t index, uint64_t value)
{
	union node *new_root = new_node(root), *node = new_root;
	unsigned int level;

	for (level = tree.depth - 1; level > 0; level--) {
		size_t slot = index >> (5 * level) & (WAYS - 1);

		node->to[slot] = new_node(node->to[slot]);
		node = node->to[slot];
	}
	node->values[index & (WAYS - 1)] = value;
	return new_root;
}

static uint64_t look_up(const union node *node, size_t index)
{
	unsigned int level;

	for (level = tree.depth - 1; level > 0; level--)
		node = node->to[index >> (5 * level) & (WAYS - 1)];
	return node->values[index & (WAYS - 1)];
}

/* --- the three ways to keep all versions --- */

static double measure_tree(struct bench *bench, const struct bench_subject *subject)
{
	uint64_t start;
	size_t i;

	(void)bench;
	(void)subject;
	tree.used = 0;
	tree.roots[0] = build(tree.depth, 0);
	start = bench_now();
	for (i = 0; i < tree.versions; i++)
		tree.roots[i + 1] = update(tree.roots[i], random_of(i) % tree.elements,
					   ~(uint64_t)i);
	return (double)bench_lap(start) / (double)tree.versions;
}

/* Only as many as fit; the time is for each. */
static double measure_copies(struct bench *bench, const struct bench_subject *subject)
{
	size_t bytes = tree.elements * sizeof(uint64_t), i, count = subject->number;
	uint64_t *copies = bench_map(bench, bytes * (count + 1), false);
	uint64_t start;
	double ns;

	if (!copies)
		return NAN;
	bench_fill(copies, bytes, bench->seed);
	start = bench_now();
	for (i = 0; i < count; i++) {
		uint64_t *to = copies + (i + 1) * tree.elements;

		memcpy(to, copies + i * tree.elements, bytes);
		to[random_of(i) % tree.elements] = ~(uint64_t)i;
	}
	ns = (double)bench_lap(start) / (double)count;
	munmap(copies, bytes * (count + 1));
	return ns;
}

static double libcow_bytes; /* a version, of the last measurement */

static double measure_libcow(struct bench *bench, const struct bench_subject *subject)
{
	size_t bytes = tree.elements * sizeof(uint64_t), i, count = tree.versions;
	struct cow_snapshot **snapshots = output_realloc(NULL, count * sizeof(*snapshots));
	struct cow_region_stats before = COW_REGION_STATS_INIT, after = COW_REGION_STATS_INIT;
	struct cow_region *region = region_filled(bench, bytes);
	uint64_t start, value;
	int error = 0;
	double ns;

	(void)subject;
	if (!region) {
		free(snapshots);
		return NAN;
	}
	cow_region_get_stats(region, &before);
	start = bench_now();
	for (i = 0; i < count && !error; i++) {
		error = cow_region_snapshot(region, &snapshots[i]);
		value = ~(uint64_t)i;
		if (!error)
			error = cow_region_write(region, random_of(i) % tree.elements * 8, &value,
						 8);
	}
	ns = (double)bench_lap(start) / (double)count;
	cow_region_get_stats(region, &after);
	libcow_bytes = ((double)after.preimage_bytes + (double)after.metadata_bytes -
			(double)before.preimage_bytes - (double)before.metadata_bytes) /
		       (double)count;
	if (error)
		bench_fail(bench, error, "libcow");
	while (i-- > 0 && !error)
		cow_snapshot_unref(snapshots[i]);
	cow_region_free(region);
	free(snapshots);
	return ns;
}

/* --- the experiment --- */

/* Each version differs from the one before in what was changed, in nothing else looked at. */
static bool versions_are_right(void)
{
	size_t i, index, other;

	for (i = 0; i < tree.versions; i += tree.versions / 64 + 1) {
		index = random_of(i) % tree.elements;
		other = (index + 1 + i) % tree.elements;
		if (look_up(tree.roots[i + 1], index) != ~(uint64_t)i ||
		    (other != index &&
		     look_up(tree.roots[i], other) != look_up(tree.roots[i + 1], other)))
			return false;
	}
	return look_up(tree.roots[0], tree.elements - 1) == tree.elements - 1;
}

static void add_memory(struct bench *bench, size_t base)
{
	double copied = (double)(tree.used - base) / (double)tree.versions;

	bench_add_value(bench, &(struct bench_row){ "nodes", "nodes of a version", BENCH_COUNT },
			(double)base);
	bench_add_value(bench,
			&(struct bench_row){ "copied", "nodes copied for a change", BENCH_COUNT,
					     "only the affected ones" },
			copied);
	bench_add_value(bench,
			&(struct bench_row){ "bytes/tree",
					     "memory of a further version: shared nodes",
					     BENCH_BYTES, NULL, "bytes" },
			copied * sizeof(union node));
	bench_add_value(bench,
			&(struct bench_row){ "bytes/libcow", "... libcow's snapshots", BENCH_BYTES,
					     NULL, "bytes" },
			libcow_bytes);
	bench_add_value(bench,
			&(struct bench_row){ "bytes/copy", "... full copies", BENCH_BYTES, NULL,
					     "bytes" },
			(double)(tree.elements * sizeof(uint64_t)));
	bench_check(bench, fabs(copied - tree.depth) < 1e-6,
		    "a change copies one node of each of the %u levels", tree.depth);
	bench_check(bench, versions_are_right(), "every version holds what it held");
}

static void run(struct bench *bench)
{
	size_t base = 0, level, copies;

	tree.depth = BENCH_BY_SCALE(bench, 3u, 4u, 4u, 4u);
	tree.versions = BENCH_BY_SCALE(bench, 500u, 10000u, 20000u, 100000u);
	tree.seed = bench->seed;
	tree.elements = (size_t)1 << (5 * tree.depth);
	for (level = 0; level < tree.depth; level++)
		base = base * WAYS + 1;
	tree.room = base + tree.versions * tree.depth;
	tree.nodes = bench_map(bench, tree.room * sizeof(*tree.nodes), false);
	tree.roots = output_realloc(NULL, (tree.versions + 1) * sizeof(*tree.roots));
	if (bench_over(bench))
		return;
	copies = BENCH_BY_SCALE(bench, 4u, 10u, 20u, 20u);
	bench_add_value(bench, &(struct bench_row){ "elements", "elements", BENCH_COUNT },
			(double)tree.elements);
	bench_add_value(bench, &(struct bench_row){ "versions", "versions kept", BENCH_COUNT },
			(double)tree.versions);
	const struct bench_subject subjects[] = {
		{ { "time/tree", "a change and a new version: shared nodes", BENCH_NS, NULL,
		    "time" },
		  measure_tree },
		{ { "time/libcow", "... libcow's snapshots", BENCH_NS, NULL, "time" },
		  measure_libcow },
		{ { "time/copy", "... full copies", BENCH_NS, NULL, "time" },
		  measure_copies,
		  copies },
	};
	bench_take_turns_controlled(bench, subjects, 3);
	bench_add_ratio(bench, &(struct bench_row){ "copy/tree", "full copies / shared nodes" },
			"time/copy", "time/tree");
	if (!bench_over(bench))
		add_memory(bench, base);
	free(tree.roots);
}

static void judge(struct bench *bench)
{
	double copied = bench_median(bench, "copied"), nodes = bench_median(bench, "nodes");
	double ratio = bench_median(bench, "copy/tree");

	bench_judge(bench, "a modification copies only the affected nodes",
		    copied < 0.01 * nodes || copied <= 8 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%.0f of %s: %s a version beside %s for a copy", copied,
		    bench_figure(bench, BENCH_COUNT, nodes),
		    bench_figure(bench, BENCH_BYTES, bench_median(bench, "bytes/tree")),
		    bench_figure(bench, BENCH_BYTES, bench_median(bench, "bytes/copy")));
	bench_judge(bench, "versions are cheaper than copies",
		    ratio > 10 ? BENCH_HOLDS :
		    ratio > 1  ? BENCH_HOLDS_IN_PART :
				 BENCH_DOES_NOT_HOLD,
		    "%s beside %s for a full copy, %s with libcow's snapshots",
		    bench_figure(bench, BENCH_NS, bench_median(bench, "time/tree")),
		    bench_figure(bench, BENCH_NS, bench_median(bench, "time/copy")),
		    bench_figure(bench, BENCH_NS, bench_median(bench, "time/libcow")));
}

static const struct bench_plot plots[] = {
	{ "time", "A further version", NULL, "ns", .log_y = true },
	{ "bytes", "Memory of a further version", NULL, "bytes", .log_y = true },
	{ 0 },
};

const struct bench_experiment experiment_persistent_structure = {
	.name = "persistent-structure",
	.title = "Versions of a tree that share what did not change",
	.source = BENCH_SOURCE_ATLAS,
	.claim = "Copy-on-write is a general technique, not only for memory pages: persistent data "
		 "structures (Clojure's, Haskell's) share structure, and modifications copy only "
		 "the affected nodes.",
	.method =
		"A vector in a tree of 32-way nodes is changed at random places, every version "
		"kept; beside it a full copy for each version, and a snapshot of libcow for each.",
	.plots = plots,
	.seconds = 10,
	.run = run,
	.judge = judge,
};
