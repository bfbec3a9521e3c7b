/* SPDX-License-Identifier: MIT */
#include "cli/ps/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proc/areas.h"

/* The words of so many leaves are read at once: the kernel lets go of mmap_lock between them. */
#define CHUNK_PAGES (64 * LEAF_ENTRIES)
#define KERNEL_HALF (UINT64_C(1) << 63) /* [vsyscall] stands there, and has no page tables */

/*
 * A process that reserves much more than it uses (heaps of Java and Go, AddressSanitizer's
 * shadow) has areas whose pagemap would be gigabytes of zeroes. There the kernel is asked first
 * where something is; this needs PAGEMAP_SCAN (Linux 6.7). Older ones are read in full.
 */
#define SPARSE_RATIO      4
#define SPARSE_AREA_BYTES (UINT64_C(64) << 20)

struct reading {
	const struct page_world *world;
	struct page_reader *reader;
	const struct page_source *source;
};

/* --- the world --- */

static int read_frames_end(const struct proc_root *root, uint64_t *ret_end)
{
	struct proc_buffer buffer = { 0 };
	struct text text;
	int error = proc_root_read(root, "proc/zoneinfo", &buffer, &text);

	if (!error)
		error = proc_zoneinfo_end(text, ret_end);
	proc_buffer_free(&buffer);
	return error;
}

int page_world_open(struct page_world *world, const struct proc_root *root)
{
	uint64_t frames, merged = 0;
	int error;

	*world = (struct page_world){
		.root = root,
		.page_bytes = (uint64_t)sysconf(_SC_PAGESIZE),
		.kpagecount = proc_root_open_file(root, "proc/kpagecount"),
		.kpageflags = proc_root_open_file(root, "proc/kpageflags"),
	};
	error = world->kpagecount < 0 ? world->kpagecount : read_frames_end(root, &frames);
	if (!error && world->kpageflags < 0)
		error = world->kpageflags;
	if (!error) {
		world->frames = frame_set_new(frames, world->page_bytes);
		error = world->frames ? 0 : -errno;
	}
	/* A kernel without KSM has no such file. */
	proc_root_read_u64(root, "sys/kernel/mm/ksm/pages_shared", &merged);
	world->merging = merged > 0;
	if (error)
		page_world_close(world);
	return error;
}

void page_world_close(struct page_world *world)
{
	if (world->kpagecount >= 0)
		close(world->kpagecount);
	if (world->kpageflags >= 0)
		close(world->kpageflags);
	frame_set_free(world->frames);
	strata_free(world->strata);
	*world = (struct page_world){ .kpagecount = -1, .kpageflags = -1 };
}

/*
 * Reads words at an index: how many there were, or a negative errno. Not by the C library's
 * pread(): in a program with threads that is a cancellation point, which costs a tenth of a short
 * read.
 */
static ssize_t read_words(int fd, uint64_t index, size_t count, uint64_t *words)
{
	ssize_t n;

	do
		n = syscall(SYS_pread64, fd, words, count * sizeof(*words),
			    (off_t)(index * sizeof(*words)));
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n / (ssize_t)sizeof(*words);
}

static int read_padded(int fd, uint64_t first, size_t count, uint64_t *words)
{
	ssize_t n = read_words(fd, first, count, words);

	if (n < 0)
		return (int)n;
	memset(words + n, 0, (count - (size_t)n) * sizeof(*words));
	return 0;
}

int page_world_counts(void *context, uint64_t first, size_t count, uint64_t *words)
{
	const struct page_world *world = context;

	return read_padded(world->kpagecount, first, count, words);
}

int page_world_flags(void *context, uint64_t first, size_t count, uint64_t *words)
{
	const struct page_world *world = context;

	return read_padded(world->kpageflags, first, count, words);
}

/* --- one leaf --- */

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
	return read_words(world->kpageflags, first, 1, &head) == 1 &&
	       read_words(world->kpageflags, first + count / 2, 1, &middle) == 1 &&
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

