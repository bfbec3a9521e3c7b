/* SPDX-License-Identifier: MIT */
/*
 * The helper: one thread of the process that does for the regions under a trap what would keep
 * their writers waiting.
 *
 *   frames   faults in the next chunk of a pool, when one has been begun
 *   copies   what mmu/ahead.h has to do after a cut, for regions with COW_REGION_COPY_AHEAD
 *
 * It sleeps until it is woken, takes the regions in turn, a small step of each, and never waits for
 * a writer. A region that is being freed is taken from it first. Without the thread (no memory for
 * it, a child of fork()) nothing is wrong, only slower.
 */
#ifndef COW_LIB_HELPER_H
#define COW_LIB_HELPER_H

#include "lib/internal.h"

#define HELP_FRAMES 0x1u
#define HELP_COPIES 0x2u

/* Starts the thread with the first region. Does nothing for one that it knows. The cut mutex is
 * held. */
int helper_add(struct cow_region *region);

/* Returns when the helper has let go of the region for good. */
void helper_remove(struct cow_region *region);

/* Returns when there is nothing left to do for the region. */
void helper_drain(struct cow_region *region);

/* What the helper does for HELP_FRAMES, where it is due: by any thread that is not a writer and has
 * the time. */
void bring_frames(struct cow_region *region);

/* Takes no lock: for traps, too. */
void helper_wake(struct cow_region *region, uint32_t tasks);

void helper_after_fork(void);

#endif
