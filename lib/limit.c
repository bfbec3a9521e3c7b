/* SPDX-License-Identifier: MIT */
/*
 * What is done when a first write finds no frame: the policies of enum cow_limit_policy. Called
 * outside the gate and without a lock: it may wait, and tell the log.
 */
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
	if (dropped)
		log_message(LOG_WARNING,
			    "libcow: preimage_limit reached, the oldest snapshot was given up: "
			    "free snapshots sooner, raise the limit, or use COW_LIMIT_SPILL");
	return dropped;
}

static void say_once(struct cow_region *region, const char *what, int error)
{
	if (atomic_exchange(&region->block_said, 1) == 0)
		log_message(LOG_WARNING,
			    "libcow: preimage_limit reached%s%s%s: writers wait for snapshots "
			    "to be freed",
			    what, error ? ": " : "", error ? strerror(error) : "");
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
		say_once(region, ", no spill_directory was given", 0);
		return -ENOENT;
	}
	moved = spill_some(region->spill, &region->space);
	if (moved < 0)
		say_once(region, ", spilling failed", -moved);
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
	int coming;

	if (region->space.pool.limit == 0)
		return -ENOMEM; /* not the limit: the system has no memory */
	coming = is_coming_free(&region->space, freed, may_wait);
	if (coming != 0)
		return coming < 0 ? coming : 0;
	switch (region->limit_policy) {
	case COW_LIMIT_DROP:
		return drop_one(region) ? 0 : -EAGAIN;
	case COW_LIMIT_SPILL:
		if (spill_room(region) == 0)
			return 0;
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
