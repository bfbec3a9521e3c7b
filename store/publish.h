/* SPDX-License-Identifier: MIT */
/*
 * A new layer's way into the store: its number, and the moment from which on it counts.
 *
 * The file is on disk under its name, then the directory, then HEAD names it, or a number as high
 * as its own. A file with the number after HEAD's is of a save that never happened. It must be gone
 * before the number is given out again: it would become a layer with that save.
 *
 * Higher numbers were never given out by this HEAD: it is an old copy that somebody put back. Then
 * everything is kept, and counts.
 */
#ifndef COW_STORE_PUBLISH_H
#define COW_STORE_PUBLISH_H

#include "store/index.h"

struct publication {
	struct layer_id id;
	uint64_t sequence;
	const char *tag; /* NULL: none */
	bool keep_head;  /* unless there is none */
};

/* What the next layer gets. */
int next_sequence(struct cow_store *store, uint64_t *ret_sequence);
/* Of a file that has its name, but not for sure. On failure it is removed. */
int publish_new(struct cow_store *store, const struct publication *publication);
/* Of a layer that was published before: only HEAD changes. */
int publish_again(struct cow_store *store, const struct publication *publication);

/* Removes what saves left that never happened, but for what somebody uses. */
int sweep_unpublished(struct cow_store *store, const struct index *index,
		      struct cow_compact_stats *stats);

#endif
