/* SPDX-License-Identifier: MIT */
/*
 * Reading the compressed clusters of a layer.
 *
 * A cluster of 64 KiB holds 16 pages and can only be unpacked as a whole. So who reads page after
 * page has the last few clusters remembered here, and who reads a whole one gets it straight into
 * his buffer.
 *
 * What is read is checked as everything is: by the checksums of the file's clusters of 4 KiB in
 * which the packed bytes lie, before they are unpacked. What does not unpack is damaged, whether
 * checksums are wanted or not.
 *
 * One thread at a time; but for unpacker_new() nothing is allocated: fit for traps.
 */
#ifndef COW_STORE_UNPACKER_H
#define COW_STORE_UNPACKER_H

#include "store/format.h"

struct layer;
struct unpacker;

/* remembered: how many clusters, at least 1. */
int unpacker_new(unsigned remembered, struct unpacker **ret_unpacker);
void unpacker_free(struct unpacker *unpacker); /* NULL-safe */

/* Pages [first, first + count) of the cluster that a layer has at a place of kind PACKED. */
int unpacker_read(struct unpacker *unpacker, struct layer *layer, uint64_t packed, unsigned first,
		  unsigned count, unsigned char *to, bool verify);

#endif
