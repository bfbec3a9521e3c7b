/* SPDX-License-Identifier: MIT */
/* What is declared and not written yet. */
#include <errno.h>

#include "store/store.h"

#define LATER(name, ...)        \
	int name(__VA_ARGS__)   \
	{                       \
		return -ENOSYS; \
	}
LATER(cow_store_import, struct cow_store *store, const char *path,
      const struct cow_import_options *options, char ret_id[COW_ID_LENGTH])
