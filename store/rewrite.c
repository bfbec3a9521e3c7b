/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "core/copy.h"
#include "store/io.h"
#include "store/packer.h"
#include "store/rewrite.h"
#include "store/writer.h"
#include "sys/sys.h"

uint64_t rewrite_pack_from = 256;

struct pass {
	struct rewrite *rewrite;
	struct chain *chain; /* of the layers that become one; those below are cut off */
	unsigned depth;      /* of the whole chain */
	struct writer *writer;
	struct packer *packer;
	struct slice_map map, whole;
	uint64_t guest[WRITER_BATCH];
	uint32_t crcs[WRITER_BATCH];
	unsigned char bytes[PACKED_CLUSTER];
	/* Found by the first pass: clusters with content, with anything; slices; clusters of 64 KiB
	 * with anything; what a table of these is for. */
	uint64_t content, said, slices, packed, packed_tables;
	uint64_t last_table; /* plus one */
};

/* Clusters of the slice that belong to the region. */
static unsigned slice_length(const struct pass *pass, uint64_t slice)
{
	uint64_t left = div_up(chain_length(pass->chain), CLUSTER) - slice * SLICE;

	return left < SLICE ? (unsigned)left : (unsigned)SLICE;
}

static bool has_content(const struct slice_map *map, unsigned i)
{
	return map->kind[i] == PLACE_DATA || map->kind[i] == PLACE_PACKED;
}

/* What the merged layers say of some clusters. */
static unsigned count_said(const struct slice_map *map, unsigned first, unsigned end)
{
	unsigned said = 0;

	for (unsigned i = first; i < end; i++)
		said += map->kind[i] != PLACE_NONE;
	return said;
}

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

static int count_slice(struct pass *pass, uint64_t slice)
{
	uint64_t table = slice / (PACKED_TABLE_BYTES / SLICE_BYTES);
	unsigned length = slice_length(pass, slice), said = count_said(&pass->map, 0, length);

	if (said == 0)
		return 0;

	for (unsigned i = 0; i < length; i++)
		pass->content += has_content(&pass->map, i);
	for (unsigned i = 0; i < length; i += PACKED_PAGES)
		pass->packed += count_said(&pass->map, i, least(i + PACKED_PAGES, length)) > 0;
	pass->said += said;
	pass->slices++;
	pass->packed_tables += pass->last_table != table + 1;
	pass->last_table = table + 1;
	return 0;
}

/* What was compressed is not any more. */
static int write_unpacked(struct pass *pass, unsigned first, unsigned count)
{
	const void *bytes[PACKED_PAGES];
	uint64_t where;
	int r = chain_read_mapped(pass->chain, &pass->map, first, count, pass->bytes, CHECKED);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < count; i++) {
		const unsigned char *page = pass->bytes + i * CLUSTER;

		bytes[i] = page_is_zero(page, CLUSTER) ? NULL : page;
		pass->crcs[i] = bytes[i] ? crc32c(page, CLUSTER) : 0;
	}
	return writer_write(pass->writer, pass->guest, bytes, pass->crcs, count, &where);
}

static int clone_run(struct pass *pass, unsigned first, unsigned count)
{
	struct layer *layer = pass->chain->layers[pass->map.layer[first]];
	uint64_t offset = pass->map.offset[first];
	int r = layer_read_crcs(layer, offset / CLUSTER, count, pass->crcs);

	if (r < 0)
		return r;
	return writer_clone(pass->writer, pass->guest, count, layer->fd, offset, pass->crcs,
			    &pass->rewrite->cloned_bytes);
}

static int write_run(struct pass *pass, unsigned first, unsigned count)
{
	static const void *const zeroes[WRITER_BATCH];
	uint64_t where;

	for (unsigned i = 0; i < count; i++)
		pass->guest[i] = pass->map.slice * SLICE + first + i;
	if (pass->map.kind[first] == PLACE_ZERO)
		return writer_write(pass->writer, pass->guest, zeroes, pass->crcs, count, &where);
	pass->rewrite->done += (uint64_t)count * CLUSTER;
	return pass->map.kind[first] == PLACE_PACKED ? write_unpacked(pass, first, count) :
						       clone_run(pass, first, count);
}

static int report(const struct rewrite *rewrite)
{
	uint64_t done = rewrite->done < rewrite->total ? rewrite->done : rewrite->total;

	if (!rewrite->progress)
		return 0;
	return rewrite->progress(done, rewrite->total, rewrite->context) ? -ECANCELED : 0;
}

static int write_slice(struct pass *pass, uint64_t slice)
{
	unsigned length = slice_length(pass, slice), run;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < length; i += run) {
		run = chain_run_length(&pass->map, i, least(length - i, WRITER_BATCH));
		if (pass->map.kind[i] != PLACE_NONE)
			r = write_run(pass, i, run);
	}
	return r < 0 ? r : report(pass->rewrite);
}

/* A cluster of 64 KiB, as it reads: with what lies below. */
static int pack_cluster(struct pass *pass, unsigned first)
{
	uint64_t guest = (pass->map.slice * SLICE + first) / PACKED_PAGES;
	bool zero;
	int r = chain_read_mapped(pass->chain, &pass->whole, first, PACKED_PAGES, pass->bytes,
				  true);

	if (r < 0)
		return r;
	zero = page_is_zero(pass->bytes, PACKED_CLUSTER);
	return packer_write(pass->packer, guest, zero ? NULL : pass->bytes);
}

