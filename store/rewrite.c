/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "store/io.h"
#include "store/rewrite.h"
#include "store/writer.h"
#include "sys/sys.h"

struct pass {
	struct rewrite *rewrite;
	struct chain *chain; /* of the layers that become one */
	struct writer *writer;
	struct slice_map map;
	uint64_t guest[WRITER_BATCH];
	uint32_t crcs[WRITER_BATCH];
	uint64_t clusters, slices; /* found by the first pass */
};

/* Clusters of the slice that belong to the region. */
static unsigned slice_length(const struct pass *pass, uint64_t slice)
{
	uint64_t left = div_up(chain_length(pass->chain), CLUSTER) - slice * SLICE;

	return left < SLICE ? (unsigned)left : (unsigned)SLICE;
}

static int count_slice(struct pass *pass, uint64_t slice)
{
	unsigned length = slice_length(pass, slice), some = 0;

	for (unsigned i = 0; i < length; i++) {
		pass->clusters += pass->map.kind[i] == PLACE_DATA;
		some += pass->map.kind[i] != PLACE_NONE;
	}
	pass->slices += some > 0;
	return 0;
}

static unsigned run_length(const struct pass *pass, unsigned first, unsigned end)
{
	const struct slice_map *map = &pass->map;
	unsigned run = 1;

	while (first + run < end && run < WRITER_BATCH &&
	       map->kind[first + run] == map->kind[first] &&
	       (map->kind[first] != PLACE_DATA ||
		(map->layer[first + run] == map->layer[first] &&
		 map->offset[first + run] == map->offset[first] + run * CLUSTER)))
		run++;
	return run;
}

static int write_run(struct pass *pass, unsigned first, unsigned count)
{
	static const void *const zeroes[WRITER_BATCH];
	struct layer *layer = pass->chain->layers[pass->map.layer[first]];
	uint64_t offset = pass->map.offset[first], where;
	int r;

	for (unsigned i = 0; i < count; i++)
		pass->guest[i] = pass->map.slice * SLICE + first + i;
	if (pass->map.kind[first] == PLACE_ZERO)
		return writer_write(pass->writer, pass->guest, zeroes, pass->crcs, count, &where);
	r = layer_read_crcs(layer, offset / CLUSTER, count, pass->crcs);
	if (r == 0)
		r = writer_clone(pass->writer, pass->guest, count, layer->fd, offset, pass->crcs,
				 &pass->rewrite->cloned_bytes);
	pass->rewrite->done += (uint64_t)count * CLUSTER;
	return r;
}

static int write_slice(struct pass *pass, uint64_t slice)
{
	struct rewrite *rewrite = pass->rewrite;
	unsigned length = slice_length(pass, slice), run;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < length; i += run) {
		run = run_length(pass, i, length);
		if (pass->map.kind[i] != PLACE_NONE)
			r = write_run(pass, i, run);
	}
	if (r == 0 && rewrite->progress &&
	    rewrite->progress(rewrite->done < rewrite->total ? rewrite->done : rewrite->total,
			      rewrite->total, rewrite->context))
		r = -ECANCELED;
	return r;
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

static int read_state(struct layer *layer, void **ret_state)
{
	uint64_t clusters = div_up(layer->footer.state_length, CLUSTER);

	*ret_state = NULL;
	if (clusters == 0)
		return 0;
	*ret_state = sys_alloc(clusters * CLUSTER);
	if (!*ret_state)
		return -ENOMEM;
	return layer_read_clusters(layer, layer->footer.manifest_cluster * CLUSTER, clusters,
				   *ret_state, true);
}

static int write_file(struct pass *pass, const struct writer_config *config)
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
	r = writer_finish(pass->writer, &footer);
	return r < 0 ? r : io_sync_dir(pass->rewrite->store->directory);
}

/* below: what the new layer lies on, NULL: nothing. */
static int write_layer(struct pass *pass, const struct layer *below)
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
	};
	void *state = NULL;
	int r = for_each_slice(pass, count_slice);

	if (r == 0)
		r = read_state(layer, &state);
	if (below) {
		config.parent = below->id;
		config.parent_sequence = below->footer.sequence;
	}
	config.state = state;
	config.clusters_max = pass->clusters;
	config.slices_max = pass->slices;
	if (r == 0)
		r = write_file(pass, &config);
	sys_free(state);
	return r;
}

int rewrite_layer(struct rewrite *rewrite)
{
	struct pass *pass = sys_alloc(sizeof(*pass));
	unsigned depth;
	int r;

	if (!pass)
		return -ENOMEM;
	pass->rewrite = rewrite;
	r = chain_open(rewrite->store, &rewrite->id, &pass->chain);
	if (r == 0) {
		depth = pass->chain->depth;
		if (rewrite->depth < depth)
			pass->chain->depth = rewrite->depth;
		chain_load(pass->chain);
		r = write_layer(pass, rewrite->depth < depth ? pass->chain->layers[rewrite->depth] :
							       NULL);
		chain_unload(pass->chain);
		pass->chain->depth = depth;
	}
	chain_close(pass->chain);
	if (r == 0)
		layer_forget(rewrite->store, &rewrite->id);
	sys_free(pass);
	return r;
}
