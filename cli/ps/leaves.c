/* SPDX-License-Identifier: MIT */
/*
 * From the words of a leaf to a piece of it: the leaf is taken apart by kinds of pages, or told by
 * what it differs in from a relative's that was read shortly before.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/ps/reading.h"
#include "proc/areas.h"

/* --- what is in a leaf --- */

/*
 * Whether one entry maps the whole leaf: 512 neighbouring frames that begin where such a page can.
 * Pages of several frames are aligned to their size, so if the first frame heads one and the
 * frame in the middle belongs to one, it is the same, and large enough. A page that was split in
 * the page tables alone, with all its parts still in place, is taken for whole.
 */
static bool is_huge(const struct page_world *world, const uint64_t *words, size_t count)
{
	uint64_t first = words[0] & PAGEMAP_FRAME, head, middle;
	size_t i;

	if (count != LEAF_ENTRIES || first % LEAF_ENTRIES != 0 || !first)
		return false;
	for (i = 0; i < count; i++)
		if (!(words[i] & PAGEMAP_PRESENT) || (words[i] & PAGEMAP_FRAME) != first + i)
			return false;
	return page_words_read(world->kpageflags, first, 1, &head) == 1 &&
	       page_words_read(world->kpageflags, first + count / 2, 1, &middle) == 1 &&
	       (head & KPAGE_HEAD) && (head & KPAGE_THP) && !(head & KPAGE_ZERO) &&
	       (middle & KPAGE_TAIL);
}

/* Frames beyond 16 TiB are no RAM here: the frame set would not have been made. */
static uint32_t frame_of(uint64_t word)
{
	uint64_t frame = word & PAGEMAP_FRAME;

	return frame < NO_FRAME ? (uint32_t)frame : NO_FRAME;
}

static enum page_kind kind_of(uint64_t word)
{
	return word & PAGEMAP_FILE ? PAGE_FILE : PAGE_ANON;
}

/*
 * A page that is mapped once needs no entry in the frame set, since nobody else has it; unless it
 * may be a merged one, which only its flags tell.
 */
static bool is_private(uint64_t word, bool merging)
{
	return (word & PAGEMAP_EXCLUSIVE) && !(merging && kind_of(word) == PAGE_ANON);
}

/* A leaf, by kinds of pages. */
struct split {
	uint32_t frames[PAGE_KINDS][LEAF_ENTRIES];
	size_t shared[PAGE_KINDS];
	uint32_t private_pages[PAGE_KINDS];
};

static void split_leaf(bool merging, const uint64_t *words, size_t count, struct split *split)
{
	enum page_kind kind;
	size_t i;

	split->shared[PAGE_ANON] = split->shared[PAGE_FILE] = 0;
	split->private_pages[PAGE_ANON] = split->private_pages[PAGE_FILE] = 0;
	for (i = 0; i < count; i++) {
		if (!(words[i] & PAGEMAP_PRESENT))
			continue;
		kind = kind_of(words[i]);
		if (is_private(words[i], merging))
			split->private_pages[kind]++;
		else
			split->frames[kind][split->shared[kind]++] = frame_of(words[i]);
	}
}

/* --- leaves of relatives --- */

/*
 * The last leaves of the same addresses, with what became of them. Most of a fork's are equal to
 * one of them, or differ in the few pages that it has written.
 */
#define MEMO_PLACES      4 /* leaves side by side */
#define MEMO_DEPTH       3 /* different ones of each */
#define MOST_DIFFERENCES (LEAF_ENTRIES / 4)

struct remembered {
	uint64_t page;               /* where it begins */
	size_t count;                /* 0: nothing here */
	uint32_t leaves[PAGE_KINDS]; /* numbers + 1 */
	unsigned again; /* how often equal ones came, which the frame set has not been told */
	uint32_t private_pages[PAGE_KINDS];
	uint16_t thp_pages;
	uint64_t words[LEAF_ENTRIES];
};

struct memo {
	struct remembered places[MEMO_PLACES][MEMO_DEPTH];
	unsigned next[MEMO_PLACES]; /* to be forgotten */
};

struct memo *memo_new(void)
{
	return calloc(1, sizeof(struct memo));
}