/* The whole chain is asked only where the merged layers say something, but not everything. */
static int map_whole(struct pass *pass, uint64_t slice, unsigned length)
{
	unsigned depth = pass->chain->depth, said = count_said(&pass->map, 0, length);
	int r;

	pass->whole = pass->map;
	if (depth == pass->depth || said == 0 || said == length)
		return 0;
	pass->chain->depth = pass->depth;
	r = chain_map_slice(pass->chain, slice, &pass->whole);
	pass->chain->depth = depth;
	return r;
}

static int pack_slice(struct pass *pass, uint64_t slice)
{
	unsigned length = slice_length(pass, slice);
	int r = map_whole(pass, slice, length);

	for (unsigned i = 0; r == 0 && i < length; i += PACKED_PAGES) {
		unsigned said = count_said(&pass->map, i, least(i + PACKED_PAGES, length));

		if (said > 0)
			r = pack_cluster(pass, i);
		pass->rewrite->done += (uint64_t)said * CLUSTER;
	}
	return r < 0 ? r : report(pass->rewrite);
}

static int for_each_slice(struct pass *pass, int (*visit)(struct pass *pass, uint64_t slice))
{
	uint64_t slices = div_up(chain_length(pass->chain), SLICE_BYTES);
	int r = 0;

	for (uint64_t slice = 0; r == 0 && slice < slices; slice++) {
		r = chain_map_slice(pass->chain, slice, &pass->map);
		if (r == 0)
			r = visit(pass, slice);
	}
	return r;
}

static int write_plain(struct pass *pass, const struct writer_config *config)
{
	struct footer footer;
	int r = writer_new(pass->rewrite->store, config, &pass->writer);

	if (r < 0)
		return r;
	r = for_each_slice(pass, write_slice);
	if (r < 0) {
		writer_abort(pass->writer);
		return r;
	}
	return writer_finish(pass->writer, &footer);
}

static int write_packed(struct pass *pass, const struct writer_config *config)
{
	struct footer footer;
	int r = packer_new(pass->rewrite->store, config, &pass->packer);

	if (r < 0)
		return r;
	r = for_each_slice(pass, pack_slice);
	if (r < 0) {
		packer_abort(pass->packer);
		return r;
	}
	return packer_finish(pass->packer, &footer);
}

/* Where the layer says less than half of what its clusters of 64 KiB hold, filling them up costs
 * more than packing them saves. On nothing they are filled up with zeroes. */
static bool is_worth_packing(const struct pass *pass, const struct layer *below)
{
	return pass->rewrite->pack && pass->content >= rewrite_pack_from &&
	       (!below || 2 * pass->said >= pass->packed * PACKED_PAGES);
}

/* below: what the new layer lies on, NULL: nothing. */
static int write_layer(struct pass *pass, const struct layer *below, bool pack)
{
	struct layer *layer = pass->chain->layers[0];
	const struct footer *footer = &layer->footer;
	struct writer_config config = {
		.id = footer->id,
		.sequence = footer->sequence,
		.length = footer->length,
		.address = footer->address,
		.page_size = footer->page_size,
		.time_ns = footer->time_ns,
		.state_length = footer->state_length,
		.clusters_max = pack ? pass->packed : pass->content,
		.slices_max = pack ? pass->packed_tables : pass->slices,
	};
	void *state = NULL;
	int r = layer_read_state(layer, &state);

	if (below) {
		config.parent = below->id;
		config.parent_sequence = below->footer.sequence;
	}
	config.state = state;
	if (r == 0)
		r = pack ? write_packed(pass, &config) : write_plain(pass, &config);
	if (r == 0)
		r = io_sync_dir(pass->rewrite->store->directory);
	sys_free(state);
	return r;
}

/* 1: it was written. */
static int rewrite_chain(struct pass *pass)
{
	unsigned depth = pass->rewrite->depth;
	const struct layer *below = depth < pass->depth ? pass->chain->layers[depth] : NULL;
	bool pack;
	int r;

	if (below)
		pass->chain->depth = depth;
	chain_load(pass->chain);
	r = for_each_slice(pass, count_slice);
	pack = is_worth_packing(pass, below);
	if (r == 0 && (pack || depth > 1))
		r = write_layer(pass, below, pack) ?: 1;
	chain_unload(pass->chain);
	pass->chain->depth = pass->depth;
	return r;
}

int rewrite_layer(struct rewrite *rewrite)
{
	struct pass *pass = sys_alloc(sizeof(*pass));
	int r;

	if (!pass)
		return -ENOMEM;
	pass->rewrite = rewrite;
	r = chain_open(rewrite->store, &rewrite->id, &pass->chain);
	if (r == 0) {
		pass->depth = pass->chain->depth;
		r = rewrite_chain(pass);
	}
	chain_close(pass->chain);
	if (r != 0) /* also where it was replaced, and only the directory could not be synced */
		layer_forget(rewrite->store, &rewrite->id);
	sys_free(pass);
	return r;
}
