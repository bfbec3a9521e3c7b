/* SPDX-License-Identifier: MIT */
/*
 * A second reader of qcow2, for tests: written from the specification, without the store's code, so
 * that the two do not share a mistake.
 *
 * Whole files are read into memory. Understood are version 3 images without incompatible features
 * but zstd compression (where libzstd is there), standard, compressed and zero clusters, and
 * backing files in the same directory; all else is refused. What it checks while it opens a file
 * is what `qemu-img check` would: every cluster has as many references as it counts, and one that
 * is not of compressed data has one at most.
 */
#ifndef TESTS_STORE_IMAGE_H
#define TESTS_STORE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IMAGE_CHAIN 64u

enum image_status { IMAGE_ABSENT, IMAGE_ZERO, IMAGE_DATA };

struct image {
	unsigned char *bytes;
	uint64_t length;       /* of the file */
	uint64_t virtual_size; /* bytes */
	unsigned cluster_bits;
	bool packed;           /* compressed clusters are zstd's */
	struct image *backing; /* owned */
	char name[256];
};

/* Opens NAME in a directory with all that lies below it. 0, or a negative errno after a line on
 * why (TAP comment). */
int image_open(const char *directory, const char *name, struct image **ret_image);
void image_free(struct image *image); /* NULL-safe */

/* What this file itself says of the cluster at a guest offset. */
enum image_status image_status(const struct image *image, uint64_t offset);

/* Content as a guest reads it, through the chain; past a file's size it is zero. */
void image_read(const struct image *image, uint64_t offset, void *buffer, size_t length);

#endif
