/* SPDX-License-Identifier: MIT */
#include "store/delete.h"
#include "store/io.h"
#include "store/publish.h"

static uint64_t highest_sequence(const struct index *index)
{
	uint64_t highest = 0;

	for (size_t i = 0; i < index->count; i++)
		if (!index->entries[i].error && index->entries[i].footer.sequence > highest)
			highest = index->entries[i].footer.sequence;
	return highest;
}

int sweep_unpublished(struct cow_store *store, const struct index *index,
		      struct cow_compact_stats *stats)
{
	uint64_t highest = highest_sequence(index);
	uint32_t removed = 0;
	int r = 0;

	if (highest > store->refs.sequence + 1) {
		store_complain(store, NAME_HEAD,
			       "older than the layers beside it: an old copy? What was saved "
			       "since is kept");
		store->refs.sequence = highest;
		return 0;
	}
	for (size_t i = 0; r == 0 && i < index->count; i++) {
		const struct index_entry *entry = &index->entries[i];

		if (entry->error || entry->footer.sequence <= store->refs.sequence)
			continue;
		r = layer_remove(store, entry);
		removed += r == 0;
		if (r == -EBUSY)
			r = 0;
	}
	stats->removed += removed;
	return r == 0 && removed > 0 ? io_sync_dir(store->directory) : r;
}

static int sweep(struct cow_store *store)
{
	struct cow_compact_stats ignored = COW_COMPACT_STATS_INIT;
	struct index index;
	int r = index_build(store, &index);

	if (r < 0)
		return r;
	r = sweep_unpublished(store, &index, &ignored);
	index_free(&index);
	return r;
}

int next_sequence(struct cow_store *store, uint64_t *ret_sequence)
{
	int r = store->unswept ? sweep(store) : 0;

	if (r < 0)
		return r;
	store->unswept = false;
	if (store->refs.sequence >= SEQUENCE_MAX) {
		store_complain(store, NAME_HEAD,
			       "no number is left for a new layer: somebody made one with the "
			       "highest there is; import the newest into a new store");
		return -EOVERFLOW;
	}
	*ret_sequence = store->refs.sequence + 1;
	return 0;
}

int publish_again(struct cow_store *store, const struct publication *publication)
{
	const struct layer_id *id = &publication->id;
	struct refs refs;
	int r = refs_copy(&store->refs, &refs);

	if (r < 0)
		return r;
	if (!publication->keep_head || id_is_none(&refs.head))
		refs.head = *id;
	if (publication->sequence > refs.sequence)
		refs.sequence = publication->sequence;
	refs_drop_deleted(&refs, id); /* it is named again */
	if (publication->tag)
		r = refs_set_tag(&refs, publication->tag, id);
	if (r < 0) {
		refs_free(&refs);
		return r;
	}
	return store_commit(store, &refs);
}

/* A failed commit may have changed HEAD all the same: what it names stays. */
static void take_back(struct cow_store *store, const struct layer_id *id)
{
	char name[LAYER_NAME_LENGTH];

	if (id_equal(&store->refs.head, id) || refs_is_tagged(&store->refs, id))
		return;
	layer_name(id, name);
	if (io_unlink(store->directory, name) < 0)
		store->unswept = true; /* before its number is given out again */
}

int publish_new(struct cow_store *store, const struct publication *publication)
{
	int r = io_sync_dir(store->directory);

	if (r == 0)
		r = publish_again(store, publication);
	if (r < 0)
		take_back(store, &publication->id);
	return r;
}
