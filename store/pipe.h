/* SPDX-License-Identifier: MIT */
/*
 * From a snapshot's pages to a layer's file, in batches: one thread reads and takes checksums, the
 * other writes. Small saves do both in one thread.
 *
 * Pages that nobody has written since the snapshot are not copied: their checksum and the write
 * are made from the live window, and afterwards the page's state is looked at again, as every
 * reader does. Where it has changed meanwhile, the page is read as the snapshot has it, and
 * written over.
 */
#ifndef COW_STORE_PIPE_H
#define COW_STORE_PIPE_H

#include "lib/internal.h"
#include "store/writer.h"

struct pipe;

/* consume: between consume_begin() and consume_end(). */
int pipe_new(struct cow_snapshot *snapshot, struct writer *writer, uint64_t pages, bool consume,
	     struct pipe **ret_pipe);
/* Pages in ascending order. An error of the writing thread shows at one of the next calls. */
int pipe_put(struct pipe *pipe, uint64_t page);
/* Waits until everything is written. */
int pipe_drain(struct pipe *pipe);
void pipe_free(struct pipe *pipe); /* NULL-safe */

#endif
