/* SPDX-License-Identifier: MIT */
/*
 * A mutex of one word, for the short critical sections of the core: 0 free, 1 held, 2 held and
 * somebody sleeps. Usable in a trap, unlike a pthread mutex: the holder is never interrupted by a
 * trap of its own, since it writes to no region while it holds a lock.
 */
#ifndef COW_CORE_LOCK_H
#define COW_CORE_LOCK_H

#include "core/host.h"

struct lock {
	_Atomic uint32_t word;
};

static inline void lock_take(struct lock *lock)
{
	uint32_t seen = 0;
	unsigned spins = 0;

	STEP("lock");
	if (MUTANT("no-lock"))
		return;
	if (atomic_compare_exchange_strong_explicit(&lock->word, &seen, 1, memory_order_acquire,
						    memory_order_relaxed))
		return;
	while (spins++ < SPINS(64u)) {
		host_pause();
		seen = 0;
		if (atomic_load_explicit(&lock->word, memory_order_relaxed) == 0 &&
		    atomic_compare_exchange_strong_explicit(
			    &lock->word, &seen, 1, memory_order_acquire, memory_order_relaxed))
			return;
	}
	while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire) != 0)
		host_wait(&lock->word, 2, 0);
}

static inline void lock_drop(struct lock *lock)
{
	if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) == 2 &&
	    !MUTANT("lock-no-wake"))
		host_wake(&lock->word);
}

#endif
