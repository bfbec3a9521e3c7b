/* SPDX-License-Identifier: MIT */
/*
 * Writing a compressed layer's file, in one pass.
 *
 *   packer_new       from the most clusters of 64 KiB that may come, and the second-level tables
 *                    that they touch, the places of the metadata are known
 *   packer_write     clusters in order of their guest addresses; packed, one behind the other, and
 *                    written 1 MiB at a time
 *   packer_finish    manifest, metadata, one fdatasync(), the rename: as writer_finish()
 *   packer_abort     the file is gone
 *
 * What cannot be packed is written as a frame that is a little larger than it: then all of the
 * data is one stream, and the spare bytes are less than those that an alignment would cost.
 *
 * Memory: the touched second-level tables (1/8192 of the guest), 2 bytes for each 64 KiB of the
 * file, 4 bytes for each 4 KiB, 1 MiB.
 */
#ifndef COW_STORE_PACKER_H
#define COW_STORE_PACKER_H

#include "store/writer.h"

/* Of the guest, that one second-level table is for. */
#define PACKED_TABLE_BYTES (PACKED_CLUSTER / 8 * PACKED_CLUSTER)

struct packer;

bool packer_is_there(void); /* in this build */

/* Of the config, clusters_max and slices_max are of clusters of 64 KiB and of what one second-level
 * table is for. */
int packer_new(struct cow_store *store, const struct writer_config *config,
	       struct packer **ret_packer);
/* guest: its address in clusters of 64 KiB; bytes NULL: recorded as zero. */
int packer_write(struct packer *packer, uint64_t guest, const unsigned char *bytes);
int packer_finish(struct packer *packer, struct footer *ret_footer);
void packer_abort(struct packer *packer); /* NULL-safe */

#endif
