/* SPDX-License-Identifier: MIT */
/*
 * Restoring: a region whose content is a layer's, brought in as it is touched.
 *
 *   explicit, mprotect   the window maps the layers' files privately, run by run; the kernel brings
 *                        pages in and shares them between all who map the file
 *   signal, thread       userfaultfd refuses private mappings of files: the window maps a file in
 *                        memory that holds the layer, filled 2 MiB at a time (image.h)
 *
 * Many runs take long to map, and a process has some 65,000 mappings; and what is compressed cannot
 * be mapped. There a thread brings the window in from such a file in memory, through userfaultfd
 * (lazy.h); where that is not to be had, what is compressed and short runs are read into memory at
 * once, and long ones mapped.
 *
 * The region's pages begin as never written, so what is dirtied after is what the next save writes.
 */
#include <stdlib.h>

#include "lib/internal.h"
#include "store/lazy.h"
#include "store/mark.h"

#define KNOWN_FLAGS (COW_RESTORE_SAME_ADDRESS | COW_RESTORE_POPULATE)
#define RUNS_FEW    1024u /* that are mapped within milliseconds */
#define RUNS_MAX    8192u /* mappings for one region; between two may lie one of zeroes */

static const struct cow_restore_options default_options = COW_RESTORE_OPTIONS_INIT;
static const struct cow_region_options default_region_options = COW_REGION_OPTIONS_INIT;

/* What hangs on a restored region: its layers stay open. */
struct content {
	struct attachment attachment; /* first */
	struct chain *chain;          /* of mapped files */
	struct image *image;
	struct pager *pager;
	struct restore *restore; /* while the region is being made */
};

struct run {
	uint64_t first, count; /* clusters of the region */
	uint64_t offset;
	uint16_t layer;
};

struct restore {
	struct cow_store *store;
	struct cow_restore_options options;
	struct cow_region_options region_options;
	struct content *content;
	struct chain *chain; /* NULL: the image's */
	struct run *runs;
	size_t run_count, run_room;
};

static void content_free(struct attachment *attachment)
{
	struct content *content = (struct content *)(void *)attachment;

	pager_free(content->pager);
	chain_close(content->chain);
	image_put(content->image);
	sys_free(content);
}

/* --- mapping files --- */

static int add_run(struct restore *restore, const struct run *run)
{
	if (restore->run_count == restore->run_room) {
		size_t room = restore->run_room * 2 + 256;
		struct run *more = sys_alloc_array(room, sizeof(more[0]));

		if (!more)
			return -ENOMEM;
		if (restore->run_count > 0)
			memcpy(more, restore->runs, restore->run_count * sizeof(more[0]));
		sys_free(restore->runs);
		restore->runs = more;
		restore->run_room = room;
	}
	restore->runs[restore->run_count++] = *run;
	return 0;
}

static bool continues(const struct run *run, uint64_t cluster, const struct slice_map *map,
		      unsigned i)
{
	return run->count > 0 && run->first + run->count == cluster &&
	       run->layer == map->layer[i] && run->offset + run->count * CLUSTER == map->offset[i];
}

static int collect_slice(struct restore *restore, const struct slice_map *map, struct run *run)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < SLICE; i++) {
		uint64_t cluster = map->slice * SLICE + i;

		if (map->kind[i] != PLACE_DATA)
			continue;
		if (continues(run, cluster, map, i)) {
			run->count++;
			continue;
		}
		if (run->count > 0)
			r = add_run(restore, run);
		*run = (struct run){ cluster, 1, map->offset[i], map->layer[i] };
	}
	return r;
}

