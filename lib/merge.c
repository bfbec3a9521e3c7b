/* SPDX-License-Identifier: MIT */
/*
 * Merging of equal kept pages, as KSM does it, but on request: kept pages never change, so one
 * comparison is enough, and nothing has to be un-merged later.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "lib/internal.h"

#define BATCH 64u

/* An open-addressed table from a content's hash to the frame that was met first with it. */
struct merge {
	struct space *space;
	struct eviction *met;
	uint64_t *hashes;
	size_t mask, used;
	uint64_t merged;
};

static int merge_init(struct merge *merge, struct space *space)
{
	size_t frames, size = 64;

	lock_take(&space->lock);
	frames = space->pool.used_frames;
	lock_drop(&space->lock);
	while (size < 2 * frames)
		size *= 2;
	*merge = (struct merge){ .space = space, .mask = size - 1 };
	merge->met = sys_alloc_array(size, sizeof(merge->met[0]));
	merge->hashes = sys_alloc_array(size, sizeof(merge->hashes[0]));
	return merge->met && merge->hashes ? 0 : -ENOMEM;
}

static bool is_equal(const struct merge *merge, size_t at, uint64_t hash, const void *frame)
{
	return merge->hashes[at] == hash &&
	       memcmp(merge->met[at].frame, frame, space_page_size(merge->space)) == 0;
}

/* true: the frame is held by the table from now on. */
static bool meet(struct merge *merge, const struct eviction *eviction)
{
	uint64_t hash = XXH3_64bits(eviction->frame, space_page_size(merge->space));
	size_t at = hash & merge->mask;

	for (; merge->met[at].frame; at = (at + 1) & merge->mask) {
		if (!is_equal(merge, at, hash, eviction->frame))
			continue;
		merge->merged += evict_share(merge->space, eviction, &merge->met[at]);
		return false;
	}
	if (merge->used >= merge->mask / 2)
		return false;
	merge->met[at] = *eviction;
	merge->hashes[at] = hash;
	merge->used++;
	return true;
}

/* Frames that stay in the table stay held, and are not chosen again; so the walk ends. */
static void merge_all(struct merge *merge)
{
	struct eviction chosen[BATCH], done[BATCH];
	size_t left = merge->mask + 1;
	unsigned count;

	while (left > 0 && (count = evict_begin(merge->space, chosen, BATCH)) > 0) {
		unsigned let_go = 0;

		for (unsigned i = 0; i < count; i++)
			if (!meet(merge, &chosen[i]))
				done[let_go++] = chosen[i];
		if (let_go > 0)
			evict_end(merge->space, done, NULL, let_go);
		left = left > count ? left - count : 0;
	}
}

static void merge_end(struct merge *merge)
{
	for (size_t i = 0; merge->met && i <= merge->mask; i++)
		if (merge->met[i].frame)
			evict_end(merge->space, &merge->met[i], NULL, 1);
	sys_free(merge->met);
	sys_free(merge->hashes);
}

int cow_region_merge(struct cow_region *region, uint64_t *ret_bytes)
{
	struct merge merge;
	int r;

	r = check_region(region);
	if (r < 0)
		return r;
	r = merge_init(&merge, &region->space);
	if (r == 0)
		merge_all(&merge);
	merge_end(&merge);
	if (r == 0 && ret_bytes)
		*ret_bytes = merge.merged * space_page_size(&region->space);
	return r;
}
