/* SPDX-License-Identifier: MIT */
/* What is declared and not written yet. */
#include <errno.h>

#include "store/store.h"

#define LATER(name, ...)        \
	int name(__VA_ARGS__)   \
	{                       \
		return -ENOSYS; \
	}
LATER(cow_store_restore, struct cow_store *store, const char *id,
      const struct cow_restore_options *options, struct cow_region **ret_region)
LATER(cow_store_get_info, struct cow_store *store, const char *id,
      struct cow_layer_info *ret_info)
LATER(cow_store_list, struct cow_store *store, cow_layer_fn layer, void *context)
LATER(cow_store_list_tags, struct cow_store *store, cow_tag_fn tag, void *context)
LATER(cow_store_tag, struct cow_store *store, const char *id, const char *tag)
LATER(cow_store_untag, struct cow_store *store, const char *tag)
LATER(cow_store_delete, struct cow_store *store, const char *id)
LATER(cow_store_compact, struct cow_store *store, const struct cow_compact_options *options,
      struct cow_compact_stats *ret_stats)
LATER(cow_store_verify, struct cow_store *store, const char *id, cow_damage_fn damage,
      cow_progress_fn progress, void *context)
LATER(cow_store_diff, struct cow_store *store, const char *older, const char *newer,
      cow_range_fn range, void *context)
LATER(cow_store_export, struct cow_store *store, const char *id, const char *path,
      cow_progress_fn progress, void *context)
LATER(cow_store_import, struct cow_store *store, const char *path,
      const struct cow_import_options *options, char ret_id[COW_ID_LENGTH])
ssize_t cow_store_get_state(struct cow_store *store, const char *id, void *buffer, size_t length)
{
	return -ENOSYS;
}
