/* SPDX-License-Identifier: MIT */
/*
 * The cut: one moment at which no bracket is open on any of the regions.
 *
 * Gates are sealed together, after they have drained; what can fail or take time (memory for the
 * snapshots, waiting) comes before. While they are sealed nothing is called but dup_space(), which
 * takes the space's lock and no other. With a trap, signals are blocked: a handler that writes into
 * the region would wait for the thread that it interrupted. No handler may open a bracket, so
 * without one there is nothing to block.
 *
 * Why the cut is consistent across threads: all stores of a bracket come before its leave, which
 * the drain sees; a bracket that begins later waits at the gate until the new epoch is published.
 * So what one thread wrote after it saw another thread's bracketed write is in the snapshot only if
 * that is, too.
 */
#include "lib/helper.h"
#include "lib/bypass.h"

static void order_by_address(struct cow_region *regions[], size_t count)
{
	for (size_t i = 1; i < count; i++) {
		struct cow_region *region = regions[i];
		size_t at = i;

		for (; at > 0 && (uintptr_t)regions[at - 1] > (uintptr_t)region; at--)
			regions[at] = regions[at - 1];
		regions[at] = region;
	}
}

static uint64_t longest_timeout(struct cow_region *const regions[], size_t count)
{
	uint64_t longest = 0;

	for (size_t i = 0; i < count; i++)
		if (regions[i]->cut_timeout_ns > longest)
			longest = regions[i]->cut_timeout_ns;
	return longest;
}

static uint64_t deadline_after(uint64_t timeout_ns)
{
	uint64_t now = host_now();

	return now + timeout_ns < now ? UINT64_MAX : now + timeout_ns;
}

static bool drain_all(struct cow_region *const regions[], size_t count, uint64_t deadline_ns)
{
	for (size_t i = 0; i < count; i++)
		if (!gate_drain(&regions[i]->space.gate, deadline_ns))
			return false;
	return true;
}

static bool seal_all(struct cow_region *const regions[], size_t count)
{
	bool sealed = true;

	for (size_t i = 0; i < count; i++)
		sealed &= gate_seal(&regions[i]->space.gate);
	for (size_t i = 0; !sealed && i < count; i++)
		gate_unseal(&regions[i]->space.gate);
	return sealed;
}

/* Mostly nobody is inside. After the deadline they are looked at once more: the machine may have
 * stood still, and the writers with it. */
static int close_gates(struct cow_region *const regions[], size_t count)
{
	uint64_t deadline_ns = 0;

	while (!seal_all(regions, count)) {
		if (deadline_ns != 0 && host_now() >= deadline_ns)
			return -ETIMEDOUT;
		if (deadline_ns == 0)
			deadline_ns = deadline_after(longest_timeout(regions, count));
		(void)drain_all(regions, count, deadline_ns);
	}
	return 0;
}

static void open_gates(struct cow_region *const regions[], size_t count)
{
	for (size_t i = 0; i < count; i++)
		gate_open(&regions[i]->space.gate);
}

static void note_duration(struct cow_region *const regions[], size_t count, uint64_t ns)
{
	for (size_t i = 0; i < count; i++) {
		atomic_store(&regions[i]->cut_ns_last, ns);
		if (ns > atomic_load(&regions[i]->cut_ns_max))
			atomic_store(&regions[i]->cut_ns_max, ns);
	}
}

static bool any_traps(struct cow_region *const regions[], size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (regions[i]->trap)
			return true;
	return false;
}

/* regions are in order of their addresses, snapshots[i] is regions[i]'s; the cut mutexes are
 * held. */
static int cut(struct cow_region *const regions[], size_t count, struct cow_snapshot *snapshots[])
{
	uint64_t start = host_now(), time_ns = sys_realtime_ns();
	bool blocked = any_traps(regions, count);
	sigset_t before;
	size_t done = 0;
	int r;

	if (blocked)
		sys_signals_block(&before);
	r = close_gates(regions, count);
	for (size_t i = 0; r == 0 && i < count; i++) {
		r = dup_space(&regions[i]->space, &snapshots[i]->snap);
		snapshots[i]->time_ns = time_ns;
		done += r == 0;
	}
	for (size_t i = 0; r < 0 && i < done; i++)
		dup_release(&regions[i]->space, &snapshots[i]->snap);
	open_gates(regions, count);
	if (blocked)
		sys_signals_restore(&before);
	if (r == 0)
		note_duration(regions, count, host_now() - start);
	return r;
}

