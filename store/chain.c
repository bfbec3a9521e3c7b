/* SPDX-License-Identifier: MIT */
/* Chains of layers: putting them together, and reading through them. */
#include <string.h>

#include "store/layer.h"
#include "sys/sys.h"

void chain_unload(struct chain *chain)
{
	for (unsigned i = 0; i < chain->depth; i++)
		layer_unload(chain->layers[i]);
	chain->loaded = false;
}

void chain_close(struct chain *chain)
{
	if (!chain)
		return;
	if (chain->loaded)
		chain_unload(chain);
	for (unsigned i = 0; i < chain->depth; i++)
		layer_close(chain->layers[i]);
	sys_free(chain->layers);
	sys_free(chain);
}

static int add_layer(struct chain *chain, struct layer *layer)
{
	if (chain->depth % 32 == 0) {
		struct layer **more = sys_alloc_array(chain->depth + 32, sizeof(more[0]));

		if (!more)
			return -ENOMEM;
		if (chain->depth > 0)
			memcpy(more, chain->layers, chain->depth * sizeof(more[0]));
		sys_free(chain->layers);
		chain->layers = more;
	}
	chain->layers[chain->depth++] = layer;
	return 0;
}

static bool is_in(const struct chain *chain, const struct layer_id *id)
{
	for (unsigned i = 0; i < chain->depth; i++)
		if (id_equal(&chain->layers[i]->id, id))
			return true;
	return false;
}

/* Whether a layer may be the next below the chain so far. Sequences fall from child to parent, so a
 * circle shows in them, too. */
static int check_next(struct chain *chain, const struct layer_id *id)
{
	const struct layer *child = chain->depth ? chain->layers[chain->depth - 1] : NULL;

	if (chain->depth >= COW_STORE_DEPTH_MAX) {
		store_complain(chain->store, child->name,
			       "the chain below is longer than %d layers: compact the store",
			       COW_STORE_DEPTH_MAX);
		return -E2BIG;
	}
	if (is_in(chain, id)) {
		store_complain(chain->store, child->name, "the chain runs in a circle");
		return -ELOOP;
	}
	return 0;
}

static int check_parent(struct chain *chain, struct layer *parent)
{
	const struct layer *child;

	if (chain->depth == 0)
		return 0;
	child = chain->layers[chain->depth - 1];
	if (parent->footer.sequence == child->footer.parent_sequence)
		return 0;
	store_complain(chain->store, parent->name,
		       "modified: it is not the layer that its child %s was saved on", child->name);
	return -EUCLEAN;
}

static int complain_missing(struct chain *chain, const struct layer_id *id)
{
	char name[LAYER_NAME_LENGTH];

	layer_name(id, name);
	if (chain->depth == 0) {
		store_complain(chain->store, name, "there is no such layer");
		return -ENOENT;
	}
	store_complain(chain->store, name, "missing: its child %s needs it",
		       chain->layers[chain->depth - 1]->name);
	return -EUCLEAN;
}

/* Each layer of a chain takes one. */
static void complain_descriptors(const struct chain *chain)
{
	store_complain(chain->store, chain->layers[0]->name,
		       "%u of the layers that it lies on are open, and no more files can be: "
		       "compact the store, or raise the limit (ulimit -n)",
		       chain->depth - 1);
}

#define LOOK_AGAIN 1

/* A compaction may have merged the parent into its child, and removed it, since the child was
 * opened: then the child has another file by now. */
static int find_out_why_missing(struct chain *chain, const struct layer_id *id)
{
	const struct layer *child = chain->depth ? chain->layers[chain->depth - 1] : NULL;

	if (!child || !layer_is_stale(child))
		return complain_missing(chain, id);
	layer_forget(chain->store, &child->id);
	return LOOK_AGAIN;
}

static int open_next(struct chain *chain, const struct layer_id *id, struct layer **ret_layer)
{
	int r = layer_open(chain->store, id, ret_layer);

	if (r == -ENOENT)
		return find_out_why_missing(chain, id);
	if (r == -EMFILE && chain->depth > 0)
		complain_descriptors(chain);
	return r;
}

static int open_all(struct chain *chain, const struct layer_id *first)
{
	struct layer_id id = *first;
	int r = 0;

	while (r == 0 && !id_is_none(&id)) {
		struct layer *layer;

		r = check_next(chain, &id);
		if (r < 0)
			return r;
		r = open_next(chain, &id, &layer);
		if (r != 0)
			return r;
		r = check_parent(chain, layer);
		if (r == 0)
			r = add_layer(chain, layer);
		if (r < 0)
			layer_close(layer);
		else
			id = layer->footer.parent;
	}
	return r;
}

