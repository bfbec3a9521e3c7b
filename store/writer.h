/* SPDX-License-Identifier: MIT */
/*
 * Writing a layer's file, in one pass.
 *
 *   writer_new       from the slices that will be touched and the most clusters that may come,
 *                    every offset is known; ID.qcow2.new is made
 *   writer_write     clusters in order of their guest addresses: one write, behind the last one
 *   writer_finish    manifest, then metadata at the front, then one fdatasync(), and the rename.
 *                    The directory is the caller's to sync
 *   writer_abort     the file is gone
 *
 * Nothing is written twice but by writer_mend(), before the fdatasync(). Nothing is tried again
 * after an error: the file goes.
 *
 * Memory: the first-level table, 4 bytes a cluster for the checksums, 1 MiB of second-level tables.
 */
#ifndef COW_STORE_WRITER_H
#define COW_STORE_WRITER_H

#include <sys/uio.h>

#include "store/store.h"

#define WRITER_BATCH 256u /* clusters in one write */

struct writer_config {
	struct layer_id id, parent;
	uint64_t sequence, parent_sequence;
	uint64_t length, address, page_size, time_ns;
	const void *state;
	size_t state_length;
	uint64_t clusters_max; /* most data clusters that will come */
	uint64_t slices_max;   /* most slices that will be touched */
};

/* What a footer says that is known before anything was written. */
struct footer writer_footer(const struct writer_config *config);

struct writer;

int writer_new(struct cow_store *store, const struct writer_config *config,
	       struct writer **ret_writer);

/* guest: addresses in clusters, ascending, also beyond earlier calls; bytes: of each cluster, its
 * content, for as long as the call lasts, or NULL: recorded as zero; crcs of them. *ret_first:
 * where in the file the first one with content is, in clusters; the others follow. */
int writer_write(struct writer *writer, const uint64_t guest[], const void *const bytes[],
		 const uint32_t crcs[], unsigned count, uint64_t *ret_first);

/* Overwrites a cluster that was written a moment ago. */
int writer_mend(struct writer *writer, uint64_t file_cluster, const void *bytes);

/* A run of clusters that another file has: shared with it where the file system can, else
 * copied; at their checksums. */
int writer_clone(struct writer *writer, const uint64_t guest[], unsigned count, int from,
		 uint64_t from_offset, const uint32_t crcs[], uint64_t *cloned_bytes);

int writer_finish(struct writer *writer, struct footer *ret_footer);
void writer_abort(struct writer *writer); /* NULL-safe */

#endif
