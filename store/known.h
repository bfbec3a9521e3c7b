/* SPDX-License-Identifier: MIT */
/*
 * Checksums of what was saved of a region last: opened is not written, and what reads as it did in
 * the parent need not be written again.
 *
 * A hint and no more: where the checksum is the same the parent itself is read and compared. So
 * nothing here need be exact, and what a save that failed has entered does no harm. 4 bytes for
 * each cluster that was ever saved.
 */
#ifndef COW_STORE_KNOWN_H
#define COW_STORE_KNOWN_H

#include "store/layer.h"

struct known;

int known_new(uint64_t length, struct known **ret_known);
void known_free(struct known *known); /* NULL-safe */

/* Whether a cluster's checksum was this one; it is from now on. Where there is no memory it is
 * forgotten. */
bool known_swap(struct known *known, uint64_t cluster, uint32_t crc);

#endif
