/* SPDX-License-Identifier: MIT */
#include "lib/bypass.h"
#include "lib/spill.h"

static void add_counters(struct space *space, struct cow_region_stats *stats)
{
	for (unsigned i = 0; i < HOST_SHARDS; i++) {
		const struct space_counters *c = &space->counters[i];

		stats->copied_pages += atomic_load_explicit(&c->copied, memory_order_relaxed);
		stats->reused_pages += atomic_load_explicit(&c->reused, memory_order_relaxed);
		stats->filled_pages += atomic_load_explicit(&c->filled, memory_order_relaxed);
	}
	stats->faults = stats->copied_pages + stats->reused_pages + stats->filled_pages;
	stats->present_pages = (uint64_t)space_count_present(space);
}

/* What the pool holds besides page contents: chunk headers, versions, buckets. */
static void add_memory(struct space *space, struct cow_region_stats *stats)
{
	size_t page_size = space_page_size(space);
	size_t slab_frames, frames;

	lock_take(&space->lock);
	slab_frames = space->versions.slabs + space->buckets.slabs;
	frames = space->pool.used_frames - slab_frames;
	stats->preimage_bytes = frames * page_size;
	stats->pool_bytes = space->pool.idle_frames * page_size;
	stats->metadata_bytes = space->pool.committed - stats->preimage_bytes - stats->pool_bytes;
	stats->spilled_bytes = space->spilled_slots * page_size;
	stats->snapshots = space->snap_count;
	stats->open_pages = space_count_opened(space) - space->opened_at_cut;
	lock_drop(&space->lock);
	stats->metadata_bytes += table_bytes(&space->table) + sizeof(struct cow_region) +
				 stats->snapshots * sizeof(struct cow_snapshot);
}

int cow_region_get_stats(struct cow_region *region, struct cow_region_stats *ret_stats)
{
	struct cow_region_stats stats = COW_REGION_STATS_INIT;
	size_t room;
	int r;

	r = check_region(region);
	if (r < 0)
		return r;
	r = stats_room(ret_stats, sizeof(stats), sizeof(stats), &room);
	if (r < 0)
		return r;
	stats.trap = region->trap_kind;
	stats.page_size = (uint32_t)space_page_size(&region->space);
	stats.pages = region->space.pages;
	add_counters(&region->space, &stats);
	add_memory(&region->space, &stats);
	stats.spilled_pages = region->spill ? spill_count(region->spill) : 0;
	stats.view_bytes = atomic_load(&region->view_bytes);
	stats.dropped_snapshots = atomic_load(&region->dropped_snapshots);
	stats.cut_ns_last = atomic_load(&region->cut_ns_last);
	stats.cut_ns_max = atomic_load(&region->cut_ns_max);
	stats.fault_ns_p50 = histogram_quantile(&region->fault_ns, 0.5);
	stats.fault_ns_p99 = histogram_quantile(&region->fault_ns, 0.99);
	stats.fault_ns_max = atomic_load(&region->fault_ns.max);
	stats.bypassed_pages = bypass_count(region->bypass);
	stats.size = room;
	memcpy(ret_stats, &stats, room);
	return 0;
}
