/* SPDX-License-Identifier: MIT */
/*
 * Duplication, as in fork: share everything, protect both sides, flush; and what drops the shares
 * again.
 *
 * The duplicate is read-only, so its side needs no protection; the live side is protected page by
 * page where a trap needs it, and as a whole by the new epoch. Nothing here grows with the number
 * of snapshots.
 */
#include <assert.h>

#include "core/space.h"

/* Most versions or buckets dealt with under the lock at a time. */
#define RELEASE_BATCH 64u

static int protect_page(uint64_t page, struct entry *entry, void *context)
{
	struct space *space = context;

	(void)entry;
	STEP("dup: protect");
	space->mmu->ops->protect(space->mmu, page);
	return 0;
}

static int protect_open_pages(struct space *space, uint64_t epoch)
{
	const struct mmu_ops *ops = space->mmu->ops;

	if (ops->protect_open)
		return ops->protect_open(space->mmu);
	if (MUTANT("flush-before-protect") && ops->flush)
		ops->flush(space->mmu);
	if (ops->protect && !MUTANT("no-protect"))
		table_walk(&space->table, 0, space->pages, epoch - 1, protect_page, space);
	STEP("dup: flush");
	if (ops->flush && !MUTANT("no-flush") && !MUTANT("flush-before-protect"))
		ops->flush(space->mmu);
	return 0;
}

int64_t space_count_present(const struct space *space)
{
	int64_t sum = 0;

	for (unsigned i = 0; i < HOST_SHARDS; i++)
		sum += atomic_load_explicit(&space->counters[i].present, memory_order_relaxed);
	return sum;
}

uint64_t space_count_opened(const struct space *space)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < HOST_SHARDS; i++)
		sum += atomic_load_explicit(&space->counters[i].opened, memory_order_relaxed);
	return sum;
}

static void forget_recent(struct space *space)
{
	for (unsigned i = 0; i < RECENT_BUCKETS; i++)
		space->recent[i] = NULL;
}

/* Locked. */
static void newest_changed(struct space *space)
{
	if (!MUTANT("recent-not-forgotten"))
		forget_recent(space);
	if (!MUTANT("newest-not-published"))
		atomic_store(&space->newest, space->newest_snap ? space->newest_snap->epoch : 0);
}

int dup_space(struct space *space, struct snap *snap)
{
	uint64_t epoch = atomic_load_explicit(&space->epoch, memory_order_relaxed);
	int r = protect_open_pages(space, epoch);

	if (r < 0)
		return r;
	lock_take(&space->lock);
	*snap = (struct snap){
		.space = space,
		.epoch = epoch,
		.older = space->newest_snap,
		.present_pages = (uint64_t)space_count_present(space),
		.linked = true,
	};
	if (snap->older)
		snap->older->newer = snap;
	else
		space->oldest_snap = snap;
	space->newest_snap = snap;
	space->snap_count++;
	space->opened_at_cut = space_count_opened(space);
	newest_changed(space);
	lock_drop(&space->lock);
	STEP("dup: publish");
	atomic_store_explicit(&space->epoch, epoch + 1, memory_order_release);
	if (space->mmu->ops->keep_open && space->mmu->ops->keep_open(space->mmu) != 0)
		dup_drop(space, snap); /* no memory at all: its readers are told */
	return 0;
}

int dup_nothing(struct space *space)
{
	uint64_t epoch = atomic_load_explicit(&space->epoch, memory_order_relaxed);
	int r = protect_open_pages(space, epoch);

	if (r < 0)
		return r;
	lock_take(&space->lock);
	space->opened_at_cut = space_count_opened(space);
	lock_drop(&space->lock);
	atomic_store_explicit(&space->epoch, epoch + 1, memory_order_release);
	if (space->mmu->ops->keep_open)
		(void)space->mmu->ops->keep_open(space->mmu);
	return 0;
}

/* Locked. Whether the snapshot's topmost bucket is read by no older one. */
static bool has_private_bucket(const struct snap *snap)
{
	return snap->heap && (!snap->older || snap->heap->from > snap->older->epoch ||
			      MUTANT("release-ignores-older"));
}

/* Locked, but let go in between: there may be as many buckets as there were epochs. Takes a
 * snapshot out of the list; returns the buckets that only it needed, linked by next. What is
 * private to it stays so, whichever other snapshots go meanwhile. */
static struct bucket *unlink_snap(struct space *space, struct snap *snap)
{
	struct bucket *dead = NULL, *top;
	struct snap *older, *newer;

	if (!snap->linked)
		return NULL;
	for (unsigned popped = 1; has_private_bucket(snap); popped++) {
		snap->heap = heap_pop(snap->heap, &top);
		top->next = dead;
		dead = top;
		if (space->recent[top->from % RECENT_BUCKETS] == top)
			space->recent[top->from % RECENT_BUCKETS] = NULL;
		if (popped % RELEASE_BATCH == 0) {
			lock_drop(&space->lock);
			STEP("release: pop");
			lock_take(&space->lock);
		}
	}
	snap->linked = false;
	older = snap->older;
	newer = snap->newer;
	if (older) {
		older->heap = heap_meld(older->heap, snap->heap);
		older->newer = newer;
	} else {
		space->oldest_snap = newer;
	}
	snap->heap = NULL;
	if (newer)
		newer->older = older;
	else
		space->newest_snap = older;
	space->snap_count--;
	if (!newer)
		newest_changed(space);
	return dead;
}

