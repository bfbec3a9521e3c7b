/* SPDX-License-Identifier: MIT */
/*
 * Compaction: deleted layers are merged into the child that needs them, and a layer that lies too
 * deep is written out whole, so that it lies on nothing.
 *
 *   A <- (B deleted) <- C      becomes   A <- C      where C is B's only child
 *   A <- ... 33 layers ... <- Z          A <- ... <- Y    Z
 *
 * With COW_COMPACT_COMPRESS, what is cold is written anew, compressed (packer.h): layers that are
 * neither HEAD nor tagged, which is what a program goes on from. Not those that say little in many
 * places (rewrite.c). What is merged with a compressed layer is compressed again, if it is cold.
 *
 * A deleted layer with several children stays: merged into each of them it would be there several
 * times. A layer keeps its identity and sequence, so its children need not change. Each step
 * replaces one file by one rename(), and what it reads as is the same before and after; so a crash
 * between steps leaves a store that is right, and at worst larger than it need be.
 */
#include "lib/internal.h"
#include "store/delete.h"
#include "store/packer.h"
#include "store/publish.h"
#include "store/rewrite.h"

#define KNOWN_FLAGS       COW_COMPACT_COMPRESS
#define DEPTH_MAX_DEFAULT 32u

static const struct cow_compact_options default_options = COW_COMPACT_OPTIONS_INIT;

struct compaction {
	struct cow_store *store;
	struct cow_compact_options options;
	struct cow_compact_stats stats;
	struct index index;
	struct rewrite rewrite;
};

static struct index_entry *parent_of(const struct compaction *compaction,
				     const struct index_entry *entry)
{
	if (id_is_none(&entry->footer.parent))
		return NULL;
	return index_find(&compaction->index, &entry->footer.parent);
}

/* How many layers become one when this one is rewritten: 1: there is no need. */
static unsigned merge_depth(const struct compaction *compaction, const struct index_entry *entry)
{
	const struct index_entry *below = parent_of(compaction, entry);
	unsigned depth = 1;

	while (below && below->children == 1 &&
	       refs_is_deleted(&compaction->store->refs, &below->id)) {
		depth++;
		below = parent_of(compaction, below);
	}
	return depth;
}

/* A deleted layer is merged when its child is. */
static bool is_merged_later(const struct compaction *compaction, const struct index_entry *entry)
{
	return entry->children == 1 && refs_is_deleted(&compaction->store->refs, &entry->id);
}

static bool is_cold(const struct compaction *compaction, const struct index_entry *entry)
{
	const struct refs *refs = &compaction->store->refs;

	return !id_equal(&refs->head, &entry->id) && !refs_is_tagged(refs, &entry->id);
}

static bool wants_compression(const struct compaction *compaction)
{
	return compaction->options.flags & COW_COMPACT_COMPRESS;
}

static bool is_to_be_packed(const struct compaction *compaction, const struct index_entry *entry)
{
	return wants_compression(compaction) && is_cold(compaction, entry) &&
	       !footer_is_packed(&entry->footer);
}

/* Whether one of the layers that become one is compressed. */
static bool merges_packed(const struct compaction *compaction, const struct index_entry *entry,
			  unsigned depth)
{
	bool packed = false;

	for (; entry && depth > 0; depth--, entry = parent_of(compaction, entry))
		packed |= footer_is_packed(&entry->footer);
	return packed;
}

static void count_compressed(struct compaction *compaction, const struct index_entry *entry)
{
	if (!footer_is_packed(&entry->footer))
		return;
	compaction->stats.compressed++;
	compaction->stats.compressed_before += entry->footer.held_clusters * CLUSTER;
	compaction->stats.compressed_after += entry->file_bytes;
}

static int rewrite_entry(struct compaction *compaction, struct index_entry *entry, unsigned depth)
{
	struct rewrite *rewrite = &compaction->rewrite;
	int r;

	rewrite->id = entry->id;
	rewrite->depth = depth;
	rewrite->pack = is_cold(compaction, entry) &&
			(wants_compression(compaction) || merges_packed(compaction, entry, depth));
	r = rewrite_layer(rewrite);
	if (r <= 0)
		return r;
	compaction->stats.rewritten++;
	r = layer_read_footer(compaction->store, &entry->id, &entry->footer, &entry->file_bytes);
	if (r == 0)
		count_compressed(compaction, entry);
	return r;
}

static int merge_entry(struct compaction *compaction, struct index_entry *entry, unsigned depth)
{
	struct index_entry *before = parent_of(compaction, entry), *now;
	int r = rewrite_entry(compaction, entry, depth);

	if (r < 0)
		return r;
	/* What was merged goes with the sweep; until then it is a child beside this one. */
	if (before)
		before->children--;
	now = parent_of(compaction, entry);
	if (now)
		now->children++;
	return 0;
}

static void find_depth(const struct compaction *compaction, struct index_entry *entry)
{
	const struct index_entry *parent = parent_of(compaction, entry);

	entry->depth = parent ? parent->depth + 1 : 0;
}

