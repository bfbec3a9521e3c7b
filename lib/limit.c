/* SPDX-License-Identifier: MIT */
/*
 * What is done when a first write finds no frame: the policies of enum cow_limit_policy. Called
 * outside the gate and without a lock: it may wait.
 *
 * A trap tells the log nothing. What happened is noted with the region, and told by the first call
 * that may: that of a bracket which found no room, or the next cut. A program that lives at its
 * limit is not told of each snapshot that goes, but whenever their number has doubled.
 */
#include <inttypes.h>
#include <stddef.h>

#include "lib/internal.h"
#include "lib/spill.h"

/* How often a waiting writer looks itself: a reader that ends its grace section wakes nobody. */
#define LOOK_AGAIN_NS 1000000ull

static struct cow_snapshot *snapshot_of(struct snap *snap)
{
	return (struct cow_snapshot *)(void *)((char *)snap - offsetof(struct cow_snapshot, snap));
}

/* The oldest that may be given up, with a reference. */
static struct cow_snapshot *find_victim(struct space *space)
{
	struct cow_snapshot *victim = NULL;

	lock_take(&space->lock);
	for (struct snap *snap = space->oldest_snap; snap && !victim; snap = snap->newer) {
		struct cow_snapshot *snapshot = snapshot_of(snap);

		if (atomic_load(&snapshot->pins) == 0 && snapshot_try_get(snapshot))
			victim = snapshot;
	}
	lock_drop(&space->lock);
	return victim;
}

/* Pins and the drop exclude each other: the drop takes the pin count from none to DROPPED. */
static bool give_up(struct cow_region *region, struct cow_snapshot *victim)
{
	uint32_t none = 0;

	if (!atomic_compare_exchange_strong(&victim->pins, &none, SNAPSHOT_DROPPED))
		return (none & SNAPSHOT_DROPPED) != 0;
	dup_drop(&region->space, &victim->snap);
	atomic_fetch_add(&region->dropped_snapshots, 1);
	return true;
}

/* The last resort: the oldest, whoever looks at it. */
static bool drop_pinned(struct cow_region *region)
{
	struct cow_snapshot *victim = NULL;
	uint32_t pins;

	lock_take(&region->space.lock);
	if (region->space.oldest_snap && snapshot_try_get(snapshot_of(region->space.oldest_snap)))
		victim = snapshot_of(region->space.oldest_snap);
	lock_drop(&region->space.lock);
	if (!victim)
		return false;
	pins = atomic_fetch_or(&victim->pins, SNAPSHOT_DROPPED);
	if (!(pins & SNAPSHOT_DROPPED)) {
		dup_drop(&region->space, &victim->snap);
		atomic_fetch_add(&region->dropped_snapshots, 1);
	}
	snapshot_unref_later(victim);
	return true;
}

static bool drop_one(struct cow_region *region)
{
	struct cow_snapshot *victim;
	bool dropped = false;

	/* One that was pinned in between is not found again. */
	while (!dropped && (victim = find_victim(&region->space))) {
		dropped = give_up(region, victim);
		snapshot_unref_later(victim);
	}
	return dropped;
}

#define NO_DIRECTORY 1 /* in no_room; else a negative errno: why spilling failed; 0: nothing */

static void report_no_room(struct cow_region *region)
{
	int why = atomic_load(&region->no_room);

	if (why == 0 || !log_is_heard() || atomic_exchange(&region->no_room_said, 1) != 0)
		return;
	if (why == NO_DIRECTORY)
		log_message(LOG_WARNING, "libcow: preimage_limit reached, no spill_directory was "
					 "given: writers wait for snapshots to be freed");
	else
		log_message(LOG_WARNING,
			    "libcow: preimage_limit reached, spilling failed: %s: writers wait for "
			    "snapshots to be freed",
			    strerror(-why));
}

static void report_dropped(struct cow_region *region)
{
	uint64_t dropped = atomic_load(&region->dropped_snapshots);
	uint64_t said = atomic_load(&region->dropped_said);

	if (dropped == said || dropped < 2 * said || !log_is_heard() ||
	    !atomic_compare_exchange_strong(&region->dropped_said, &said, dropped))
		return;
	log_message(LOG_WARNING,
		    "libcow: preimage_limit reached, %" PRIu64 " of the oldest snapshots given up: "
		    "free snapshots sooner, raise the limit, or use COW_LIMIT_SPILL",
		    dropped);
}

