/* SPDX-License-Identifier: MIT */
/*
 * What a back end with a trap needs beside fault(): to arm open pages ahead of a cut, to make known
 * what was written before anything trapped, and to tell what was opened in vain. Called inside the
 * gate.
 */
#include <errno.h>

#include "core/copy.h"
#include "core/space.h"

bool space_claim_open(struct space *space, uint64_t page)
{
	struct entry *entry = table_find(&space->table, page);
	uint64_t epoch = atomic_load_explicit(&space->epoch, memory_order_relaxed);
	uint64_t open = state_make(epoch, PAGE_PRESENT);

	STEP("arm: claim");
	if (MUTANT("arm-unclaimed"))
		return entry && atomic_load(&entry->state) == open;
	return entry &&
	       atomic_compare_exchange_strong_explicit(&entry->state, &open, open | PAGE_BUSY,
						       memory_order_acq_rel, memory_order_relaxed);
}

void space_settle(struct space *space, uint64_t page, bool armed)
{
	uint64_t epoch = atomic_load_explicit(&space->epoch, memory_order_relaxed);

	settle(table_find(&space->table, page),
	       state_make(epoch,
			  PAGE_PRESENT | (armed && !MUTANT("armed-unsaid") ? PAGE_ARMED : 0)));
}

uint64_t space_claim_armed(struct space *space, uint64_t page)
{
	struct entry *entry = table_find(&space->table, page);
	uint64_t epoch = atomic_load_explicit(&space->epoch, memory_order_relaxed);
	uint64_t state = entry ? atomic_load_explicit(&entry->state, memory_order_acquire) : 0;
	bool armed = state_epoch(state) < epoch || (state & PAGE_ARMED);

	if (!armed || (state & (PAGE_BUSY | PAGE_PRESENT)) != PAGE_PRESENT)
		return 0;
	STEP("arm: claim a gap");
	return atomic_compare_exchange_strong_explicit(&entry->state, &state, state | PAGE_BUSY,
						       memory_order_acq_rel, memory_order_relaxed) ?
		       state :
		       0;
}

void space_let_go(struct space *space, uint64_t page, uint64_t state)
{
	settle(table_find(&space->table, page), state);
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

static bool equals_newest(struct space *space, uint64_t page, struct entry *entry)
{
	struct grace_section section = grace_enter(&space->grace);
	const struct version *version = atomic_load_explicit(&entry->versions,
							     memory_order_acquire);
	uintptr_t content = version ?
				    atomic_load_explicit(&version->content, memory_order_acquire) :
				    content_make(CONTENT_BASE, 0);
	bool equal = content_kind(content) == CONTENT_FRAME &&
		     equals_racing(space_page(space, page), content_frame(content),
				   space_page_size(space));

	grace_leave(section);
	return equal;
}

bool space_is_unchanged(struct space *space, uint64_t page)
{
	uint64_t state = space_claim_armed(space, page);
	bool equal;

	if (state == 0)
		return false;
	equal = equals_newest(space, page, table_find(&space->table, page));
	space_let_go(space, page, state);
	return equal;
}

bool space_is_unwritten(struct space *space, uint64_t page)
{
	struct entry *entry = table_find(&space->table, page);

	return entry && equals_newest(space, page, entry);
}

void space_give_up(struct space *space, uint64_t page)
{
	uint64_t epoch = atomic_load_explicit(&space->epoch, memory_order_relaxed);

	settle(table_find(&space->table, page), state_make(epoch, PAGE_PRESENT));
}