/* Locked. From here on no new reader meets it. */
static void retire(struct space *space, struct version *version)
{
	uintptr_t content = atomic_load_explicit(&version->content, memory_order_relaxed);
	struct version **list = &space->retired[atomic_load(&space->grace.generation) % 3];

	version_unlink(version);
	STEP("retire: unlinked");
	if (content_kind(content) == CONTENT_FRAME) {
		struct frame *frame = frame_descriptor(&space->pool, content_frame(content));

		if (frame->version == version)
			frame->version = NULL;
	}
	version->sibling = *list;
	*list = version;
}

/* Locked. Retires up to *most versions of a list of buckets; what is left of the list is
 * returned. */
static struct bucket *retire_some(struct space *space, struct bucket *dead, unsigned *most)
{
	while (dead && *most > 0) {
		struct version *version = dead->versions;

		if (version) {
			dead->versions = version->sibling;
			retire(space, version);
			--*most;
		} else {
			struct bucket *next = dead->next;

			slab_free(&space->buckets, dead);
			dead = next;
		}
	}
	return dead;
}

/* Locked. */
static void recycle(struct space *space, struct version *version)
{
	uintptr_t content = atomic_load_explicit(&version->content, memory_order_relaxed);

	switch (content_kind(content)) {
	case CONTENT_FRAME:
		frame_put(&space->pool, content_frame(content));
		space->kept_frames--;
		break;
	case CONTENT_SPILLED:
		space->spill->free(space->spill_context, content_slot(content));
		space->spilled_slots--;
		break;
	case CONTENT_ZERO:
	case CONTENT_BASE:
		break;
	}
	slab_free(&space->versions, version);
}

void note_freed(struct space *space)
{
	atomic_fetch_add(&space->freed, 1);
	if (atomic_load(&space->freed_waiters) != 0)
		host_wake(&space->freed);
}

/* Locked. Frees what no reader can see any more. */
static void recycle_retired(struct space *space)
{
	for (unsigned rounds = 0; rounds < 2; rounds++) {
		struct version **past, *version;

		if (!space->retired[0] && !space->retired[1] && !space->retired[2])
			return;
		if (!grace_advance(&space->grace))
			return;
		/* Generation g - 2 is g + 1 modulo 3. */
		past = &space->retired[(atomic_load(&space->grace.generation) +
					(MUTANT("recycle-early") ? 2 : 1)) %
				       3];
		if (*past)
			note_freed(space);
		while ((version = *past)) {
			*past = version->sibling;
			recycle(space, version);
		}
	}
}

void space_reclaim(struct space *space, unsigned most)
{
	space->dying = retire_some(space, space->dying, &most);
	recycle_retired(space);
}

void dup_release(struct space *space, struct snap *snap)
{
	struct bucket *dead;

	STEP("release");
	lock_take(&space->lock);
	dead = unlink_snap(space, snap);
	while (dead) {
		unsigned most = RELEASE_BATCH;

		dead = retire_some(space, dead, &most);
		recycle_retired(space);
		if (dead) {
			lock_drop(&space->lock);
			STEP("release: between");
			lock_take(&space->lock);
		}
	}
	recycle_retired(space);
	lock_drop(&space->lock);
}

void dup_drop(struct space *space, struct snap *snap)
{
	struct bucket *dead, **end;

	if (!MUTANT("dropped-said-late"))
		atomic_fetch_or(&snap->dropped, SNAP_DROPPED);
	STEP("drop");
	lock_take(&space->lock);
	dead = unlink_snap(space, snap);
	for (end = &dead; *end; end = &(*end)->next)
		;
	*end = space->dying;
	space->dying = dead;
	lock_drop(&space->lock);
	STEP("drop: done");
	if (MUTANT("dropped-said-late"))
		atomic_fetch_or(&snap->dropped, SNAP_DROPPED);
}

/* Locked. The frames of the buckets above a floor, all of them where there is none. A heap's tops
 * are its highest: below one that is too low there is nothing. The walk goes down by child and on
 * by next; since a heap may be as deep as it has buckets, the way back is remembered in the last
 * sibling's next meanwhile. */
static uint64_t count_frames(struct bucket *bucket, bool has_floor, uint64_t floor)
{
	uint64_t frames = 0;

	while (bucket) {
		bool above = !has_floor || bucket->from > floor;
		struct bucket *last = above ? bucket->child : NULL;

		while (last && last->next && last->next != bucket)
			last = last->next;
		if (last && !last->next) { /* first time here */
			frames += bucket->frames;
			last->next = bucket;
			bucket = bucket->child;
			continue;
		}
		if (last)
			last->next = NULL; /* back from its children */
		else if (above)
			frames += bucket->frames;
		bucket = bucket->next;
	}
	return frames;
}

uint64_t snap_private_pages(struct snap *snap)
{
	struct space *space = snap->space;
	uint64_t frames = 0;

	lock_take(&space->lock);
	if (snap->linked)
		frames = count_frames(snap->heap, snap->older != NULL,
				      snap->older ? snap->older->epoch : 0);
	lock_drop(&space->lock);
	return frames;
}
