/* SPDX-License-Identifier: MIT */
/*
 * Saving: a snapshot becomes a layer.
 *
 *   this thread      finds the pages, reads each, tells zero from content, takes the checksum
 *   another thread   writes a batch of 1 MiB while the next one is being read
 *
 * The snapshot is read beside its writers, through the look-up that all readers use. A page that
 * somebody writes while it goes to the file is read again, and written over (pipe.h).
 *
 * Order: the layer's data and metadata, one fdatasync(), its name, the directory, HEAD. Before
 * HEAD names it the layer is nobody's; a crash leaves a file that no one asks for, which the next
 * writer's first save removes (publish.h).
 */
#include "store/layer.h"
#include "store/mark.h"
#include "store/offload.h"
#include "store/pageset.h"
#include "store/pipe.h"
#include "store/publish.h"
#include "store/writer.h"

#define KNOWN_FLAGS (COW_SAVE_FULL | COW_SAVE_CONSUME | COW_SAVE_OFFLOAD | COW_SAVE_KEEP_HEAD)

static const struct cow_save_options default_options = COW_SAVE_OPTIONS_INIT;

struct save {
	struct cow_store *store;
	struct cow_snapshot *snapshot;
	struct cow_save_options options;
	struct pageset set;
	bool incremental;
	bool consuming; /* begun, and to be ended */
	struct mark parent;
	struct pageset_since since; /* where the mark is from */
	struct writer *writer;
	struct pipe *pipe;
};

static int check_options(const struct cow_save_options *options)
{
	if (options->flags & ~KNOWN_FLAGS)
		return log_refusal("flags 0x%x of a save: 0x%x is unknown", options->flags,
				   options->flags & ~KNOWN_FLAGS);
	if (options->state_length > 0 && !options->state)
		return log_refusal("state_length is %zu, but state NULL", options->state_length);
	if (options->state_length > COW_STATE_MAX)
		return log_refusal("state_length %zu is above COW_STATE_MAX, %zu",
				   options->state_length, COW_STATE_MAX);
	return store_check_tag(options->tag);
}

/* A mark whose layer is still there; what was lost of it is taken for a reason to save everything,
 * not to save nothing. */
static bool find_mark(struct save *save, const struct cow_snapshot *snapshot)
{
	struct cow_region *region = snapshot->region;
	uint64_t epoch = snapshot->snap.epoch, bytes;
	const struct mark *mark;
	struct footer footer;

	while ((mark = mark_find(region, &save->store->refs.store, epoch))) {
		if (layer_read_footer(save->store, &mark->id, &footer, &bytes) == 0 &&
		    footer.sequence == mark->sequence) {
			save->parent = *mark;
			save->since = (struct pageset_since){ &snapshot->snap, mark->epoch };
			return true;
		}
		if (mark->epoch == 0)
			break;
		epoch = mark->epoch - 1;
	}
	return false;
}

/* A branch that was not saved yet goes on from what its source was saved as. Only where it reads
 * through the source: a branch under a trap has a window of its own, and what was written into that
 * before the first cut cannot be told from what was not. */
static bool find_parent(struct save *save)
{
	const struct cow_snapshot *snapshot = save->snapshot;

	while (snapshot && !find_mark(save, snapshot))
		snapshot = snapshot->region->space.base == BASE_SOURCE ? snapshot->region->source :
									 NULL;
	return snapshot != NULL;
}

/* One more would make a chain that cannot be opened. The mark knows of no compaction. */
static bool is_too_deep(struct save *save)
{
	struct footer footer;
	uint64_t bytes;

	if (save->parent.depth + 1 < COW_STORE_DEPTH_MAX)
		return false;
	if (layer_read_footer(save->store, &save->parent.id, &footer, &bytes) == 0)
		save->parent.depth = layer_count_below(save->store, &footer);
	if (save->parent.depth + 1 < COW_STORE_DEPTH_MAX)
		return false;
	log_message(LOG_WARNING,
		    "libcow: store: %s: %d layers are on top of each other, the most that can be: "
		    "everything is saved again, on no parent; compact the store now and then",
		    save->store->path, COW_STORE_DEPTH_MAX);
	return true;
}

/* The snapshot itself was saved already. */
static bool is_saved(const struct save *save)
{
	return save->since.of == &save->snapshot->snap &&
	       save->since.epoch == save->snapshot->snap.epoch;
}

static struct writer_config config_of(const struct save *save, const struct mark *mark)
{
	const struct cow_region *region = save->snapshot->region;
	uint64_t page_size = space_page_size(&region->space);

	return (struct writer_config){
		.id = mark->id,
		.parent = save->parent.id,
		.sequence = mark->sequence,
		.parent_sequence = save->parent.sequence,
		.length = region->length,
		.address = (uintptr_t)region->base,
		.page_size = page_size,
		.time_ns = save->snapshot->time_ns,
		.state = save->options.state,
		.state_length = save->options.state_length,
		.clusters_max = save->set.count * (page_size / CLUSTER),
		.slices_max = save->set.slices,
	};
}

static int report(struct save *save, uint64_t pages)
{
	unsigned shift = save->snapshot->region->space.page_shift;

	if (!save->options.progress)
		return 0;
	return save->options.progress(pages << shift, save->set.count << shift,
				      save->options.context) ?
		       -ECANCELED :
		       0;
}

