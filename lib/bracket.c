/* SPDX-License-Identifier: MIT */
/*
 * Brackets: how a program under the explicit trap says what it writes.
 *
 * A bracket keeps the gate of its region from being sealed, so no cut falls between the opening of
 * a page and the stores to it. Each thread knows which regions it has brackets on: to pass a
 * draining gate when it is inside one already, and to refuse a cut that would wait for itself.
 */
#include "lib/internal.h"

#define HELD_MAX 32u /* regions on which one thread may have brackets open at a time */

static _Thread_local struct {
	unsigned used;
	unsigned tick; /* for sampling */
	struct held {
		const struct cow_region *region;
		unsigned depth;
	} held[HELD_MAX];
} mine __attribute__((tls_model("initial-exec")));

static struct held *find_held(const struct cow_region *region)
{
	for (unsigned i = 0; i < mine.used; i++)
		if (mine.held[i].region == region)
			return &mine.held[i];
	return NULL;
}

bool bracket_is_held(const struct cow_region *region)
{
	return find_held(region) != NULL;
}

bool bracket_is_any_held(void)
{
	return mine.used > 0;
}

int bracket_enter(struct cow_region *region)
{
	struct held *held = find_held(region);

	if (!held && mine.used == HELD_MAX)
		return -EMFILE;
	gate_enter(&region->space.gate, host_shard(), mine.used > 0);
	if (held)
		held->depth++;
	else
		mine.held[mine.used++] = (struct held){ .region = region, .depth = 1 };
	return 0;
}

void bracket_leave(struct cow_region *region)
{
	struct held *held = find_held(region);

	if (!held)
		return;
	if (--held->depth == 0)
		*held = mine.held[--mine.used];
	gate_leave(&region->space.gate, host_shard());
}

#define SAMPLE_EVERY 64u

/* The caller writes all of the block. */
static int fault_sampled(struct cow_region *region, uint64_t page, unsigned flags,
			 struct block block)
{
	uint64_t start;
	int r;

	if (++mine.tick % SAMPLE_EVERY != 0)
		return fault_around(&region->space, page, flags, block);
	start = sys_monotonic_ns();
	r = fault_around(&region->space, page, flags, block);
	histogram_add(&region->fault_ns, sys_monotonic_ns() - start);
	return r;
}

/* Under a trap each opening is a call to the kernel. */
static struct block rest_of_leaf(uint64_t page, uint64_t end)
{
	uint64_t leaf_end = (page | (TABLE_FANOUT - 1)) + 1;

	return (struct block){ page, end < leaf_end ? end : leaf_end };
}

int bracket_open_pages(struct cow_region *region, uint64_t first, uint64_t end, unsigned flags)
{
	/* Plain memory so far, which no snapshot reads: what is written is found at the start.
	 * Marking pages now would make known what has no content yet. */
	if (region->trap && !trap_has_started(region->trap))
		return 0;
	for (uint64_t page = first; page < end; page++) {
		int r = 0;

		if (region->trap)
			r = trap_prepare(region->trap, page);
		if (r == 0 && !space_is_open(&region->space, page))
			r = fault_sampled(region, page, flags, rest_of_leaf(page, end));
		if (r == 0 && region->trap)
			r = trap_assure(region->trap, page);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Enters and opens. Where there is no room it steps out before it waits, so that it never keeps a
 * cut away for longer than the writes last. */
static int begin(struct cow_region *region, size_t offset, size_t length, unsigned flags)
{
	uint64_t deadline_ns = 0;
	int r;

	for (;;) {
		uint32_t freed = atomic_load(&region->space.freed);

		r = bracket_enter(region);
		if (r < 0)
			return r;
		r = bracket_open_pages(region, region_first_page(region, offset),
				       region_end_page(region, offset, length), flags);
		if (r == 0)
			return 0;
		bracket_leave(region);
		if (r != -EAGAIN)
			return r;
		r = limit_make_room(region, freed, &deadline_ns);
		snapshot_unref_due(region);
		if (r < 0)
			return r;
	}
}

static int offset_of(const struct cow_region *region, const void *address, size_t length,
		     size_t *ret_offset)
{
	uintptr_t base = (uintptr_t)region->base;

	if ((uintptr_t)address < base ||
	    check_range(region->length, (uintptr_t)address - base, length) < 0)
		return -ERANGE;
	*ret_offset = (uintptr_t)address - base;
	return 0;
}

int cow_region_write_begin(struct cow_region *region, const void *address, size_t length)
{
	size_t offset;
	int r;

	r = check_region(region);
	if (r < 0)
		return r;
	r = offset_of(region, address, length, &offset);
	if (r < 0)
		return r;
	return begin(region, offset, length, 0);
}

void cow_region_write_end(struct cow_region *region, const void *address, size_t length)
{
	(void)address;
	(void)length;
	if (check_region(region) == 0)
		bracket_leave(region);
}

int cow_region_touch(struct cow_region *region, const void *address, size_t length)
{
	int r;

	r = cow_region_write_begin(region, address, length);
	if (r == 0)
		bracket_leave(region);
	return r;
}

/* A write of exactly one page need not bring in what it overwrites. With more pages it must: were
 * there no room for a later one, the earlier ones would have lost their content. */
static unsigned write_flags(const struct cow_region *region, size_t offset, size_t length)
{
	size_t page = space_page_size(&region->space);

	return offset % page == 0 && length == page ? FAULT_WHOLE : 0;
}

int cow_region_write(struct cow_region *region, size_t offset, const void *buffer, size_t length)
{
	int r;

	r = check_region(region);
	if (r < 0)
		return r;
	if (!buffer && length > 0)
		return -EINVAL;
	r = check_range(region->length, offset, length);
	if (r < 0)
		return r;
	r = begin(region, offset, length, write_flags(region, offset, length));
	if (r < 0)
		return r;
	if (length > 0)
		memcpy(region->base + offset, buffer, length);
	bracket_leave(region);
	return 0;
}

int cow_region_read(struct cow_region *region, size_t offset, void *buffer, size_t length)
{
	size_t page_size;
	int r;

	r = check_region(region);
	if (r < 0)
		return r;
	if (!buffer && length > 0)
		return -EINVAL;
	r = check_range(region->length, offset, length);
	page_size = space_page_size(&region->space);
	for (size_t done = 0; r == 0 && done < length;) {
		size_t at = (offset + done) % page_size;
		size_t piece = page_size - at < length - done ? page_size - at : length - done;

		r = space_read(&region->space, region_first_page(region, offset + done), at,
			       (unsigned char *)buffer + done, piece);
		done += piece;
	}
	return r;
}
