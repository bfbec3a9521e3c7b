/* SPDX-License-Identifier: MIT */
/*
 * A layer's content as a file in memory, which the windows of the regions restored from it under
 * the userfaultfd traps map privately, so that they share what none of them has written.
 *
 * Filled a slice at a time, when a region first touches it. Zero clusters are written, too: a hole
 * would be reported as missing for ever.
 */
#ifndef COW_STORE_IMAGE_H
#define COW_STORE_IMAGE_H

#include "core/lock.h"
#include "store/layer.h"

struct image {
	uint32_t refs; /* guarded by the store's layers_mutex */
	struct chain *chain;
	int fd;
	bool verify;
	struct lock lock; /* guards what follows; taken in traps */
	struct slice_map map;
	unsigned char *filled; /* a byte a slice */
	unsigned char *bytes;  /* a slice */
};

/* The image of the chain's newest layer, made when there is none. The chain is the image's from
 * then on, also on failure. One that checks what it reads is not shared with one that does not. */
int image_of_chain(struct chain *chain, bool verify, struct image **ret_image);
void image_put(struct image *image); /* NULL-safe */

/* In a trap: brings in what lies in a range. */
int image_bring_in(struct image *image, uint64_t offset, uint64_t length);

#endif
