/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <string.h>

#include "core/host.h"
#include "store/io.h"
#include "store/layer.h"
#include "store/unpack.h"
#include "sys/sys.h"

/* --- opening --- */

static int damaged(struct layer *layer, const char *what)
{
	store_complain(layer->store, layer->name, "damaged or modified: %s", what);
	return -EUCLEAN;
}

int layer_read_footer_of(struct cow_store *store, int fd, const struct layer_id *id,
			 struct footer *ret_footer, uint64_t *ret_file_bytes)
{
	char name[LAYER_NAME_LENGTH];
	unsigned char cluster[CLUSTER];
	struct footer footer;
	uint64_t bytes, links;
	int r;

	layer_name(id, name);
	r = sys_file_size(fd, &bytes, &links);
	if (r < 0)
		return r;
	if (bytes < 5 * CLUSTER || bytes % CLUSTER != 0) {
		store_complain(store, name, "damaged or modified: %llu bytes long, not as written",
			       (unsigned long long)bytes);
		return -EUCLEAN;
	}
	r = io_read(fd, cluster, CLUSTER, bytes - CLUSTER);
	if (r == 0)
		r = footer_decode(cluster, &footer);
	if (r == -EUCLEAN) {
		store_complain(store, name,
			       "damaged or modified: its last cluster is not what "
			       "libcow wrote there");
		return r;
	}
	if (r < 0)
		return r;
	if (!id_equal(&footer.id, id)) {
		store_complain(store, name, "it is another layer than its name says");
		return -EUCLEAN;
	}
	*ret_footer = footer;
	*ret_file_bytes = bytes;
	return 0;
}

int layer_read_footer(struct cow_store *store, const struct layer_id *id, struct footer *ret_footer,
		      uint64_t *ret_file_bytes)
{
	char name[LAYER_NAME_LENGTH];
	int fd, r;

	layer_name(id, name);
	fd = io_open(store->directory, name, O_RDONLY);
	if (fd < 0)
		return fd;
	r = layer_read_footer_of(store, fd, id, ret_footer, ret_file_bytes);
	io_close(fd);
	return r;
}

uint32_t layer_count_below(struct cow_store *store, const struct footer *footer)
{
	struct footer at = *footer;
	uint32_t depth = 0;
	uint64_t bytes;

	while (depth < COW_STORE_DEPTH_MAX && !id_is_none(&at.parent) &&
	       layer_read_footer(store, &at.parent, &at, &bytes) == 0)
		depth++;
	return depth;
}

static bool names_parent(const struct layer *layer)
{
	char parent[LAYER_NAME_LENGTH] = "";

	if (!id_is_none(&layer->footer.parent))
		layer_name(&layer->footer.parent, parent);
	return strcmp(layer->header.backing, parent) == 0;
}

/* How many slices one L2 table is for. */
static uint64_t slices_of_table(const struct layer *layer)
{
	return (uint64_t)1 << 2 * layer->page_shift;
}

static bool is_ours(const struct layer *layer)
{
	const struct qcow2_header *header = &layer->header;
	bool packed = footer_is_packed(&layer->footer);

	return !qcow2_refusal(header) && header->cluster_bits == CLUSTER_BITS + layer->page_shift &&
	       header->compression == (packed ? QCOW2_ZSTD : QCOW2_ZLIB) &&
	       header->size == layer->footer.virtual_size;
}

/* The first cluster, against its checksum and the footer. */
static int read_header(struct layer *layer)
{
	const struct footer *footer = &layer->footer;
	const struct qcow2_header *header = &layer->header;
	unsigned char cluster[CLUSTER];
	uint64_t crcs = div_up(footer->crc_count * 4, CLUSTER);
	uint64_t state = div_up(footer->state_length, CLUSTER);
	uint64_t unit = (uint64_t)1 << layer->page_shift;
	int r;

	if (layer->file_bytes !=
	    div_up(footer->manifest_cluster + state + crcs + 1, unit) * unit * CLUSTER)
		return damaged(layer, "its size is not what was written");
	r = layer_read_clusters(layer, 0, 1, cluster, CHECKED);
	if (r < 0)
		return r;
	if (qcow2_decode(cluster, CLUSTER, &layer->header) < 0 || !is_ours(layer))
		return damaged(layer, "its header is not libcow's");
	if (!names_parent(layer))
		return damaged(layer, "its header names another parent than its manifest");
	if (header->l1_entries != div_up(header->size, slices_of_table(layer) * SLICE_BYTES) ||
	    header->l1_offset % CLUSTER != 0 ||
	    header->l1_offset / CLUSTER + div_up(header->l1_entries, TABLE_ENTRIES) >
		    footer->meta_clusters)
		return damaged(layer, "its first-level table is out of place");
	return 0;
}