static int open_once(struct cow_store *store, const struct layer_id *id, struct chain **ret_chain)
{
	struct chain *chain = sys_alloc(sizeof(*chain));
	int r;

	if (!chain)
		return -ENOMEM;
	chain->store = store;
	r = open_all(chain, id);
	if (r != 0)
		chain_close(chain);
	else
		*ret_chain = chain;
	return r;
}

int chain_open(struct cow_store *store, const struct layer_id *id, struct chain **ret_chain)
{
	int r;

	do
		r = open_once(store, id, ret_chain);
	while (r == LOOK_AGAIN);
	return r;
}

int chain_open_named(struct cow_store *store, const char *name, struct chain **ret_chain)
{
	struct layer *layer = NULL;
	struct layer_id id;
	int r = layer_open_named(store, name, &layer);

	/* Where it is missing for good chain_open() says so. */
	if (layer)
		id = layer->id;
	else if (r == -ENOENT)
		r = store_resolve(store, name, &id);
	if (r == 0)
		r = chain_open(store, &id, ret_chain);
	layer_close(layer);
	return r;
}

bool chain_is_packed(const struct chain *chain)
{
	bool packed = false;

	for (unsigned i = 0; i < chain->depth; i++)
		packed |= footer_is_packed(&chain->layers[i]->footer);
	return packed;
}

void chain_load(struct chain *chain)
{
	for (unsigned i = 0; i < chain->depth; i++)
		layer_load(chain->layers[i]);
	chain->loaded = true;
}

/* --- reading --- */

/* Enters what one layer says of a slice where those above said nothing. Returns how many clusters
 * are still open. */
static int map_from(struct chain *chain, unsigned index, struct slice_map *map, unsigned *left)
{
	struct layer *layer = chain->layers[index];
	const unsigned char *table;
	int r = layer_read_slice(layer, map->slice, map->table,
				 chain->loaded ? TABLE_LOADED :
				 map->in_trap  ? TABLE_IN_TRAP :
						 TABLE_REMEMBER,
				 &table);

	if (r <= 0)
		return r;
	for (unsigned i = 0; i < SLICE; i++) {
		uint64_t entry = layer_entry(layer, table, i);
		struct place place;

		if (entry == 0 || map->kind[i] != PLACE_NONE)
			continue;
		r = layer_place(layer, entry, &place);
		if (r < 0)
			return r;
		map->kind[i] = (uint8_t)place.kind;
		map->layer[i] = (uint16_t)index;
		map->offset[i] = place.offset;
		*left -= place.kind != PLACE_NONE;
	}
	return 0;
}

int chain_map_slice(struct chain *chain, uint64_t slice, struct slice_map *ret_map)
{
	uint64_t clusters = div_up(chain_length(chain), CLUSTER);
	unsigned left = SLICE;
	int r = 0;

	memset(ret_map->kind, 0, sizeof(ret_map->kind));
	ret_map->slice = slice;
	if (slice * SLICE >= clusters)
		return 0;
	if (clusters - slice * SLICE < SLICE)
		left = (unsigned)(clusters - slice * SLICE);
	/* What lies past the region is the manifest's, and none of ours. */
	memset(ret_map->kind + left, PLACE_ZERO, SLICE - left);
	for (unsigned i = 0; r == 0 && left > 0 && i < chain->depth; i++) {
		uint64_t below = tail_start(chain->layers[i]->footer.length) / SLICE_BYTES;

		if (slice < below)
			r = map_from(chain, i, ret_map, &left);
	}
	return r;
}

static bool lies_with(const struct slice_map *map, unsigned first, unsigned run)
{
	enum place_kind kind = map->kind[first];
	uint64_t step = kind == PLACE_DATA ? run * CLUSTER : 0;

	if (map->kind[first + run] != kind)
		return false;
	return (kind != PLACE_DATA && kind != PLACE_PACKED) ||
	       (map->layer[first + run] == map->layer[first] &&
		map->offset[first + run] == map->offset[first] + step);
}

unsigned chain_run_length(const struct slice_map *map, unsigned first, unsigned count)
{
	unsigned run = 1;

	while (run < count && lies_with(map, first, run))
		run++;
	return run;
}

static int read_packed(struct chain *chain, const struct slice_map *map, unsigned first,
		       unsigned count, unsigned char *buffer, bool verify)
{
	struct layer *layer = chain->layers[map->layer[first]];
	unsigned page = first % PACKED_PAGES;

	if (map->unpacker)
		return unpacker_read(map->unpacker, layer, map->offset[first], page, count, buffer,
				     verify);
	return layer_read_packed(layer, map->offset[first], page, count, buffer, verify);
}

