/* SPDX-License-Identifier: MIT */
/* Small objects in frames: none overlap, empty slabs go back, the pool's limit holds for them. */
#include "core/slab.h"
#include "tests/tap.h"

#define PAGE  ((size_t)4096)
#define BYTES 40u
#define COUNT 1000u

static void mark(void *object, unsigned number)
{
	memset(object, (int)(number % 251), BYTES);
}

static bool is_marked(const unsigned char *object, unsigned number)
{
	for (unsigned i = 0; i < BYTES; i++)
		if (object[i] != number % 251)
			return false;
	return true;
}

TEST(objects_do_not_overlap)
{
	struct slab_cache cache;
	struct pool pool;
	void *objects[COUNT];
	unsigned wrong = 0;

	pool_init(&pool, 12, 0, 0);
	slab_cache_init(&cache, &pool, BYTES);
	for (unsigned i = 0; i < COUNT; i++)
		mark(objects[i] = slab_alloc(&cache), i);
	for (unsigned i = 0; i < COUNT; i += 2)
		slab_free(&cache, objects[i]);
	for (unsigned i = 0; i < COUNT; i += 2)
		mark(objects[i] = slab_alloc(&cache), i);
	for (unsigned i = 0; i < COUNT; i++)
		wrong += !is_marked(objects[i], i);
	is_u64(wrong, 0, "objects that lost their content");
	is_u64(cache.slabs, pool.used_frames, "each slab is a frame");
	is_u64(cache.slabs, (COUNT + 100) / 101, "densely packed");
	pool_validate(&pool);
	for (unsigned i = 0; i < COUNT; i++)
		slab_free(&cache, objects[(i * 7) % COUNT]);
	is_u64(cache.slabs, 0, "no slab is left");
	is_u64(pool.committed, 0, "nor its memory");
	pool_destroy(&pool);
}

TEST(at_the_limit)
{
	struct slab_cache cache;
	struct pool pool;
	void *last = NULL, *object;
	unsigned count = 0;

	pool_init(&pool, 12, 6 * PAGE, 0);
	slab_cache_init(&cache, &pool, BYTES);
	while ((object = slab_alloc(&cache))) {
		last = object;
		count++;
	}
	ok(count >= 2 * 100, "some fit: %u", count);
	slab_free(&cache, last);
	ok(slab_alloc(&cache) == last, "what is freed can be had again");
	ok(!slab_alloc(&cache), "no more than before");
	pool_validate(&pool);
	pool_destroy(&pool);
}

TAP_MAIN(CASE(objects_do_not_overlap), CASE(at_the_limit))