void limit_report(struct cow_region *region)
{
	report_no_room(region);
	report_dropped(region);
}

/* Until something is given back, or it is time to look again. A handler thread, whom other writers
 * need, may not wait: -EBUSY. */
static int wait_a_moment(struct space *space, uint32_t freed, bool may_wait)
{
	if (!may_wait)
		return -EBUSY;
	host_wait(&space->freed, freed, host_now() + LOOK_AGAIN_NS);
	return 0;
}

/* 1: something was given back already, or has been waited for that is only waiting for readers to
 * look away; 0: nothing is on its way; or -EBUSY. */
static int is_coming_free(struct space *space, uint32_t freed, bool may_wait)
{
	bool pending;

	lock_take(&space->lock);
	space_reclaim(space, 64);
	pending = space->dying || space->retired[0] || space->retired[1] || space->retired[2];
	lock_drop(&space->lock);
	if (atomic_load(&space->freed) != freed)
		return 1;
	if (!pending)
		return 0;
	return wait_a_moment(space, freed, may_wait) ?: 1;
}

static int wait_for_room(struct cow_region *region, uint32_t freed, bool may_wait,
			 uint64_t *deadline_ns)
{
	struct space *space = &region->space;
	uint64_t now = host_now();
	int r = 0;

	if (*deadline_ns == 0)
		*deadline_ns = now + region->limit_timeout_ns < now ?
				       UINT64_MAX :
				       now + region->limit_timeout_ns;
	if (now >= *deadline_ns)
		return -EAGAIN;
	atomic_fetch_add(&space->freed_waiters, 1);
	while (r == 0 && atomic_load(&space->freed) == freed && host_now() < *deadline_ns) {
		r = wait_a_moment(space, freed, may_wait);
		lock_take(&space->lock);
		space_reclaim(space, 64);
		lock_drop(&space->lock);
	}
	atomic_fetch_sub(&space->freed_waiters, 1);
	return atomic_load(&space->freed) != freed ? 0 : r;
}

static int spill_room(struct cow_region *region)
{
	int moved;

	if (!region->spill) {
		atomic_store(&region->no_room, NO_DIRECTORY);
		return -ENOENT;
	}
	moved = spill_some(region->spill, &region->space);
	if (moved < 0)
		atomic_store(&region->no_room, moved);
	return moved > 0 ? 0 : -ENOSPC;
}

#define SHORTAGE_NS 20000000ull

/* The system has no memory: it may have some in a moment. */
static int wait_out_shortage(struct space *space, uint32_t freed, bool may_wait,
			     uint64_t *deadline_ns)
{
	if (*deadline_ns == 0)
		*deadline_ns = host_now() + SHORTAGE_NS;
	if (host_now() >= *deadline_ns)
		return -EAGAIN;
	return wait_a_moment(space, freed, may_wait);
}

static int make_room(struct cow_region *region, uint32_t freed, bool may_wait,
		     uint64_t *deadline_ns)
{
	int coming, r;

	if (region->space.pool.limit == 0)
		return -ENOMEM; /* not the limit: the system has no memory */
	coming = is_coming_free(&region->space, freed, may_wait);
	if (coming != 0)
		return coming < 0 ? coming : 0;
	switch (region->limit_policy) {
	case COW_LIMIT_DROP:
		r = drop_one(region) ? 0 : -EAGAIN;
		limit_report(region);
		return r;
	case COW_LIMIT_SPILL:
		if (spill_room(region) == 0)
			return 0;
		limit_report(region);
		break;
	case COW_LIMIT_BLOCK:
		break;
	}
	return wait_for_room(region, freed, may_wait, deadline_ns);
}

int limit_make_room(struct cow_region *region, uint32_t freed, uint64_t *deadline_ns)
{
	return make_room(region, freed, true, deadline_ns);
}

int limit_make_room_trapped(void *context, uint32_t freed, bool may_wait, uint64_t *deadline_ns)
{
	struct cow_region *region = context;
	int r;

	log_mute(true);
	r = make_room(region, freed, may_wait, deadline_ns);
	if (r == -ENOMEM)
		r = wait_out_shortage(&region->space, freed, may_wait, deadline_ns);
	if (r == -EAGAIN && (drop_one(region) || drop_pinned(region)))
		r = 0;
	log_mute(false);
	return r;
}
