/* SPDX-License-Identifier: MIT */
/*
 * How often is each frame mapped, by the selection and by anyone; and what follows for the leaves.
 * Frames come first, each settled once, then the leaves that others are based on, then these.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "cli/ps/frame_set.h"
#include "cli/ps/threads.h"
#include "proc/areas.h"

/* With fewer entries a thread costs more than it does. */
#define WORTH_THREADS 65536

/* What a thread sums up at once. */
#define LEAVES_AT_ONCE 256

static struct frame *frame_at(const struct frame_set *set, uint32_t number)
{
	return &set->table[number < set->frames ? number : set->frames];
}

static void note_block(struct frame_set *set, uint32_t number)
{
	if (number < set->frames)
		set->blocks[number / BLOCK_FRAMES / 64] |= UINT64_C(1)
							   << number / BLOCK_FRAMES % 64;
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
	uint64_t counts[64 * BLOCK_FRAMES], flags[64 * BLOCK_FRAMES];
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
	uint64_t at = (uint64_t)word * 64 * BLOCK_FRAMES, limit = at + 64 * (uint64_t)BLOCK_FRAMES,
		 end;
	int error = 0;

	if (limit > set->frames)
		limit = set->frames;
	while (at < limit && !error) {
		if (!(set->blocks[word] >> at / BLOCK_FRAMES % 64 & 1)) {
			at = (at / BLOCK_FRAMES + 1) * BLOCK_FRAMES;
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
