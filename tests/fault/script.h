/* SPDX-License-Identifier: MIT */
/*
 * A script of public calls that uses everything the library has, and what each of them has to
 * leave.
 *
 * Pages are uniform: one byte says what a page holds. Under a trap plain stores are steps as well.
 */
#ifndef TESTS_FAULT_SCRIPT_H
#define TESTS_FAULT_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>

#include "cow.h"

/* The tests are built once for each trap. */
#ifndef TEST_TRAP
#define TEST_TRAP COW_TRAP_EXPLICIT
#endif

#define PAGE  ((size_t)4096)
#define PAGES 100u

enum kind {
	NEW,
	ADOPT,
	WRITE,
	STORE,
	ARM,
	DISCARD,
	SNAP,
	MANY,
	READ,
	MAP,
	BRANCH,
	ROLLBACK,
	DIFF,
	MERGE,
	UNREF,
	FREE
};

/* Of a new region, or a branch: step.byte. */
enum how { PLAIN, SPILLING, SHARED };

/* r and s say which region and snapshot; first, count and byte mean what the kind needs. */
struct step {
	enum kind kind;
	unsigned r, s, first, count, byte;
};

extern const struct step script[];
extern const size_t script_steps;

const char *step_name(const struct step *step);
struct cow_region_options options_for(enum how how);
/* Whether regions may spill here: on a disk. */
bool can_spill(void);

void set_up_world(void);
/* Makes the step's call: 0 or a negative errno. */
int step_call(const struct step *step);
/* Notes what a call that succeeded changes. */
void step_expect(const struct step *step);
/* Compares every region, snapshot and view with what was noted, and checks the invariants. */
bool world_holds(void);
void free_world(void);

#endif