static int collect_runs(struct restore *restore)
{
	uint64_t slices = div_up(chain_length(restore->chain), SLICE_BYTES);
	struct slice_map *map = sys_alloc(sizeof(*map));
	struct run run = { 0 };
	int r = map ? 0 : -ENOMEM;

	chain_load(restore->chain);
	for (uint64_t slice = 0; r == 0 && slice < slices; slice++) {
		r = chain_map_slice(restore->chain, slice, map);
		if (r == 0)
			r = collect_slice(restore, map, &run);
	}
	if (r == 0 && run.count > 0)
		r = add_run(restore, &run);
	chain_unload(restore->chain);
	sys_free(map);
	return r;
}

static int by_length(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? 1 : x > y ? -1 : 0;
}

/* Runs shorter than this are read; 0: all are mapped. */
static int choose_threshold(const struct restore *restore, uint64_t *ret_threshold)
{
	uint64_t *lengths;

	*ret_threshold = 0;
	if (restore->run_count <= RUNS_MAX)
		return 0;
	lengths = sys_alloc_array(restore->run_count, sizeof(lengths[0]));
	if (!lengths)
		return -ENOMEM;
	for (size_t i = 0; i < restore->run_count; i++)
		lengths[i] = restore->runs[i].count;
	qsort(lengths, restore->run_count, sizeof(lengths[0]), by_length);
	*ret_threshold = lengths[RUNS_MAX] + 1;
	sys_free(lengths);
	return 0;
}

static int map_run(struct restore *restore, const struct run *run, unsigned char *window)
{
	struct layer *layer = restore->chain->layers[run->layer];
	void *ignored;

	return sys_map_at(window + run->first * CLUSTER, run->count * CLUSTER,
			  PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
			  layer->fd, run->offset, &ignored);
}

/* Pages larger than a cluster are mapped only where whole ones lie together. */
static bool can_map(const struct run *run, size_t page)
{
	return (run->first * CLUSTER) % page == 0 && (run->count * CLUSTER) % page == 0 &&
	       run->offset % page == 0;
}

static int unpack_slice(struct restore *restore, const struct slice_map *map, unsigned char *window)
{
	bool verify = restore->options.verify != COW_VERIFY_NONE;
	unsigned run;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < SLICE; i += run) {
		run = chain_run_length(map, i, SLICE - i);
		if (map->kind[i] == PLACE_PACKED)
			r = chain_read_mapped(restore->chain, map, i, run,
					      window + map->slice * SLICE_BYTES + i * CLUSTER,
					      verify);
	}
	return r;
}

/* No file can be mapped for what is compressed. */
static int unpack_all(struct restore *restore, unsigned char *window)
{
	uint64_t slices = div_up(chain_length(restore->chain), SLICE_BYTES);
	struct slice_map *map = sys_alloc(sizeof(*map));
	int r = map ? 0 : -ENOMEM;

	for (uint64_t slice = 0; r == 0 && slice < slices; slice++) {
		r = chain_map_slice(restore->chain, slice, map);
		if (r == 0)
			r = unpack_slice(restore, map, window);
	}
	sys_free(map);
	return r;
}

static int map_runs(struct restore *restore, unsigned char *window)
{
	size_t page = sys_page_size();
	uint64_t threshold;
	int r = choose_threshold(restore, &threshold);

	if (r == 0 && chain_is_packed(restore->chain))
		r = unpack_all(restore, window);
	for (size_t i = 0; r == 0 && i < restore->run_count; i++) {
		const struct run *run = &restore->runs[i];

		if (run->count >= threshold && can_map(run, page))
			r = map_run(restore, run, window);
		else
			r = layer_read_clusters(restore->chain->layers[run->layer], run->offset,
						run->count, window + run->first * CLUSTER,
						restore->options.verify != COW_VERIFY_NONE);
	}
	return r;
}

/* --- what the region asks for --- */

static int make_image(struct restore *restore)
{
	struct chain *chain = restore->chain;

	restore->chain = NULL;
	return image_of_chain(chain, restore->options.verify != COW_VERIFY_NONE,
			      &restore->content->image);
}

