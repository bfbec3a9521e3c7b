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

#include "cli/ps/threads.h"
#include "proc/areas.h"

/* The map of the frames that are needed is this coarse. */
#define BLOCK 64

/* With fewer entries a thread costs more than it does. */
#define WORTH_THREADS 65536

/* What a thread sums up at once. */
#define LEAVES_AT_ONCE 256

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

/* --- resolving --- */

static struct frame *frame_at(const struct frame_set *set, uint32_t number)
{
	return &set->table[number < set->frames ? number : set->frames];
}

static void note_block(struct frame_set *set, uint32_t number)
{
	if (number < set->frames)
		set->blocks[number / BLOCK / 64] |= UINT64_C(1) << number / BLOCK % 64;
}

/* What a difference takes away its base has brought in: the sums are right when all are counted. */
static void count_leaf(struct frame_set *set, const struct leaf *leaf)
{
	const uint32_t *entries = &set->entries[leaf->first];
	uint32_t i;

	for (i = 0; i < leaf->removed; i++)
		frame_at(set, entries[i])->references -= leaf->references;
	for (; i < leaf->entries; i++) {
		note_block(set, entries[i]);
		frame_at(set, entries[i])->references += leaf->references;
	}
}

/* Who has a difference has the rest of its base. */
static void count_leaves(struct frame_set *set)
{
	struct leaf *leaf;
	size_t i;

	for (i = 0; i < set->count; i++) {
		leaf = &set->leaves[i];
		if (leaf->base)
			set->leaves[leaf->base - 1].references += leaf->references;
	}
	for (i = 0; i < set->count; i++)
		count_leaf(set, &set->leaves[i]);
}

static uint64_t flag(enum frame_flag kind, bool holds)
{
	return holds ? UINT64_C(1) << kind * FLAG_BITS : 0;
}

static uint32_t flag_sum(uint64_t flags, enum frame_flag kind)
{
	return flags >> kind * FLAG_BITS & ((1U << FLAG_BITS) - 1);
}

/*
 * Turns references and maps into what the frame adds to sums. Not every reference to a merged page
 * was seen in a sample; its maps stand in for them.
 */
static void settle_frame(const struct frame_set *set, struct frame *frame, uint64_t maps, bool ksm,
			 bool is_sample, struct frame_totals *totals)
{
	uint32_t references = frame->references;
	bool unseen = is_sample && ksm, is_outside = maps > references && !unseen;

	if (!maps) {
		*frame = (struct frame){ .flags = flag(FLAG_SPECIAL, true) };
		return;
	}
	totals->unique_pages++;
	totals->outside_pages += is_outside;
	frame->pss = (uint32_t)(set->page / maps);
	frame->unique = (uint32_t)(set->page / (unseen ? maps : references));
	frame->flags = flag(FLAG_PAGE, true) | flag(FLAG_PRIVATE, maps == 1) |
		       flag(FLAG_INSIDE, references > 1) | flag(FLAG_OUTSIDE, is_outside) |
		       flag(FLAG_KSM, ksm);
}

struct resolving {
	struct frame_set *set;
	frame_reader *read_counts, *read_flags;
	void *context;
	bool is_sample;
	size_t next; /* atomic: the word of the map of blocks to go on with */
	int error;   /* atomic: the first */
};

/* Frames that are read together: those that are needed, and small gaps between them. */
#define LARGEST_GAP 8

/* Reads frames [first, first + count), of which the first one is referenced. */
static int read_run(struct resolving *how, uint64_t first, size_t count,
		    struct frame_totals *totals)
{
	uint64_t counts[64 * BLOCK], flags[64 * BLOCK];
	struct frame *frames = how->set->table + first;
	int error = how->read_counts(how->context, first, count, counts);
	size_t i;

	if (!error && how->read_flags)
		error = how->read_flags(how->context, first, count, flags);
	for (i = 0; i < count && !error; i++)
		if (frames[i].references)
			settle_frame(how->set, &frames[i], counts[i],
				     how->read_flags && (flags[i] & KPAGE_KSM), how->is_sample,
				     totals);
	return error;
}

/* Where a run that begins at a referenced frame ends. */
static uint64_t end_of_run(const struct frame_set *set, uint64_t first, uint64_t limit)
{
	uint64_t end = first + 1, at;

	for (at = end; at < limit && at - end <= LARGEST_GAP; at++)
		if (set->table[at].references)
			end = at + 1;
	return end;
}

/* The frames of a word of the map of blocks. */
static int read_word(struct resolving *how, size_t word, struct frame_totals *totals)
{
	struct frame_set *set = how->set;
	uint64_t at = (uint64_t)word * 64 * BLOCK, limit = at + 64 * (uint64_t)BLOCK, end;
	int error = 0;

	if (limit > set->frames)
		limit = set->frames;
	while (at < limit && !error) {
		if (!(set->blocks[word] >> at / BLOCK % 64 & 1)) {
			at = (at / BLOCK + 1) * BLOCK;
			continue;
		}
		if (!set->table[at].references) {
			at++;
			continue;
		}
		end = end_of_run(set, at, limit);
		error = read_run(how, at, (size_t)(end - at), totals);
		at = end;
	}
	return error;
}

