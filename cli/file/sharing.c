/* SPDX-License-Identifier: MIT */
/*
 * Who shares with whom. All places are put in order, so that one pass tells how many extents refer
 * to each stretch; then each extent adds up what of it is referred to more than once.
 *
 * Compressed extents are compared by where they begin, apart from the others: the length that is
 * known is that of the data, not that of the place.
 */
#include <linux/fiemap.h>
#include <stdlib.h>
#include <string.h>

#include "cli/file/file.h"
#include "cli/output.h"

static bool is_compressed(const struct file_extent *extent)
{
	return (extent->flags & FIEMAP_EXTENT_ENCODED) &&
	       !(extent->flags & FIEMAP_EXTENT_DATA_ENCRYPTED);
}

static bool has_place(const struct file_extent *extent)
{
	return extent->fs != FILE_NO_FS &&
	       !(extent->flags & (FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_DELALLOC |
				  FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DATA_TAIL));
}

void file_sums_add_extent(struct file_sums *sums, const struct file_extent *extent)
{
	sums->extents++;
	sums->mapped += extent->length;
	if (extent->flags & FIEMAP_EXTENT_SHARED)
		sums->shared += extent->length;
	if (extent->flags & FIEMAP_EXTENT_UNWRITTEN)
		sums->unwritten += extent->length;
	if (extent->flags & (FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_DATA_TAIL))
		sums->in_line += extent->length;
	else if (extent->flags & (FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN))
		sums->unplaced += extent->length;
	else if (is_compressed(extent))
		sums->compressed += extent->length;
}

/* A stretch of a file system that the same extents refer to from its start to its end. */
struct stretch {
	uint64_t start, end;
	uint64_t count;
	uint32_t fs;
};

/* Where the number of references changes. */
struct edge {
	uint64_t at;
	uint32_t fs;
	int32_t step;
};

static int compare_edges(const void *a, const void *b)
{
	const struct edge *x = a, *y = b;

	if (x->fs != y->fs)
		return x->fs < y->fs ? -1 : 1;
	return (x->at > y->at) - (x->at < y->at);
}

static size_t collect_edges(const struct file_extents *extents, struct edge *edges)
{
	const struct file_extent *extent;
	size_t count = 0, i;

	for (i = 0; i < extents->count; i++) {
		extent = &extents->list[i];
		if (!has_place(extent) || is_compressed(extent) || !extent->length)
			continue;
		edges[count++] = (struct edge){ extent->physical, extent->fs, 1 };
		edges[count++] = (struct edge){ extent->physical + extent->length, extent->fs, -1 };
	}
	return count;
}

static size_t make_stretches(const struct edge *edges, size_t count, struct stretch *stretches)
{
	size_t made = 0, i;
	int64_t references = 0;

	for (i = 0; i < count; i++) {
		if (references > 0 && edges[i].at > edges[i - 1].at)
			stretches[made++] = (struct stretch){
				.start = edges[i - 1].at,
				.end = edges[i].at,
				.count = (uint64_t)references,
				.fs = edges[i].fs,
			};
		references += edges[i].step;
	}
	return made;
}