static int read_l1(struct layer *layer)
{
	uint64_t clusters = div_up(layer->header.l1_entries, TABLE_ENTRIES);

	layer->l1 = sys_alloc(clusters * CLUSTER);
	if (!layer->l1)
		return -ENOMEM;
	return layer_read_clusters(layer, layer->header.l1_offset, clusters, layer->l1, CHECKED);
}

static void layer_free(struct layer *layer)
{
	for (unsigned i = 0; i < CACHED_SLICES; i++)
		sys_free(layer->cache[i].table);
	io_close(layer->fd);
	unpacker_free(layer->unpacker);
	pthread_mutex_destroy(&layer->unpacking);
	pthread_mutex_destroy(&layer->mutex);
	sys_free(layer->tables);
	sys_free(layer->l1);
	sys_free(layer);
}

#define LOOK_AGAIN 1

/* The file may be replaced, or removed, between opening and holding it; then it has no name any
 * more. LOOK_AGAIN: it is so. -EBUSY: it is being removed. */
static int open_and_hold(struct layer *layer)
{
	struct cow_store *store = layer->store;
	uint64_t bytes, links;
	int r;

	r = layer->fd = io_open(store->directory, layer->name, O_RDONLY);
	if (r >= 0)
		r = layer_read_footer_of(store, layer->fd, &layer->id, &layer->footer,
					 &layer->file_bytes);
	if (r == 0)
		r = store_hold_locked(store, layer->footer.sequence);
	if (r < 0)
		return r;
	layer->held = true;
	r = sys_file_size(layer->fd, &bytes, &links);
	return r == 0 && links == 0 ? LOOK_AGAIN : r;
}

static void let_go(struct layer *layer)
{
	if (layer->held)
		store_release_locked(layer->store, layer->footer.sequence);
	layer->held = false;
	io_close(layer->fd);
	layer->fd = -1;
}

#define BUSY_PAUSE_NS 1000000u

uint64_t layer_patience_ns = 10000000000;

static void pause_until(uint64_t deadline_ns)
{
	_Atomic uint32_t nobody_wakes = 0;

	while (host_wait(&nobody_wakes, 0, deadline_ns))
		;
}

/* Whatever has the name in the end, within reason: who removes a layer may have been stopped. */
static int open_held(struct layer *layer)
{
	uint64_t end = host_now() + layer_patience_ns;
	int r;

	while ((r = open_and_hold(layer)) == LOOK_AGAIN || r == -EBUSY) {
		uint64_t now = host_now();

		if (now >= end) {
			store_complain(layer->store, layer->name,
				       "somebody has been replacing or removing it for a while");
			return -EBUSY;
		}
		let_go(layer);
		if (r == -EBUSY)
			pause_until(now + BUSY_PAUSE_NS);
	}
	return r;
}

static int check_packed(struct layer *layer)
{
	if (!footer_is_packed(&layer->footer))
		return 0;
	layer->page_shift = PACKED_BITS - CLUSTER_BITS;
	if (can_unpack(QCOW2_ZSTD))
		return 0;
	store_complain(layer->store, layer->name,
		       "not supported: it is compressed with zstd, and this libcow was built "
		       "without");
	return -EOPNOTSUPP;
}

