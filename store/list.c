/* SPDX-License-Identifier: MIT */
/* What is in a store, and tags. */
#include "lib/internal.h"
#include "store/index.h"
#include "store/io.h"

static void fill_info(struct cow_store *store, const struct index_entry *entry,
		      struct cow_layer_info *info)
{
	const struct footer *footer = &entry->footer;

	*info = (struct cow_layer_info)COW_LAYER_INFO_INIT;
	id_print(&entry->id, info->id);
	if (!id_is_none(&footer->parent))
		id_print(&footer->parent, info->parent);
	info->flags = (id_equal(&store->refs.head, &entry->id) ? COW_LAYER_HEAD : 0) |
		      (refs_is_deleted(&store->refs, &entry->id) ? COW_LAYER_DELETED : 0) |
		      (footer->flags & FOOTER_COMPRESSED ? COW_LAYER_COMPRESSED : 0) |
		      (layer_is_open(store, &entry->id) ? COW_LAYER_IN_USE : 0) |
		      (entry->error ? COW_LAYER_DAMAGED : 0);
	info->depth = entry->depth;
	info->sequence = footer->sequence;
	info->time_ns = footer->time_ns;
	info->length = footer->length;
	info->address = footer->address;
	info->page_size = footer->page_size;
	info->data_bytes = footer->held_clusters * CLUSTER;
	info->zero_bytes = footer->zero_clusters * CLUSTER;
	info->file_bytes = entry->file_bytes;
	info->state_length = footer->state_length;
}

static int find_entry(struct cow_store *store, const char *name, struct index_entry *ret_entry)
{
	struct index_entry entry = { 0 };
	int r;

	do {
		r = store_resolve(store, name, &entry.id);
		if (r == 0)
			r = layer_read_footer(store, &entry.id, &entry.footer, &entry.file_bytes);
	} while (r == -ENOENT && store_has_moved(store));
	if (r == -ENOENT)
		r = store_explain_missing(store, name);
	if (r == 0)
		*ret_entry = entry;
	return r;
}

int cow_store_get_info(struct cow_store *store, const char *id, struct cow_layer_info *ret_info)
{
	struct cow_layer_info info;
	struct index_entry entry;
	size_t room;
	int r;

	r = stats_room(ret_info, sizeof(info), sizeof(info), &room);
	if (r == 0)
		r = store_begin(store, STORE_READS);
	if (r < 0)
		return r;
	r = find_entry(store, id, &entry);
	if (r == 0) {
		entry.depth = layer_count_below(store, &entry.footer);
		fill_info(store, &entry, &info);
	}
	store_end(store);
	if (r < 0)
		return r;
	info.size = room;
	memcpy(ret_info, &info, room);
	return 0;
}

static int copy_state(struct layer *layer, void *buffer, size_t length)
{
	void *state;
	int r = length > 0 ? layer_read_state(layer, &state) : 0;

	if (r < 0 || length == 0)
		return r;
	if (length > layer->footer.state_length)
		length = layer->footer.state_length;
	if (state)
		memcpy(buffer, state, length);
	sys_free(state);
	return 0;
}

ssize_t cow_store_get_state(struct cow_store *store, const char *id, void *buffer, size_t length)
{
	struct layer *layer = NULL;
	ssize_t n = 0;
	int r;

	if (!buffer && length > 0)
		return -EINVAL;
	r = store_begin(store, STORE_READS);
	if (r < 0)
		return r;
	r = layer_open_named(store, id, &layer);
	if (r == 0) {
		n = (ssize_t)layer->footer.state_length;
		r = copy_state(layer, buffer, length);
	}
	layer_close(layer);
	store_end(store);
	return r < 0 ? r : n;
}

/* Who lists a store would else take it for an emptier one. */
static int complain_missing(const struct tag *tag, const struct layer_id *id, void *context)
{
	const struct cow_store *store = context;
	char text[COW_ID_LENGTH];

	id_print(id, text);
	if (tag)
		store_complain(store, NAME_HEAD, "the tag %s names the layer %s, which is missing",
			       tag->name, text);
	else
		store_complain(store, NAME_HEAD, "names the layer %s, which is missing", text);
	return 0;
}

int cow_store_list(struct cow_store *store, cow_layer_fn layer, void *context)
{
	struct cow_layer_info info;
	struct index index;
	int r;

	if (!layer)
		return -EINVAL;
	r = store_begin(store, STORE_READS);
	if (r < 0)
		return r;
	r = index_build(store, &index);
	if (r < 0) {
		store_end(store);
		return r;
	}
	(void)index_each_missing(store, &index, complain_missing, store);
	for (size_t i = 0; r == 0 && i < index.count; i++) {
		if (index.entries[i].footer.sequence > store->refs.sequence)
			continue; /* of a save that never happened */
		fill_info(store, &index.entries[i], &info);
		r = layer(&info, context);
	}
	index_free(&index);
	store_end(store);
	return r;
}

/* --- tags --- */

int cow_store_list_tags(struct cow_store *store, cow_tag_fn tag, void *context)
{
	char id[COW_ID_LENGTH];
	int r;

	if (!tag)
		return -EINVAL;
	r = store_begin(store, STORE_READS);
	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < store->refs.tag_count; i++) {
		id_print(&store->refs.tags[i].id, id);
		r = tag(store->refs.tags[i].name, id, context);
	}
	store_end(store);
	return r;
}

static int set_tag(struct cow_store *store, const char *name, const char *tag)
{
	struct index_entry entry;
	struct refs refs;
	int r = find_entry(store, name, &entry);

	if (r == 0)
		r = refs_copy(&store->refs, &refs);
	if (r < 0)
		return r;
	r = refs_set_tag(&refs, tag, &entry.id);
	if (r < 0) {
		refs_free(&refs);
		return r;
	}
	return store_commit(store, &refs);
}

int cow_store_tag(struct cow_store *store, const char *id, const char *tag)
{
	int r;

	r = tag ? store_check_tag(tag) : -EINVAL;
	if (r == 0)
		r = store_begin(store, STORE_WRITES);
	if (r < 0)
		return r;
	r = set_tag(store, id, tag);
	store_end(store);
	return r;
}

int cow_store_untag(struct cow_store *store, const char *tag)
{
	struct refs refs;
	int r;

	if (!tag)
		return -EINVAL;
	r = store_begin(store, STORE_WRITES);
	if (r < 0)
		return r;
	r = refs_find_tag(&store->refs, tag) ? refs_copy(&store->refs, &refs) : -ENOENT;
	if (r == 0) {
		refs_drop_tag(&refs, tag);
		r = store_commit(store, &refs);
	}
	store_end(store);
	return r;
}
