/* SPDX-License-Identifier: MIT */
#include "cli/ps/frames.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proc/areas.h"

/* Map counts are read for so many frames at once where one of them is needed. */
#define BLOCK 64

/* What a thread sums up at once. */
#define LEAVES_AT_ONCE 256

struct leaf {
	XXH128_hash_t hash;
	uint64_t first; /* of its entries */
	uint32_t entries;
	uint32_t references; /* how often it was handed in */
	uint32_t next;       /* in its bucket; 0: none, else number + 1 */
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
	uint64_t *blocks; /* a bit for each BLOCK frames: some of them are referenced */
	struct frame_totals totals;
};

static size_t block_words(const struct frame_set *set)
{
	return (size_t)(set->frames / BLOCK / 64 + 1);
}

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

static int add_leaf(struct frame_set *set, XXH128_hash_t hash, const uint32_t *entries,
		    size_t count, struct leaf **ret_leaf)
{
	struct leaf *leaf;
	uint32_t *bucket;
	int error;

	if (set->count >= INT32_MAX)
		return -EOVERFLOW;
	error = grow((void **)&set->leaves, &set->room, set->count + 1, sizeof(*set->leaves));
	if (!error)
		error = grow((void **)&set->entries, &set->entry_room, set->used + count,
			     sizeof(*set->entries));
	if (!error)
		error = grow_buckets(set);
	if (error)
		return error;
	bucket = bucket_of(set, hash);
	leaf = &set->leaves[set->count];
	*leaf = (struct leaf){
		.hash = hash,
		.first = set->used,
		.entries = (uint32_t)count,
		.next = *bucket,
	};
	memcpy(set->entries + set->used, entries, count * sizeof(*entries));
	set->used += count;
	*bucket = (uint32_t)++set->count;
	*ret_leaf = leaf;
	return 0;
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

/* --- resolving --- */

static struct frame *frame_at(const struct frame_set *set, uint32_t number)
{
	return &set->table[number < set->frames ? number : set->frames];
}

static void count_leaf(struct frame_set *set, const struct leaf *leaf)
{
	uint32_t number, i;
	struct frame *frame;

	for (i = 0; i < leaf->entries; i++) {
		number = set->entries[leaf->first + i];
		frame = frame_at(set, number);
		if (!frame->references && number < set->frames)
			set->blocks[number / BLOCK / 64] |= UINT64_C(1) << number / BLOCK % 64;
		frame->references += leaf->references;
	}
}

static uint64_t flag(enum frame_flag kind, bool holds)
{
	return (uint64_t)holds << kind * FLAG_BITS;
}

static uint32_t flag_sum(uint64_t flags, enum frame_flag kind)
{
	return flags >> kind * FLAG_BITS & ((1U << FLAG_BITS) - 1);
}

/*
 * Turns references and maps into what the frame adds to sums. Not every reference to a merged page
 * was seen in a sample; its maps stand in for them.
 */
static void settle_frame(struct frame_set *set, struct frame *frame, uint64_t maps, bool ksm,
			 bool is_sample)
{
	uint32_t references = frame->references;
	bool unseen = is_sample && ksm, is_outside = maps > references && !unseen;

	if (!maps) {
		*frame = (struct frame){ .flags = flag(FLAG_SPECIAL, true) };
		return;
	}
	set->totals.unique_pages++;
	set->totals.outside_pages += is_outside;
	frame->pss = (uint32_t)(set->page / maps);
	frame->unique = (uint32_t)(set->page / (unseen ? maps : references));
	frame->flags = flag(FLAG_PAGE, true) | flag(FLAG_PRIVATE, maps == 1) |
		       flag(FLAG_INSIDE, references > 1) | flag(FLAG_OUTSIDE, is_outside) |
		       flag(FLAG_KSM, ksm);
}

static void take_block(struct frame_set *set, uint64_t first, size_t count, const uint64_t *counts,
		       const uint64_t *flags, bool is_sample)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (set->table[first + i].references)
			settle_frame(set, &set->table[first + i], counts[i],
				     flags && (flags[i] & KPAGE_KSM), is_sample);
}

struct resolving {
	frame_reader *read_counts, *read_flags;
	void *context;
	bool is_sample;
};

