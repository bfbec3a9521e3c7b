/* SPDX-License-Identifier: MIT */
/*
 * Reading a page as of an epoch, without a lock, beside writers and beside those who free versions.
 *
 *   live page older than the snapshot    copy the window, look at the state again
 *   else a version covers the epoch      copy it inside a grace section
 *   else                                 the base: zeroes, or the source snapshot, and so on down
 *
 * The copy of the window is the one deliberate data race of the library: it may run beside a writer
 * that has opened the page, and is thrown away when the state then is no longer what it was.
 */
#include <errno.h>
#include <string.h>

#include "core/copy.h"
#include "core/space.h"

static uint64_t load_state(struct entry *entry)
{
	return entry ? atomic_load_explicit(&entry->state, memory_order_acquire) : 0;
}

static bool is_stale(struct snap *snap)
{
	return atomic_load(&snap->dropped) != 0;
}

/* Whether what was read from the window counts: since the state was loaded nobody opened the page.
 * entry: NULL where the table had none. */
static bool is_still(struct space *space, uint64_t page, struct entry *entry, uint64_t state)
{
#ifndef COW_TSAN
	atomic_thread_fence(memory_order_acquire);
#endif
	if (!entry)
		entry = table_find(&space->table, page);
	return ((load_state(entry) ^ state) & ~(PAGE_BUSY | PAGE_WAITED | PAGE_ARMED)) == 0;
}

/* true: the window had the snapshot's content and buffer has it now; false: look again. */
static bool read_window(struct space *space, uint64_t page, struct entry *entry, uint64_t state,
			size_t offset, void *buffer, size_t length)
{
	STEP("read: window");
	copy_racing(buffer, space_page(space, page) + offset, length);
	STEP("read: look again");
	return MUTANT("no-second-look") || is_still(space, page, entry, state);
}

/* Copies what the content says; the kind tells the caller what is left to do for SPILLED and
 * BASE. */
static uintptr_t read_version(struct space *space, struct entry *entry, uint64_t epoch,
			      size_t offset, void *buffer, size_t length)
{
	struct grace_section section = grace_enter(&space->grace);
	struct version *version = version_find(entry, epoch);
	uintptr_t content = content_make(CONTENT_BASE, 0);

	STEP("read: version");
	if (version)
		content = atomic_load_explicit(&version->content, memory_order_acquire);
	if (content_kind(content) == CONTENT_FRAME)
		copy_page(buffer, (unsigned char *)content_frame(content) + offset, length);
	else if (content_kind(content) == CONTENT_ZERO)
		memset(buffer, 0, length);
	grace_leave(section);
	return content;
}

/* 1: the base has it. */
static int read_here(struct snap *snap, uint64_t page, size_t offset, void *buffer, size_t length)
{
	struct space *space = snap->space;
	uintptr_t content;

	for (;;) {
		struct entry *entry = table_find(&space->table, page);
		uint64_t state;

		STEP("read: look");
		state = load_state(entry);
		if (state_epoch(state) > snap->epoch) {
			content = read_version(space, entry, snap->epoch, offset, buffer, length);
			break;
		}
		if (!space_present(space, state))
			return 1;
		if (read_window(space, page, entry, state, offset, buffer, length))
			return 0;
	}
	if (content_kind(content) == CONTENT_SPILLED)
		return space->spill->load(space->spill_context, content_slot(content), offset,
					  buffer, length);
	return content_kind(content) == CONTENT_BASE;
}

static int read_base(struct space *space, uint64_t page, size_t offset, void *buffer, size_t length)
{
	if (space->base == BASE_SOURCE)
		return snap_read(space->source, page, offset, buffer, length);
	memset(buffer, 0, length);
	return 0;
}

/* A snapshot gets its backing before what it read here goes, so looking again afterwards is
 * enough. */
static struct backing *backing_of(struct snap *snap)
{
	return MUTANT("no-backing") ? NULL : atomic_load(&snap->backing);
}

/* Down the sources of branches of branches; a loop, since nothing bounds how deep they go. */
int snap_read(struct snap *snap, uint64_t page, size_t offset, void *buffer, size_t length)
{
	struct backing *backing;
	int r;

	for (;;) {
		if (MUTANT("stale-before-read") && is_stale(snap))
			return -ESTALE;
		r = 1;
		if (!atomic_load(&snap->backing))
			r = read_here(snap, page, offset, buffer, length);
		STEP("read: backing");
		backing = backing_of(snap);
		if (backing)
			r = backing->read(backing, page, offset, buffer, length);
		STEP("read: stale");
		if (is_stale(snap) && !MUTANT("stale-before-read"))
			return -ESTALE;
		if (r != 1)
			return r;
		if (snap->space->base != BASE_SOURCE)
			break;
		snap = snap->space->source;
	}
	memset(buffer, 0, length);
	return 0;
}

int space_read(struct space *space, uint64_t page, size_t offset, void *buffer, size_t length)
{
	uint64_t state = load_state(table_find(&space->table, page));

	if (!space_present(space, state) && !space_traps(space))
		return read_base(space, page, offset, buffer, length);
	memcpy(buffer, space_page(space, page) + offset, length);
	return 0;
}

uint64_t snap_content_epoch(struct snap *snap, uint64_t page)
{
	struct space *space = snap->space;
	struct entry *entry = table_find(&space->table, page);
	uint64_t epoch = state_epoch(load_state(entry));
	struct grace_section section;
	struct version *version;

	if (epoch <= snap->epoch)
		return epoch;
	section = grace_enter(&space->grace);
	version = version_find(entry, snap->epoch);
	epoch = version ? version->from : 0;
	grace_leave(section);
	return atomic_load(&snap->backing) ? UINT64_MAX : epoch;
}

int consume_read(struct snap *snap, uint64_t page, void *buffer)
{
	struct space *space = snap->space;
	size_t length = space_page_size(space);
	int r = read_here(snap, page, 0, buffer, length);

	if (atomic_load(&snap->dropped) & SNAP_DROPPED)
		return -ESTALE;
	return r == 1 ? read_base(space, page, 0, buffer, length) : r;
}

/* Not a page that was never written: to touch that may trap, or bring it in. */
const void *snap_borrow(struct snap *snap, uint64_t page, uint64_t *ret_state)
{
#ifdef COW_TSAN
	return NULL; /* whoever reads it is instrumented */
#else
	struct space *space = snap->space;
	uint64_t state = load_state(table_find(&space->table, page));

	if (state_epoch(state) == 0 || state_epoch(state) > snap->epoch ||
	    !(state & PAGE_PRESENT) || atomic_load(&snap->backing))
		return NULL;
	*ret_state = state;
	return space_page(space, page);
#endif
}

bool snap_is_intact(struct snap *snap, uint64_t page, uint64_t state)
{
	return is_still(snap->space, page, NULL, state);
}
