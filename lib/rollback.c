/* SPDX-License-Identifier: MIT */
/*
 * Rollback: a write of the pages that were written since, with what the snapshot has.
 *
 * First every such page is opened, as any writer would: that keeps what newer snapshots read, can
 * fail, and changes no content. Then the contents are put back, which fails only when spilled
 * content cannot be read; so that this, too, leaves the region as it was, where anything is spilled
 * a guard snapshot is taken first, and everything is read once before it is needed.
 *
 * "Since" would grow with every rollback to the same snapshot, where each time other pages are
 * written: once most of what is looked at turns out to be as it was, the epoch is ended, so that
 * the next rollback to that snapshot looks only at what was opened after this one.
 */
#include "lib/internal.h"

struct rollback {
	struct cow_region *region;
	struct snap *to;
	uint64_t since; /* an epoch: what was not opened after it is as the snapshot has it */
	uint64_t looked_at, different; /* pages */
	uint64_t run_first, run_end;   /* pages that had no content then: their memory goes back */
	void *scratch;                 /* a page */
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
	if (r == 0)
		r = snap_read(rollback->to, page, 0, rollback->scratch, space_page_size(space));
	if (r < 0)
		return r;
	rollback->looked_at++;
	if (memcmp(space_page(space, page), rollback->scratch, space_page_size(space)) != 0) {
		rollback->different++;
		memcpy(space_page(space, page), rollback->scratch, space_page_size(space));
	}
	return 0;
}

static int put_all_back(struct rollback *rollback)
{
	struct space *space = &rollback->region->space;
	int r = table_walk(&space->table, 0, space->pages, rollback->since, put_back, rollback);

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

	return table_walk(&space->table, 0, space->pages, rollback->since, try_page, rollback);
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

static uint64_t unchanged_since(const struct cow_region *region, const struct snap *to)
{
	return region->rolled_back_to == to->epoch && region->rolled_back_at > to->epoch ?
		       region->rolled_back_at :
		       to->epoch;
}

/* Arming what is open costs as much as looking at it a few times. Where it cannot be done, the next
 * rollback has as much to look at. */
static void forget_the_past(const struct rollback *rollback)
{
	struct cow_region *region = rollback->region;
	uint64_t epoch = atomic_load(&region->space.epoch);

	if (rollback->looked_at <= 2 * rollback->different + 64 || cut_end_epoch(region) < 0)
		return;
	region->rolled_back_to = rollback->to->epoch;
	region->rolled_back_at = epoch;
}

/* The cut mutex is held: no cut falls in between. 1: something was spilled meanwhile, so it takes a
 * guard. */
static int put_snapshot_back(struct rollback *rollback, struct cow_snapshot *guard)
{
	struct space *space = &rollback->region->space;
	int r;

	r = bracket_enter(rollback->region);
	if (r < 0)
		return r;
	trap_await(rollback->region->trap);
	r = table_walk(&space->table, 0, space->pages, rollback->since, open_page, rollback);
	if (r == 0 && anything_spilled(space, rollback->to))
		r = guard ? try_all(rollback) : 1;
	if (r == 0) {
		r = put_all_back(rollback);
		if (r < 0 && guard) {
			rollback->to = &guard->snap;
			rollback->since = guard->snap.epoch;
			(void)put_all_back(rollback);
		}
	}
	bracket_leave(rollback->region);
	return r;
}

static int rollback_locked(struct cow_region *region, struct cow_snapshot *snapshot,
			   struct cow_snapshot *guard)
{
	struct rollback rollback = {
		.region = region,
		.to = &snapshot->snap,
		.since = unchanged_since(region, &snapshot->snap),
		.scratch = sys_alloc_page(space_page_size(&region->space)),
	};
	int r;

	if (!rollback.scratch)
		return -ENOMEM;
	r = put_snapshot_back(&rollback, guard);
	sys_free(rollback.scratch);
	if (r == 0)
		forget_the_past(&rollback);
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