/* What lies on top of the lowest layer lies scattered in it. */
static bool is_scattered(const struct restore *restore)
{
	uint64_t clusters = 0;

	for (unsigned i = 0; i + 1 < restore->chain->depth; i++)
		clusters += restore->chain->layers[i]->footer.held_clusters;
	return clusters > RUNS_FEW;
}

/* false: it is not to be had here, and everything is as it was. */
static bool serve_window(struct restore *restore, unsigned char *window)
{
	uint64_t length = chain_length(restore->chain);
	struct content *content = restore->content;
	struct chain *spare = NULL;

	if (chain_open(restore->store, &restore->chain->layers[0]->id, &spare) < 0)
		return false;
	if (make_image(restore) == 0 &&
	    lazy_new(content->image, window, length, &content->pager) == 0) {
		chain_close(spare);
		return true;
	}
	image_put(content->image);
	content->image = NULL;
	restore->chain = spare;
	return false;
}

static int map_window(void *context, unsigned char *window)
{
	struct restore *restore = ((struct content *)context)->restore;
	int r = 0;

	if ((is_scattered(restore) || chain_is_packed(restore->chain)) &&
	    serve_window(restore, window))
		return 0;
	r = collect_runs(restore);
	if (r == 0 && restore->run_count > RUNS_FEW && serve_window(restore, window))
		return 0;
	if (r == 0)
		r = map_runs(restore, window);
	if (r == 0) {
		restore->content->chain = restore->chain;
		restore->chain = NULL;
	}
	return r;
}

static int open_image(void *context, int *ret_fd)
{
	struct restore *restore = ((struct content *)context)->restore;
	int r = make_image(restore);

	if (r == 0)
		*ret_fd = restore->content->image->fd;
	return r;
}

/* --- bringing everything in --- */

static int report(const struct restore *restore, uint64_t done, uint64_t total)
{
	if (!restore->options.progress)
		return 0;
	return restore->options.progress(done, total, restore->options.context) ? -ECANCELED : 0;
}

/* Reads what is mapped by way of the file, and so into the page cache, with its checksums. */
static int check_slice(struct chain *chain, struct slice_map *map, uint64_t slice,
		       unsigned char *bytes)
{
	int r = chain_map_slice(chain, slice, map);

	return r < 0 ? r : chain_read_mapped(chain, map, 0, SLICE, bytes, CHECKED);
}

static int check_all(struct restore *restore, struct chain *chain)
{
	uint64_t length = chain_length(chain);
	struct slice_map *map = sys_alloc(sizeof(*map));
	unsigned char *bytes = sys_alloc(SLICE_BYTES);
	int r = map && bytes ? 0 : -ENOMEM;

	for (uint64_t at = 0; r == 0 && at < length; at += SLICE_BYTES) {
		r = check_slice(chain, map, at / SLICE_BYTES, bytes);
		if (r == 0)
			r = report(restore, at, length);
	}
	sys_free(map);
	sys_free(bytes);
	return r;
}

static int fill_all(struct restore *restore, struct image *image)
{
	uint64_t length = chain_length(image->chain);
	int r = 0;

	for (uint64_t at = 0; r == 0 && at < length; at += SLICE_BYTES) {
		r = image_bring_in(image, at, 1);
		if (r == 0)
			r = report(restore, at, length);
	}
	return r;
}

static int bring_in(struct restore *restore, struct cow_region *region)
{
	const struct content *content = restore->content;
	bool eager = restore->options.verify == COW_VERIFY_EAGER;
	bool populate = restore->options.flags & COW_RESTORE_POPULATE;
	uint64_t length = region->length;
	int r = 0;

	if (!eager && !populate)
		return 0;
	if (content->image)
		r = fill_all(restore, content->image);
	else if (eager)
		r = check_all(restore, content->chain);
	/* Where the kernel does not know the call the pages come when they are touched. */
	if (r == 0 && populate)
		(void)sys_advise(region->base, length, MADV_POPULATE_READ);
	if (r == 0 && content->image)
		(void)sys_advise(region->base, length, MADV_DOFORK);
	return r < 0 ? r : report(restore, length, length);
}

