/* SPDX-License-Identifier: MIT */
/*
 * Verification: every byte of every layer against its checksum, every name against what it names.
 * Layers are read as files, not through their tables, so that damage is found wherever it is.
 *
 * Beside a writer, a reader takes each file as it finds it, with the footer that is in it then: a
 * compaction may have replaced it, or removed it, since the directory was read.
 */
#include <fcntl.h>
#include <stdio.h>

#include "lib/internal.h"
#include "store/index.h"
#include "store/io.h"

#define PIECE 256u /* clusters read at a time */

struct verify {
	struct cow_store *store;
	cow_damage_fn damage;
	cow_progress_fn progress;
	void *context;
	uint64_t done, total; /* bytes */
	bool damaged;
	unsigned char *piece;
	uint32_t *crcs; /* of the layer in turn */
};

static int report(struct verify *verify, const struct layer_id *id, uint64_t offset,
		  uint64_t length, const char *what)
{
	char text[COW_ID_LENGTH] = "";

	verify->damaged = true;
	if (id)
		id_print(id, text);
	if (!verify->damage)
		return 0;
	return verify->damage(text, offset, length, what, verify->context);
}

static int advance(struct verify *verify, uint64_t bytes)
{
	verify->done += bytes;
	if (!verify->progress)
		return 0;
	if (verify->done > verify->total) /* a file was replaced by a larger one */
		verify->done = verify->total;
	return verify->progress(verify->done, verify->total, verify->context) ? -ECANCELED : 0;
}

/* Neighbours that are damaged are one piece of damage. */
static int check_piece(struct verify *verify, const struct layer_id *id, uint64_t first,
		       uint64_t count, uint64_t meta)
{
	uint64_t bad = 0;
	int r = 0;

	for (uint64_t i = 0; r == 0 && i <= count; i++) {
		bool good = i == count || crc32c(verify->piece + i * CLUSTER, CLUSTER) ==
						  get_be32(&verify->crcs[first + i]);

		if (!good) {
			bad++;
		} else if (bad > 0) {
			r = report(verify, id, (first + i - bad) * CLUSTER, bad * CLUSTER,
				   first + i - bad < meta ? "metadata: wrong checksum" :
							    "data: wrong checksum");
			bad = 0;
		}
	}
	return r;
}

static int read_array(struct verify *verify, const struct index_entry *entry, int fd)
{
	const struct footer *footer = &entry->footer;
	uint64_t at = footer->crc_count * CLUSTER;
	size_t bytes;
	int r;

	if (at > entry->file_bytes - CLUSTER)
		return report(verify, &entry->id, 0, entry->file_bytes, "too short") ?: 1;
	bytes = entry->file_bytes - CLUSTER - at;
	if (bytes < footer->crc_count * 4)
		return report(verify, &entry->id, at, bytes, "the checksums are cut short") ?: 1;
	verify->crcs = sys_alloc(bytes);
	if (!verify->crcs)
		return -ENOMEM;
	r = io_read(fd, verify->crcs, bytes, at);
	if (r == 0 && crc32c(verify->crcs, bytes) != footer->crc_of_array)
		r = report(verify, &entry->id, at, bytes, "the checksums themselves are damaged");
	return r;
}

static int check_clusters(struct verify *verify, const struct index_entry *entry, int fd)
{
	uint64_t count = entry->footer.crc_count;
	int r = 0;

	for (uint64_t at = 0; r == 0 && at < count; at += PIECE) {
		uint64_t some = count - at < PIECE ? count - at : PIECE;

		r = io_read(fd, verify->piece, some * CLUSTER, at * CLUSTER);
		if (r == -EIO)
			r = report(verify, &entry->id, at * CLUSTER, some * CLUSTER,
				   "it cannot be read");
		else if (r == 0)
			r = check_piece(verify, &entry->id, at, some, entry->footer.meta_clusters);
		if (r == 0)
			r = advance(verify, some * CLUSTER);
	}
	return r;
}

static int check_open_file(struct verify *verify, struct index_entry *entry, int fd)
{
	int r = layer_read_footer_of(verify->store, fd, &entry->id, &entry->footer,
				     &entry->file_bytes);

	if (r == -EUCLEAN)
		return report(verify, &entry->id, 0, 0, "its last cluster is damaged");
	if (r == 0)
		r = read_array(verify, entry, fd);
	if (r == 0)
		r = check_clusters(verify, entry, fd);
	sys_free(verify->crcs);
	verify->crcs = NULL;
	return r == 1 ? 0 : r;
}

