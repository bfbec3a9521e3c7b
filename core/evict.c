/* SPDX-License-Identifier: MIT */
/*
 * Moving kept contents out of memory. The caller writes them somewhere between begin and end,
 * without a lock; meanwhile the frames are held, whatever becomes of their versions.
 *
 * Readers that found a frame before the version pointed elsewhere may still be copying it, so its
 * memory is let go only after a grace period: evict_end() waits for it, for as long as a reader
 * copies one page.
 */
#include "core/space.h"

unsigned evict_begin(struct space *space, struct eviction evictions[], unsigned most)
{
	unsigned chosen = 0;

	lock_take(&space->lock);
	while (chosen < most) {
		void *frame;

		if (pool_select(&space->pool, &frame, 1) == 0)
			break;
		evictions[chosen++] = (struct eviction){
			.frame = frame,
			.version = frame_descriptor(&space->pool, frame)->version,
		};
	}
	lock_drop(&space->lock);
	return chosen;
}

/* Locked. Whether the version still is what it was when it was chosen. */
static bool move_content(struct space *space, const struct eviction *eviction, uint64_t slot)
{
	struct frame *frame = frame_descriptor(&space->pool, eviction->frame);

	if (frame->version != eviction->version && !MUTANT("evict-no-recheck")) {
		space->spill->free(space->spill_context, slot);
		return false;
	}
	frame->version = NULL;
	atomic_store_explicit(&eviction->version->content, content_make(CONTENT_SPILLED, slot),
			      memory_order_release);
	frame_put(&space->pool, eviction->frame); /* the version's reference, not the last one */
	space->kept_frames--;
	space->spilled_slots++;
	return true;
}

void wait_for_readers(struct space *space)
{
	uint64_t target = atomic_load(&space->grace.generation) + 2;

	while (atomic_load(&space->grace.generation) < target) {
		space_reclaim(space, 0);
		if (atomic_load(&space->grace.generation) >= target || grace_advance(&space->grace))
			continue;
		lock_drop(&space->lock);
		host_pause();
		STEP("evict: wait");
		lock_take(&space->lock);
	}
}

/* Locked. A frame of which ours is the last reference was read by version a moment ago. */
static bool any_is_last(struct space *space, const struct eviction evictions[], unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (frame_descriptor(&space->pool, evictions[i].frame)->refs == 1)
			return true;
	return false;
}

unsigned evict_end(struct space *space, struct eviction evictions[], const uint64_t *slots,
		   unsigned count)
{
	unsigned moved = 0;

	lock_take(&space->lock);
	for (unsigned i = 0; slots && i < count; i++)
		moved += move_content(space, &evictions[i], slots[i]);
	if (any_is_last(space, evictions, count) && !MUTANT("evict-no-wait"))
		wait_for_readers(space);
	for (unsigned i = 0; i < count; i++) {
		frame_descriptor(&space->pool, evictions[i].frame)->flags &= (uint16_t)~FRAME_HELD;
		frame_put(&space->pool, evictions[i].frame);
	}
	note_freed(space); /* who found no frame meanwhile need not wait for the next unref */
	lock_drop(&space->lock);
	return moved;
}

bool evict_share(struct space *space, const struct eviction *eviction, const struct eviction *equal)
{
	struct frame *frame, *target;
	bool shared = false;

	lock_take(&space->lock);
	frame = frame_descriptor(&space->pool, eviction->frame);
	target = frame_descriptor(&space->pool, equal->frame);
	if ((frame->version == eviction->version || MUTANT("share-no-recheck")) &&
	    target->refs > 1) {
		frame->version = NULL;
		target->version =
			NULL; /* more than one now: it can no longer be found by its frame */
		frame_get(&space->pool, equal->frame);
		atomic_store_explicit(&eviction->version->content,
				      content_make(CONTENT_FRAME, (uintptr_t)equal->frame),
				      memory_order_release);
		frame_put(&space->pool, eviction->frame);
		shared = true;
	}
	lock_drop(&space->lock);
	return shared;
}