static void *read_words_of_blocks(void *context)
{
	struct resolving *how = context;
	struct frame_totals totals = { 0 };
	int error = 0, none = 0;
	size_t word;

	while (!error && !__atomic_load_n(&how->error, __ATOMIC_RELAXED)) {
		word = __atomic_fetch_add(&how->next, 1, __ATOMIC_RELAXED);
		if (word >= block_words(how->set))
			break;
		if (how->set->blocks[word])
			error = read_word(how, word, &totals);
	}
	if (error)
		__atomic_compare_exchange_n(&how->error, &none, error, false, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED);
	__atomic_fetch_add(&how->set->totals.unique_pages, totals.unique_pages, __ATOMIC_RELAXED);
	__atomic_fetch_add(&how->set->totals.outside_pages, totals.outside_pages, __ATOMIC_RELAXED);
	return NULL;
}

struct shares {
	uint64_t pss, unique, outside, flags;
};

static struct shares sum_entries(const struct frame_set *set, const uint32_t *entries, size_t count)
{
	struct shares sum = { 0 };
	const struct frame *frame;
	size_t i;

	for (i = 0; i < count; i++) {
		frame = frame_at(set, entries[i]);
		sum.pss += frame->pss;
		sum.unique += frame->unique;
		sum.outside += frame->unique * (uint64_t)flag_sum(frame->flags, FLAG_OUTSIDE);
		sum.flags += frame->flags;
	}
	return sum;
}

static void sum_leaf(struct frame_set *set, size_t number)
{
	const struct leaf *leaf = &set->leaves[number];
	struct shares sum = sum_entries(set, &set->entries[leaf->first], leaf->entries);

	static_assert(LEAF_ENTRIES < 1 << FLAG_BITS, "a field may overflow into the next");
	set->sums[number] = (struct leaf_sums){
		.pages = flag_sum(sum.flags, FLAG_PAGE),
		.private_pages = flag_sum(sum.flags, FLAG_PRIVATE),
		.inside_pages = flag_sum(sum.flags, FLAG_INSIDE),
		.outside_pages = flag_sum(sum.flags, FLAG_OUTSIDE),
		.ksm_pages = flag_sum(sum.flags, FLAG_KSM),
		.special = flag_sum(sum.flags, FLAG_SPECIAL),
		.pss = sum.pss,
		.unique = sum.unique,
		.unique_outside = sum.outside,
	};
}

/* After its base. */
static void sum_difference(struct frame_set *set, size_t number)
{
	const struct leaf *leaf = &set->leaves[number];
	const uint32_t *entries = &set->entries[leaf->first];
	struct shares less = sum_entries(set, entries, leaf->removed);
	struct shares more = sum_entries(set, entries + leaf->removed,
					 leaf->entries - leaf->removed);
	struct leaf_sums sums = set->sums[leaf->base - 1];

	sums.pages += flag_sum(more.flags, FLAG_PAGE) - flag_sum(less.flags, FLAG_PAGE);
	sums.private_pages += flag_sum(more.flags, FLAG_PRIVATE) -
			      flag_sum(less.flags, FLAG_PRIVATE);
	sums.inside_pages += flag_sum(more.flags, FLAG_INSIDE) - flag_sum(less.flags, FLAG_INSIDE);
	sums.outside_pages += flag_sum(more.flags, FLAG_OUTSIDE) -
			      flag_sum(less.flags, FLAG_OUTSIDE);
	sums.ksm_pages += flag_sum(more.flags, FLAG_KSM) - flag_sum(less.flags, FLAG_KSM);
	sums.special += flag_sum(more.flags, FLAG_SPECIAL) - flag_sum(less.flags, FLAG_SPECIAL);
	sums.pss += more.pss - less.pss;
	sums.unique += more.unique - less.unique;
	sums.unique_outside += more.outside - less.outside;
	set->sums[number] = sums;
}

struct summing {
	struct frame_set *set;
	size_t next;      /* atomic: the leaf to go on with */
	bool differences; /* else those that they are based on */
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
		for (; at < end; at++) {
			if (!summing->differences && !summing->set->leaves[at].base)
				sum_leaf(summing->set, at);
			else if (summing->differences && summing->set->leaves[at].base)
				sum_difference(summing->set, at);
		}
	}
}

int frame_set_resolve(struct frame_set *set, bool is_sample, unsigned int threads,
		      frame_reader *read_counts, frame_reader *read_flags, void *context)
{
	struct resolving how = {
		.set = set,
		.read_counts = read_counts,
		.read_flags = read_flags,
		.context = context,
		.is_sample = is_sample,
	};
	struct summing summing = { .set = set };

	if (set->used < WORTH_THREADS)
		threads = 1;
	set->sums = calloc(set->count ? set->count : 1, sizeof(*set->sums));
	if (!set->sums)
		return -ENOMEM;
	count_leaves(set);
	*frame_at(set, NO_FRAME) = (struct frame){ .flags = flag(FLAG_SPECIAL, true) };
	run_on_threads(threads, read_words_of_blocks, &how);
	if (how.error)
		return how.error;
	run_on_threads(threads, sum_leaves, &summing);
	summing = (struct summing){ .set = set, .differences = true };
	run_on_threads(threads, sum_leaves, &summing);
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