static int layer_new(struct cow_store *store, const struct layer_id *id, struct layer **ret_layer)
{
	struct layer *layer = sys_alloc(sizeof(*layer));
	int r;

	if (!layer)
		return -ENOMEM;
	layer->store = store;
	layer->refs = 1;
	layer->id = *id;
	layer->fd = -1;
	pthread_mutex_init(&layer->mutex, NULL);
	pthread_mutex_init(&layer->unpacking, NULL);
	layer_name(id, layer->name);
	r = open_held(layer);
	if (r == 0)
		r = check_packed(layer);
	if (r == 0)
		r = read_header(layer);
	if (r == 0)
		r = read_l1(layer);
	if (r < 0) {
		let_go(layer);
		layer_free(layer);
		return r;
	}
	*ret_layer = layer;
	return 0;
}

static struct layer *find_open(struct cow_store *store, const struct layer_id *id)
{
	struct layer *layer = store->layers;

	while (layer && !id_equal(&layer->id, id))
		layer = layer->next;
	return layer;
}

int layer_open(struct cow_store *store, const struct layer_id *id, struct layer **ret_layer)
{
	struct layer *layer;
	int r = 0;

	pthread_mutex_lock(&store->layers_mutex);
	layer = find_open(store, id);
	if (layer) {
		layer->refs++;
	} else {
		r = layer_new(store, id, &layer);
		if (r == 0) {
			layer->next = store->layers;
			store->layers = layer;
			store_get(store);
		}
	}
	pthread_mutex_unlock(&store->layers_mutex);
	if (r == 0)
		*ret_layer = layer;
	return r;
}

int layer_open_named(struct cow_store *store, const char *name, struct layer **ret_layer)
{
	struct layer_id id;
	int r;

	do {
		r = store_resolve(store, name, &id);
		if (r == 0)
			r = layer_open(store, &id, ret_layer);
	} while (r == -ENOENT && store_has_moved(store));
	return r == -ENOENT ? store_explain_missing(store, name) : r;
}

bool layer_is_stale(const struct layer *layer)
{
	uint64_t bytes, links;

	return sys_file_size(layer->fd, &bytes, &links) == 0 && links == 0;
}

void layer_close(struct layer *layer)
{
	struct cow_store *store;
	struct layer **link;
	bool last;

	if (!layer)
		return;
	store = layer->store;
	pthread_mutex_lock(&store->layers_mutex);
	last = --layer->refs == 0;
	for (link = &store->layers; last && *link; link = &(*link)->next)
		if (*link == layer) {
			*link = layer->next;
			break;
		}
	if (last)
		store_release_locked(store, layer->footer.sequence);
	pthread_mutex_unlock(&store->layers_mutex);
	if (!last)
		return;
	layer_free(layer);
	store_put(store);
}

void layer_forget(struct cow_store *store, const struct layer_id *id)
{
	struct layer **link = &store->layers;

	pthread_mutex_lock(&store->layers_mutex);
	while (*link) {
		if (id_equal(&(*link)->id, id))
			*link = (*link)->next;
		else
			link = &(*link)->next;
	}
	pthread_mutex_unlock(&store->layers_mutex);
}

bool layer_is_open(struct cow_store *store, const struct layer_id *id)
{
	bool found;

	pthread_mutex_lock(&store->layers_mutex);
	found = find_open(store, id) != NULL;
	pthread_mutex_unlock(&store->layers_mutex);
	return found;
}

/* --- reading --- */

static int read_bytes(struct layer *layer, void *buffer, size_t length, uint64_t offset)
{
	int r = io_read(layer->fd, buffer, length, offset);

	return r == -EUCLEAN ? damaged(layer, "it ends too early") : r;
}

int layer_read_crcs(struct layer *layer, uint64_t cluster, uint64_t count, uint32_t crcs[])
{
	uint64_t crc_count = layer->footer.crc_count; /* the array lies behind so many clusters */
	int r;

	if (cluster > crc_count || count > crc_count - cluster)
		return damaged(layer, "a table points past its data");
	r = read_bytes(layer, crcs, count * 4, crc_count * CLUSTER + cluster * 4);
	for (uint64_t i = 0; r == 0 && i < count; i++)
		crcs[i] = get_be32(&crcs[i]);
	return r;
}

#define CHECKED_TOGETHER 64u

