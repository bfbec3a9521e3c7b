/* SPDX-License-Identifier: MIT */
/*
 * What a back end with a trap needs beside fault(): to arm open pages ahead of a cut, and to make
 * known what was written before anything trapped. Called inside the gate.
 */
#include <errno.h>

#include "core/space.h"

bool space_claim_open(struct space *space, uint64_t page)
{
	struct entry *entry = table_find(&space->table, page);
	uint64_t epoch = atomic_load_explicit(&space->epoch, memory_order_relaxed);
	uint64_t open = state_make(epoch, PAGE_PRESENT);

	STEP("arm: claim");
	return entry &&
	       atomic_compare_exchange_strong_explicit(&entry->state, &open, open | PAGE_BUSY,
						       memory_order_acq_rel, memory_order_relaxed);
}

void space_settle(struct space *space, uint64_t page, bool armed)
{
	uint64_t epoch = atomic_load_explicit(&space->epoch, memory_order_relaxed);

	settle(table_find(&space->table, page),
	       state_make(epoch, PAGE_PRESENT | (armed ? PAGE_ARMED : 0)));
}

int space_discover(struct space *space, uint64_t page, bool armed)
{
	uint64_t epoch = atomic_load_explicit(&space->epoch, memory_order_relaxed);
	struct entry *entry = table_touch(&space->table, page, epoch);
	uint64_t untouched = 0;

	if (!entry)
		return -ENOMEM;
	if (!atomic_compare_exchange_strong_explicit(
		    &entry->state, &untouched,
		    state_make(epoch, PAGE_PRESENT | (armed ? PAGE_ARMED : 0)),
		    memory_order_acq_rel, memory_order_relaxed))
		return 0;
	count(&space_counters(space)->opened);
	atomic_fetch_add_explicit(&space_counters(space)->present, 1, memory_order_relaxed);
	return 1;
}
