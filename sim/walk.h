/* SPDX-License-Identifier: MIT */
/*
 * libcow's own core on the software MMU, one step at a time, for `cow walk`: what fork() does to a
 * process, done to a space.
 *
 * Model. The parent is a space and its window. A fork is a cut; the child is a branch of it, whose
 * pages are the snapshot's until it writes them. The child's exit ends the branch and the snapshot.
 * Every load and store goes through simulated CPUs (mmu/soft.h), CPU 0 the parent's and CPU 1 the
 * child's, and from there into the same fault() that a real trap calls.
 *
 * What is told of a page is what the kernel's tables tell: where its content is, who reads it
 * there, and whether the next write faults. Nothing of the core's headers shows here, so that the
 * command sees numbers only.
 *
 * One thread; one child at a time. Functions return 0 or a negative errno.
 */
#ifndef SIM_WALK_H
#define SIM_WALK_H

#include <stdbool.h>
#include <stdint.h>

struct sim;

enum sim_who { SIM_PARENT, SIM_CHILD };

enum sim_place {
	SIM_ZERO,   /* nothing was ever written: zeroes, without a frame */
	SIM_WINDOW, /* the parent's memory; frame: the page's number in it */
	SIM_KEPT,   /* a copy kept for the child; frame: its number in the pool */
	SIM_OWN,    /* the child's memory; frame: the page's number in it */
};

struct sim_entry {
	enum sim_place place;
	uint64_t frame;
	unsigned readers; /* of that frame, in both; 0 for zeroes */
	bool writable;    /* by the page table: the next write does not fault */
};

enum sim_outcome { SIM_WRITTEN, SIM_ZERO_FILLED, SIM_COPIED, SIM_REUSED };

struct sim_write {
	uint64_t faults;
	enum sim_outcome outcome;
};

int sim_new(unsigned pages, struct sim **ret_sim);
void sim_free(struct sim *sim); /* NULL is allowed */

int sim_fork(struct sim *sim);  /* -EBUSY: there is a child */
void sim_exit(struct sim *sim); /* of the child, if there is one */

int sim_load(struct sim *sim, enum sim_who who, unsigned page);
int sim_store(struct sim *sim, enum sim_who who, unsigned page, unsigned char byte,
	      struct sim_write *ret_write);

/* Of the child: -ESRCH where there is none. */
int sim_look(const struct sim *sim, enum sim_who who, unsigned page, struct sim_entry *ret_entry);

#endif