/* --- the call --- */

static int fill(void *context, uint64_t offset, size_t length)
{
	return image_bring_in(((struct content *)context)->image, offset, length);
}

/* The content is the region's, or gone. */
static int make_region(struct restore *restore, struct content *content,
		       struct cow_region **ret_region)
{
	const struct region_content calls = {
		.open = open_image,
		.map = map_window,
		.fill = fill,
		.context = content,
	};
	const struct footer *footer = &restore->chain->layers[0]->footer;
	struct cow_region *region;
	int r;

	if (restore->options.flags & COW_RESTORE_SAME_ADDRESS)
		restore->region_options.address = (void *)(uintptr_t)footer->address;
	r = region_make(footer->length, &restore->region_options,
			(struct region_base){ .content = &calls }, &region);
	if (r < 0) {
		content_free(&content->attachment);
		return r;
	}
	content->attachment.free = content_free;
	content->restore = NULL;
	atomic_store(&region->attachments, &content->attachment);
	*ret_region = region;
	return 0;
}

static int restore_chain(struct restore *restore, struct cow_region **ret_region)
{
	const struct layer *layer = restore->chain->layers[0];
	struct mark mark = {
		.epoch = 0,
		.sequence = layer->footer.sequence,
		.id = layer->id,
		.depth = restore->chain->depth - 1,
	};
	struct cow_region *region;
	int r;

	if (layer->footer.length % sys_page_size() != 0) {
		store_complain(restore->store, layer->name,
			       "its region's length is no multiple of this machine's page size");
		return -EOPNOTSUPP;
	}
	restore->content = sys_alloc(sizeof(*restore->content));
	if (!restore->content)
		return -ENOMEM;
	restore->content->restore = restore;
	r = make_region(restore, restore->content, &region);
	if (r < 0)
		return r;
	(void)mark_add(region, &restore->store->refs.store, &mark);
	r = bring_in(restore, region);
	if (r < 0)
		cow_region_free(region);
	else
		*ret_region = region;
	return r;
}

static int restore_locked(struct restore *restore, const char *name, struct cow_region **ret_region)
{
	int r = chain_open_named(restore->store, name, &restore->chain);

	if (r == 0)
		r = restore_chain(restore, ret_region);
	chain_close(restore->chain);
	sys_free(restore->runs);
	return r;
}

static int read_options(struct restore *restore, const struct cow_restore_options *given)
{
	struct cow_restore_options *options = &restore->options;
	struct cow_region_options *region = &restore->region_options;
	int r = 0;

	if (given)
		r = options_read(options, sizeof(*options), sizeof(*options), given);
	if (r == 0 && options->region)
		r = options_read(region, sizeof(*region), sizeof(*region), options->region);
	if (r < 0)
		return r;
	if (options->flags & ~KNOWN_FLAGS)
		return log_refusal("flags 0x%x of a restore: 0x%x is unknown", options->flags,
				   options->flags & ~KNOWN_FLAGS);
	if (options->verify < COW_VERIFY_FAULT || options->verify > COW_VERIFY_NONE)
		return log_refusal("verify %d: there is no such value", (int)options->verify);
	region->trap = options->trap;
	region->address = options->address;
	region->flags = 0;
	return 0;
}

int cow_store_restore(struct cow_store *store, const char *id,
		      const struct cow_restore_options *options, struct cow_region **ret_region)
{
	struct restore restore = {
		.store = store,
		.options = default_options,
		.region_options = default_region_options,
	};
	int r;

	if (!ret_region)
		return -EINVAL;
	r = read_options(&restore, options);
	if (r == 0)
		r = store_begin(store, STORE_READS);
	if (r < 0)
		return r;
	r = restore_locked(&restore, id, ret_region);
	store_end(store);
	return r;
}