int chain_read_mapped(struct chain *chain, const struct slice_map *map, unsigned first,
		      unsigned count, unsigned char *buffer, bool verify)
{
	int r = 0;

	while (r == 0 && count > 0) {
		unsigned run = chain_run_length(map, first, count);

		if (map->kind[first] == PLACE_DATA)
			r = layer_read_clusters(chain->layers[map->layer[first]],
						map->offset[first], run, buffer, verify);
		else if (map->kind[first] == PLACE_PACKED)
			r = read_packed(chain, map, first, run, buffer, verify);
		else
			memset(buffer, 0, run * CLUSTER);
		buffer += run * CLUSTER;
		first += run;
		count -= run;
	}
	return r;
}

/* Pieces of a cluster go by a cluster of our own. */
static int read_piece(struct chain *chain, const struct slice_map *map, uint64_t offset,
		      unsigned char *buffer, size_t length, bool verify)
{
	unsigned char cluster[CLUSTER];
	unsigned index = (unsigned)(offset / CLUSTER % SLICE);
	size_t at = offset % CLUSTER;
	int r;

	if (at == 0 && length % CLUSTER == 0)
		return chain_read_mapped(chain, map, index, (unsigned)(length / CLUSTER), buffer,
					 verify);
	r = chain_read_mapped(chain, map, index, 1, cluster, verify);
	if (r == 0)
		memcpy(buffer, cluster + at, length);
	return r;
}

/* How much of a range can be read together: whole clusters of one slice, or a piece of one. */
static size_t piece_length(uint64_t offset, size_t length)
{
	uint64_t slice_end = (offset / SLICE_BYTES + 1) * SLICE_BYTES;
	size_t in_cluster = CLUSTER - offset % CLUSTER;

	if (offset % CLUSTER != 0 || length < CLUSTER)
		return in_cluster < length ? in_cluster : length;
	if (length > slice_end - offset)
		return slice_end - offset;
	return length / CLUSTER * CLUSTER;
}

/* One cluster, without a look at its neighbours. */
static int place_of(struct chain *chain, uint64_t cluster, unsigned char scratch[CLUSTER],
		    struct place *ret_place, struct layer **ret_layer)
{
	struct place place = { .kind = PLACE_NONE };

	for (unsigned i = 0; place.kind == PLACE_NONE && i < chain->depth; i++) {
		struct layer *layer = chain->layers[i];
		const unsigned char *table;
		int r = 0;

		if (cluster < tail_start(layer->footer.length) / CLUSTER)
			r = layer_read_slice(layer, cluster / SLICE, scratch, TABLE_REMEMBER,
					     &table);
		if (r > 0)
			r = layer_place(layer,
					layer_entry(layer, table, (unsigned)(cluster % SLICE)),
					&place);
		if (r < 0)
			return r;
		*ret_layer = layer;
	}
	*ret_place = place;
	return 0;
}

static int read_cluster(struct chain *chain, uint64_t cluster, unsigned char *to, bool verify)
{
	struct layer *layer = NULL;
	struct place place;
	int r = place_of(chain, cluster, to, &place, &layer);

	if (r < 0)
		return r;
	if (place.kind == PLACE_DATA)
		return layer_read_clusters(layer, place.offset, 1, to, verify);
	if (place.kind == PLACE_PACKED)
		return layer_read_packed(layer, place.offset, cluster % PACKED_PAGES, 1, to,
					 verify);
	memset(to, 0, CLUSTER);
	return 0;
}

/* A piece of a cluster, or a whole one. */
static int read_small(struct chain *chain, uint64_t offset, void *buffer, size_t length,
		      bool verify)
{
	unsigned char cluster[CLUSTER];
	int r;

	if (length == CLUSTER)
		return read_cluster(chain, offset / CLUSTER, buffer, verify);
	r = read_cluster(chain, offset / CLUSTER, cluster, verify);
	if (r == 0)
		memcpy(buffer, cluster + offset % CLUSTER, length);
	return r;
}

static int read_large(struct chain *chain, uint64_t offset, void *buffer, size_t length,
		      bool verify)
{
	struct slice_map *map = sys_alloc(sizeof(*map));
	unsigned char *to = buffer;
	bool mapped = false;
	int r = map ? 0 : -ENOMEM;

	while (r == 0 && length > 0) {
		size_t piece = piece_length(offset, length);

		if (!mapped || map->slice != offset / SLICE_BYTES)
			r = chain_map_slice(chain, offset / SLICE_BYTES, map);
		mapped = true;
		if (r == 0)
			r = read_piece(chain, map, offset, to, piece, verify);
		offset += piece;
		to += piece;
		length -= piece;
	}
	sys_free(map);
	return r;
}

int chain_read(struct chain *chain, uint64_t offset, void *buffer, size_t length, bool verify)
{
	uint64_t end = tail_start(chain_length(chain));

	if (offset > end || length > end - offset)
		return -ERANGE;
	if (length > 0 && offset / CLUSTER == (offset + length - 1) / CLUSTER)
		return read_small(chain, offset, buffer, length, verify);
	return read_large(chain, offset, buffer, length, verify);
}
