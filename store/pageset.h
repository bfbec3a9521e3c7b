/* SPDX-License-Identifier: MIT */
/*
 * Which pages a save has to write: a bit a page, in memory that the kernel gives only where a bit
 * is set.
 *
 * Entries of the page table say since which epoch a page has had its content, so what was dirtied
 * since an earlier save is found without anything having been kept for it.
 */
#ifndef COW_STORE_PAGESET_H
#define COW_STORE_PAGESET_H

#include "lib/internal.h"

struct pageset {
	uint64_t pages;
	uint64_t *words; /* zero where nothing is set */
	size_t bytes;
	unsigned char *touched; /* a byte for 32 KiB of words */
	uint64_t count;
	uint64_t slices; /* of 2 MiB with a page in it */
};

/* What a save is incremental on: an epoch of the snapshot's own region, or, in an explicit branch
 * that has not been saved yet, of the region that one of its sources is of. */
struct pageset_since {
	const struct snap *of; /* the snapshot, or the source, that was cut at or after it */
	uint64_t epoch;
};

/* The pages whose content, as the snapshot reads it, began after that; NULL: all that have any. */
int pageset_collect(struct pageset *set, struct snap *snap, const struct pageset_since *since);
void pageset_free(struct pageset *set);

/* The first page at or after page that is in the set; set->pages: none. */
uint64_t pageset_next(const struct pageset *set, uint64_t page);

#endif
