/* SPDX-License-Identifier: MIT */
/*
 * Grace periods: a version that was unlinked is recycled only when no reader can still see it.
 *
 * A reader is counted under the parity of the generation in which it began. The generation moves on
 * only when nobody is counted under the parity that it moves to, that is, when the readers of the
 * generation before this one are gone. So what was unlinked in generation g is out of sight when the
 * generation is g + 2: the step to g + 1 waited for the readers of g - 1, the step to g + 2 for those of
 * g, and later ones began after the unlinking.
 *
 * Readers never wait. A reader that sleeps inside only delays recycling; so a section covers the look-up
 * and the copy of one page, not a whole read.
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
	struct grace_section section;

	for (;;) {
		unsigned parity = (unsigned)atomic_load(&grace->generation) & 1;

		section.readers = &shard->readers[parity];
		STEP("grace: enter");
		if (MUTANT("no-grace"))
			return section;
		atomic_fetch_add(section.readers, 1);
		STEP("grace: look again");
		if ((atomic_load(&grace->generation) & 1) == parity || MUTANT("grace-no-second-look"))
			return section;
		atomic_fetch_sub(section.readers, 1);
	}
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

	for (unsigned i = 0; i < HOST_SHARDS && !MUTANT("advance-at-once"); i++)
		if (atomic_load(&grace->shards[i].readers[next & 1]) != 0)
			return false;
	atomic_store(&grace->generation, next);
	return true;
}

#endif
