/* SPDX-License-Identifier: MIT */
/*
 * All layers of a directory, by their footers: who is whose parent, and how deep each lies. Made
 * anew where it is asked for, and before a writer's first save; other saves and restoring do
 * without.
 *
 * A reader's is not of one moment: the writer may merge and remove layers while the directory is
 * being read. Where something is missing a reader looks again (index_build).
 */
#ifndef COW_STORE_INDEX_H
#define COW_STORE_INDEX_H

#include "store/layer.h"

struct index_entry {
	struct layer_id id; /* from the name */
	struct footer footer;
	uint64_t file_bytes;
	int error; /* the footer could not be read: nothing but id is known */
	uint32_t depth;
	uint32_t children;
};

struct index {
	struct index_entry *entries; /* newest first; unreadable ones last */
	struct index_entry **by_id;
	size_t count, room;
	size_t errors;
};

/* Also looks at HEAD anew where a reader finds that a layer is missing. */
int index_build(struct cow_store *store, struct index *ret_index);
void index_free(struct index *index);
struct index_entry *index_find(const struct index *index, const struct layer_id *id);

/* Calls back for HEAD (tag NULL) and each tag whose layer is not there; what it returns other than
 * 0 ends it, and is returned. */
typedef int (*missing_fn)(const struct tag *tag, const struct layer_id *id, void *context);
int index_each_missing(const struct cow_store *store, const struct index *index, missing_fn missing,
		       void *context);

#endif
