/* SPDX-License-Identifier: MIT */
#include <assert.h>

#include "core/slab.h"

void slab_cache_init(struct slab_cache *cache, struct pool *pool, uint32_t object_bytes)
{
	*cache = (struct slab_cache){ .pool = pool, .object_bytes = object_bytes };
}

static uint32_t objects_per_slab(const struct slab_cache *cache)
{
	return (uint32_t)((pool_page_size(cache->pool) - sizeof(struct slab)) /
			  cache->object_bytes);
}

static void partial_add(struct slab_cache *cache, struct slab *slab)
{
	slab->prev = NULL;
	slab->next = cache->partial;
	if (slab->next)
		slab->next->prev = slab;
	cache->partial = slab;
}

static void partial_remove(struct slab_cache *cache, struct slab *slab)
{
	if (slab->prev)
		slab->prev->next = slab->next;
	else
		cache->partial = slab->next;
	if (slab->next)
		slab->next->prev = slab->prev;
}

static struct slab *slab_new(struct slab_cache *cache)
{
	struct slab *slab = frame_alloc(cache->pool, NULL);

	if (!slab)
		return NULL;
	*slab = (struct slab){ 0 };
	partial_add(cache, slab);
	cache->slabs++;
	return slab;
}

void *slab_alloc(struct slab_cache *cache)
{
	struct slab *slab = cache->partial ? cache->partial : slab_new(cache);
	void *object;

	if (!slab)
		return NULL;
	object = slab->idle;
	if (object)
		slab->idle = *(void **)object;
	else
		object = (char *)(slab + 1) + (size_t)slab->fresh++ * cache->object_bytes;
	slab->used++;
	if (slab->used == objects_per_slab(cache))
		partial_remove(cache, slab);
	return object;
}

void slab_free(struct slab_cache *cache, void *object)
{
	uintptr_t mask = ~((uintptr_t)pool_page_size(cache->pool) - 1);
	struct slab *slab = (struct slab *)((uintptr_t)object & mask);

	assert(slab->used > 0);
	if (slab->used == objects_per_slab(cache))
		partial_add(cache, slab);
	POISON(object, cache->object_bytes);
	*(void **)object = slab->idle;
	slab->idle = object;
	if (--slab->used > 0)
		return;
	partial_remove(cache, slab);
	cache->slabs--;
	frame_put(cache->pool, slab);
}
