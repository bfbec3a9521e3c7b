/* SPDX-License-Identifier: MIT */
/*
 * Giving layers up, in three steps, so that a crash between them loses nothing and brings nothing
 * back: HEAD says that the layer is deleted, its file goes when no child needs it, HEAD forgets it.
 *
 * A file that a reader uses stays for now (store_hold), and goes with a later compaction.
 */
#ifndef COW_STORE_DELETE_H
#define COW_STORE_DELETE_H

#include "store/index.h"

/* Removes the file of a layer that HEAD no longer names; -EBUSY: somebody uses it. */
int layer_remove(struct cow_store *store, const struct index_entry *entry);
/* Removes deleted layers that have no children, and what is without children then. Counts them in
 * stats, and those in use. The index, in which no layer may be unreadable, is used up. */
int sweep_deleted(struct cow_store *store, struct index *index, struct cow_compact_stats *stats);

#endif