/* The first stretch that ends behind a place. */
static size_t find_stretch(const struct stretch *stretches, size_t count, uint32_t fs, uint64_t at)
{
	size_t low = 0, high = count, middle;

	while (low < high) {
		middle = low + (high - low) / 2;
		if (stretches[middle].fs < fs ||
		    (stretches[middle].fs == fs && stretches[middle].end <= at))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void measure_extent(const struct file_extent *extent, const struct stretch *stretches,
			   size_t count, struct file_result *result)
{
	uint64_t end = extent->physical + extent->length, from, to;
	struct file_sums *row = &result->rows[extent->row].sums;
	size_t i = find_stretch(stretches, count, extent->fs, extent->physical);

	for (; i < count && stretches[i].fs == extent->fs && stretches[i].start < end; i++) {
		from = extent->physical > stretches[i].start ? extent->physical :
							       stretches[i].start;
		to = end < stretches[i].end ? end : stretches[i].end;
		if (stretches[i].count > 1)
			row->inside += to - from;
		else if (extent->flags & FIEMAP_EXTENT_SHARED)
			result->totals.outside += to - from;
		else
			row->exclusive += to - from;
	}
}

static void find_plain(struct file_result *result)
{
	const struct file_extents *extents = &result->extents;
	struct edge *edges = output_realloc(NULL, 2 * (extents->count + 1) * sizeof(*edges));
	struct stretch *stretches;
	size_t count = collect_edges(extents, edges), i;

	qsort(edges, count, sizeof(*edges), compare_edges);
	stretches = output_realloc(NULL, (count + 1) * sizeof(*stretches));
	count = make_stretches(edges, count, stretches);
	free(edges);
	for (i = 0; i < count; i++) {
		result->totals.unique += stretches[i].end - stretches[i].start;
		if (stretches[i].count > 1)
			result->totals.set_shared += stretches[i].end - stretches[i].start;
	}
	for (i = 0; i < extents->count; i++)
		if (has_place(&extents->list[i]) && !is_compressed(&extents->list[i]))
			measure_extent(&extents->list[i], stretches, count, result);
	free(stretches);
}

/* --- compressed extents --- */

static int compare_places(const void *a, const void *b)
{
	const struct file_extent *x = *(const struct file_extent *const *)a;
	const struct file_extent *y = *(const struct file_extent *const *)b;

	if (x->fs != y->fs)
		return x->fs < y->fs ? -1 : 1;
	return (x->physical > y->physical) - (x->physical < y->physical);
}

/* Extents that begin at one place; the longest tells what it holds at least. */
static void measure_unit(const struct file_extent **extents, size_t count,
			 struct file_result *result)
{
	uint64_t longest = 0;
	size_t i;

	for (i = 0; i < count; i++) {
		if (extents[i]->length > longest)
			longest = extents[i]->length;
		if (count > 1)
			result->rows[extents[i]->row].sums.inside += extents[i]->length;
		else if (!(extents[i]->flags & FIEMAP_EXTENT_SHARED))
			result->rows[extents[i]->row].sums.exclusive += extents[i]->length;
	}
	result->totals.unique += longest;
	if (count > 1)
		result->totals.set_shared += longest;
	else if (extents[0]->flags & FIEMAP_EXTENT_SHARED)
		result->totals.outside += longest;
}

static void find_compressed(struct file_result *result)
{
	const struct file_extent **units;
	size_t count = 0, first, i;

	units = output_realloc(NULL, (result->extents.count + 1) * sizeof(*units));
	for (i = 0; i < result->extents.count; i++)
		if (has_place(&result->extents.list[i]) && is_compressed(&result->extents.list[i]))
			units[count++] = &result->extents.list[i];
	qsort(units, count, sizeof(const struct file_extent *), compare_places);
	for (first = 0; first < count; first = i) {
		for (i = first + 1; i < count; i++)
			if (compare_places(&units[first], &units[i]) != 0)
				break;
		measure_unit(units + first, i - first, result);
	}
	free(units);
}

/* --- sums --- */

static void add_sums(struct file_sums *to, const struct file_sums *from)
{
	/* A struct of counters and nothing else. */
	_Static_assert(sizeof(struct file_sums) % sizeof(uint64_t) == 0, "counters only");
	const uint64_t *source = (const uint64_t *)from;
	uint64_t *target = (uint64_t *)to;
	size_t i;

	for (i = 0; i < sizeof(*to) / sizeof(uint64_t); i++)
		target[i] += source[i];
}

void file_find_sharing(struct file_result *result)
{
	const struct file_extent *extent;
	size_t i;

	for (i = 0; i < result->extents.count; i++) {
		extent = &result->extents.list[i];
		if (has_place(extent))
			continue;
		result->totals.unique += extent->length;
		result->rows[extent->row].sums.exclusive += extent->length;
	}
	find_plain(result);
	find_compressed(result);
	for (i = 0; i < result->count; i++)
		add_sums(&result->totals.sums, &result->rows[i].sums);
	/* Nobody knows who shares these. */
	result->totals.unique += result->totals.sums.blind;
}
