/* SPDX-License-Identifier: MIT */
/*
 * Rollback: a write of the pages that were written since, with what the snapshot has.
 *
 * First every such page is opened, as any writer would: that keeps what newer snapshots read, can
 * fail, and changes no content. Then the contents are put back, which fails only when spilled
 * content cannot be read; so that this, too, leaves the region as it was, where anything is spilled
 * a guard snapshot is taken first, and everything is read once before it is needed.
 */
#include "lib/internal.h"

struct rollback {
	struct cow_region *region;
	struct snap *to;
	uint64_t run_first, run_end; /* pages that had no content then: their memory goes back */
	void *scratch;               /* a page */
};

static int open_page(uint64_t page, struct entry *entry, void *context)
{
	struct rollback *rollback = context;

	(void)entry;
	return bracket_open_pages(rollback->region, page, page + 1, 0);
}

static void give_back(struct rollback *rollback)
{
	region_give_back(rollback->region, rollback->run_first, rollback->run_end);
	rollback->run_first = rollback->run_end = 0;
}

static void put_back_base(struct rollback *rollback, uint64_t page)
{
	if (page != rollback->run_end)
		give_back(rollback);
	if (rollback->run_first == rollback->run_end)
		rollback->run_first = page;
	rollback->run_end = page + 1;
	forget(&rollback->region->space, page);
}

static int put_back(uint64_t page, struct entry *entry, void *context)
{
	struct rollback *rollback = context;
	struct space *space = &rollback->region->space;
	int r;

	(void)entry;
	if (space_forgets(space) && snap_content_epoch(rollback->to, page) == 0) {
		put_back_base(rollback, page);
		return 0;
	}
	/* Open already, unless the guard puts back what was given back a moment ago: that keeps
	 * nothing. */
	r = bracket_open_pages(rollback->region, page, page + 1, FAULT_WHOLE);
	if (r < 0)
		return r;
	return snap_read(rollback->to, page, 0, space_page(space, page), space_page_size(space));
}

static int put_all_back(struct rollback *rollback)
{
	struct space *space = &rollback->region->space;
	int r = table_walk(&space->table, 0, space->pages, rollback->to->epoch, put_back, rollback);

	give_back(rollback);
	return r;
}

static int try_page(uint64_t page, struct entry *entry, void *context)
{
	struct rollback *rollback = context;

	(void)entry;
	return snap_read(rollback->to, page, 0, rollback->scratch,
			 space_page_size(&rollback->region->space));
}

/* Reads everything once before anything changes: where a disk fails for good, the guard's own pages
 * could not be read back either. */
static int try_all(struct rollback *rollback)
{
	struct space *space = &rollback->region->space;
	int r;

	rollback->scratch = sys_alloc_page(space_page_size(space));
	if (!rollback->scratch)
		return -ENOMEM;
	r = table_walk(&space->table, 0, space->pages, rollback->to->epoch, try_page, rollback);
	sys_free(rollback->scratch);
	return r;
}

/* What a snapshot reads from its layer can fail, too. */
static bool anything_spilled(struct space *space, struct snap *to)
{
	bool spilled;

	if (atomic_load(&to->backing))
		return true;
	lock_take(&space->lock);
	spilled = space->spilled_slots > 0;
	lock_drop(&space->lock);
	return spilled;
}

/* The cut mutex is held: no cut falls in between. 1: something was spilled meanwhile, so it takes a
 * guard. */
static int rollback_locked(struct cow_region *region, struct cow_snapshot *snapshot,
			   struct cow_snapshot *guard)
{
	struct rollback rollback = { .region = region, .to = &snapshot->snap };
	struct space *space = &region->space;
	int r;

	r = bracket_enter(region);
	if (r < 0)
		return r;
	r = table_walk(&space->table, 0, space->pages, snapshot->snap.epoch, open_page, &rollback);
	if (r == 0 && anything_spilled(space, &snapshot->snap))
		r = guard ? try_all(&rollback) : 1;
	if (r == 0) {
		r = put_all_back(&rollback);
		if (r < 0 && guard) {
			rollback.to = &guard->snap;
			(void)put_all_back(&rollback);
		}
	}
	bracket_leave(region);
	return r;
}

/* Room is made outside the lock and the gate: it may wait, and say something. */
static int rollback_guarded(struct cow_region *region, struct cow_snapshot *snapshot,
			    struct cow_snapshot *guard)
{
	uint64_t deadline_ns = 0;
	int r;

	if (guard)
		snapshot_pin(guard);
	do {
		uint32_t freed = atomic_load(&region->space.freed);

		pthread_mutex_lock(&region->cut_mutex);
		r = rollback_locked(region, snapshot, guard);
		pthread_mutex_unlock(&region->cut_mutex);
		if (r != -EAGAIN)
			return r;
		r = limit_make_room(region, freed, &deadline_ns);
		snapshot_unref_due(region);
	} while (r == 0);
	return r;
}

int cow_region_rollback(struct cow_region *region, struct cow_snapshot *snapshot)
{
	struct cow_snapshot *guard = NULL;
	int r;

	r = check_region(region);
	if (r == 0)
		r = check_snapshot(snapshot);
	if (r < 0)
		return r;
	if (snapshot->region != region)
		return -EINVAL;
	if (bracket_is_held(region))
		return -EDEADLK;
	r = snapshot_pin(snapshot);
	if (r < 0)
		return r;
	if (anything_spilled(&region->space, &snapshot->snap))
		r = cow_region_snapshot(region, &guard);
	if (r == 0)
		r = rollback_guarded(region, snapshot, guard);
	if (r == 1 && (r = cow_region_snapshot(region, &guard)) == 0)
		r = rollback_guarded(region, snapshot, guard);
	snapshot_unpin(snapshot);
	cow_snapshot_unref(guard);
	return r;
}
