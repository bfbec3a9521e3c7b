/* SPDX-License-Identifier: MIT */
/* Layers as a whole: written out as raw images, and compared with each other. */
#include <fcntl.h>
#include <string.h>

#include "core/copy.h"
#include "lib/internal.h"
#include "store/io.h"
#include "store/layer.h"

/* --- export --- */

struct export
{
	struct chain *chain;
	int fd;
	cow_progress_fn progress;
	void *context;
	struct slice_map map;
	unsigned char bytes[SLICE_BYTES];
};

/* What is zero stays a hole. */
static int write_slice(struct export *export, uint64_t length)
{
	unsigned count = (unsigned)div_up(length, CLUSTER), i = 0;
	uint64_t at = export->map.slice * SLICE_BYTES;
	int r = 0;

	while (r == 0 && i < count) {
		unsigned start = i;
		uint64_t end;

		while (i < count && !page_is_zero(export->bytes + i * CLUSTER, CLUSTER))
			i++;
		end = i * CLUSTER < length ? i * CLUSTER : length;
		if (i > start)
			r = io_write_bytes(export->fd, export->bytes + start * CLUSTER,
					   end - start * CLUSTER, at + start * CLUSTER);
		while (i < count && page_is_zero(export->bytes + i * CLUSTER, CLUSTER))
			i++;
	}
	return r;
}

static int export_slice(struct export *export, uint64_t slice)
{
	uint64_t total = chain_length(export->chain), done = slice * SLICE_BYTES;
	uint64_t length = total - done < SLICE_BYTES ? total - done : SLICE_BYTES;
	int r = chain_map_slice(export->chain, slice, &export->map);

	if (r == 0)
		r = chain_read_mapped(export->chain, &export->map, 0,
				      (unsigned)div_up(length, CLUSTER), export->bytes, CHECKED);
	if (r == 0)
		r = write_slice(export, length);
	if (r == 0 && export->progress && export->progress(done + length, total, export->context))
		r = -ECANCELED;
	return r;
}

static int export_all(struct export *export)
{
	uint64_t slices = div_up(chain_length(export->chain), SLICE_BYTES);
	int r = io_truncate(export->fd, chain_length(export->chain));

	for (uint64_t slice = 0; r == 0 && slice < slices; slice++)
		r = export_slice(export, slice);
	return r < 0 ? r : io_sync_data(export->fd);
}

static int export_chain(struct chain *chain, const char *path, cow_progress_fn progress,
			void *context)
{
	struct export *export = sys_alloc(sizeof(*export));
	int r;

	if (!export)
		return -ENOMEM;
	export->chain = chain;
	export->progress = progress;
	export->context = context;
	r = export->fd = io_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL);
	if (r >= 0) {
		r = export_all(export);
		io_close(export->fd);
		if (r < 0)
			(void)io_unlink(AT_FDCWD, path);
	}
	sys_free(export);
	return r;
}

int cow_store_export(struct cow_store *store, const char *id, const char *path,
		     cow_progress_fn progress, void *context)
{
	struct chain *chain = NULL;
	int r;

	if (!path)
		return -EINVAL;
	r = store_begin(store, STORE_READS);
	if (r < 0)
		return r;
	r = chain_open_named(store, id, &chain);
	store_end(store);
	if (r == 0)
		r = export_chain(chain, path, progress, context);
	chain_close(chain);
	return r;
}

/* --- comparison --- */

struct side {
	struct chain *chain;
	struct slice_map map;
	unsigned char cluster[CLUSTER];
};

struct comparison {
	struct side older, newer;
	cow_range_fn range;
	void *context;
	uint64_t first, end; /* a range that differs, clusters */
};

static bool has_content(const struct side *side, unsigned i)
{
	return side->map.kind[i] == PLACE_DATA || side->map.kind[i] == PLACE_PACKED;
}

/* Where both read the same cluster of the same file, or both nothing, nothing need be read. */
static bool same_place(const struct comparison *c, unsigned i)
{
	const struct side *a = &c->older, *b = &c->newer;

	if (!has_content(a, i) || !has_content(b, i))
		return !has_content(a, i) && !has_content(b, i);
	return a->map.offset[i] == b->map.offset[i] &&
	       a->chain->layers[a->map.layer[i]] == b->chain->layers[b->map.layer[i]];
}

static int report_range(struct comparison *c)
{
	uint64_t first = c->first, end = c->end;

	c->first = c->end = 0;
	return first == end ? 0 : c->range(first * CLUSTER, (end - first) * CLUSTER, c->context);
}

static int compare_cluster(struct comparison *c, unsigned i)
{
	uint64_t cluster = c->newer.map.slice * SLICE + i;
	int r;

	if (same_place(c, i))
		return 0;
	r = chain_read_mapped(c->older.chain, &c->older.map, i, 1, c->older.cluster, CHECKED);
	if (r == 0)
		r = chain_read_mapped(c->newer.chain, &c->newer.map, i, 1, c->newer.cluster,
				      CHECKED);
	if (r < 0 || memcmp(c->older.cluster, c->newer.cluster, CLUSTER) == 0)
		return r;
	if (cluster != c->end || c->first == c->end) {
		r = report_range(c);
		c->first = cluster;
	}
	c->end = cluster + 1;
	return r;
}

static int compare(struct comparison *c)
{
	uint64_t a = chain_length(c->older.chain), b = chain_length(c->newer.chain);
	uint64_t slices = div_up(a > b ? a : b, SLICE_BYTES);
	int r = 0;

	for (uint64_t slice = 0; r == 0 && slice < slices; slice++) {
		r = chain_map_slice(c->older.chain, slice, &c->older.map);
		if (r == 0)
			r = chain_map_slice(c->newer.chain, slice, &c->newer.map);
		for (unsigned i = 0; r == 0 && i < SLICE; i++)
			r = compare_cluster(c, i);
	}
	return r != 0 ? r : report_range(c);
}

int cow_store_diff(struct cow_store *store, const char *older, const char *newer,
		   cow_range_fn range, void *context)
{
	struct comparison *c;
	int r;

	if (!range)
		return -EINVAL;
	r = store_begin(store, STORE_READS);
	if (r < 0)
		return r;
	c = sys_alloc(sizeof(*c));
	r = c ? chain_open_named(store, older, &c->older.chain) : -ENOMEM;
	if (r == 0)
		r = chain_open_named(store, newer, &c->newer.chain);
	store_end(store);
	if (r == 0) {
		c->range = range;
		c->context = context;
		r = compare(c);
	}
	if (c) {
		chain_close(c->older.chain);
		chain_close(c->newer.chain);
	}
	sys_free(c);
	return r;
}
