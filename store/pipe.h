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
#include "store/known.h"
#include "store/writer.h"

struct pipe;

struct pipe_config {
	struct cow_snapshot *snapshot;
	struct writer *writer;
	uint64_t pages;      /* how many will come, about */
	bool consume;        /* between consume_begin() and consume_end() */
	struct known *known; /* NULL: none */
	struct cow_store *store;
	const struct layer_id *parent; /* NULL: none. What reads as there is left out */
};

int pipe_new(const struct pipe_config *config, struct pipe **ret_pipe);
/* Pages in ascending order. An error of the writing thread shows at one of the next calls. */
int pipe_put(struct pipe *pipe, uint64_t page);
/* Waits until everything is written. */
int pipe_drain(struct pipe *pipe);
void pipe_free(struct pipe *pipe); /* NULL-safe */

#endif