static void tell_again(const struct page_world *world, struct remembered *place)
{
	enum page_kind kind;

	for (kind = 0; kind < PAGE_KINDS && place->again; kind++)
		if (place->leaves[kind])
			frame_set_again(world->frames, place->leaves[kind] - 1, (int)place->again);
	place->again = 0;
}

void page_reader_finish(const struct page_world *world, struct page_reader *reader)
{
	unsigned i, j;

	for (i = 0; i < MEMO_PLACES && reader->memo; i++)
		for (j = 0; j < MEMO_DEPTH; j++)
			tell_again(world, &reader->memo->places[i][j]);
}

/* What tells frames and shares; others (soft-dirty) do not matter here. */
#define WORD_MASK (PAGEMAP_FRAME | PAGEMAP_EXCLUSIVE | PAGEMAP_FILE | PAGEMAP_PRESENT)

struct differences {
	uint16_t at[MOST_DIFFERENCES];
	size_t count;
};

/* So many are compared at once, without a decision; the compiler makes vectors of them. */
#define COMPARED 32

static bool is_equal_block(const uint64_t *a, const uint64_t *b)
{
	uint64_t any = 0;
	size_t i;

	for (i = 0; i < COMPARED; i++)
		any |= a[i] ^ b[i];
	return !(any & WORD_MASK);
}

/* Where two leaves differ; false: in too many places. */
static bool compare_leaves(const uint64_t *a, const uint64_t *b, size_t count,
			   struct differences *ret_differences)
{
	size_t begin, end, i;

	ret_differences->count = 0;
	for (begin = 0; begin < count; begin = end) {
		end = begin + COMPARED < count ? begin + COMPARED : count;
		if (end - begin == COMPARED && is_equal_block(a + begin, b + begin))
			continue;
		for (i = begin; i < end; i++) {
			if (!((a[i] ^ b[i]) & WORD_MASK))
				continue;
			if (ret_differences->count == MOST_DIFFERENCES)
				return false;
			ret_differences->at[ret_differences->count++] = (uint16_t)i;
		}
	}
	return true;
}

/* The differences of one kind. */
struct change {
	uint32_t removed[MOST_DIFFERENCES], added[MOST_DIFFERENCES];
	size_t removed_count, added_count;
	uint32_t private_less, private_more;
};

static void find_change(const struct remembered *base, const uint64_t *words,
			const struct differences *differences, enum page_kind kind,
			struct change *change)
{
	uint64_t before, now;
	size_t i;

	change->removed_count = change->added_count = 0;
	change->private_less = change->private_more = 0;
	for (i = 0; i < differences->count; i++) {
		before = base->words[differences->at[i]];
		now = words[differences->at[i]];
		if ((before & PAGEMAP_PRESENT) && kind_of(before) == kind) {
			if (is_private(before, false))
				change->private_less++;
			else
				change->removed[change->removed_count++] = frame_of(before);
		}
		if ((now & PAGEMAP_PRESENT) && kind_of(now) == kind) {
			if (is_private(now, false))
				change->private_more++;
			else
				change->added[change->added_count++] = frame_of(now);
		}
	}
}

/* Frames in place of those of a leaf that there may not be: its number + 1, or a negative errno. */
static int64_t intern_change(const struct page_world *world, uint32_t base,
			     const struct change *change)
{
	const struct leaf_difference difference = {
		.removed = change->removed,
		.added = change->added,
		.removed_count = change->removed_count,
		.added_count = change->added_count,
	};
	int64_t leaf;

	if (!change->removed_count && !change->added_count) {
		if (base)
			frame_set_again(world->frames, base - 1, 1);
		return base;
	}
	leaf = base ? frame_set_intern_like(world->frames, base - 1, &difference) :
		      frame_set_intern(world->frames, change->added, change->added_count);
	return leaf < 0 ? leaf : leaf + 1;
}

static bool is_worth_keeping(const struct reading *reading, const struct piece *piece)
{
	/* Of a sample, a stratum in which nothing was met is remembered once. */
	return piece->leaf || piece->private_pages || piece->thp_pages ||
	       (reading->world->strata && piece->kind == PAGE_ANON);
}

static int add_piece(struct reading *reading, const struct piece *piece)
{
	if (!is_worth_keeping(reading, piece))
		return 0;
	return pages_append(&reading->reader->pages, piece);
}

