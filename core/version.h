/* SPDX-License-Identifier: MIT */
/*
 * Versions: the contents that pages used to have, kept for the snapshots that read them.
 *
 * A version holds one page's content from epoch `from` on, until the page was opened again. The
 * versions of a page form a chain, newest first. A snapshot of epoch e reads the newest version
 * with from <= e: newer ones began later, and the one that covers e is never freed while the
 * snapshot lives. Where the live page is older than the snapshot it reads that; where neither is,
 * the base.
 *
 *   epochs      1   2   3   4   5   6 (current)
 *   live page                   |------------->     state: epoch 5
 *   versions    |-- from 1 -|                       kept when the page was opened in 4 ...
 *                           |-3?|                   ... and in 5, if a snapshot was taken at 4
 *
 * Who frees them. A version is needed while some snapshot with epoch in its span is alive; it
 * belongs to the newest of those. When that one goes, its versions that began after the next older
 * snapshot are read by nobody and freed; the rest move to the older one. So each snapshot holds its
 * versions in buckets of equal `from`, and the buckets in a pairing heap with the highest `from` on
 * top: freeing pops exactly the buckets to be freed, moving the rest is one meld. Neither grows
 * with the number of snapshots.
 *
 * Chains and heaps change under the space's lock. Readers follow chains without it, inside a grace
 * section: a version that was unlinked keeps its own link until the grace period is over.
 */
#ifndef COW_CORE_VERSION_H
#define COW_CORE_VERSION_H

#include "core/slab.h"
#include "core/table.h"

/* What a version's content word says: the kind in the low bits, the rest above them. */
enum content_kind {
	CONTENT_FRAME,   /* the address of a frame */
	CONTENT_ZERO,    /* all zero: needs no frame */
	CONTENT_BASE,    /* what lies below the region: zeroes, or a branch's source */
	CONTENT_SPILLED, /* the number of a slot in the spill file */
};
#define CONTENT_KIND_BITS 4
#define CONTENT_KIND_MASK (((uintptr_t)1 << CONTENT_KIND_BITS) - 1)

struct version {
	uint64_t from;
	_Atomic uintptr_t content;
	_Atomic(struct version *) older;
	_Atomic(struct version *) *link; /* what points here: the entry, or the newer version */
	struct version *sibling;         /* next in its bucket; on the retired list */
};

struct bucket {
	uint64_t from;
	uint64_t frames; /* versions that had a frame when they were added */
	struct bucket *child, *next;
	struct version *versions;
};

static inline uintptr_t content_make(enum content_kind kind, uintptr_t value)
{
	return kind == CONTENT_FRAME ? value : value << CONTENT_KIND_BITS | kind;
}

static inline enum content_kind content_kind(uintptr_t content)
{
	return (enum content_kind)(content & CONTENT_KIND_MASK);
}

static inline void *content_frame(uintptr_t content)
{
	return (void *)content;
}

static inline uintptr_t content_slot(uintptr_t content)
{
	return content >> CONTENT_KIND_BITS;
}

/* Puts a version at the head of a page's chain; readers see it whole or not at all. */
void version_link(struct entry *entry, struct version *version);
void version_unlink(struct version *version);

/* The newest version that began at or before epoch, or NULL. Inside a grace section, or locked. */
struct version *version_find(struct entry *entry, uint64_t epoch);

struct bucket *heap_meld(struct bucket *a, struct bucket *b);
struct bucket *heap_pop(struct bucket *heap, struct bucket **ret_top); /* heap is not NULL */

#endif