int cut_end_epoch(struct cow_region *region)
{
	sigset_t before;
	int r = -EBUSY;

	sys_signals_block(&before);
	if (gate_seal(&region->space.gate))
		r = dup_nothing(&region->space);
	gate_open(&region->space.gate);
	sys_signals_restore(&before);
	return r;
}

/* Where pages have to be armed, as many as possible are before the gates close. */
static int arm_ahead(struct cow_region *const regions[], size_t count)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < count; i++) {
		if (!regions[i]->trap)
			continue;
		(void)helper_add(regions[i]);
		r = trap_prepare_cut(regions[i]->trap);
	}
	return r;
}

int cut_regions(struct cow_region *const regions[], size_t count, struct cow_snapshot *snapshots[])
{
	int r;

	for (size_t i = 0; i < count; i++)
		pthread_mutex_lock(&regions[i]->cut_mutex);
	r = arm_ahead(regions, count);
	if (r == 0)
		r = cut(regions, count, snapshots);
	for (size_t i = count; i-- > 0;)
		pthread_mutex_unlock(&regions[i]->cut_mutex);
	for (size_t i = 0; i < count; i++) {
		if (r == 0 && regions[i]->trap && regions[i]->trap->ahead)
			helper_wake(regions[i], HELP_COPIES);
		snapshot_unref_due(regions[i]);
		bypass_report(regions[i]->bypass);
		limit_report(regions[i]);
	}
	return r;
}

static int make_snapshots(struct cow_region *const regions[], size_t count,
			  struct cow_snapshot *snapshots[])
{
	for (size_t i = 0; i < count; i++) {
		snapshots[i] = snapshot_make(regions[i]);
		if (snapshots[i])
			continue;
		while (i-- > 0)
			snapshot_discard(snapshots[i]);
		return -ENOMEM;
	}
	return 0;
}

static int check_cut(struct cow_region *const regions[], size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int r = check_region(regions[i]);

		if (r < 0)
			return r;
		if (bracket_is_held(regions[i]))
			return -EDEADLK;
	}
	return 0;
}

int cow_region_snapshot(struct cow_region *region, struct cow_snapshot **ret_snapshot)
{
	struct cow_snapshot *snapshot;
	int r;

	if (!ret_snapshot)
		return -EINVAL;
	r = check_cut(&region, 1);
	if (r < 0)
		return r;
	r = make_snapshots(&region, 1, &snapshot);
	if (r < 0)
		return r;
	r = cut_regions(&region, 1, &snapshot);
	if (r < 0) {
		snapshot_discard(snapshot);
		return r;
	}
	*ret_snapshot = snapshot;
	return 0;
}

static struct cow_snapshot *snapshot_of(struct cow_snapshot *const snapshots[], size_t count,
					const struct cow_region *region)
{
	for (size_t i = 0; i < count; i++)
		if (snapshots[i]->region == region)
			return snapshots[i];
	return NULL;
}

static bool has_twins(struct cow_region *const ordered[], size_t count)
{
	for (size_t i = 1; i < count; i++)
		if (ordered[i] == ordered[i - 1])
			return true;
	return false;
}

int cow_region_snapshot_many(struct cow_region *const regions[], size_t count,
			     struct cow_snapshot *ret_snapshots[])
{
	struct cow_region *ordered[COW_SNAPSHOT_MANY_MAX];
	struct cow_snapshot *snapshots[COW_SNAPSHOT_MANY_MAX];
	int r;

	if (!regions || !ret_snapshots || count == 0 || count > COW_SNAPSHOT_MANY_MAX)
		return -EINVAL;
	r = check_cut(regions, count);
	if (r < 0)
		return r;
	memcpy(ordered, regions, count * sizeof(ordered[0]));
	order_by_address(ordered, count);
	if (has_twins(ordered, count))
		return -EINVAL;
	r = make_snapshots(ordered, count, snapshots);
	if (r < 0)
		return r;
	r = cut_regions(ordered, count, snapshots);
	for (size_t i = 0; i < count; i++) {
		if (r < 0)
			snapshot_discard(snapshots[i]);
		else
			ret_snapshots[i] = snapshot_of(snapshots, count, regions[i]);
	}
	return r;
}
