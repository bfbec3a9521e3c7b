/* SPDX-License-Identifier: MIT */
#include <assert.h>

#include "core/space.h"

int space_init(struct space *space, const struct space_config *config)
{
	*space = (struct space){
		.page_shift = config->page_shift,
		.window = config->window,
		.pages = config->pages,
		.base = config->base,
		.source = config->source,
		.mmu = config->mmu,
		.spill = config->spill,
		.spill_context = config->spill_context,
		.block_pages = config->block_pages,
		.huge = config->huge,
	};
	atomic_init(&space->epoch, 1);
	pool_init(&space->pool, config->page_shift, config->limit, config->idle_limit);
	slab_cache_init(&space->versions, &space->pool, sizeof(struct version));
	slab_cache_init(&space->buckets, &space->pool, sizeof(struct bucket));
	if (config->base == BASE_WINDOW)
		atomic_init(&space->counters[0].present, (int64_t)config->pages);
	return table_init(&space->table, config->pages);
}

void space_destroy(struct space *space)
{
	assert(!space->oldest_snap);
	table_destroy(&space->table);
	pool_destroy(&space->pool);
}

/* --- what must hold whenever no other thread is inside; for tests --- */

struct validation {
	struct space *space;
	uint64_t frames, spilled, versions;
};

static void validate_version(struct validation *v, const struct version *version)
{
	uintptr_t content = atomic_load(&version->content);

	v->versions++;
	if (content_kind(content) == CONTENT_FRAME) {
		const struct frame *frame = frame_descriptor(&v->space->pool,
							     content_frame(content));

		assert(frame->refs >= 1);
		assert(frame->refs > 1 || !frame->version || frame->version == version);
		v->frames++;
	}
	v->spilled += content_kind(content) == CONTENT_SPILLED;
}

static int validate_entry(uint64_t page, struct entry *entry, void *context)
{
	struct validation *v = context;
	uint64_t state = atomic_load(&entry->state);
	uint64_t above = state_epoch(state);
	_Atomic(struct version *) *link = &entry->versions;
	struct version *version;

	assert(page < v->space->pages);
	assert(!(state & (PAGE_BUSY | PAGE_WAITED)));
	assert(state_epoch(state) <= atomic_load(&v->space->epoch));
	for (version = atomic_load(link); version; version = atomic_load(link)) {
		assert(version->link == link);
		assert(version->from < above); /* spans do not overlap */
		above = version->from;
		validate_version(v, version);
		link = &version->older;
	}
	return 0;
}

static uint64_t validate_heap(const struct bucket *bucket, uint64_t above)
{
	uint64_t versions = 0;

	for (; bucket; bucket = bucket->next) {
		assert(bucket->from <= above);
		for (const struct version *v = bucket->versions; v; v = v->sibling) {
			assert(v->from == bucket->from);
			versions++;
		}
		versions += validate_heap(bucket->child, bucket->from);
	}
	return versions;
}

static uint64_t validate_snaps(struct space *space)
{
	uint64_t versions = 0, snaps = 0, epoch = 0;
	struct snap *before = NULL;

	for (struct snap *snap = space->oldest_snap; snap; snap = snap->newer) {
		assert(snap->linked && snap->older == before && snap->epoch > epoch);
		assert(!snap->heap || !snap->heap->next);
		/* Whatever a snapshot holds, it reads itself. */
		versions += validate_heap(snap->heap, snap->epoch);
		epoch = snap->epoch;
		before = snap;
		snaps++;
	}
	assert(before == space->newest_snap && snaps == space->snap_count);
	assert(atomic_load(&space->newest) == (before ? before->epoch : 0));
	for (const struct bucket *b = space->dying; b; b = b->next)
		for (const struct version *v = b->versions; v; v = v->sibling)
			versions++;
	return versions;
}

void space_validate(struct space *space)
{
	struct validation v = { .space = space };

	/* A handler thread may not be quite done with a page whose writer goes on already. */
	for (unsigned i = 0; i < HOST_SHARDS; i++)
		while (atomic_load(&space->gate.shards[i].inside) != 0)
			host_pause();
	lock_take(&space->lock);
	pool_validate(&space->pool);
	table_walk(&space->table, 0, space->pages, 0, validate_entry, &v);
	/* Every version in a chain belongs to exactly one snapshot, and the other way round. */
	assert(validate_snaps(space) == v.versions);
	for (unsigned i = 0; i < 3; i++)
		for (const struct version *r = space->retired[i]; r; r = r->sibling) {
			uintptr_t content = atomic_load(&r->content);

			v.frames += content_kind(content) == CONTENT_FRAME;
			v.spilled += content_kind(content) == CONTENT_SPILLED;
		}
	assert(v.frames == space->kept_frames);
	assert(v.spilled == space->spilled_slots);
	lock_drop(&space->lock);
}