static int check_file(struct verify *verify, const struct index_entry *entry)
{
	struct index_entry now = *entry;
	char name[LAYER_NAME_LENGTH];
	int fd, r;

	if (entry->error == -EUCLEAN)
		return report(verify, &entry->id, 0, 0, "its last cluster is damaged");
	if (entry->error)
		return report(verify, &entry->id, 0, 0, "it cannot be read");
	layer_name(&entry->id, name);
	fd = io_open(verify->store->directory, name, O_RDONLY);
	if (fd == -ENOENT && verify->store->read_only)
		return 0; /* removed by the writer meanwhile */
	if (fd < 0)
		return fd;
	r = check_open_file(verify, &now, fd);
	io_close(fd);
	return r;
}

static const struct index_entry *parent_of(const struct index *index,
					   const struct index_entry *entry)
{
	return entry->error || id_is_none(&entry->footer.parent) ?
		       NULL :
		       index_find(index, &entry->footer.parent);
}

/* Whether a layer that has not been deleted is this one, or stands on it. Of those that nothing
 * needs any more some may be gone before others: a crash amid their removal left the rest. */
static bool is_needed(const struct verify *verify, const struct index *index,
		      const struct index_entry *entry)
{
	const struct refs *refs = &verify->store->refs;

	for (size_t i = 0; i < index->count; i++) {
		const struct index_entry *at = &index->entries[i];

		if (refs_is_deleted(refs, &at->id))
			continue;
		for (size_t hops = 0; at && hops <= index->count; hops++) {
			if (at == entry)
				return true;
			at = parent_of(index, at);
		}
	}
	return false;
}

static int check_parent(struct verify *verify, const struct index *index,
			const struct index_entry *entry)
{
	const struct index_entry *parent;

	if (entry->error || id_is_none(&entry->footer.parent))
		return 0;
	parent = parent_of(index, entry);
	if (!parent && !is_needed(verify, index, entry))
		return 0;
	if (!parent)
		return report(verify, &entry->id, 0, 0, "its parent is missing");
	if (parent->error)
		return 0; /* has been said */
	if (parent->footer.sequence != entry->footer.parent_sequence ||
	    parent->footer.sequence >= entry->footer.sequence)
		return report(verify, &entry->id, 0, 0, "its parent is another layer than it was");
	return 0;
}

static int report_missing(const struct tag *tag, const struct layer_id *id, void *context)
{
	char what[COW_TAG_LENGTH + 60];

	(void)id;
	if (!tag)
		return report(context, NULL, 0, 0, "HEAD names a layer that is missing");
	snprintf(what, sizeof(what), "the tag %s names a layer that is missing", tag->name);
	return report(context, NULL, 0, 0, what);
}

/* The layers to look at: one and all that lie below it, or each. */
static size_t select_layers(const struct index *index, const struct layer_id *from,
			    const struct index_entry *chosen[])
{
	const struct index_entry *entry = from ? index_find(index, from) : NULL;
	size_t count = 0;

	for (; !from && count < index->count; count++)
		chosen[count] = &index->entries[count];
	while (entry && count < index->count) {
		chosen[count++] = entry;
		entry = parent_of(index, entry);
	}
	return count;
}

static int check_layers(struct verify *verify, const struct index *index,
			const struct layer_id *from)
{
	const struct index_entry **chosen = sys_alloc_array(index->count + 1, sizeof(chosen[0]));
	size_t count;
	int r = 0;

	if (!chosen)
		return -ENOMEM;
	count = select_layers(index, from, chosen);
	for (size_t i = 0; i < count; i++)
		verify->total += chosen[i]->footer.crc_count * CLUSTER;
	for (size_t i = 0; r == 0 && i < count; i++) {
		r = check_parent(verify, index, chosen[i]);
		if (r == 0)
			r = check_file(verify, chosen[i]);
	}
	sys_free(chosen);
	return r == 0 && count == 0 && from ? -ENOENT : r;
}

static int verify_locked(struct verify *verify, const char *name)
{
	struct index index;
	struct layer_id id;
	int r = name ? store_resolve(verify->store, name, &id) : 0;

	if (r < 0)
		return r;
	r = index_build(verify->store, &index);
	if (r < 0)
		return r;
	if (!name)
		r = index_each_missing(verify->store, &index, report_missing, verify);
	if (r == 0)
		r = check_layers(verify, &index, name ? &id : NULL);
	index_free(&index);
	return r;
}

int cow_store_verify(struct cow_store *store, const char *id, cow_damage_fn damage,
		     cow_progress_fn progress, void *context)
{
	struct verify verify = {
		.store = store,
		.damage = damage,
		.progress = progress,
		.context = context,
	};
	int r = store_begin(store, STORE_READS);

	if (r < 0)
		return r;
	verify.piece = sys_alloc(PIECE * CLUSTER);
	r = verify.piece ? verify_locked(&verify, id) : -ENOMEM;
	sys_free(verify.piece);
	store_end(store);
	return r == 0 && verify.damaged ? -EUCLEAN : r;
}
