/* SPDX-License-Identifier: MIT */
/*
 * Snapshots as objects: references, reading, branching. What a snapshot is made of stands in
 * core/dup.c.
 */
#include "lib/internal.h"
#include "lib/process.h"
#include "mmu/registry.h"

struct cow_snapshot *snapshot_make(struct cow_region *region)
{
	struct cow_snapshot *snapshot = sys_alloc(sizeof(*snapshot));

	if (!snapshot)
		return NULL;
	atomic_init(&snapshot->refs, 1);
	pthread_mutex_init(&snapshot->view_mutex, NULL);
	snapshot->image = -1;
	snapshot->region = region_get(region);
	return snapshot;
}

void snapshot_discard(struct cow_snapshot *snapshot)
{
	region_put(snapshot->region);
	pthread_mutex_destroy(&snapshot->view_mutex);
	sys_free(snapshot);
}

struct cow_snapshot *cow_snapshot_ref(struct cow_snapshot *snapshot)
{
	if (snapshot)
		atomic_fetch_add(&snapshot->refs, 1);
	return snapshot;
}

/* Fails where the last reference is being dropped already. */
bool snapshot_try_get(struct cow_snapshot *snapshot)
{
	uint32_t refs = atomic_load(&snapshot->refs);

	while (refs != 0)
		if (atomic_compare_exchange_weak(&snapshot->refs, &refs, refs + 1))
			return true;
	return false;
}

int snapshot_pin(struct cow_snapshot *snapshot)
{
	uint32_t pins = atomic_load(&snapshot->pins);

	do {
		if (pins & SNAPSHOT_DROPPED)
			return -ESTALE;
	} while (!atomic_compare_exchange_weak(&snapshot->pins, &pins, pins + 1));
	return 0;
}

void snapshot_unpin(struct cow_snapshot *snapshot)
{
	atomic_fetch_sub(&snapshot->pins, 1);
}

/* Two threads may have taken the same one, each with a reference: it is in the list once. */
void snapshot_unref_later(struct cow_snapshot *snapshot)
{
	struct cow_region *region = snapshot->region;

	if (atomic_fetch_add(&snapshot->due, 1) > 0)
		return;
	snapshot->later = atomic_load(&region->later);
	while (!atomic_compare_exchange_weak(&region->later, &snapshot->later, snapshot))
		;
}

void snapshot_unref_due(struct cow_region *region)
{
	struct cow_snapshot *snapshot = atomic_exchange(&region->later, NULL);

	while (snapshot) {
		/* From the exchange on it may be in the list anew. */
		struct cow_snapshot *next = snapshot->later;

		for (uint32_t due = atomic_exchange(&snapshot->due, 0); due > 0; due--)
			cow_snapshot_unref(snapshot);
		snapshot = next;
	}
}

struct cow_region *snapshot_drop(struct cow_snapshot *snapshot)
{
	struct cow_region *region = snapshot->region;
	struct backing *backing;

	if (atomic_fetch_sub(&snapshot->refs, 1) != 1)
		return NULL;
	view_free(snapshot->view);
	sys_close(snapshot->image);
	dup_release(&region->space, &snapshot->snap);
	backing = atomic_load(&snapshot->snap.backing);
	if (backing)
		backing->put(backing);
	pthread_mutex_destroy(&snapshot->view_mutex);
	sys_free(snapshot);
	return region;
}

struct cow_snapshot *cow_snapshot_unref(struct cow_snapshot *snapshot)
{
	if (check_snapshot(snapshot) == 0)
		region_put(snapshot_drop(snapshot));
	return NULL;
}

size_t cow_snapshot_get_length(const struct cow_snapshot *snapshot)
{
	return snapshot ? snapshot->region->length : 0;
}

/* Where stores trap, the buffer may be in a region: then the copy goes by a page that is not, since
 * a trap inside a grace section could wait for that very section to end. */
static int read_piece(struct snap *snap, uint64_t page, size_t at, unsigned char *buffer,
		      size_t length)
{
	unsigned char bounce[4096];
	int r = 0;

	if (!registry_has_traps())
		return snap_read(snap, page, at, buffer, length);
	for (size_t done = 0; r == 0 && done < length;) {
		size_t piece = length - done < sizeof(bounce) ? length - done : sizeof(bounce);

		r = snap_read(snap, page, at + done, bounce, piece);
		if (r == 0)
			memcpy(buffer + done, bounce, piece);
		done += piece;
	}
	return r;
}

int cow_snapshot_read(struct cow_snapshot *snapshot, size_t offset, void *buffer, size_t length)
{
	unsigned shift;
	int r;

	r = check_snapshot(snapshot);
	if (r < 0)
		return r;
	if (!buffer && length > 0)
		return -EINVAL;
	r = check_range(snapshot->region->length, offset, length);
	shift = snapshot->region->space.page_shift;
	for (size_t done = 0; r == 0 && done < length;) {
		size_t page_size = (size_t)1 << shift;
		size_t at = (offset + done) & (page_size - 1);
		size_t piece = page_size - at < length - done ? page_size - at : length - done;

		r = read_piece(&snapshot->snap, (offset + done) >> shift, at,
			       (unsigned char *)buffer + done, piece);
		done += piece;
	}
	return r;
}

int cow_snapshot_branch(struct cow_snapshot *snapshot, const struct cow_region_options *options,
			struct cow_region **ret_region)
{
	int r;

	r = check_snapshot(snapshot);
	if (r < 0)
		return r;
	r = snapshot_pin(snapshot);
	if (r < 0)
		return r;
	r = region_make(snapshot->region->length, options,
			(struct region_base){ .source = snapshot }, ret_region);
	snapshot_unpin(snapshot); /* the branch has its own */
	return r;
}

int cow_snapshot_get_stats(struct cow_snapshot *snapshot, struct cow_snapshot_stats *ret_stats)
{
	struct cow_snapshot_stats stats = COW_SNAPSHOT_STATS_INIT;
	uint64_t private_pages, read_pages;
	size_t page_size, room;
	int r;

	r = check_snapshot(snapshot);
	if (r < 0)
		return r;
	r = stats_room(ret_stats, sizeof(stats), sizeof(stats), &room);
	if (r < 0)
		return r;
	page_size = space_page_size(&snapshot->region->space);
	private_pages = snap_private_pages(&snapshot->snap);
	read_pages = snapshot->snap.present_pages;
	stats.time_ns = snapshot->time_ns;
	stats.length = snapshot->region->length;
	stats.private_bytes = private_pages * page_size;
	stats.shared_bytes = (read_pages > private_pages ? read_pages - private_pages : 0) *
			     page_size;
	stats.dropped = atomic_load(&snapshot->snap.dropped) != 0;
	stats.branches = atomic_load(&snapshot->branches);
	pthread_mutex_lock(&snapshot->view_mutex);
	stats.view_bytes = snapshot->view ? snapshot->region->length : 0;
	pthread_mutex_unlock(&snapshot->view_mutex);
	if (stats.dropped || atomic_load(&snapshot->snap.backing))
		stats.shared_bytes = stats.private_bytes = 0;
	stats.size = room;
	memcpy(ret_stats, &stats, room);
	return 0;
}
