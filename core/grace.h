/* SPDX-License-Identifier: MIT */
/*
 * Grace periods: a version that was unlinked is recycled only when no reader can still see it.
 *
 * A reader is counted under the parity of the generation that it saw. The generation moves on only
 * to a parity under which nobody is counted, so a reader that is counted stops every second step.
 * What it can still meet was unlinked after it was counted, in generation g, say (unlinking and
 * steps exclude each other by the lock): g + 2 is two steps away, and the reader stops one of them,
 * whichever parity it has. So it need not look whether the generation has moved on before it was
 * counted; the parity only sees to it that new readers do not stop the step that waits for old
 * ones.
 *
 * "After it was counted" takes a full fence between the unlinking and the look at the counters: a
 * processor may hold the one back behind the other, also x86. The model checker, which knows no
 * store buffers, cannot tell.
 *
 * Readers never wait. A reader that sleeps inside only delays recycling; so a section covers the
 * look-up and the copy of one page, not a whole read.
 */
#ifndef COW_CORE_GRACE_H
#define COW_CORE_GRACE_H

#include "core/host.h"

struct grace {
	_Alignas(64) _Atomic uint64_t generation;
	struct grace_shard {
		_Alignas(64) _Atomic uint32_t readers[2];
	} shards[HOST_SHARDS];
};

struct grace_section {
	_Atomic uint32_t *readers;
};

static inline struct grace_section grace_enter(struct grace *grace)
{
	struct grace_shard *shard = &grace->shards[host_shard()];
	unsigned parity = (unsigned)atomic_load(&grace->generation) & 1;
	struct grace_section section = { &shard->readers[parity] };

	STEP("grace: enter");
	if (!MUTANT("no-grace"))
		atomic_fetch_add(section.readers, 1);
	return section;
}

static inline void grace_leave(struct grace_section section)
{
	STEP("grace: leave");
	if (MUTANT("no-grace"))
		return;
	atomic_fetch_sub(section.readers, 1);
}

/* Moves the generation on if it may; the caller holds the lock of what is retired. */
static inline bool grace_advance(struct grace *grace)
{
	uint64_t next = atomic_load_explicit(&grace->generation, memory_order_relaxed) + 1;

#ifdef COW_TSAN /* does not know fences; on the machines that it runs on this is one */
	atomic_fetch_add(&grace->shards[0].readers[0], 0);
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
	for (unsigned i = 0; i < HOST_SHARDS && !MUTANT("advance-at-once"); i++) {
		STEP("grace: advance");
		if (atomic_load(&grace->shards[i].readers[next & 1]) != 0)
			return false;
	}
	STEP("grace: advanced");
	atomic_store(&grace->generation, next);
	return true;
}

#endif
