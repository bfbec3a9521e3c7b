/* SPDX-License-Identifier: MIT */
/*
 * Small objects of one size, kept in frames of the pool, so that they count against its limit, and
 * leave their memory to page contents when they are gone. Called with the space's lock held.
 */
#ifndef COW_CORE_SLAB_H
#define COW_CORE_SLAB_H

#include "core/frame.h"

struct slab { /* at the start of its frame, the objects follow */
	struct slab *next, *prev;
	void *idle; /* first idle object; each holds the pointer to the next */
	uint32_t used;
	uint32_t fresh; /* objects given out so far at least once */
};

struct slab_cache {
	struct pool *pool;
	uint32_t object_bytes;
	struct slab *partial; /* slabs with room; full ones are on no list */
	size_t slabs;
};

void slab_cache_init(struct slab_cache *cache, struct pool *pool, uint32_t object_bytes);
void *slab_alloc(struct slab_cache *cache); /* contents undefined; NULL at the limit */
void slab_free(struct slab_cache *cache, void *object);

#endif