static int check_clusters(struct layer *layer, uint64_t cluster, uint64_t count,
			  const unsigned char *bytes)
{
	uint32_t crcs[CHECKED_TOGETHER];
	int r = layer_read_crcs(layer, cluster, count, crcs);

	for (uint64_t i = 0; r == 0 && i < count; i++) {
		if (crc32c(bytes + i * CLUSTER, CLUSTER) == crcs[i])
			continue;
		store_complain(layer->store, layer->name,
			       "damaged or modified: the checksum at byte %llu is wrong",
			       (unsigned long long)(cluster + i) * CLUSTER);
		r = -EUCLEAN;
	}
	return r;
}

int layer_read_clusters(struct layer *layer, uint64_t offset, uint64_t count, void *buffer,
			bool verify)
{
	int r = read_bytes(layer, buffer, count * CLUSTER, offset);

	for (uint64_t done = 0; r == 0 && verify && done < count; done += CHECKED_TOGETHER)
		r = check_clusters(layer, offset / CLUSTER + done,
				   count - done < CHECKED_TOGETHER ? count - done :
								     CHECKED_TOGETHER,
				   (unsigned char *)buffer + done * CLUSTER);
	return r;
}

int layer_read_state(struct layer *layer, void **ret_state)
{
	const struct footer *footer = &layer->footer;
	uint64_t clusters = div_up(footer->state_length, CLUSTER);
	void *state = NULL;
	int r = 0;

	if (clusters > 0) {
		state = sys_alloc(clusters * CLUSTER);
		r = state ? layer_read_clusters(layer, footer->manifest_cluster * CLUSTER, clusters,
						state, CHECKED) :
			    -ENOMEM;
	}
	if (r < 0)
		sys_free(state);
	else
		*ret_state = state;
	return r;
}

/* Under the mutex. */
static struct cached_slice *find_cached(struct layer *layer, uint64_t piece)
{
	struct cached_slice *oldest = &layer->cache[0];

	for (unsigned i = 0; i < CACHED_SLICES; i++) {
		struct cached_slice *cached = &layer->cache[i];

		if (cached->piece == piece + 1)
			return cached;
		if (cached->used < oldest->used)
			oldest = cached;
	}
	return oldest;
}

static int read_table(struct layer *layer, uint64_t offset, unsigned char table[CLUSTER])
{
	if (offset % CLUSTER != 0 || offset / CLUSTER >= layer->footer.meta_clusters)
		return damaged(layer, "its first-level table points past the second level");
	return layer_read_clusters(layer, offset, 1, table, CHECKED);
}

/* Under the mutex. */
static int read_remembered(struct layer *layer, uint64_t piece, uint64_t offset,
			   unsigned char buffer[CLUSTER])
{
	struct cached_slice *cached = find_cached(layer, piece);
	int r = 0;

	cached->used = ++layer->clock;
	if (cached->piece == piece + 1) {
		memcpy(buffer, cached->table, CLUSTER);
		return 0;
	}
	cached->piece = 0;
	r = read_table(layer, offset, buffer);
	if (r == 0 && !cached->table)
		cached->table = sys_alloc(CLUSTER);
	if (r == 0 && cached->table) {
		memcpy(cached->table, buffer, CLUSTER);
		cached->piece = piece + 1;
	}
	return r;
}

/* Of what lies at an offset: 4 KiB of the tables. */
static int read_piece(struct layer *layer, uint64_t piece, uint64_t offset,
		      unsigned char buffer[CLUSTER], enum table_use use,
		      const unsigned char **ret_table)
{
	int r;

	*ret_table = buffer;
	if (use == TABLE_LOADED && layer->tables && offset % CLUSTER == 0 &&
	    offset / CLUSTER >= layer->first_table &&
	    offset / CLUSTER < layer->footer.meta_clusters) {
		*ret_table = layer->tables + (offset - layer->first_table * CLUSTER);
		return 0;
	}
	if (use != TABLE_REMEMBER)
		return read_table(layer, offset, buffer);
	pthread_mutex_lock(&layer->mutex);
	r = read_remembered(layer, piece, offset, buffer);
	pthread_mutex_unlock(&layer->mutex);
	return r;
}

