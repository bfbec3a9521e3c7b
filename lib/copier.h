/* SPDX-License-Identifier: MIT */
/*
 * The background copier: one thread of the process, for all regions with COW_REGION_COPY_AHEAD,
 * which goes through what mmu/ahead.h has to do after each cut.
 *
 * It sleeps until a cut wakes it, takes the regions in turn, a small step of each, and never waits
 * for a writer. A region that is being freed is taken from it first.
 */
#ifndef COW_LIB_COPIER_H
#define COW_LIB_COPIER_H

#include "lib/internal.h"

/* Starts the thread with the first region. */
int copier_add(struct cow_region *region);

/* Returns when the copier has let go of the region for good. */
void copier_remove(struct cow_region *region);

/* Returns when there is nothing left to do for the region. */
void copier_drain(struct cow_region *region);

/* The region was cut. */
void copier_wake(struct cow_region *region);

#endif
