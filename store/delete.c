/* SPDX-License-Identifier: MIT */
#include <assert.h>

#include "lib/internal.h"
#include "store/delete.h"
#include "store/io.h"

/* The nearest layer below that has not been given up itself. */
static struct layer_id kept_parent(struct cow_store *store, const struct index *index,
				   const struct index_entry *entry)
{
	struct layer_id id = entry->footer.parent;

	while (!id_is_none(&id) && refs_is_deleted(&store->refs, &id)) {
		const struct index_entry *parent = index_find(index, &id);

		if (!parent || parent->error)
			break;
		id = parent->footer.parent;
	}
	return id;
}

static int check_delete(struct cow_store *store, const struct layer_id *id,
			const struct layer_id *parent)
{
	char name[LAYER_NAME_LENGTH];

	layer_name(id, name);
	for (size_t i = 0; i < store->refs.tag_count; i++) {
		if (!id_equal(&store->refs.tags[i].id, id))
			continue;
		store_complain(store, name, "not deleted: the tag %s names it; remove that first",
			       store->refs.tags[i].name);
		return -EBUSY;
	}
	if (id_equal(&store->refs.head, id) && id_is_none(parent)) {
		store_complain(store, name, "not deleted: it is HEAD and has no parent");
		return -EBUSY;
	}
	return 0;
}

int layer_remove(struct cow_store *store, const struct index_entry *entry)
{
	char name[LAYER_NAME_LENGTH];
	int r = store_lock_unused(store, entry->footer.sequence);

	if (r < 0)
		return r;
	layer_name(&entry->id, name);
	r = io_unlink(store->directory, name);
	store_unlock(store, entry->footer.sequence);
	return r == -ENOENT ? 0 : r;
}

/* Given up in HEAD first; then the file, and all below that was only there for it. What cannot go
 * now goes with the next compaction. */
static int delete_entry(struct cow_store *store, const struct index *index,
			const struct index_entry *entry)
{
	struct layer_id parent = kept_parent(store, index, entry);
	struct refs refs;
	int r = check_delete(store, &entry->id, &parent);

	if (r == 0)
		r = refs_copy(&store->refs, &refs);
	if (r < 0)
		return r;
	r = refs_add_deleted(&refs, &entry->id);
	if (r < 0) {
		refs_free(&refs);
		return r;
	}
	if (id_equal(&refs.head, &entry->id))
		refs.head = parent;
	return store_commit(store, &refs);
}

static bool can_go(const struct index_entry *entry, const struct refs *refs)
{
	return !entry->error && entry->children == 0 && refs_is_deleted(refs, &entry->id);
}

/* Newest first: a parent is left alone when its last child is gone. */
static int remove_all(struct cow_store *store, struct index *index, struct refs *refs,
		      struct cow_compact_stats *stats)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < index->count; i++) {
		struct index_entry *entry = &index->entries[i], *parent;

		if (!can_go(entry, refs))
			continue;
		r = layer_remove(store, entry);
		if (r == -EBUSY) {
			stats->busy++;
			r = 0;
			continue;
		}
		if (r < 0)
			break;
		stats->removed++;
		refs_drop_deleted(refs, &entry->id);
		parent = index_find(index, &entry->footer.parent);
		if (parent)
			parent->children--;
	}
	return r;
}

/* Those whose files were removed just before a crash. */
static void forget_missing(const struct index *index, struct refs *refs)
{
	for (size_t i = refs->deleted_count; i-- > 0;)
		if (!index_find(index, &refs->deleted[i]))
			refs_drop_deleted(refs, &refs->deleted[i]);
}

int sweep_deleted(struct cow_store *store, struct index *index, struct cow_compact_stats *stats)
{
	struct refs refs;
	int r;

	/* A layer that cannot be read now may be somebody's child all the same. */
	assert(index->errors == 0);
	r = refs_copy(&store->refs, &refs);
	if (r < 0)
		return r;
	forget_missing(index, &refs);
	r = remove_all(store, index, &refs, stats);
	if (r < 0 || refs.deleted_count == store->refs.deleted_count) {
		refs_free(&refs);
		return r;
	}
	/* Forgotten only when the files are gone for sure: else they would be layers again. */
	r = io_sync_dir(store->directory);
	if (r < 0) {
		refs_free(&refs);
		return r;
	}
	return store_commit(store, &refs);
}

int cow_store_delete(struct cow_store *store, const char *id)
{
	struct cow_compact_stats stats = COW_COMPACT_STATS_INIT;
	struct layer_id found;
	struct index index = { 0 };
	struct index_entry *entry;
	int r = store_begin(store, STORE_WRITES);

	if (r < 0)
		return r;
	r = store_resolve(store, id, &found);
	if (r == 0)
		r = index_build(store, &index);
	if (r == 0) {
		entry = index_find(&index, &found);
		r = !entry ? -ENOENT : entry->error ?: delete_entry(store, &index, entry);
		/* It is deleted; what cannot be tidied up now goes with the next compaction. */
		if (r == 0 && index.errors == 0)
			(void)sweep_deleted(store, &index, &stats);
	}
	index_free(&index);
	store_end(store);
	return r;
}