/* Oldest first: so that a parent has its place when its children are looked at. */
static int compact_entry(struct compaction *compaction, struct index_entry *entry)
{
	unsigned depth = merge_depth(compaction, entry);
	int r = 0;

	if (is_merged_later(compaction, entry)) {
		find_depth(compaction, entry);
		return 0;
	}
	if (depth > 1)
		r = merge_entry(compaction, entry, depth);
	find_depth(compaction, entry);
	if (r == 0 && entry->depth > compaction->options.depth_max) {
		r = merge_entry(compaction, entry, UINT32_MAX);
		find_depth(compaction, entry);
	}
	if (r == 0 && is_to_be_packed(compaction, entry))
		r = rewrite_entry(compaction, entry, 1);
	if (entry->depth > compaction->stats.depth)
		compaction->stats.depth = entry->depth;
	return r;
}

static uint64_t count_bytes(const struct index *index)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < index->count; i++)
		bytes += index->entries[i].file_bytes;
	return bytes;
}

/* What is to be rewritten, for the progress: about. */
static uint64_t estimate(const struct compaction *compaction)
{
	uint64_t whole_every = (uint64_t)compaction->options.depth_max + 1; /* layer of a chain */
	uint64_t clusters = 0;

	for (size_t i = 0; i < compaction->index.count; i++) {
		const struct index_entry *entry = &compaction->index.entries[i];

		if (is_merged_later(compaction, entry) || merge_depth(compaction, entry) > 1 ||
		    is_to_be_packed(compaction, entry))
			clusters += entry->footer.held_clusters;
		if (entry->depth > 0 && entry->depth % whole_every == 0)
			clusters += div_up(entry->footer.length, CLUSTER);
	}
	return clusters * CLUSTER;
}

/* Whose children an unreadable layer may be is not known: nothing is removed then. Which ones has
 * been said; unreadable ones come last. */
static int build(struct compaction *compaction)
{
	int r = index_build(compaction->store, &compaction->index);

	if (r == 0 && compaction->index.errors > 0)
		r = compaction->index.entries[compaction->index.count - 1].error;
	return r;
}

static int rebuild(struct compaction *compaction)
{
	index_free(&compaction->index);
	return build(compaction);
}

static int compact_all(struct compaction *compaction)
{
	struct index *index = &compaction->index;
	int r = 0;

	compaction->rewrite.total = estimate(compaction);
	for (size_t i = index->count; r == 0 && i-- > 0;)
		r = compact_entry(compaction, &index->entries[i]);
	if (r == 0)
		r = rebuild(compaction);
	compaction->stats.busy = 0; /* counted anew */
	if (r == 0)
		r = sweep_deleted(compaction->store, index, &compaction->stats);
	if (r == 0)
		r = rebuild(compaction);
	return r;
}

static int compact(struct compaction *compaction)
{
	int r = build(compaction);

	if (r < 0)
		return r;
	compaction->stats.bytes_before = count_bytes(&compaction->index);
	r = sweep_unpublished(compaction->store, &compaction->index, &compaction->stats);
	if (r == 0)
		r = rebuild(compaction);
	if (r == 0)
		r = sweep_deleted(compaction->store, &compaction->index, &compaction->stats);
	if (r == 0)
		r = rebuild(compaction);
	if (r == 0)
		r = compact_all(compaction);
	compaction->stats.bytes_after = count_bytes(&compaction->index);
	compaction->stats.cloned_bytes = compaction->rewrite.cloned_bytes;
	return r;
}

static int read_options(struct compaction *compaction, const struct cow_compact_options *given)
{
	struct cow_compact_options *options = &compaction->options;
	int r = 0;

	if (given)
		r = options_read(options, sizeof(*options), sizeof(*options), given);
	if (r < 0)
		return r;
	if (options->flags & ~KNOWN_FLAGS)
		return -EINVAL;
	if ((options->flags & COW_COMPACT_COMPRESS) && !packer_is_there()) {
		log_message(LOG_ERR, "libcow: store: this libcow was built without zstd: compact "
				     "without COW_COMPACT_COMPRESS");
		return -EOPNOTSUPP;
	}
	if (options->depth_max == 0)
		options->depth_max = DEPTH_MAX_DEFAULT;
	compaction->rewrite.progress = options->progress;
	compaction->rewrite.context = options->context;
	return 0;
}

int cow_store_compact(struct cow_store *store, const struct cow_compact_options *options,
		      struct cow_compact_stats *ret_stats)
{
	struct compaction compaction = {
		.store = store,
		.options = default_options,
		.stats = COW_COMPACT_STATS_INIT,
		.rewrite = { .store = store },
	};
	size_t room = 0;
	int r;

	r = read_options(&compaction, options);
	if (r == 0 && ret_stats)
		r = stats_room(ret_stats, sizeof(*ret_stats), sizeof(*ret_stats), &room);
	if (r == 0)
		r = store_begin(store, STORE_WRITES);
	if (r < 0)
		return r;
	r = compact(&compaction);
	index_free(&compaction.index);
	store_end(store);
	if (r == 0 && ret_stats) {
		compaction.stats.size = room;
		memcpy(ret_stats, &compaction.stats, room);
	}
	return r;
}
