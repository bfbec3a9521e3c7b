/* SPDX-License-Identifier: MIT */
/*
 * The world of a scenario: one or two spaces, threads that each run a small program on them, and
 * the plain copies by which everything is judged.
 *
 * A program is words; digits are p: page, h: half of a page, n: snapshot, t: thread. Capitals mean
 * space 1.
 *
 *   sph      store through the software MMU (a trap where the page is armed)
 *   bpq e    open a bracket over the pages p to q; end it
 *   wph      store inside a bracket
 *   cn Cn    cut space 0 as snapshot n; cut both spaces as n and n + 1
 *   dn       cut space 0 as n; give up while it drains if the scheduler says so (then no n)
 *   rnp      read page p of snapshot n, once it is taken; all bytes have to be those of the cut
 *   xn       release snapshot n, once it is taken
 *   yn       drop it (the limit's policy): its readers get -ESTALE
 *   gn       detach it: it is read from a copy from then on
 *   un       consume it, page by page, and detach it
 *   kn       roll space 0 back to n: nobody writes meanwhile
 *   h        arm ahead what is open (with an open set)
 *   op       trap on page p, and open what can be had of the others with it
 *   ap       keep page p ahead, as the background copier does
 *   v        spill up to two kept pages
 *   m        merge equal kept pages
 *   q        reclaim what was dropped
 *   fp       discard page p (explicit trap)
 *   zp       store the same byte in every page: pages that can be merged
 *   ltph     load the byte that thread t stores there; the program ends where it is not there yet
 *   @t       in a preparation: act as thread t, on its CPU
 *
 * Every thread stores at places of its own, numbers that count up. Oracle:
 * - shadow: what stores have made of live memory, changed in the same step as the store.
 * - ghost[n]: the shadow at the cut, when the gate is sealed and everything is protected. Since it
 *   is the memory at one instant, it is a consistent cut: of each thread's stores a prefix, and no
 *   store without those that it depended on. No bracket may be open at that instant.
 * - Whenever anybody reads snapshot n, and after all threads have ended, it reads as ghost[n]; live
 *   memory reads as the shadow; the space is valid; after all releases nothing is kept and no
 *   memory leaked.
 */
#ifndef TESTS_MODEL_WORLD_H
#define TESTS_MODEL_WORLD_H

#include "tests/model/explore.h"

struct scenario {
	const char *name;
	const char *about;
	bool large;        /* takes long: not in every run of the tests */
	unsigned pages;    /* of each space */
	bool trap;         /* the software MMU; else brackets */
	bool set;          /* it stands behind mmu/trap.c: an open set, arming ahead */
	bool branch;       /* space 1 is a branch of snapshot 0, which the preparation takes */
	bool two;          /* space 1 is a region of its own */
	bool racing;       /* the threads write the same bytes: contents are not judged */
	bool oldest_first; /* how the snapshots are released at the end */
	size_t limit;      /* of the pool, in pages; 0: none */
	const char *prepare;
	const char *threads[MODEL_THREADS + 1]; /* NULL ends them */
};

extern const struct scenario scenarios[]; /* the last has no name */

extern const struct scenario *world_scenario;

/* For the scenario that world_scenario points at. */
struct model_program world_program(void);

#endif
