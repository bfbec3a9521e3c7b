/* SPDX-License-Identifier: MIT */
/* Compressed clusters. */
#ifndef COW_STORE_UNPACK_H
#define COW_STORE_UNPACK_H

#include <stddef.h>

#include "store/format.h"

/* Whether this build can; zlib always. */
bool can_unpack(enum qcow2_compression compression);

/* Unpacks exactly one cluster; what follows its end is not looked at. -EUCLEAN: it is damaged;
 * -EOPNOTSUPP. */
int unpack(enum qcow2_compression compression, const void *packed, size_t packed_bytes, void *to,
	   size_t bytes);

#endif
