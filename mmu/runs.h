/* SPDX-License-Identifier: MIT */
/*
 * Pages that are to be protected, given in ascending order, gathered into calls.
 *
 * Exact: only those pages, in runs without a gap. Else pages between them, and after them, are
 * covered where that costs less: they are armed already, so protecting them changes nothing. That
 * holds only while nobody can open one, which is while the gate is sealed.
 */
#ifndef COW_MMU_RUNS_H
#define COW_MMU_RUNS_H

#include "mmu/trap.h"

struct runs {
	struct trap *trap;
	bool exact;
	uint64_t first, end; /* of the run that is being gathered */
	int error;           /* the first one; nothing is done after it */
	uint64_t calls;
	double expected_ns;
};

void runs_add(struct runs *runs, uint64_t page);

/* The pages of RUNS_WORDS words of a bitmap, from page 64 * word on. */
#define RUNS_WORDS 8u
void runs_add_words(struct runs *runs, uint64_t word, const uint64_t bits[RUNS_WORDS]);

void runs_end(struct runs *runs);

#endif
