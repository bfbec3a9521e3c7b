/* SPDX-License-Identifier: MIT */
#include "cli/ps/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
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
	struct pages pages;
	int pagemap;
	bool sparse;
	bool merging; /* some of its pages may be merged ones */
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

/* Reads words at an index: how many there were, or a negative errno. */
static ssize_t read_words(int fd, uint64_t index, size_t count, uint64_t *words)
{
	ssize_t n;

	do
		n = pread(fd, words, count * sizeof(*words), (off_t)(index * sizeof(*words)));
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

static int add_piece(struct pages *pages, const struct piece *piece)
{
	struct piece *grown;

	if (pages->count == pages->room) {
		pages->room = pages->room ? 2 * pages->room : 256;
		grown = realloc(pages->pieces, pages->room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		pages->pieces = grown;
	}
	pages->pieces[pages->count++] = *piece;
	return 0;
}

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

/* A leaf, by kinds of pages. */
struct split {
	uint32_t frames[PAGE_KINDS][LEAF_ENTRIES];
	size_t shared[PAGE_KINDS];
	uint32_t private_pages[PAGE_KINDS];
};

/* Frames beyond 16 TiB are no RAM here: the frame set would not have been made. */
static uint32_t frame_of(uint64_t word)
{
	uint64_t frame = word & PAGEMAP_FRAME;

	return frame < NO_FRAME ? (uint32_t)frame : NO_FRAME;
}

/*
 * A page that is mapped once needs no entry in the frame set, since nobody else has it; unless it
 * may be a merged one, which only its flags tell.
 */
static void split_leaf(const struct reading *reading, const uint64_t *words, size_t count,
		       struct split *split)
{
	uint64_t alone = PAGEMAP_EXCLUSIVE;
	enum page_kind kind;
	size_t i;

	split->shared[PAGE_ANON] = split->shared[PAGE_FILE] = 0;
	split->private_pages[PAGE_ANON] = split->private_pages[PAGE_FILE] = 0;
	for (i = 0; i < count; i++) {
		if (!(words[i] & PAGEMAP_PRESENT))
			continue;
		kind = words[i] & PAGEMAP_FILE ? PAGE_FILE : PAGE_ANON;
		if ((words[i] & alone) && !(reading->merging && kind == PAGE_ANON))
			split->private_pages[kind]++;
		else
			split->frames[kind][split->shared[kind]++] = frame_of(words[i]);
	}
}

static int take_kind(struct reading *reading, const struct split *split, enum page_kind kind,
		     struct piece piece)
{
	int64_t leaf;

	piece.kind = (uint8_t)kind;
	piece.private_pages = (uint16_t)split->private_pages[kind];

	if (split->shared[kind]) {
		leaf = frame_set_intern(reading->world->frames, split->frames[kind],
					split->shared[kind]);
		if (leaf < 0)
			return (int)leaf;
		piece.leaf = (uint32_t)leaf + 1;
	} else if (!piece.private_pages && (!reading->world->strata || kind != PAGE_ANON)) {
		/* Of a sample, a stratum in which nothing was met is remembered once. */
		return 0;
	}
	return add_piece(&reading->pages, &piece);
}

/* `piece` tells where the leaf belongs. */
static int take_leaf(struct reading *reading, const uint64_t *words, size_t count,
		     struct piece piece)
{
	struct split split;
	int error;

	split_leaf(reading, words, count, &split);
	if (is_huge(reading->world, words, count))
		reading->pages.thp_pages += count;
	error = take_kind(reading, &split, PAGE_ANON, piece);
	return error ? error : take_kind(reading, &split, PAGE_FILE, piece);
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
		error = take_leaf(reading, words, taken, (struct piece){ 0 });
	}
	return error;
}

static int read_range(struct reading *reading, uint64_t page, uint64_t count)
{
	size_t wanted;
	ssize_t n;
	int error;

	for (; count; page += wanted, count -= wanted) {
		/* Chunks end with a leaf, so that siblings cut theirs at the same places. */
		wanted = CHUNK_PAGES - page % LEAF_ENTRIES;
		if (wanted > count)
			wanted = (size_t)count;
		n = read_words(reading->pagemap, page, wanted, reading->reader->words);
		if (n < 0)
			return (int)n;
		reading->pages.read_pages += (uint64_t)n;
		error = take_leaves(reading, page, reading->reader->words, (size_t)n);
		if (error)
			return error;
		/* Nothing more: the address space has gone with its process, or by exec. */
		if ((size_t)n < wanted)
			return -ESRCH;
	}
	return 0;
}

/* --- a sample of a range --- */

/* Where the window of a stratum begins in it. */
static uint64_t window_place(const struct page_world *world, const struct window *window,
			     const struct stratum_key *key)
{
	uint64_t places = window->stratum_pages / window->pages;

	return XXH3_64bits_withSeed(key, sizeof(*key), world->seed) % places * window->pages;
}

/* Pages [from, to) of the object stand at the address `page` on. */
static int read_window(struct reading *reading, const struct stratum_key *key, enum area_kind area,
		       uint64_t from, uint64_t to, uint64_t page)
{
	const struct window *window = &reading->world->windows[area];
	uint64_t first = key->index * window->stratum_pages +
			 window_place(reading->world, window, key);
	uint64_t end = first + window->pages < to ? first + window->pages : to;
	uint64_t begin = first > from ? first : from;
	int64_t stratum = strata_find(reading->world->strata, key);
	struct piece piece;
	ssize_t n;

	if (stratum < 0)
		return (int)stratum;
	piece = (struct piece){ .stratum = (uint32_t)stratum, .area = (uint8_t)area };
	/* The stratum is there, though its window met nothing of this area. */
	if (begin >= end)
		return add_piece(&reading->pages, &piece);
	n = read_words(reading->pagemap, page + (begin - from), (size_t)(end - begin),
		       reading->reader->words);
	if (n < 0)
		return (int)n;
	if ((uint64_t)n < end - begin)
		return -ESRCH;
	reading->pages.read_pages += (uint64_t)n;
	return take_leaf(reading, reading->reader->words, (size_t)n, piece);
}

static int sample_range(struct reading *reading, const struct proc_area *area, uint64_t page,
			uint64_t count)
{
	enum area_kind kind = area->inode ? AREA_FILE : AREA_ANON;
	uint64_t pages = reading->world->windows[kind].stratum_pages, from, to, next;
	struct stratum_key key = { 0 };
	int error = 0;

	from = page;
	if (area->inode) {
		key.object = UINT64_C(1) << 63 | (uint64_t)area->device_major << 32 |
			     area->device_minor;
		key.inode = area->inode;
		from = area->offset / reading->world->page_bytes +
		       (page - area->start / reading->world->page_bytes);
	}
	for (to = from + count; from < to && !error; page += next - from, from = next) {
		key.index = from / pages;
		next = (key.index + 1) * pages < to ? (key.index + 1) * pages : to;
		error = read_window(reading, &key, kind, from, next, page);
	}
	return error;
}

/* --- areas --- */

static int read_pages(struct reading *reading, const struct proc_area *area, uint64_t start,
		      uint64_t end)
{
	uint64_t page = start / reading->world->page_bytes;
	uint64_t count = end / reading->world->page_bytes - page;

	reading->pages.mapped_pages += count;
	if (reading->world->strata)
		return sample_range(reading, area, page, count);
	return read_range(reading, page, count);
}

/* The ranges in which something is, rounded to leaves: 0, or -ENOTTY where that cannot be asked. */
static int read_populated(struct reading *reading, const struct proc_area *area)
{
	uint64_t leaf = LEAF_ENTRIES * reading->world->page_bytes, at = area->start, start, end;
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
		found = ioctl(reading->pagemap, PAGEMAP_SCAN_REQUEST, &scan);
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
				error = read_pages(reading, area, start, end);
			at = end > at ? end : at;
		}
		if (error)
			return error;
		/* The walk may have stopped within what was just rounded up and read. */
		at = scan.walk_end > at ? scan.walk_end : at;
	}
	return 0;
}

