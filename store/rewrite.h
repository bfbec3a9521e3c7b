/* SPDX-License-Identifier: MIT */
/*
 * Writing a layer anew, with the same identity and the same content: with what lies below it
 * merged in, on whatever lies below that.
 *
 * Data goes over as it is, with its checksums: shared with the old file where the file system can.
 * What was damaged stays found out.
 */
#ifndef COW_STORE_REWRITE_H
#define COW_STORE_REWRITE_H

#include "store/layer.h"

struct rewrite {
	struct cow_store *store;
	struct layer_id id;
	unsigned
		depth; /* how many layers become one, from id downwards; more than there are: all */
	cow_progress_fn progress;
	void *context;
	uint64_t done, total; /* bytes, for the progress */
	uint64_t cloned_bytes;
};

/* The old file is replaced, and the directory synced, when it returns. */
int rewrite_layer(struct rewrite *rewrite);

#endif
