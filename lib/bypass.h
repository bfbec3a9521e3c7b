/* SPDX-License-Identifier: MIT */
/* Finding writes that nobody noticed: see bypass.c. */
#ifndef COW_LIB_BYPASS_H
#define COW_LIB_BYPASS_H

#include <inttypes.h>

#include "lib/internal.h"

struct bypass;

/* By the region's flags, or COW_CHECK=1 in the environment. */
bool bypass_is_wanted(uint32_t flags);

/* The region's space has its mmu, and is not in use yet. */
int bypass_new(struct cow_region *region);
void bypass_free(struct bypass *bypass); /* NULL-safe, as are those below */

/* Tells the log what was found since the last time. With no lock held, not in a trap. */
void bypass_report(struct bypass *bypass);
uint64_t bypass_count(const struct bypass *bypass);

#endif