int layer_read_slice(struct layer *layer, uint64_t slice, unsigned char buffer[CLUSTER],
		     enum table_use use, const unsigned char **ret_table)
{
	uint64_t tables = slices_of_table(layer), pieces = (uint64_t)1 << layer->page_shift;
	uint64_t piece = slice / pieces, offset;
	int r;

	if (slice / tables >= layer->header.l1_entries)
		return 0;
	offset = get_be64(layer->l1 + slice / tables * 8) & QCOW2_OFFSET_MASK;
	if (offset == 0)
		return 0;
	r = read_piece(layer, piece, offset + piece % pieces * CLUSTER, buffer, use, ret_table);
	if (r < 0)
		return r;
	*ret_table += slice % pieces * (CLUSTER / pieces);
	return 1;
}

/* Under the mutex. */
static void load_tables(struct layer *layer)
{
	uint64_t l1 = div_up(layer->header.l1_entries, TABLE_ENTRIES);
	uint64_t count;
	unsigned char *tables;

	layer->first_table = layer->header.l1_offset / CLUSTER + l1;
	if (layer->first_table >= layer->footer.meta_clusters)
		return;
	count = layer->footer.meta_clusters - layer->first_table;
	tables = sys_alloc_array(count, CLUSTER);
	if (tables &&
	    layer_read_clusters(layer, layer->first_table * CLUSTER, count, tables, CHECKED) < 0) {
		sys_free(tables); /* who needs the damaged one is told */
		tables = NULL;
	}
	layer->tables = tables;
}

void layer_load(struct layer *layer)
{
	pthread_mutex_lock(&layer->mutex);
	if (layer->loads++ == 0)
		load_tables(layer);
	pthread_mutex_unlock(&layer->mutex);
}

void layer_unload(struct layer *layer)
{
	pthread_mutex_lock(&layer->mutex);
	if (--layer->loads == 0) {
		sys_free(layer->tables);
		layer->tables = NULL;
	}
	pthread_mutex_unlock(&layer->mutex);
}

static int place_packed(struct layer *layer, uint64_t entry, struct place *ret_place)
{
	uint64_t first = packed_offset(entry), end = first + packed_bytes(entry);

	if (first / CLUSTER < layer->footer.meta_clusters ||
	    end > layer->footer.manifest_cluster * CLUSTER ||
	    packed_bytes(entry) > PACKED_MAX + 512)
		return damaged(layer, "a second-level table points past its data");
	ret_place->kind = PLACE_PACKED;
	ret_place->offset = entry & ~QCOW2_COMPRESSED;
	return 0;
}

int layer_place(struct layer *layer, uint64_t entry, struct place *ret_place)
{
	uint64_t offset = entry & QCOW2_OFFSET_MASK;
	bool packed = footer_is_packed(&layer->footer);

	*ret_place = (struct place){ .kind = PLACE_NONE };
	if (entry & QCOW2_COMPRESSED && packed)
		return place_packed(layer, entry, ret_place);
	if (entry & QCOW2_COMPRESSED)
		return damaged(layer, "it has compressed clusters, which libcow did not write");
	if (entry & QCOW2_ZERO) {
		ret_place->kind = PLACE_ZERO;
		return 0;
	}
	if (offset == 0)
		return 0;
	if (packed || offset % CLUSTER != 0 || offset / CLUSTER >= layer->footer.crc_count)
		return damaged(layer, "a second-level table points past its data");
	ret_place->kind = PLACE_DATA;
	ret_place->offset = offset;
	return 0;
}

int layer_read_packed(struct layer *layer, uint64_t packed, unsigned first, unsigned count,
		      unsigned char *buffer, bool verify)
{
	int r = 0;

	pthread_mutex_lock(&layer->unpacking);
	if (!layer->unpacker)
		r = unpacker_new(UNPACKED_CLUSTERS, &layer->unpacker);
	if (r == 0)
		r = unpacker_read(layer->unpacker, layer, packed, first, count, buffer, verify);
	pthread_mutex_unlock(&layer->unpacking);
	return r;
}
