/* SPDX-License-Identifier: MIT */
/*
 * The spill file: where kept contents go that memory has no room for.
 *
 * A nameless file in the caller's directory, written in extents of SPILL_EXTENT pages with one
 * direct write each, so that it does not come back as page cache, which the kernel would count
 * against the same limit. A slot is a page in it. An extent is used again when all its slots are
 * free.
 */
#ifndef COW_LIB_SPILL_H
#define COW_LIB_SPILL_H

#include "core/space.h"

#define SPILL_EXTENT 64u

struct spill;

/* -EINVAL: the directory is on tmpfs, which is memory again. */
int spill_new(const char *directory, size_t page_size, struct spill **ret_spill);
void spill_free(struct spill *spill); /* NULL-safe */

/* Moves up to an extent of the space's oldest kept pages out. How many, 0 when there are none that
 * could be moved, or a negative errno; then nothing was moved. */
int spill_some(struct spill *spill, struct space *space);

uint64_t spill_count(struct spill *spill); /* pages written so far */

extern const struct spill_ops spill_file_ops;

#endif
