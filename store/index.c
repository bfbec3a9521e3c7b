/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "store/index.h"
#include "sys/sys.h"

struct building {
	struct cow_store *store;
	struct index *index;
};

static int add(struct index *index, const struct index_entry *entry)
{
	if (index->count == index->room) {
		size_t room = index->room * 2 + 32;
		struct index_entry *more = sys_alloc_array(room, sizeof(more[0]));

		if (!more)
			return -ENOMEM;
		if (index->count > 0)
			memcpy(more, index->entries, index->count * sizeof(more[0]));
		sys_free(index->entries);
		index->entries = more;
		index->room = room;
	}
	index->entries[index->count++] = *entry;
	return 0;
}

static int add_name(const char *name, void *context)
{
	struct building *building = context;
	struct index_entry entry = { 0 };

	if (!layer_name_parse(name, &entry.id))
		return 0;
	entry.error = layer_read_footer(building->store, &entry.id, &entry.footer,
					&entry.file_bytes);
	if (entry.error == -ENOENT)
		return 0; /* gone meanwhile */
	if (entry.error == -ENOMEM || entry.error == -EMFILE || entry.error == -ENFILE)
		return entry.error;
	building->index->errors += entry.error != 0;
	return add(building->index, &entry);
}

static int by_age(const void *a, const void *b)
{
	const struct index_entry *x = a, *y = b;

	if ((x->error != 0) != (y->error != 0))
		return x->error != 0 ? 1 : -1;
	if (x->footer.sequence != y->footer.sequence)
		return x->footer.sequence > y->footer.sequence ? -1 : 1;
	return memcmp(x->id.bytes, y->id.bytes, ID_BYTES);
}

static int by_id(const void *a, const void *b)
{
	const struct index_entry *const *x = a, *const *y = b;

	return memcmp((*x)->id.bytes, (*y)->id.bytes, ID_BYTES);
}

struct index_entry *index_find(const struct index *index, const struct layer_id *id)
{
	struct index_entry wanted = { .id = *id }, *key = &wanted, **found;

	if (index->count == 0)
		return NULL;
	found = bsearch(&key, index->by_id, index->count, sizeof(index->by_id[0]), by_id);
	return found ? *found : NULL;
}

static int sort(struct index *index)
{
	if (index->count == 0)
		return 0;
	index->by_id = sys_alloc_array(index->count, sizeof(index->by_id[0]));
	if (!index->by_id)
		return -ENOMEM;
	qsort(index->entries, index->count, sizeof(index->entries[0]), by_age);
	for (size_t i = 0; i < index->count; i++)
		index->by_id[i] = &index->entries[i];
	qsort(index->by_id, index->count, sizeof(index->by_id[0]), by_id);
	return 0;
}

/* Parents are older than their children, so the oldest come first. */
static void link_all(struct index *index)
{
	for (size_t i = index->count; i-- > 0;) {
		struct index_entry *entry = &index->entries[i], *parent;

		if (entry->error || id_is_none(&entry->footer.parent))
			continue;
		parent = index_find(index, &entry->footer.parent);
		if (!parent || parent->error)
			continue;
		parent->children++;
		entry->depth = parent->depth + 1;
	}
}

int index_each_missing(const struct cow_store *store, const struct index *index, missing_fn missing,
		       void *context)
{
	const struct refs *refs = &store->refs;
	int r = 0;

	if (!id_is_none(&refs->head) && !index_find(index, &refs->head))
		r = missing(NULL, &refs->head, context);
	for (size_t i = 0; r == 0 && i < refs->tag_count; i++)
		if (!index_find(index, &refs->tags[i].id))
			r = missing(&refs->tags[i], &refs->tags[i].id, context);
	return r;
}

static int is_missing(const struct tag *tag, const struct layer_id *id, void *context)
{
	return 1;
}

static bool is_complete(const struct cow_store *store, const struct index *index)
{
	for (size_t i = 0; i < index->count; i++) {
		const struct index_entry *entry = &index->entries[i];

		if (!entry->error && !id_is_none(&entry->footer.parent) &&
		    !index_find(index, &entry->footer.parent))
			return false;
	}
	return index_each_missing(store, index, is_missing, NULL) == 0;
}

static int build_once(struct cow_store *store, struct index *ret_index)
{
	struct index index = { 0 };
	struct building building = { store, &index };
	int r = sys_list_directory(store->directory, add_name, &building);

	if (r == 0)
		r = sort(&index);
	if (r < 0) {
		index_free(&index);
		return r;
	}
	link_all(&index);
	*ret_index = index;
	return 0;
}

/* Each further look needs a further change by the writer; what is missing still is. */
#define LOOKS 4u

int index_build(struct cow_store *store, struct index *ret_index)
{
	int r = build_once(store, ret_index);

	for (unsigned i = 1; r == 0 && i < LOOKS && store->read_only; i++) {
		if (is_complete(store, ret_index))
			break;
		index_free(ret_index);
		(void)store_has_moved(store);
		r = build_once(store, ret_index);
	}
	return r;
}

void index_free(struct index *index)
{
	sys_free(index->entries);
	sys_free(index->by_id);
	*index = (struct index){ 0 };
}
