/* SPDX-License-Identifier: MIT */
/* What the two halves of frames.h share: frames.c takes leaves in, resolve.c sums them up. */
#ifndef CLI_PS_FRAME_SET_H
#define CLI_PS_FRAME_SET_H

#include <pthread.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "cli/ps/frames.h"

/* The map of the frames that are needed is this coarse. */
#define BLOCK_FRAMES 64

struct leaf {
	XXH128_hash_t hash;
	uint64_t first; /* of its entries */
	uint32_t entries;
	uint32_t references; /* how often it was handed in */
	uint32_t next;       /* in its bucket; 0: none, else number + 1 */
	/*
	 * Of a difference: what it is based on, number + 1, and how many of the entries are removed
	 * there; the others are added. Such leaves are in no bucket.
	 */
	uint32_t base, removed;
};

/*
 * Of a frame; the machine's frames are the index, and one more stands for those beyond. Untouched
 * parts take no memory. First references are counted; then what the frame adds to the sums of a
 * leaf takes their place, so that summing up is a few additions without a decision.
 */
struct frame {
	union {
		uint32_t references;
		uint32_t pss; /* the share of each who maps it */
	};
	uint32_t unique; /* the share of each reference */
	uint64_t flags;  /* a field for each kind, wide enough to add up LEAF_ENTRIES */
};

enum frame_flag { FLAG_PAGE, FLAG_PRIVATE, FLAG_INSIDE, FLAG_OUTSIDE, FLAG_KSM, FLAG_SPECIAL };
#define FLAG_BITS 10

struct frame_set {
	pthread_mutex_t mutex; /* guards what follows, until frame_set_resolve() */
	struct leaf *leaves;
	struct leaf_sums *sums; /* of each leaf, once resolved */
	size_t count, room;
	uint32_t *buckets;
	size_t bucket_mask;
	uint32_t *entries;
	size_t used, entry_room;

	uint64_t frames;
	uint64_t page; /* in the unit of shares */
	struct frame *table;
	uint64_t *blocks; /* a bit for each BLOCK_FRAMES: some of them are referenced */
	struct frame_totals totals;
};

/* Words of the map of blocks. */
static inline size_t block_words(const struct frame_set *set)
{
	return (size_t)(set->frames / BLOCK_FRAMES / 64 + 1);
}

#endif
