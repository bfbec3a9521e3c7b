/* SPDX-License-Identifier: MIT */
/*
 * The page table: a radix tree as in hardware, 512 entries a node, so that metadata follows the
 * pages that were written and not the length of the region.
 *
 * One table serves the live region and all its snapshots: an entry does not say where one state's
 * page is, but since which epoch the live page has had its content, and which older contents were
 * kept. So a snapshot copies no table, and a first write changes one entry however many snapshots
 * read it.
 *
 * A page's state is one atomic word:
 *
 *   63                          4    3       2        1        0
 *   | epoch of the last opening | ARMED | WAITED | PRESENT | BUSY |
 *
 *   epoch 0            never written since the region was made
 *   epoch < current    armed: the next write faults
 *   epoch == current   open: writes go through, provided PRESENT and not ARMED
 *   PRESENT            the content is in the window; else it is the base's: zeroes, or, in a
 *                      branch, what the source snapshot reads there
 *   BUSY               one thread is inside fault() for this page; others wait on the word
 *   ARMED              opened in this epoch, and protected again ahead of the next cut: the next
 *                      write faults, and keeps nothing
 *   WAITED             somebody sleeps on the word: whoever ends BUSY wakes them
 *
 *   armed, or not PRESENT --(claim)--> +BUSY --(content kept, filled)--> open
 *                                       |
 *                                       +--(no frame, no source)-------> as before
 *
 * The inner entries hold the highest epoch below them, so that a walk over what was written since a
 * snapshot skips everything else. They are raised before a page is opened.
 *
 * Nodes are made when needed and stay until the table goes; entries never move. Look-ups take no
 * lock.
 */
#ifndef COW_CORE_TABLE_H
#define COW_CORE_TABLE_H

#include "core/lock.h"

#ifdef COW_MODEL
#define TABLE_BITS 2u
#else
#define TABLE_BITS 9u
#endif
#define TABLE_FANOUT (1u << TABLE_BITS)

#define PAGE_BUSY        ((uint64_t)1 << 0)
#define PAGE_PRESENT     ((uint64_t)1 << 1)
#define PAGE_WAITED      ((uint64_t)1 << 2)
#define PAGE_ARMED       ((uint64_t)1 << 3)
#define PAGE_EPOCH_SHIFT 4

struct version;

struct entry { /* of a leaf */
	_Atomic uint64_t state;
	_Atomic(struct version *) versions; /* kept contents, newest first */
};

struct inner_entry {
	_Atomic uint64_t latest; /* epoch: nothing below was opened later */
	_Atomic(void *) below;   /* a node, or NULL */
};

struct table {
	uint64_t pages;
	unsigned levels; /* 1: the root is a leaf */
	struct inner_entry root;
	struct lock lock; /* guards what follows */
	struct node_arena *arenas;
	uint32_t arena_used;
	size_t nodes;
};

int table_init(struct table *table, uint64_t pages);
void table_destroy(struct table *table);
size_t table_bytes(const struct table *table);

/* The entry of a page, NULL where nothing near it was ever written. */
struct entry *table_find(struct table *table, uint64_t page);

/* The entry of a page that is about to be opened in this epoch, made when needed; NULL: no
 * memory. */
struct entry *table_touch(struct table *table, uint64_t page, uint64_t epoch);

/* Calls visit for every page in [first, end) that was opened after epoch since, in ascending order;
 * stops at the first non-zero result and returns it. Pages that are opened meanwhile may be
 * missed. */
typedef int (*table_visit_fn)(uint64_t page, struct entry *entry, void *context);
int table_walk(struct table *table, uint64_t first, uint64_t end, uint64_t since,
	       table_visit_fn visit, void *context);

static inline uint64_t state_epoch(uint64_t state)
{
	return state >> PAGE_EPOCH_SHIFT;
}

static inline uint64_t state_make(uint64_t epoch, uint64_t flags)
{
	return epoch << PAGE_EPOCH_SHIFT | flags;
}

#endif
