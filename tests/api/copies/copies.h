/* SPDX-License-Identifier: MIT */
/*
 * The model that test-model holds the library against: plain copies.
 *
 * A region of the model is an array of page contents, a snapshot of it a memcpy of that. Large
 * regions are sparse: a few dozen of their pages are ever written, only these are modelled, and the
 * rest has to read as zero.
 *
 * copies.c has the model, check.c compares, operations.c does the same thing to both.
 */
#ifndef TESTS_API_COPIES_H
#define TESTS_API_COPIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "cow.h"

/* The test is built once for each trap. */
#ifndef TEST_TRAP
#define TEST_TRAP COW_TRAP_EXPLICIT
#endif

#define PAGE      ((size_t)4096)
#define SLOTS_MAX 160u
#define REGIONS   6u
#define SNAPSHOTS 20u
#define STEPS_MAX 20000u

/* --- numbers --- */

/* A step's generator: made of the seed and the step, so that steps can be left out. */
void draw_from(uint64_t seed);
uint64_t mix(uint64_t x);
uint64_t draw(uint64_t below);
bool one_in(unsigned n);

/* --- what a child tells its parent --- */

struct report {
	unsigned steps;
	char message[400];
	char doing[200];
	uint64_t calls, refused, dropped, spilled, verified;
};

extern struct report *report;
extern unsigned step_now;
extern bool printing; /* each step as it comes */

/* The run has failed: ends the process. */
__attribute__((format(printf, 1, 2), noreturn)) void wrong(const char *format, ...);

#define must(condition, ...)                \
	do {                                \
		if (!(condition))           \
			wrong(__VA_ARGS__); \
	} while (0)

__attribute__((format(printf, 1, 2))) void doing(const char *format, ...);

/* --- the model --- */

struct shape {
	uint64_t pages;           /* of the region */
	unsigned slots;           /* pages that are modelled */
	bool dense;               /* all of them: page[i] is i */
	uint64_t page[SLOTS_MAX]; /* ascending */
};

struct msnap;

struct mregion {
	struct cow_region *region;
	unsigned id, refs; /* the user's, and one for each snapshot */
	struct shape shape;
	unsigned char *live; /* the pages that are modelled, one after the other */
	struct msnap *source;
	bool branch, limited, checked; /* COW_REGION_CHECK */
	enum cow_limit_policy policy;
	unsigned alive; /* snapshots that were not given up */
	uint64_t spilled;
};

struct msnap {
	struct cow_snapshot *snapshot;
	struct mregion *of;
	unsigned id, order, refs, user_refs, branches;
	unsigned char *content;
	const unsigned char *view;
	bool dropped, spared;
};

extern struct mregion *regions[REGIONS];
extern struct msnap *snaps[SNAPSHOTS];
extern unsigned next_id;
extern unsigned char scratch[SLOTS_MAX * PAGE], pattern[SLOTS_MAX * PAGE];
extern const char *spill_directory; /* NULL: nothing spills */

size_t bytes(const struct mregion *r);
struct mregion *mregion_new(const struct shape *shape);
void mregion_put(struct mregion *r);
/* Of what the region holds now. */
void msnap_new(struct mregion *r, struct cow_snapshot *snapshot);
void msnap_put(struct msnap *s);

/* Any one that there is, or NULL. */
struct mregion *pick_region(void);
struct msnap *pick_snap(void);
struct msnap *pick_snap_of(const struct mregion *r);
unsigned free_region_slot(void);
unsigned free_snap_slot(void);

/* --- ranges --- */

/* A range that the model can follow: anywhere in a dense region, in one modelled page of a sparse
 * one. */
struct range {
	size_t offset, length; /* in the region */
	size_t at;             /* of its first byte, in the model */
};

struct range pick_range(const struct shape *shape);
/* Fills the pattern: noise, zeroes, or a byte that other pages have as well. */
void make_pattern(size_t length);

/* --- check.c --- */

void compare(const char *what, unsigned id, size_t page, const unsigned char *got,
	     const unsigned char *expected, size_t length);
void verify_live(struct mregion *r);
void verify_view(const struct msnap *s);
/* Every byte that is modelled. */
void verify_all(void);
/* true: it was done. Refused: nothing may have changed, which is looked at here. */
bool done(struct mregion *r, int e, const char *what);
/* Finds out what was given up at a limit, and whether it might. */
void find_dropped(void);
/* What was given up, the invariants, the statistics. */
void check_after_step(void);

/* --- operations.c --- */

/* A random call, on the library and on the model. */
void random_operation(void);
void free_everything(void);

#endif
