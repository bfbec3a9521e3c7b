/* SPDX-License-Identifier: MIT */
/*
 * A layer's file while it is being written: ID.qcow2.new, and the checksums of what is in it.
 *
 *   draft_open       the temporary file is made
 *   draft_write      bytes and their checksums
 *   draft_publish    the checksums and the footer, one fdatasync(), the rename. The directory is
 *                    the caller's to sync
 *   draft_drop       what is left: of the file, if it was not published, and of memory
 *
 * What is never written is a hole, and has the checksum of zeroes.
 */
#ifndef COW_STORE_DRAFT_H
#define COW_STORE_DRAFT_H

#include "store/store.h"

struct draft {
	struct cow_store *store;
	int fd; /* -1: none, or published */
	char name[LAYER_NAME_LENGTH], temporary[LAYER_NAME_LENGTH + 4];
	uint32_t *crcs; /* of the file's clusters of 4 KiB, as in the file */
	uint64_t crcs_room;
};

/* On an error there is nothing to drop. */
int draft_open(struct draft *draft, struct cow_store *store, const struct layer_id *id);

/* The checksum of a cluster that the caller writes by itself. */
int draft_note(struct draft *draft, uint64_t cluster, uint32_t crc);
int draft_write(struct draft *draft, uint64_t cluster, const unsigned char *bytes, uint64_t count);
/* Bytes that need not fill their last cluster: it ends in zeroes. */
int draft_write_padded(struct draft *draft, uint64_t cluster, const void *bytes, size_t length);
/* Clusters of zeroes stay holes. */
int draft_write_sparse(struct draft *draft, uint64_t cluster, const unsigned char *bytes,
		       uint64_t count);

/* The first cluster. Names the parent in the header, if there is one. */
int draft_write_header(struct draft *draft, struct qcow2_header *header,
		       const struct layer_id *parent);

/* Writes the array of checksums and, as the last of `clusters`, the footer, into which it enters
 * the array's own checksum. */
int draft_publish(struct draft *draft, struct footer *footer, uint64_t clusters);
void draft_drop(struct draft *draft);

#endif