static int read_area(struct reading *reading, const struct proc_area *area)
{
	int error;

	if (area->start >= KERNEL_HALF)
		return 0;
	if (reading->sparse && area->end - area->start >= SPARSE_AREA_BYTES) {
		error = read_populated(reading, area);
		if (error != -ENOTTY)
			return error;
	}
	return read_pages(reading, area, area->start, area->end);
}

/* hugetlb pages are no part of RSS or PSS; smaps tells which areas have them, maps does not. */
static bool has_huge_tlb(struct text details)
{
	static const struct keyed_field field = { "KernelPageSize", 0 };
	uint64_t page_bytes = KEYED_ABSENT;

	return keyed_parse(details, &field, 1, KEYED_FIRST, &page_bytes) == 1 &&
	       page_bytes != (uint64_t)sysconf(_SC_PAGESIZE);
}

static int read_areas(struct reading *reading, struct text text, bool is_smaps)
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
		error = read_area(reading, &area);
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

int pages_read(const struct page_world *world, struct page_reader *reader, int process,
	       const struct proc_status *status, struct pages *ret_pages)
{
	bool by_smaps = status->huge_tlb_bytes && status->huge_tlb_bytes != KEYED_ABSENT;
	struct reading reading = {
		.world = world,
		.reader = reader,
		.sparse = status->virtual_bytes / SPARSE_RATIO > status->resident_bytes,
		.merging = may_have_merged(world, reader, process),
	};
	struct text text;
	int fd, error;

	if (!reader->words)
		reader->words = malloc(CHUNK_PAGES * sizeof(*reader->words));
	if (!reader->words)
		return -ENOMEM;
	/* First: what is opened is this address space, also when exec gives it another. */
	fd = openat(process, "pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	reading.pagemap = fd;
	error = proc_read_at(world->root, process, by_smaps ? "smaps" : "maps", &reader->text,
			     &text);
	if (!error)
		error = read_areas(&reading, text, by_smaps);
	close(fd);
	if (error)
		pages_free(&reading.pages);
	else
		*ret_pages = reading.pages;
	return error;
}

void pages_free(struct pages *pages)
{
	free(pages->pieces);
	*pages = (struct pages){ 0 };
}

void page_reader_free(struct page_reader *reader)
{
	free(reader->words);
	proc_buffer_free(&reader->text);
	*reader = (struct page_reader){ 0 };
}
