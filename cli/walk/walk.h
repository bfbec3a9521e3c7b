/* SPDX-License-Identifier: MIT */
/*
 * What the parts of `cow walk` hand to each other: the script's pages and steps, and what was seen
 * of them.
 *
 *	script.c  which pages, which steps; runs them     actors.c  the two processes that do them
 *	look.c    what the kernel says of a page          print.c, svg.c  what was seen
 *
 * The same steps are done in libcow's core by sim/walk.h.
 */
#ifndef CLI_WALK_WALK_H
#define CLI_WALK_WALK_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/walk.h"

#define WALK_UNKNOWN UINT64_MAX

enum walk_page {
	WALK_UNTOUCHED,
	WALK_READ,    /* only read before the fork; then the child writes */
	WALK_BOTH,    /* the child writes, then the parent */
	WALK_PARENT,  /* the parent writes while there is a child */
	WALK_LAST,    /* the parent writes after the child's exit */
	WALK_SHARED,  /* MAP_SHARED of a file; the child writes */
	WALK_PRIVATE, /* MAP_PRIVATE of a file; the child writes */
	WALK_HUGE,    /* the first page of a huge one; the child writes, then the parent */
	WALK_HUGE_NEXT,
	WALK_PAGES,
};

/* So many pages are there without --huge. */
#define WALK_SMALL_PAGES WALK_HUGE

extern const struct walk_page_kind {
	const char *name, *meaning;
	bool anonymous; /* else of a file: not in libcow's part */
	bool huge;
} walk_page_kinds[WALK_PAGES];

/* Who can do something. */
enum walk_who {
	WALK_BY_PARENT = SIM_PARENT,
	WALK_BY_CHILD = SIM_CHILD,
	WALK_ACTORS,
};

/* A page-table entry as it can be seen from outside, and what follows from it. */
struct walk_entry {
	bool exists;  /* there is such a process */
	bool present; /* the following are false where not */
	bool exclusive, file, swapped;
	bool zero;      /* the kernel's page of zeroes */
	bool huge;      /* one entry maps 2 MiB */
	bool writable;  /* inferred: the next write takes no fault */
	uint64_t frame; /* WALK_UNKNOWN without privilege */
	uint64_t maps;  /* of the frame, by all; likewise */
	uint64_t flags; /* of /proc/kpageflags; likewise */
};

enum walk_outcome {
	WALK_WRITTEN,     /* no fault */
	WALK_ZERO_FILLED, /* a fresh page of zeroes */
	WALK_COPIED,
	WALK_REUSED, /* opened in place */
	WALK_MAPPED, /* the file's own page, which all write */
};

extern const char *const walk_outcome_names[];
extern const char *const walk_sim_outcome_names[]; /* by enum sim_outcome */

/* One write, and another to the same page at once, which must be free. */
struct walk_write {
	enum walk_page page;
	enum walk_who who;
	uint64_t expected_faults, faults, faults_again;
	enum walk_outcome outcome;
	bool in_sim;
	struct sim_write sim;
	unsigned sim_expected_faults;
};

struct walk_step {
	const char *name, *what;
	struct walk_entry entries[WALK_ACTORS][WALK_PAGES];
	bool in_sim[WALK_ACTORS];
	struct sim_entry sim[WALK_ACTORS][WALK_PAGES];
	struct walk_write writes[WALK_PAGES];
	unsigned write_count;
};

#define WALK_STEPS 6

struct walk {
	unsigned pages; /* shown: the huge ones are last */
	bool sees_frames;
	bool knows_zero;   /* the zero page was told by the kernel, not inferred */
	bool huge_missing; /* asked for, and not to be had */
	uint64_t page_bytes;
	struct walk_step steps[WALK_STEPS];
	unsigned contradictions; /* writes that did not fault as was inferred */
};

/* --- script.c: 0 or a negative errno, after a message --- */
int walk_run(bool huge, struct walk *ret_walk);

/* --- print.c, svg.c: false after a message --- */
void walk_print_text(const struct walk *walk);
bool walk_print_json(const struct walk *walk);
bool walk_draw(const struct walk *walk, const char *path);

/* "zero", "1a2b3c", "hidden", "-". */
#define WALK_NAME 24
const char *walk_frame_name(const struct walk_entry *entry, char name[WALK_NAME]);
const char *walk_sim_name(const struct sim_entry *entry, char name[WALK_NAME]);

#endif