static int take_like(struct reading *reading, const struct remembered *base, const uint64_t *words,
		     const struct differences *differences, struct piece piece)
{
	enum page_kind kind;
	struct change change;
	int64_t leaf;
	int error = 0;

	for (kind = 0; kind < PAGE_KINDS && !error; kind++) {
		find_change(base, words, differences, kind, &change);
		leaf = intern_change(reading->world, base->leaves[kind], &change);
		if (leaf < 0)
			return (int)leaf;
		piece.kind = (uint8_t)kind;
		piece.leaf = (uint32_t)leaf;
		piece.private_pages = (uint16_t)(base->private_pages[kind] + change.private_more -
						 change.private_less);
		error = add_piece(reading, &piece);
		piece.thp_pages = 0;
	}
	return error;
}

/* --- one leaf --- */

static int take_new(struct reading *reading, const uint64_t *words, size_t count,
		    struct piece piece, struct remembered *kept)
{
	struct split split;
	enum page_kind kind;
	int64_t leaf;
	int error = 0;

	split_leaf(reading->source->merging, words, count, &split);
	kept->thp_pages = piece.thp_pages;
	for (kind = 0; kind < PAGE_KINDS && !error; kind++) {
		piece.kind = (uint8_t)kind;
		piece.private_pages = (uint16_t)split.private_pages[kind];
		piece.leaf = 0;
		if (split.shared[kind]) {
			leaf = frame_set_intern(reading->world->frames, split.frames[kind],
						split.shared[kind]);
			if (leaf < 0)
				return (int)leaf;
			piece.leaf = (uint32_t)leaf + 1;
		}
		kept->leaves[kind] = piece.leaf;
		kept->private_pages[kind] = piece.private_pages;
		error = add_piece(reading, &piece);
		piece.thp_pages = 0;
	}
	return error;
}

static bool is_empty(const uint64_t *words, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (words[i] & PAGEMAP_PRESENT)
			return false;
	return true;
}

/* The leaf among those of the same addresses from which it differs least; NULL: from none. */
static struct remembered *find_relative(struct memo *memo, uint64_t page, const uint64_t *words,
					size_t count, struct differences *ret_differences)
{
	struct remembered *places = memo->places[page / LEAF_ENTRIES % MEMO_PLACES];
	unsigned i;

	for (i = 0; i < MEMO_DEPTH; i++)
		if (places[i].count == count && places[i].page == page &&
		    compare_leaves(places[i].words, words, count, ret_differences))
			return &places[i];
	return NULL;
}

static struct remembered *forget_one(const struct page_world *world, struct memo *memo,
				     uint64_t page)
{
	unsigned place = page / LEAF_ENTRIES % MEMO_PLACES;
	struct remembered *oldest;

	memo->next[place] = (memo->next[place] + 1) % MEMO_DEPTH;
	oldest = &memo->places[place][memo->next[place]];
	tell_again(world, oldest);
	oldest->count = 0;
	return oldest;
}

/* The same leaf as another's. */
static int take_equal(struct reading *reading, struct remembered *other, struct piece piece)
{
	enum page_kind kind;
	int error = 0;

	other->again++;
	for (kind = 0; kind < PAGE_KINDS && !error; kind++) {
		piece.kind = (uint8_t)kind;
		piece.leaf = other->leaves[kind];
		piece.private_pages = (uint16_t)other->private_pages[kind];
		piece.thp_pages = kind ? 0 : other->thp_pages;
		error = add_piece(reading, &piece);
	}
	return error;
}

int reading_leaf(struct reading *reading, uint64_t page, const uint64_t *words, size_t count,
		 struct piece piece)
{
	struct memo *memo = reading->reader->memo;
	struct differences differences;
	struct remembered *other;
	int error;

	if (is_empty(words, count) && !reading->world->strata)
		return 0;
	other = reading->source->merging ? NULL :
					   find_relative(memo, page, words, count, &differences);
	piece.process = reading->source->number;
	if (other && !differences.count)
		return take_equal(reading, other, piece);
	if (is_huge(reading->world, words, count))
		piece.thp_pages = (uint16_t)count;
	if (other)
		return take_like(reading, other, words, &differences, piece);
	other = forget_one(reading->world, memo, page);
	error = take_new(reading, words, count, piece, other);
	if (error || reading->source->merging)
		return error;
	other->page = page;
	other->count = count;
	memcpy(other->words, words, count * sizeof(*words));
	return 0;
}
