/* SPDX-License-Identifier: MIT */
/* Leaves are taken in: each once, or as its difference from another. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cli/ps/frame_set.h"

static void *reserve(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	return memory;
}

struct frame_set *frame_set_new(uint64_t frames, uint64_t page_bytes)
{
	struct frame_set *set = calloc(1, sizeof(*set));

	if (!set)
		return NULL;
	if (frames >= NO_FRAME) {
		free(set);
		errno = EOVERFLOW;
		return NULL;
	}
	pthread_mutex_init(&set->mutex, NULL);
	set->frames = frames;
	set->page = page_bytes << SHARE_SHIFT;
	set->bucket_mask = 1023;
	set->buckets = calloc(set->bucket_mask + 1, sizeof(*set->buckets));
	set->blocks = calloc(block_words(set), sizeof(*set->blocks));
	set->table = reserve((frames + 1) * sizeof(*set->table));
	if (set->buckets && set->blocks && set->table)
		return set;
	frame_set_free(set);
	errno = ENOMEM;
	return NULL;
}

void frame_set_free(struct frame_set *set)
{
	if (!set)
		return;
	if (set->table)
		munmap(set->table, (set->frames + 1) * sizeof(*set->table));
	pthread_mutex_destroy(&set->mutex);
	free(set->blocks);
	free(set->buckets);
	free(set->entries);
	free(set->leaves);
	free(set->sums);
	free(set);
}

/* --- leaves --- */

static int grow(void **memory, size_t *room, size_t needed, size_t size)
{
	size_t more = *room ? *room : 1024;
	void *grown;

	if (needed <= *room)
		return 0;
	while (more < needed)
		more *= 2;
	grown = realloc(*memory, more * size);
	if (!grown)
		return -ENOMEM;
	*memory = grown;
	*room = more;
	return 0;
}

static uint32_t *bucket_of(struct frame_set *set, XXH128_hash_t hash)
{
	return &set->buckets[hash.low64 & set->bucket_mask];
}

static int grow_buckets(struct frame_set *set)
{
	size_t size = 2 * (set->bucket_mask + 1), i;
	uint32_t *buckets, *bucket;

	if (set->count <= set->bucket_mask)
		return 0;
	buckets = calloc(size, sizeof(*buckets));
	if (!buckets)
		return -ENOMEM;
	free(set->buckets);
	set->buckets = buckets;
	set->bucket_mask = size - 1;
	for (i = 0; i < set->count; i++) {
		if (set->leaves[i].base)
			continue;
		bucket = bucket_of(set, set->leaves[i].hash);
		set->leaves[i].next = *bucket;
		*bucket = (uint32_t)i + 1;
	}
	return 0;
}

static struct leaf *find_leaf(struct frame_set *set, XXH128_hash_t hash, size_t count)
{
	uint32_t at = *bucket_of(set, hash);

	for (; at; at = set->leaves[at - 1].next)
		if (XXH128_isEqual(set->leaves[at - 1].hash, hash) &&
		    set->leaves[at - 1].entries == count)
			return &set->leaves[at - 1];
	return NULL;
}

/* Room for a leaf and its entries: the leaf, not yet counted, or a negative errno. */
static int make_leaf(struct frame_set *set, size_t count, struct leaf **ret_leaf)
{
	struct leaf *leaf;
	int error;

	if (set->count >= INT32_MAX)
		return -EOVERFLOW;
	error = grow((void **)&set->leaves, &set->room, set->count + 1, sizeof(*set->leaves));
	if (!error)
		error = grow((void **)&set->entries, &set->entry_room, set->used + count,
			     sizeof(*set->entries));
	if (error)
		return error;
	leaf = &set->leaves[set->count];
	*leaf = (struct leaf){ .first = set->used, .entries = (uint32_t)count };
	*ret_leaf = leaf;
	return 0;
}

static void add_entries(struct frame_set *set, const uint32_t *entries, size_t count)
{
	if (count)
		memcpy(set->entries + set->used, entries, count * sizeof(*entries));
	set->used += count;
}

static int add_leaf(struct frame_set *set, XXH128_hash_t hash, const uint32_t *entries,
		    size_t count, struct leaf **ret_leaf)
{
	struct leaf *leaf = NULL;
	uint32_t *bucket;
	int error = make_leaf(set, count, &leaf);

	if (!error)
		error = grow_buckets(set);
	if (error)
		return error;
	bucket = bucket_of(set, hash);
	leaf->hash = hash;
	leaf->next = *bucket;
	add_entries(set, entries, count);
	*bucket = (uint32_t)++set->count;
	*ret_leaf = leaf;
	return 0;
}

int64_t frame_set_intern_like(struct frame_set *set, uint32_t base,
			      const struct leaf_difference *difference)
{
	size_t count = difference->removed_count + difference->added_count;
	struct leaf *leaf = NULL;
	int64_t result;
	int error;

	assert(count > 0 && count <= LEAF_ENTRIES && !set->sums);
	pthread_mutex_lock(&set->mutex);
	assert(base < set->count && !set->leaves[base].base);
	error = make_leaf(set, count, &leaf);
	if (!error) {
		leaf->base = base + 1;
		leaf->removed = (uint32_t)difference->removed_count;
		leaf->references = 1;
		add_entries(set, difference->removed, difference->removed_count);
		add_entries(set, difference->added, difference->added_count);
		set->count++;
	}
	result = error ? error : leaf - set->leaves;
	pthread_mutex_unlock(&set->mutex);
	return result;
}

void frame_set_again(struct frame_set *set, uint32_t leaf, int by)
{
	pthread_mutex_lock(&set->mutex);
	set->leaves[leaf].references += (uint32_t)by;
	pthread_mutex_unlock(&set->mutex);
}

int64_t frame_set_intern(struct frame_set *set, const uint32_t *frames, size_t count)
{
	XXH128_hash_t hash = XXH3_128bits(frames, count * sizeof(*frames));
	struct leaf *leaf;
	int64_t result;
	int error = 0;

	assert(count > 0 && count <= LEAF_ENTRIES && !set->sums);
	pthread_mutex_lock(&set->mutex);
	leaf = find_leaf(set, hash, count);
	if (!leaf)
		error = add_leaf(set, hash, frames, count, &leaf);
	if (!error)
		leaf->references++;
	result = error ? error : leaf - set->leaves;
	pthread_mutex_unlock(&set->mutex);
	return result;
}

/* --- once resolved --- */

const struct leaf_sums *frame_set_leaf(const struct frame_set *set, uint32_t leaf)
{
	assert(set->sums && leaf < set->count);
	return &set->sums[leaf];
}

struct frame_totals frame_set_totals(const struct frame_set *set)
{
	return set->totals;
}

size_t frame_set_leaves(const struct frame_set *set)
{
	return set->count;
}
