/* SPDX-License-Identifier: MIT */
/*
 * Snapshots that are read from their layers.
 *
 * Such a snapshot keeps no layer open, since there may be thousands: it holds its own layer in the
 * store (store_hold), and chains are put together when they are read. A store remembers a few, as
 * many as have CACHED_LAYERS layers in all.
 */
#ifndef COW_STORE_OFFLOAD_H
#define COW_STORE_OFFLOAD_H

#include "core/space.h"
#include "store/store.h"

#define CACHED_LAYERS 256u

/* The layer is the snapshot's whole content. */
int offload_new(struct cow_store *store, const struct layer_id *id, uint64_t sequence,
		struct backing **ret_backing);

#endif