/* `page` is where it stands, `piece` tells where it belongs. */
static int take_leaf(struct reading *reading, uint64_t page, const uint64_t *words, size_t count,
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

/* --- all of a range --- */

static int take_leaves(struct reading *reading, uint64_t page, const uint64_t *words, size_t count)
{
	size_t taken;
	int error = 0;

	for (; count && !error; words += taken, page += taken, count -= taken) {
		taken = LEAF_ENTRIES - page % LEAF_ENTRIES;
		if (taken > count)
			taken = count;
		error = take_leaf(reading, page, words, taken, (struct piece){ 0 });
	}
	return error;
}

/* More than a library has. */
#define MOST_EXPECTED (4 * LEAF_ENTRIES)

void page_reader_expect(struct page_reader *reader, uint64_t page, uint64_t end)
{
	reader->expected_end = end - page <= MOST_EXPECTED ? end : page;
}

/* Words of the source, at most a chunk: those that were read last, or read now, maybe with more. */
static int need_words(struct reading *reading, uint64_t page, size_t count, bool more,
		      const uint64_t **ret_words)
{
	struct page_reader *reader = reading->reader;
	size_t wanted = count;
	ssize_t n;

	if (reader->source != reading->source || page < reader->first ||
	    page + count > reader->end) {
		if (more && reader->expected_end > page + count)
			wanted = (size_t)(reader->expected_end - page);
		reader->source = NULL;
		n = read_words(reading->source->pagemap, page, wanted, reader->words);
		if (n < 0)
			return (int)n;
		/* Nothing more: the address space has gone with its process, or by exec. */
		if ((size_t)n < count)
			return -ESRCH;
		reader->source = reading->source;
		reader->first = page;
		reader->end = page + (uint64_t)n;
	}
	*ret_words = reader->words + (page - reader->first);
	return 0;
}

static int read_range(struct reading *reading, uint64_t page, uint64_t count)
{
	const uint64_t *words;
	size_t wanted;
	int error = 0;

	for (; count && !error; page += wanted, count -= wanted) {
		/* Chunks end with a leaf, so that siblings cut theirs at the same places. */
		wanted = CHUNK_PAGES - page % LEAF_ENTRIES;
		if (wanted > count)
			wanted = (size_t)count;
		error = need_words(reading, page, wanted, true, &words);
		if (!error)
			error = take_leaves(reading, page, words, wanted);
	}
	return error;
}

/* --- a sample of a range --- */

/*
 * How far the strata of an object begin before its own begin, 1 to their length; each begins with
 * its window. Windows at equal distances meet a stretch of memory as often as its length says, give
 * or take one, and every page is met with the same probability.
 */
static uint64_t strata_shift(const struct page_world *world, const struct page_range *range)
{
	const uint64_t object[] = { range->object, range->inode };

	return XXH3_64bits_withSeed(object, sizeof(object), world->seed) %
		       world->windows[range->kind].stratum_pages +
	       1;
}

uint64_t page_world_shift(const struct page_world *world)
{
	const struct page_range anonymous = { .kind = AREA_ANON };

	return world->strata ? strata_shift(world, &anonymous) : 0;
}

/* The strata of a stripe are looked up again for each process. */
#define RECENT_STRATA 64

struct recent_stratum {
	struct stratum_key key;
	uint64_t number; /* + 1; 0: nothing here */
};

static int64_t find_stratum(struct reading *reading, const struct stratum_key *key)
{
	struct recent_stratum *recent =
		&reading->reader->strata[(key->index ^ key->inode) % RECENT_STRATA];
	int64_t number;

	if (recent->number && memcmp(&recent->key, key, sizeof(*key)) == 0)
		return (int64_t)recent->number - 1;
	number = strata_find(reading->world->strata, key);
	if (number >= 0)
		*recent = (struct recent_stratum){ .key = *key, .number = (uint64_t)number + 1 };
	return number;
}

/* The stratum is there, though its window met nothing of this area. */
static int add_nothing(struct reading *reading, struct piece piece)
{
	piece.process = reading->source->number;
	return pages_append(&reading->reader->pages, &piece);
}

/* A part of an object: pages [from, to) of it stand at the address `page` on. */
struct stretch {
	uint64_t from, to, page;
};

/* Reads as much of the window [first, end) as lies in the stretch. */
static int read_window(struct reading *reading, const struct stratum_key *key, enum area_kind area,
		       uint64_t first, uint64_t end, const struct stretch *stretch)
{
	const struct window *window = &reading->world->windows[area];
	uint64_t begin = first > stretch->from ? first : stretch->from;
	uint64_t stop = end < stretch->to ? end : stretch->to;
	uint64_t page = stretch->page + (begin - stretch->from);
	int64_t stratum = find_stratum(reading, key);
	const uint64_t *words;
	struct piece piece;
	int error;

	if (stratum < 0)
		return (int)stratum;
	piece = (struct piece){ .stratum = (uint32_t)stratum, .area = (uint8_t)area };
	if (begin >= stop)
		return add_nothing(reading, piece);
	error = need_words(reading, page, (size_t)(stop - begin),
			   window->pages == window->stratum_pages, &words);
	return error ? error : take_leaf(reading, page, words, (size_t)(stop - begin), piece);
}

static int sample_range(struct reading *reading, const struct page_range *range, uint64_t page,
			uint64_t count)
{
	const struct window *window = &reading->world->windows[range->kind];
	uint64_t shift = strata_shift(reading->world, range), first, end, next;
	struct stratum_key key = { .object = range->object, .inode = range->inode };
	struct stretch stretch = { .from = range->from + (page - range->page), .page = page };
	uint64_t to = stretch.from + count;
	int error = 0;

	for (; stretch.from < to && !error; stretch.from = next) {
		key.index = (stretch.from + shift) / window->stratum_pages;
		/* The first stratum begins before the object does. */
		first = key.index ? key.index * window->stratum_pages - shift : 0;
		end = key.index             ? first + window->pages :
		      window->pages > shift ? window->pages - shift :
					      0;
		next = (key.index + 1) * window->stratum_pages - shift;
		stretch.to = next < to ? next : to;
		next = stretch.to;
		error = read_window(reading, &key, range->kind, first, end, &stretch);
		stretch.page += stretch.to - stretch.from;
	}
	return error;
}

int pages_read(const struct page_world *world, struct page_reader *reader,
	       const struct page_source *source, const struct page_range *range, uint64_t page,
	       uint64_t count)
{
	struct reading reading = { .world = world, .reader = reader, .source = source };

	if (!reader->words)
		reader->words = malloc(CHUNK_PAGES * sizeof(*reader->words));
	if (!reader->memo)
		reader->memo = calloc(1, sizeof(*reader->memo));
	if (!reader->strata)
		reader->strata = calloc(RECENT_STRATA, sizeof(*reader->strata));
	if (!reader->words || !reader->memo || !reader->strata)
		return -ENOMEM;
	if (world->strata)
		return sample_range(&reading, range, page, count);
	return read_range(&reading, page, count);
}

/* --- areas --- */

struct opening {
	const struct page_world *world;
	struct page_source source;
	bool sparse;
};

static int add_range(struct opening *opening, const struct proc_area *area, uint64_t start,
		     uint64_t end)
{
	uint64_t page_bytes = opening->world->page_bytes, page = start / page_bytes;
	struct page_source *source = &opening->source;
	struct page_range *range, *grown;

	if (source->count == source->room) {
		source->room = source->room ? 2 * source->room : 32;
		grown = realloc(source->ranges, source->room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		source->ranges = grown;
	}
	range = &source->ranges[source->count++];
	*range =
		(struct page_range){ .page = page, .count = end / page_bytes - page, .from = page };
	if (!area->inode)
		return 0;
	range->kind = AREA_FILE;
	range->object = UINT64_C(1) << 63 | (uint64_t)area->device_major << 32 | area->device_minor;
	range->inode = area->inode;
	range->from = (area->offset + (start - area->start)) / page_bytes;
	return 0;
}

/* The ranges in which something is, rounded to leaves: 0, or -ENOTTY where that cannot be asked. */
static int add_populated(struct opening *opening, const struct proc_area *area)
{
	uint64_t leaf = LEAF_ENTRIES * opening->world->page_bytes, at = area->start, start, end;
	struct pagemap_scan_region regions[64];
	struct pagemap_scan scan;
	long found, i;
	int error = 0;

	while (at < area->end) {
		scan = (struct pagemap_scan){
			.size = sizeof(scan),
			.start = at,
			.end = area->end,
			.regions = (uintptr_t)regions,
			.region_count = sizeof(regions) / sizeof(regions[0]),
			.all_of = PAGEMAP_SCAN_PRESENT,
			.wanted = PAGEMAP_SCAN_PRESENT,
		};
		found = ioctl(opening->source.pagemap, PAGEMAP_SCAN_REQUEST, &scan);
		if (found < 0)
			return errno == EINTR ? -EAGAIN : -errno;
		if (!found)
			break;
		for (i = 0; i < found && !error; i++) {
			start = regions[i].start / leaf * leaf;
			end = (regions[i].end + leaf - 1) / leaf * leaf;
			start = start > at ? start : at;
			end = end < area->end ? end : area->end;
			if (start < end)
				error = add_range(opening, area, start, end);
			at = end > at ? end : at;
		}
		if (error)
			return error;
		/* The walk may have stopped within what was just rounded up and taken. */
		at = scan.walk_end > at ? scan.walk_end : at;
	}
	return 0;
}

static int add_area(struct opening *opening, const struct proc_area *area)
{
	int error;

	if (area->start >= KERNEL_HALF)
		return 0;
	if (opening->sparse && area->end - area->start >= SPARSE_AREA_BYTES) {
		error = add_populated(opening, area);
		if (error != -ENOTTY)
			return error;
	}
	return add_range(opening, area, area->start, area->end);
}

/* hugetlb pages are no part of RSS or PSS; smaps tells which areas have them, maps does not. */
static bool has_huge_tlb(struct text details)
{
	static const struct keyed_field field = { "KernelPageSize", 0 };
	uint64_t page_bytes = KEYED_ABSENT;

	return keyed_parse(details, &field, 1, KEYED_FIRST, &page_bytes) == 1 &&
	       page_bytes != (uint64_t)sysconf(_SC_PAGESIZE);
}

static int add_areas(struct opening *opening, struct text text, bool is_smaps)
{
	struct proc_area area;
	struct text details;
	int found, error;

	for (;;) {
		found = is_smaps ? proc_smaps_area_next(&text, &area, &details) :
				   proc_area_next(&text, &area);
		if (found <= 0)
			return found;
		if (is_smaps && has_huge_tlb(details))
			continue;
		error = add_area(opening, &area);
		if (error)
			return error;
	}
}

/* Kernels before 5.19 do not tell, nor does one that does not let us look: then it may be. */
static bool may_have_merged(const struct page_world *world, struct page_reader *reader, int process)
{
	uint64_t merged = 1;
	struct text text;

	if (!world->merging)
		return false;
	if (proc_read_at(world->root, process, "ksm_merging_pages", &reader->text, &text) < 0 ||
	    text_only_u64(text, &merged) < 0)
		return true;
	return merged > 0;
}

int pages_open(const struct page_world *world, struct page_reader *reader, int process,
	       const struct proc_status *status, uint32_t number, struct page_source *ret_source)
{
	bool by_smaps = status->huge_tlb_bytes && status->huge_tlb_bytes != KEYED_ABSENT;
	struct opening opening = {
		.world = world,
		.sparse = status->virtual_bytes / SPARSE_RATIO > status->resident_bytes,
		.source = { .number = number },
	};
	struct text text;
	int error;

	opening.source.merging = may_have_merged(world, reader, process);
	/* First: what is opened is this address space, also when exec gives it another. */
	opening.source.pagemap = openat(process, "pagemap", O_RDONLY | O_CLOEXEC);
	if (opening.source.pagemap < 0)
		return -errno;
	error = proc_read_at(world->root, process, by_smaps ? "smaps" : "maps", &reader->text,
			     &text);
	if (!error)
		error = add_areas(&opening, text, by_smaps);
	if (error)
		pages_close(&opening.source);
	else
		*ret_source = opening.source;
	return error;
}

void pages_close(struct page_source *source)
{
	if (source->pagemap >= 0)
		close(source->pagemap);
	free(source->ranges);
	source->pagemap = -1;
	source->ranges = NULL;
	source->count = source->room = 0;
}

void page_reader_free(struct page_reader *reader)
{
	free(reader->words);
	free(reader->memo);
	free(reader->strata);
	pages_free(&reader->pages);
	proc_buffer_free(&reader->text);
	*reader = (struct page_reader){ 0 };
}
