/* SPDX-License-Identifier: MIT */
/*
 * Snapshots whose content goes elsewhere.
 *
 * Detached: the content is elsewhere already. The snapshot says where before anything of it is
 * freed; a reader looks there first, and again after it has read here.
 *
 * Consumed: one reader takes the pages in order, and none is read twice. `consumed` is raised when
 * they have been read: from then on no writer keeps their content for this snapshot, and what was
 * kept is freed. A writer that looked before kept a copy, or waits to be overtaken: harmless both.
 * A writer that looks after knows that its page was read before it writes.
 *
 * The versions themselves stay until the snapshot goes: they are linked into its buckets, and
 * small.
 */
#include <errno.h>

#include "core/space.h"

/* Most frames let go of in one stretch under the lock: writers wait for it. */
#define BATCH 8u

void dup_detach(struct space *space, struct snap *snap, struct backing *backing)
{
	STEP("detach");
	if (!MUTANT("backing-said-late"))
		atomic_store(&snap->backing, backing);
	dup_release(space, snap);
	if (MUTANT("backing-said-late"))
		atomic_store(&snap->backing, backing);
}

void consume_begin(struct space *space, struct snap *snap)
{
	atomic_fetch_or(&snap->dropped, SNAP_CONSUMED);
	lock_take(&space->lock);
	if (atomic_load(&space->consumed.epoch) == 0 && snap->linked) {
		atomic_store(&space->consumed.end, 0);
		atomic_store(&space->consumed.floor, snap->older ? snap->older->epoch : 0);
		atomic_store(&space->consumed.epoch, snap->epoch);
	}
	lock_drop(&space->lock);
	atomic_fetch_add(&space->consuming, 1);
}

/* Of the newest snapshot, without the lock: 1: nobody else reads it, and it was consumed; 0: it is
 * needed; -1: not to be told so. That older snapshots go meanwhile does no harm; a newer one cannot
 * come, since the caller is inside the gate. */
static int look_at_newest(struct space *space, uint64_t page, uint64_t from)
{
	uint64_t epoch = atomic_load(&space->consumed.epoch);
	int consumed;

	if (epoch == 0 || atomic_load(&space->newest) != epoch ||
	    atomic_load(&space->consumed.floor) >= from)
		return -1;
	consumed = page < atomic_load(&space->consumed.end);
	return atomic_load(&space->consumed.epoch) == epoch ? consumed : -1;
}

bool space_is_consumed(struct space *space, uint64_t page, uint64_t from)
{
	int known = look_at_newest(space, page, from);
	bool needed = false;

	if (known >= 0)
		return known;
	lock_take(&space->lock);
	for (struct snap *snap = space->newest_snap; snap && !needed && snap->epoch >= from;
	     snap = snap->older)
		needed = page >= atomic_load(&snap->consumed);
	lock_drop(&space->lock);
	return !needed;
}

/* Locked. Whether only this snapshot reads a version. */
static bool is_private(const struct snap *snap, struct entry *entry, uint64_t live,
		       const struct version *version)
{
	if (snap->older && snap->older->epoch >= version->from)
		return false;
	return !snap->newer || live <= snap->newer->epoch ||
	       version_find(entry, snap->newer->epoch) != version;
}

/* Locked. true: the version's frame is held, and to be let go. */
static bool take_frame(struct space *space, struct version *version, struct eviction *ret_eviction)
{
	uintptr_t content = atomic_load_explicit(&version->content, memory_order_relaxed);
	struct frame *frame;

	if (content_kind(content) == CONTENT_SPILLED) {
		space->spill->free(space->spill_context, content_slot(content));
		space->spilled_slots--;
		atomic_store(&version->content, content_make(CONTENT_BASE, 0));
	}
	if (content_kind(content) != CONTENT_FRAME)
		return false;
	frame = frame_descriptor(&space->pool, content_frame(content));
	if (frame->refs != 1 || frame->version != version || (frame->flags & FRAME_HELD))
		return false; /* shared, or on its way out */
	frame_get(&space->pool, content_frame(content));
	frame->flags |= FRAME_HELD;
	frame->version = NULL;
	atomic_store_explicit(&version->content, content_make(CONTENT_BASE, 0),
			      memory_order_release);
	frame_put(&space->pool, content_frame(content));
	space->kept_frames--;
	*ret_eviction = (struct eviction){ content_frame(content), version };
	return true;
}

/* Locked. */
static bool take_page(struct space *space, struct snap *snap, uint64_t page,
		      struct eviction *ret_eviction)
{
	struct entry *entry = table_find(&space->table, page);
	struct version *version;
	uint64_t live;

	if (!entry || !snap->linked)
		return false;
	live = state_epoch(atomic_load(&entry->state));
	if (live <= snap->epoch)
		return false;
	version = version_find(entry, snap->epoch);
	return version && is_private(snap, entry, live, version) &&
	       take_frame(space, version, ret_eviction);
}

/* Without the lock: who has not been written since has no version. */
static bool was_written(struct space *space, const struct snap *snap, uint64_t page)
{
	struct entry *entry = table_find(&space->table, page);

	return entry && state_epoch(atomic_load(&entry->state)) > snap->epoch;
}

void consume_advance(struct space *space, struct snap *snap, uint64_t end)
{
	uint64_t page = atomic_load(&snap->consumed);
	struct eviction taken[BATCH];

	if (end <= page)
		return;
	atomic_store(&snap->consumed, end);
	if (atomic_load(&space->consumed.epoch) == snap->epoch)
		atomic_store(&space->consumed.end, end);
	STEP("consume: said");
	while (page < end) {
		unsigned count = 0, looked = 0;

		while (page < end && !was_written(space, snap, page))
			page++;
		lock_take(&space->lock);
		for (; page < end && looked < BATCH; page++, looked++)
			count += take_page(space, snap, page, &taken[count]);
		if (count > 0)
			wait_for_readers(space);
		for (unsigned i = 0; i < count; i++) {
			frame_descriptor(&space->pool, taken[i].frame)->flags &=
				(uint16_t)~FRAME_HELD;
			frame_put(&space->pool, taken[i].frame);
		}
		if (count > 0)
			note_freed(space);
		lock_drop(&space->lock);
	}
}

void consume_end(struct space *space, struct snap *snap, struct backing *backing)
{
	uint64_t epoch = snap->epoch;

	atomic_compare_exchange_strong(&space->consumed.epoch, &epoch, 0);
	if (backing) {
		dup_detach(space, snap, backing);
		atomic_fetch_and(&snap->dropped, ~SNAP_CONSUMED);
	} else {
		dup_drop(space, snap);
	}
	atomic_fetch_sub(&space->consuming, 1);
}
