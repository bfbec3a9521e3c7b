/* SPDX-License-Identifier: MIT */
/*
 * A store under a random sequence of calls, beside a model of what it has to hold.
 *
 * A work is a directory, the store in it, a small region, and what each layer must read as. Its
 * steps are chosen by a seed: write some pages and save them (with a tag, in full, without moving
 * HEAD, ...), tag, untag, delete, compact, restore an older layer and go on from it, close and
 * open. After a step that succeeded the model has moved on; after one that failed it has not.
 *
 * Contents are versions: what page p holds in version v follows from p and v, differs in every
 * sector, and version 0 is all zero.
 */
#ifndef TESTS_STORE_WORKLOAD_H
#define TESTS_STORE_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cow.h>

#define WORK_PAGE  ((size_t)4096)
#define WORK_PAGES 48u /* that are ever written */
#define WORK_LENGTH \
	(((size_t)4 << 20) + WORK_PAGE) /* of the region: three L2 tables, the last with one page */
#define WORK_LAYERS 24u
#define WORK_TAGS   6u

struct work_layer {
	char id[COW_ID_LENGTH];
	uint32_t version[WORK_PAGES];
};

/* What a store has to hold. */
struct work_state {
	struct work_layer layers[WORK_LAYERS];
	size_t count;
	char head[COW_ID_LENGTH]; /* empty: none */
	struct {
		char name[8];
		char id[COW_ID_LENGTH]; /* empty: no such tag */
	} tags[WORK_TAGS];
};

enum work_kind {
	WORK_SAVE,
	WORK_TAG,
	WORK_UNTAG,
	WORK_DELETE,
	WORK_COMPACT,
	WORK_RESTORE,
	WORK_REOPEN,
	WORK_KINDS,
};
extern const char *const work_kind_names[WORK_KINDS];

/* How often each kind is chosen, against the others; all zero: an even mix. */
struct work_options {
	uint64_t seed;
	unsigned weight[WORK_KINDS];
	unsigned pages;     /* written before a save, at most; 0: 8 */
	enum cow_trap trap; /* of the region; AUTO stands for EXPLICIT */
	bool compress;      /* compactions do, half of the time */
	bool named;         /* each layer that is saved becomes HEAD */
	bool plain;         /* no tags, nothing in full; it is HEAD that is deleted */
};

struct work {
	const char *directory;
	struct work_options options;
	uint64_t random;
	struct cow_store *store; /* NULL before work_open() */
	struct cow_region *region;
	uint32_t live[WORK_PAGES]; /* what the region holds */
	uint32_t last_version;
	struct work_state state;
	enum work_kind kind; /* of the step under way */
};

/* 0 or a negative errno. The directory exists, or its parent does. */
int work_open(struct work *work, const char *directory, const struct work_options *options);
void work_close(struct work *work);

/* Chooses the next step and does its preparations, then the one call of the store that it is
 * about. work_call() may be repeated after a failure. */
void work_choose(struct work *work);
int work_call(struct work *work);
/* After a call that returned 0: the model moves on. */
void work_done(struct work *work);
/* The three at once. */
int work_step(struct work *work);
/* What the step under way makes of the state, should it come to pass; a layer that it saves has
 * the identity WORK_ANY_ID. */
void work_preview(const struct work *work, struct work_state *ret_state);
#define WORK_ANY_ID "?"

/* Opens a store that is known to hold a state, and goes on from its HEAD. */
int work_go_on(struct work *work, const char *directory, const struct work_options *options,
	       const struct work_state *state);

void work_fill(unsigned char page[WORK_PAGE], unsigned index, uint32_t version);
size_t work_offset(unsigned index); /* of a page in the region */

/* Whether a directory holds one of these states exactly: opened as after a crash, every layer read
 * by the library and by the second reader, everything verified. Returns which one, or -1 with the
 * reason in why. A layer WORK_ANY_ID gets the identity of the one that is not known otherwise. */
int work_check(const char *directory, struct work_state *const states[], size_t count,
	       char why[256]);

/* Whether the store, as it is open now, holds what it should. */
bool work_holds(struct work *work, char why[256]);

/* How many of its layers are compressed. */
unsigned work_compressed(const struct work *work);

#endif
