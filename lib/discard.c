/* SPDX-License-Identifier: MIT */
/*
 * Discarding: a range reads as zero from now on, and the memory of whole pages goes back to the
 * system. For snapshots that is a write like any other: pages are opened first.
 *
 *   [ part of a page | whole pages                       | part ]
 *     zeroed           given back, where they were written  zeroed
 */
#include "lib/internal.h"

static int open_written_page(uint64_t page, struct entry *entry, void *context)
{
	(void)entry;
	return bracket_open_pages(context, page, page + 1, 0);
}

/* Where the base is zero, a page that was never written is zero already. */
static int open_whole_pages(struct cow_region *region, uint64_t first, uint64_t end)
{
	if (region->space.base == BASE_ZERO)
		return table_walk(&region->space.table, first, end, 0, open_written_page, region);
	return bracket_open_pages(region, first, end, 0);
}

void region_give_back(struct cow_region *region, uint64_t first, uint64_t end)
{
	size_t length = (end - first) << region->space.page_shift;
	unsigned char *start = space_page(&region->space, first);
	bool empty;

	if (length == 0)
		return;
	empty = region->empty_advice >= 0 && sys_advise(start, length, region->empty_advice) == 0;
	if (empty && region->trap && region->trap->needs_content)
		empty = sys_advise(start, length, MADV_POPULATE_READ) == 0;
	if (!empty)
		memset(start, 0, length);
}

/* Pages of zeroes keep their content, such as it is: another thread may have a bracket open on one,
 * and write it after us. What was never written is left alone: giving it back would take away its
 * protection. */
struct emptying {
	struct cow_region *region;
	uint64_t first, end;
};

static void empty_run(const struct emptying *emptying)
{
	region_give_back(emptying->region, emptying->first, emptying->end);
}

static int empty_page(uint64_t page, struct entry *entry, void *context)
{
	struct emptying *emptying = context;

	(void)entry;
	if (page != emptying->end) {
		empty_run(emptying);
		emptying->first = page;
	}
	emptying->end = page + 1;
	return 0;
}

static void empty_pages(struct cow_region *region, uint64_t first, uint64_t end)
{
	struct emptying emptying = { .region = region };

	if (first < end)
		table_walk(&region->space.table, first, end, 0, empty_page, &emptying);
	empty_run(&emptying);
}

/* Pages of which only a part goes, then those that go whole: [first, end). */
static int open_for_discard(struct cow_region *region, size_t offset, size_t length, uint64_t first,
			    uint64_t end)
{
	uint64_t touched_first = region_first_page(region, offset);
	uint64_t touched_end = region_end_page(region, offset, length);
	int r;

	if (first >= end)
		return bracket_open_pages(region, touched_first, touched_end, 0);
	r = bracket_open_pages(region, touched_first, first, 0);
	if (r == 0)
		r = bracket_open_pages(region, end, touched_end, 0);
	return r < 0 ? r : open_whole_pages(region, first, end);
}

static void zero_parts(struct cow_region *region, size_t offset, size_t length, size_t whole_start,
		       size_t whole_end)
{
	size_t end = offset + length;

	if (whole_start >= whole_end) {
		memset(region->base + offset, 0, length);
		return;
	}
	memset(region->base + offset, 0, whole_start - offset);
	memset(region->base + whole_end, 0, end - whole_end);
}

int cow_region_discard(struct cow_region *region, size_t offset, size_t length)
{
	uint64_t deadline_ns = 0;
	uint64_t first, end;
	size_t page_size;
	int r;

	r = check_region(region);
	if (r < 0)
		return r;
	r = check_range(region->length, offset, length);
	if (r < 0 || length == 0)
		return r;
	if (region->trap) {
		r = trap_start(region->trap); /* what has content is known from here on */
		if (r < 0)
			return r;
	}
	page_size = space_page_size(&region->space);
	first = (offset + page_size - 1) >> region->space.page_shift;
	end = (offset + length) >> region->space.page_shift;
	for (;;) {
		uint32_t freed = atomic_load(&region->space.freed);

		r = bracket_enter(region);
		if (r < 0)
			return r;
		trap_await(region->trap);
		r = open_for_discard(region, offset, length, first, end);
		if (r == 0)
			break;
		bracket_leave(region);
		if (r == -EAGAIN)
			r = limit_make_room(region, freed, &deadline_ns);
		snapshot_unref_due(region);
		if (r < 0)
			return r;
	}
	zero_parts(region, offset, length, first * page_size, end * page_size);
	empty_pages(region, first, end);
	bracket_leave(region);
	return 0;
}
