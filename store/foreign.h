/* SPDX-License-Identifier: MIT */
/*
 * Images that others wrote: raw, and qcow2 of versions 2 and 3, with clusters of 512 bytes to 2
 * MiB, compressed or not, on backing files of either format. Only read; nothing in them is trusted:
 * every offset is checked, and what is not understood is refused by its name in the log.
 *
 * Internal snapshots are not looked at: what is read is what a guest would see.
 */
#ifndef COW_STORE_FOREIGN_H
#define COW_STORE_FOREIGN_H

#include "store/format.h"

#define FOREIGN_DEPTH_MAX 256u

struct foreign;

/* format: "raw", "qcow2"; NULL: found out. -EINVAL: an unknown format, or not what was said;
 * -EOPNOTSUPP, -EUCLEAN, -ELOOP, and what the calls give. The log has the file's name. */
int foreign_open(const char *path, const char *format, struct foreign **ret_foreign);
void foreign_close(struct foreign *foreign); /* NULL-safe */
uint64_t foreign_size(const struct foreign *foreign);
/* Says to the log what is wrong with it; returns the error. */
int foreign_complain(const struct foreign *foreign, int error, const char *what);

/* Whether there may be data at offset, or zeroes for certain: 1, 0; and for how many bytes that
 * holds, at least 1, at most up to the end. */
int foreign_status(struct foreign *foreign, uint64_t offset, uint64_t *ret_length);

/* Past the end everything is zero. */
int foreign_read(struct foreign *foreign, uint64_t offset, unsigned char *buffer, size_t length);

#endif
