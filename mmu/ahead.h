/* SPDX-License-Identifier: MIT */
/*
 * Copying ahead: after a cut, the pages that were written in the interval before it are kept and
 * opened before anybody writes them again, by a thread of the library. Worth it where the same
 * pages are written between cuts: their writers no longer trap.
 *
 * Pages go through it like this:
 *
 *   opened by a trap --cut--> kept and opened ahead --cut--> compared with what was kept
 *                                    ^                          |               |
 *                                    +------- differs ----------+           equal: left armed,
 *                                                              forgotten until it traps
 *
 * So what is opened ahead in vain costs one copy, once. Where what was kept is gone with its
 * snapshot, pages are left armed in every eighth interval, some in each, and come back by trapping.
 * It claims pages as a writer does, inside the gate, a word of the bitmap (64 pages) at a time; and
 * it stops where frames are scarce.
 *
 * Where the thread that cuts is the program's only one, single pages are not even armed: they are
 * kept within the cut, and stay open. A copy takes half as long as the call that would arm the
 * page, and nobody can write it meanwhile.
 */
#ifndef COW_MMU_AHEAD_H
#define COW_MMU_AHEAD_H

#include "mmu/openset.h"

struct trap;

struct ahead {
	struct openset written[2]; /* opened in this interval, and in the one before */
	struct openset guessed;    /* opened by us; not seen to be written since */
	struct openset staying;    /* in a cut: left open by it */
	bool cutting;              /* what is opened is open for the kernel */
	unsigned current;          /* which of written[]; changes while the gate is sealed */
	uint64_t turns;            /* intervals so far; likewise */
};

int ahead_new(uint64_t pages, struct ahead **ret_ahead);
void ahead_free(struct ahead *ahead); /* NULL-safe */

/* Inside the gate: pages are opened. */
void ahead_note(struct ahead *ahead, uint64_t first, uint64_t count);

/* The gate is sealed: which of the open pages of a leaf the cut leaves open. words: RUNS_WORDS. */
void ahead_choose(struct trap *trap, uint64_t word, unsigned words, const uint64_t open[],
		  uint64_t ret_staying[]);

/* Keeps those, in the new epoch. Not 0: some could neither be kept nor armed. */
int ahead_keep_staying(struct trap *trap);

/* The gate is sealed, and a new interval begins. */
void ahead_turn(struct ahead *ahead);

/* Keeps some of what was written in the last interval. 1: there may be more; 0: done; or an
 * errno, of which -EAGAIN says that frames are scarce. The gate is open. */
int ahead_step(struct trap *trap);

#endif
