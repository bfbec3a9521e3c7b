/* SPDX-License-Identifier: MIT */
/*
 * Writing a layer anew, with the same identity and the same content: with what lies below it
 * merged in, on whatever lies below that.
 *
 * Data goes over as it is, with its checksums: shared with the old file where the file system can.
 * What was damaged stays found out. Where it is to be compressed, or was, it is read and checked
 * instead: what is damaged then ends the call, and stays as it is.
 */
#ifndef COW_STORE_REWRITE_H
#define COW_STORE_REWRITE_H

#include "store/layer.h"

struct rewrite {
	struct cow_store *store;
	struct layer_id id;
	unsigned
		depth; /* how many layers become one, from id downwards; more than there are: all */
	bool pack;     /* compressed, if it is worth it: if not, and depth is 1, nothing is done */
	cow_progress_fn progress;
	void *context;
	uint64_t done, total; /* bytes, for the progress */
	uint64_t cloned_bytes;
};

/* Layers with less content than this, in clusters of 4 KiB, are not compressed: their metadata
 * takes 16 times as much room, in 64 KiB. Tests want less. */
extern uint64_t rewrite_pack_from;

/* The old file is replaced, and the directory synced, when it returns 1; 0: nothing was to do. */
int rewrite_layer(struct rewrite *rewrite);

#endif