#define REPORT_PAGES 1024u

static int write_pages(struct save *save)
{
	uint64_t page = 0, done = 0;
	int r = report(save, 0);

	for (; r == 0 && (page = pageset_next(&save->set, page)) < save->set.pages; page++) {
		r = pipe_put(save->pipe, page);
		if (r == 0 && ++done % REPORT_PAGES == 0)
			r = report(save, done);
	}
	if (r == 0)
		r = pipe_drain(save->pipe);
	return r < 0 ? r : report(save, done);
}

static int write_layer(struct save *save, const struct mark *mark)
{
	struct writer_config config = config_of(save, mark);
	struct pipe_config pipe_config = {
		.snapshot = save->snapshot,
		.pages = save->set.count,
		.consume = save->consuming,
		.known = mark_known(save->snapshot->region, &save->store->refs.store),
		.store = save->store,
		.parent = save->incremental ? &save->parent.id : NULL,
	};
	struct footer footer;
	int r = writer_new(save->store, &config, &save->writer);

	if (r < 0)
		return r;
	pipe_config.writer = save->writer;
	r = pipe_new(&pipe_config, &save->pipe);
	if (r == 0)
		r = write_pages(save);
	pipe_free(save->pipe);
	if (r < 0) {
		writer_abort(save->writer);
		return r;
	}
	return writer_finish(save->writer, &footer);
}

static struct publication publication_of(const struct save *save, const struct mark *mark)
{
	return (struct publication){
		.id = mark->id,
		.sequence = mark->sequence,
		.tag = save->options.tag,
		.keep_head = save->options.flags & COW_SAVE_KEEP_HEAD,
	};
}

static bool is_offloaded(const struct save *save)
{
	return atomic_load(&save->snapshot->snap.backing) != NULL;
}

/* From its layer from here on. Where there is no memory for that the snapshot stays as it is. */
static void offload(struct save *save, const struct mark *mark)
{
	struct space *space = &save->snapshot->region->space;
	struct snap *snap = &save->snapshot->snap;
	struct backing *backing = NULL;
	bool wanted = save->options.flags & (COW_SAVE_OFFLOAD | COW_SAVE_CONSUME);

	if (!wanted || is_offloaded(save))
		return;
	(void)offload_new(save->store, &mark->id, mark->sequence, &backing);
	if (save->consuming)
		consume_end(space, snap, backing);
	else if (backing)
		dup_detach(space, snap, backing);
	save->consuming = false;
}

static int save_new(struct save *save, struct layer_id *ret_id)
{
	struct mark mark = {
		.epoch = save->snapshot->snap.epoch,
		.depth = save->incremental ? save->parent.depth + 1 : 0,
	};
	struct space *space = &save->snapshot->region->space;
	struct publication publication;
	int r;

	r = pageset_collect(&save->set, &save->snapshot->snap,
			    save->incremental ? &save->since : NULL);
	if (r == 0)
		r = next_sequence(save->store, &mark.sequence);
	if (r == 0)
		r = id_new(&mark.id);
	if (r == 0 && (save->options.flags & COW_SAVE_CONSUME) && !is_offloaded(save)) {
		consume_begin(space, &save->snapshot->snap);
		save->consuming = true;
	}
	if (r == 0)
		r = write_layer(save, &mark);
	pageset_free(&save->set);
	if (r < 0)
		return r;
	publication = publication_of(save, &mark);
	r = publish_new(save->store, &publication);
	if (r < 0)
		return r;
	*ret_id = mark.id;
	/* Without a mark the next save is just larger. */
	(void)mark_add(save->snapshot->region, &save->store->refs.store, &mark);
	offload(save, &mark);
	return 0;
}

static int save_locked(struct save *save, struct layer_id *ret_id)
{
	bool found = find_parent(save);

	if (found && is_saved(save)) {
		struct publication publication = publication_of(save, &save->parent);
		int r = publish_again(save->store, &publication);

		if (r == 0) {
			*ret_id = save->parent.id;
			offload(save, &save->parent);
		}
		return r;
	}
	save->incremental = found && !(save->options.flags & COW_SAVE_FULL) && !is_too_deep(save);
	if (!save->incremental)
		save->parent = (struct mark){ 0 };
	return save_new(save, ret_id);
}

int cow_store_save(struct cow_store *store, struct cow_snapshot *snapshot,
		   const struct cow_save_options *options, char ret_id[COW_ID_LENGTH])
{
	struct save save = { .store = store, .snapshot = snapshot, .options = default_options };
	struct layer_id id;
	int r;

	r = check_snapshot(snapshot);
	if (r == 0 && options)
		r = options_read(&save.options, sizeof(save.options), sizeof(save.options),
				 options);
	if (r == 0)
		r = check_options(&save.options);
	if (r == 0 && snapshot->region->length > LENGTH_STORED_MAX)
		r = -EFBIG;
	if (r < 0)
		return r;
	r = store_begin(store, STORE_WRITES);
	if (r < 0)
		return r;
	r = snapshot_pin(snapshot);
	if (r == 0) {
		r = save_locked(&save, &id);
		if (save.consuming)
			consume_end(&snapshot->region->space, &snapshot->snap, NULL);
		snapshot_unpin(snapshot);
	}
	store_end(store);
	if (r < 0)
		return r;
	if (ret_id)
		id_print(&id, ret_id);
	return 0;
}