/* Reads blocks [block, block + count). */
static int read_blocks(struct frame_set *set, uint64_t block, size_t count,
		       const struct resolving *how)
{
	uint64_t counts[64 * BLOCK], flags[64 * BLOCK], first = block * BLOCK;
	size_t frames = count * BLOCK;
	int error;

	if (first + frames > set->frames)
		frames = (size_t)(set->frames - first);
	error = how->read_counts(how->context, first, frames, counts);
	if (!error && how->read_flags)
		error = how->read_flags(how->context, first, frames, flags);
	if (!error)
		take_block(set, first, frames, counts, how->read_flags ? flags : NULL,
			   how->is_sample);
	return error;
}

/* The runs of ones in a word of the map of blocks are one read each. */
static int read_word(struct frame_set *set, size_t word, const struct resolving *how)
{
	uint64_t bits = set->blocks[word];
	unsigned int from, length;
	int error;

	while (bits) {
		from = (unsigned int)__builtin_ctzll(bits);
		bits >>= from;
		length = ~bits ? (unsigned int)__builtin_ctzll(~bits) : 64;
		error = read_blocks(set, word * 64 + from, length, how);
		if (error || from + length >= 64)
			return error;
		bits = set->blocks[word] & ~UINT64_C(0) << (from + length);
	}
	return 0;
}

static void sum_leaf(struct frame_set *set, size_t number)
{
	uint64_t pss = 0, unique = 0, outside = 0, flags = 0;
	const struct leaf *leaf = &set->leaves[number];
	const uint32_t *entries = &set->entries[leaf->first];
	const struct frame *frame;
	uint32_t i;

	static_assert(LEAF_ENTRIES < 1 << FLAG_BITS, "a field may overflow into the next");
	for (i = 0; i < leaf->entries; i++) {
		frame = frame_at(set, entries[i]);
		pss += frame->pss;
		unique += frame->unique;
		outside += frame->unique * (uint64_t)flag_sum(frame->flags, FLAG_OUTSIDE);
		flags += frame->flags;
	}
	set->sums[number] = (struct leaf_sums){
		.pages = flag_sum(flags, FLAG_PAGE),
		.private_pages = flag_sum(flags, FLAG_PRIVATE),
		.inside_pages = flag_sum(flags, FLAG_INSIDE),
		.outside_pages = flag_sum(flags, FLAG_OUTSIDE),
		.ksm_pages = flag_sum(flags, FLAG_KSM),
		.special = flag_sum(flags, FLAG_SPECIAL),
		.pss = pss,
		.unique = unique,
		.unique_outside = outside,
	};
}

struct summing {
	struct frame_set *set;
	size_t next; /* atomic: the leaf to go on with */
};

static void *sum_leaves(void *context)
{
	struct summing *summing = context;
	size_t at, end;

	for (;;) {
		at = __atomic_fetch_add(&summing->next, LEAVES_AT_ONCE, __ATOMIC_RELAXED);
		if (at >= summing->set->count)
			return NULL;
		end = at + LEAVES_AT_ONCE;
		if (end > summing->set->count)
			end = summing->set->count;
		for (; at < end; at++)
			sum_leaf(summing->set, at);
	}
}

/* The caller is one of the threads, so that none needs to be had. */
static void sum_all(struct summing *summing, unsigned int count)
{
	pthread_t threads[64];
	unsigned int started = 0;

	while (started + 1 < count && started < 64 && summing->set->count > LEAVES_AT_ONCE &&
	       pthread_create(&threads[started], NULL, sum_leaves, summing) == 0)
		started++;
	sum_leaves(summing);
	while (started)
		pthread_join(threads[--started], NULL);
}

int frame_set_resolve(struct frame_set *set, bool is_sample, unsigned int threads,
		      frame_reader *read_counts, frame_reader *read_flags, void *context)
{
	const struct resolving how = {
		.read_counts = read_counts,
		.read_flags = read_flags,
		.context = context,
		.is_sample = is_sample,
	};
	struct summing summing = { .set = set };
	size_t i;
	int error;

	set->sums = calloc(set->count ? set->count : 1, sizeof(*set->sums));
	if (!set->sums)
		return -ENOMEM;
	for (i = 0; i < set->count; i++)
		count_leaf(set, &set->leaves[i]);
	*frame_at(set, NO_FRAME) = (struct frame){ .flags = flag(FLAG_SPECIAL, true) };
	for (i = 0; i < block_words(set); i++) {
		error = read_word(set, i, &how);
		if (error)
			return error;
	}
	sum_all(&summing, threads);
	return 0;
}

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
