/* SPDX-License-Identifier: MIT */
/*
 * Marks: which layer holds what a region was at the end of an epoch. They hang on the region, one
 * list for each store, and say what a next save is incremental on. They keep no memory alive: the
 * page table itself knows what was dirtied since an epoch.
 */
#ifndef COW_STORE_MARK_H
#define COW_STORE_MARK_H

#include "lib/internal.h"
#include "store/known.h"

struct mark {
	uint64_t epoch;
	uint64_t sequence;
	struct layer_id id;
	uint32_t depth; /* layers below it, at most: a compaction since made it less */
};

/* Of a store's marks on a region, the newest at or before epoch; NULL: none. Valid until the next
 * mark_add(). Under the store's mutex. */
const struct mark *mark_find(struct cow_region *region, const struct layer_id *store,
			     uint64_t epoch);
/* The checksums of what was saved into a store, made at the first call; NULL: no memory. */
struct known *mark_known(struct cow_region *region, const struct layer_id *store);

/* In place of an earlier one of the same epoch. A region that is saved for ever forgets the oldest,
 * so that a snapshot which is older still is saved with more than what changed. */
int mark_add(struct cow_region *region, const struct layer_id *store, const struct mark *mark);

#endif
