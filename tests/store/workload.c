/* SPDX-License-Identifier: MIT */
#include "tests/store/workload.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/store/image.h"

const char *const work_kind_names[WORK_KINDS] = {
	[WORK_SAVE] = "save",     [WORK_TAG] = "tag",         [WORK_UNTAG] = "untag",
	[WORK_DELETE] = "delete", [WORK_COMPACT] = "compact", [WORK_RESTORE] = "restore",
	[WORK_REOPEN] = "reopen",
};

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint64_t next_random(uint64_t *state, uint64_t below)
{
	return mix(*state += UINT64_C(0x9e3779b97f4a7c15)) % below;
}

/* --- contents --- */

void work_fill(unsigned char page[WORK_PAGE], unsigned index, uint32_t version)
{
	uint64_t seed = ((uint64_t)version << 32 | index) * 512, word;

	if (version == 0) {
		memset(page, 0, WORK_PAGE);
		return;
	}
	for (size_t i = 0; i < WORK_PAGE; i += sizeof(word)) {
		word = mix(seed + i / sizeof(word) + 1);
		memcpy(page + i, &word, sizeof(word));
	}
}

/* Runs of pages at the region's start, across the border of two L2 tables, and at its end. */
size_t work_offset(unsigned index)
{
	size_t border = (size_t)2 << 20;

	if (index < 16)
		return index * WORK_PAGE;
	if (index < 32)
		return border + (index - 16) * WORK_PAGE - 8 * WORK_PAGE;
	return WORK_LENGTH - (WORK_PAGES - index) * WORK_PAGE;
}

/* --- the model --- */

static const struct work_layer *find_layer(const struct work_state *state, const char *id)
{
	for (size_t i = 0; i < state->count; i++)
		if (strcmp(state->layers[i].id, id) == 0)
			return &state->layers[i];
	return NULL;
}

static bool is_tagged(const struct work_state *state, const char *id)
{
	for (size_t i = 0; i < WORK_TAGS; i++)
		if (strcmp(state->tags[i].id, id) == 0)
			return true;
	return false;
}

/* HEAD, where it is deleted, goes to the parent. */
static void remove_layer(struct work_state *state, const char *id, const char *parent)
{
	size_t at = (size_t)(find_layer(state, id) - state->layers);

	if (strcmp(state->head, id) == 0)
		memcpy(state->head, parent, sizeof(state->head));
	state->layers[at] = state->layers[--state->count];
}

/* --- making a step --- */

static int new_region(struct work *work)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;

	options.trap = work->options.trap == COW_TRAP_AUTO ? COW_TRAP_EXPLICIT : work->options.trap;
	memset(work->live, 0, sizeof(work->live));
	return cow_region_new(WORK_LENGTH, &options, &work->region);
}

int work_open(struct work *work, const char *directory, const struct work_options *options)
{
	int r;

	memset(work, 0, sizeof(*work));
	work->directory = directory;
	work->options = *options;
	work->random = options->seed;
	r = new_region(work);
	if (r == 0)
		r = cow_store_open(directory, COW_STORE_CREATE, &work->store);
	if (r < 0)
		work_close(work);
	return r;
}

static bool is_possible(const struct work *work, enum work_kind kind)
{
	const struct work_state *state = &work->state;

	switch (kind) {
	case WORK_SAVE:
		return state->count < WORK_LAYERS;
	case WORK_TAG:
	case WORK_RESTORE:
		return state->count > 0;
	case WORK_DELETE:
		return state->count > 1;
	default:
		return true;
	}
}

static unsigned weight_of(const struct work *work, enum work_kind kind)
{
	static const unsigned even[WORK_KINDS] = { 8, 1, 1, 2, 1, 2, 1 };
	const unsigned *weight = work->options.weight;
	unsigned sum = 0;

	for (unsigned i = 0; i < WORK_KINDS; i++)
		sum += weight[i];
	return is_possible(work, kind) ? (sum ? weight[kind] : even[kind]) : 0;
}

static enum work_kind choose_kind(struct work *work)
{
	unsigned sum = 0, kind;
	uint64_t at;

	for (kind = 0; kind < WORK_KINDS; kind++)
		sum += weight_of(work, (enum work_kind)kind);
	if (sum == 0)
		return WORK_REOPEN;
	at = next_random(&work->random, sum);
	for (kind = 0; at >= weight_of(work, (enum work_kind)kind); kind++)
		at -= weight_of(work, (enum work_kind)kind);
	return (enum work_kind)kind;
}

static void write_page(struct work *work, unsigned index)
{
	static unsigned char page[WORK_PAGE];
	uint64_t how = next_random(&work->random, 8);
	int r;

	work->live[index] = how == 0 ? 0 : ++work->last_version;
	work_fill(page, index, work->live[index]);
	r = how == 0 ? cow_region_discard(work->region, work_offset(index), WORK_PAGE) :
		       cow_region_write(work->region, work_offset(index), page, WORK_PAGE);
	if (r < 0)
		abort();
}

/* What the call is to do, decided before it is made, so that it can be made again. */
static struct {
	struct cow_snapshot *snapshot; /* SAVE: made by work_choose(), kept until it was saved */
	uint32_t flags;
	char tag[8], id[COW_ID_LENGTH]; /* a tag's name or empty; the layer concerned */
	char parent[COW_ID_LENGTH];     /* DELETE: of the layer */
	char saved[COW_ID_LENGTH];
	struct cow_region *region; /* RESTORE */
} plan;

void work_close(struct work *work)
{
	/* Of a save that failed, or that nobody saw succeed. */
	plan.snapshot = cow_snapshot_unref(plan.snapshot);
	cow_region_free(work->region);
	cow_store_close(work->store);
	work->region = NULL;
	work->store = NULL;
}

static void choose_layer(struct work *work)
{
	const struct work_state *state = &work->state;

	memcpy(plan.id, state->layers[next_random(&work->random, state->count)].id,
	       sizeof(plan.id));
}

static void choose_tag(struct work *work)
{
	snprintf(plan.tag, sizeof(plan.tag), "t%u",
		 (unsigned)next_random(&work->random, WORK_TAGS));
}

static void choose_save(struct work *work)
{
	static const uint32_t flags[] = {
		0, 0, 0, 0, 0, COW_SAVE_FULL, COW_SAVE_KEEP_HEAD, COW_SAVE_OFFLOAD,
	};
	uint64_t most = work->options.pages ? work->options.pages : 8;
	uint64_t pages = next_random(&work->random, most + 1);

	for (uint64_t i = 0; i < pages; i++)
		write_page(work, (unsigned)next_random(&work->random, WORK_PAGES));
	plan.flags = flags[next_random(&work->random, sizeof(flags) / sizeof(flags[0]))];
	if (work->options.plain)
		plan.flags = 0;
	if (work->state.count == 0 || work->options.named)
		plan.flags &= ~COW_SAVE_KEEP_HEAD;
	if (next_random(&work->random, 3) == 0 && !work->options.plain)
		choose_tag(work);
	cow_snapshot_unref(plan.snapshot);
	if (cow_region_snapshot(work->region, &plan.snapshot) < 0)
		abort();
}

/* One that may be deleted: no tag names it; if it is HEAD, its parent is there to be HEAD. */
static bool choose_deletion(struct work *work)
{
	const struct work_state *state = &work->state;

	for (unsigned tries = 0; tries < 16; tries++) {
		struct cow_layer_info info = COW_LAYER_INFO_INIT;

		choose_layer(work);
		if (work->options.plain)
			memcpy(plan.id, state->head, sizeof(plan.id));
		if (is_tagged(state, plan.id))
			continue;
		if (cow_store_get_info(work->store, plan.id, &info) < 0)
			abort();
		memcpy(plan.parent, info.parent, sizeof(plan.parent));
		if (strcmp(state->head, plan.id) != 0 || find_layer(state, plan.parent))
			return true;
	}
	return false;
}

static bool choose_untag(struct work *work)
{
	for (unsigned tries = 0; tries < 16; tries++) {
		unsigned tag = (unsigned)next_random(&work->random, WORK_TAGS);

		if (work->state.tags[tag].id[0]) {
			snprintf(plan.tag, sizeof(plan.tag), "t%u", tag);
			return true;
		}
	}
	return false;
}

void work_choose(struct work *work)
{
	memset(&plan.flags, 0, sizeof(plan) - offsetof(typeof(plan), flags));
	work->kind = choose_kind(work);
	switch (work->kind) {
	case WORK_SAVE:
		choose_save(work);
		break;
	case WORK_TAG:
		choose_layer(work);
		choose_tag(work);
		break;
	case WORK_RESTORE:
		choose_layer(work);
		break;
	case WORK_DELETE:
		if (!choose_deletion(work))
			work->kind = WORK_REOPEN;
		break;
	case WORK_UNTAG:
		if (!choose_untag(work))
			work->kind = WORK_REOPEN;
		break;
	case WORK_COMPACT:
		if (work->options.compress && next_random(&work->random, 2))
			plan.flags = COW_COMPACT_COMPRESS;
		break;
	default:
		break;
	}
}

/* --- the call --- */

static void set_tag(struct work_state *state, const char *name, const char *id)
{
	unsigned tag = (unsigned)(name[1] - '0');

	snprintf(state->tags[tag].name, sizeof(state->tags[tag].name), "%s", name);
	snprintf(state->tags[tag].id, COW_ID_LENGTH, "%s", id);
}

static int call_save(struct work *work)
{
	struct cow_save_options options = COW_SAVE_OPTIONS_INIT;
	uint32_t state = work->last_version;

	options.flags = plan.flags;
	options.tag = plan.tag[0] ? plan.tag : NULL;
	options.state = &state;
	options.state_length = sizeof(state);
	return cow_store_save(work->store, plan.snapshot, &options, plan.saved);
}

static void model_save(const struct work *work, const char *id, struct work_state *state)
{
	struct work_layer *layer = &state->layers[state->count++];

	snprintf(layer->id, sizeof(layer->id), "%s", id);
	memcpy(layer->version, work->live, sizeof(layer->version));
	if (!(plan.flags & COW_SAVE_KEEP_HEAD))
		memcpy(state->head, layer->id, sizeof(state->head));
	if (plan.tag[0])
		set_tag(state, plan.tag, id);
}

static int call_restore(struct work *work)
{
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;

	options.trap = work->options.trap == COW_TRAP_AUTO ? COW_TRAP_EXPLICIT : work->options.trap;
	return cow_store_restore(work->store, plan.id, &options, &plan.region);
}

static void model_restore(struct work *work)
{
	const struct work_layer *layer = find_layer(&work->state, plan.id);

	cow_region_free(work->region);
	work->region = plan.region;
	memcpy(work->live, layer->version, sizeof(work->live));
}

static int call_reopen(struct work *work)
{
	struct cow_store *store = work->store;

	work->store = NULL;
	cow_store_close(store);
	return cow_store_open(work->directory, COW_STORE_CREATE, &work->store);
}

/* The region outlives the store it was saved into; what it is saved into next is another object for
 * the same directory, so that its layers are found by their identities. */
int work_call(struct work *work)
{
	struct cow_compact_options options = COW_COMPACT_OPTIONS_INIT;
	int r;

	switch (work->kind) {
	case WORK_SAVE:
		return call_save(work);
	case WORK_TAG:
		return cow_store_tag(work->store, plan.id, plan.tag);
	case WORK_UNTAG:
		return cow_store_untag(work->store, plan.tag);
	case WORK_DELETE:
		return cow_store_delete(work->store, plan.id);
	case WORK_COMPACT:
		options.flags = plan.flags;
		options.depth_max = 3;
		r = cow_store_compact(work->store, &options, NULL);
		/* Built without compression. */
		if (r == -EOPNOTSUPP && options.flags == COW_COMPACT_COMPRESS) {
			options.flags = 0;
			r = cow_store_compact(work->store, &options, NULL);
		}
		return r;
	case WORK_RESTORE:
		return call_restore(work);
	case WORK_REOPEN:
		return call_reopen(work);
	default:
		return -ENOSYS;
	}
}

static void model(const struct work *work, const char *saved, struct work_state *state)
{
	switch (work->kind) {
	case WORK_SAVE:
		model_save(work, saved, state);
		break;
	case WORK_TAG:
		set_tag(state, plan.tag, plan.id);
		break;
	case WORK_UNTAG:
		set_tag(state, plan.tag, "");
		break;
	case WORK_DELETE:
		remove_layer(state, plan.id, plan.parent);
		break;
	default:
		break;
	}
}

void work_preview(const struct work *work, struct work_state *ret_state)
{
	*ret_state = work->state;
	model(work, WORK_ANY_ID, ret_state);
}

void work_done(struct work *work)
{
	model(work, plan.saved, &work->state);
	if (work->kind == WORK_SAVE)
		plan.snapshot = cow_snapshot_unref(plan.snapshot);
	if (work->kind == WORK_RESTORE)
		model_restore(work);
}

int work_go_on(struct work *work, const char *directory, const struct work_options *options,
	       const struct work_state *state)
{
	int r = work_open(work, directory, options);

	if (r < 0)
		return r;
	work->state = *state;
	for (size_t i = 0; i < state->count; i++)
		for (unsigned page = 0; page < WORK_PAGES; page++)
			if (state->layers[i].version[page] > work->last_version)
				work->last_version = state->layers[i].version[page];
	if (state->head[0] == '\0')
		return 0;
	work->kind = WORK_RESTORE;
	memcpy(plan.id, state->head, sizeof(plan.id));
	r = work_call(work);
	if (r == 0)
		work_done(work);
	return r;
}

int work_step(struct work *work)
{
	int r;

	work_choose(work);
	r = work_call(work);
	if (r == 0)
		work_done(work);
	return r;
}

/* --- what a store holds --- */

struct found {
	struct work_state state;
	const char *why;
};

static int find_one(const struct cow_layer_info *info, void *context)
{
	struct found *found = context;
	struct work_layer *layer;

	if (info->flags & COW_LAYER_DELETED)
		return 0;
	if (found->state.count == WORK_LAYERS)
		return -E2BIG;
	layer = &found->state.layers[found->state.count++];
	memcpy(layer->id, info->id, sizeof(layer->id));
	if (info->flags & COW_LAYER_HEAD)
		memcpy(found->state.head, info->id, sizeof(found->state.head));
	return 0;
}

static int find_tag(const char *name, const char *id, void *context)
{
	struct found *found = context;

	if (name[0] != 't' || name[1] < '0' || name[1] >= (char)('0' + WORK_TAGS) || name[2])
		return -EINVAL;
	set_tag(&found->state, name, id);
	return 0;
}

static bool same_names(const struct work_state *left, const struct work_state *right)
{
	if (left->count != right->count || strcmp(left->head, right->head) != 0)
		return false;
	for (size_t i = 0; i < left->count; i++)
		if (!find_layer(right, left->layers[i].id))
			return false;
	for (size_t i = 0; i < WORK_TAGS; i++)
		if (strcmp(left->tags[i].id, right->tags[i].id) != 0)
			return false;
	return true;
}

static bool same_content(const char *reader, const struct work_layer *layer,
			 const unsigned char *content, char why[256])
{
	static unsigned char page[WORK_PAGE];

	for (unsigned i = 0; i < WORK_PAGES; i++) {
		work_fill(page, i, layer->version[i]);
		if (memcmp(content + work_offset(i), page, WORK_PAGE) == 0)
			continue;
		snprintf(why, 256, "layer %.8s: page %u is not version %u (%s)", layer->id, i,
			 layer->version[i], reader);
		return false;
	}
	return true;
}

/* Without libzstd a compressed layer is nothing for the second reader. */
static bool check_by_image(const char *directory, const struct work_layer *layer, char why[256])
{
	static unsigned char content[WORK_LENGTH];
	struct image *image = NULL;
	char name[64];
	bool same;
	int r;

	snprintf(name, sizeof(name), "%s.qcow2", layer->id);
	r = image_open(directory, name, &image);
	if (r == -EOPNOTSUPP)
		return true;
	if (r < 0) {
		snprintf(why, 256, "layer %.8s: the second reader cannot open it", layer->id);
		return false;
	}
	image_read(image, 0, content, WORK_LENGTH);
	same = same_content("second reader", layer, content, why);
	image_free(image);
	return same;
}

static bool check_by_restore(struct cow_store *store, const struct work_layer *layer, char why[256])
{
	static unsigned char content[WORK_LENGTH];
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_region *region = NULL;
	bool same = false;
	int r;

	options.trap = COW_TRAP_EXPLICIT;
	r = cow_store_restore(store, layer->id, &options, &region);
	if (r == 0)
		r = cow_region_read(region, 0, content, WORK_LENGTH);
	if (r < 0)
		snprintf(why, 256, "layer %.8s: restore: %s", layer->id, strerror(-r));
	else
		same = same_content("restore", layer, content, why);
	cow_region_free(region);
	return same;
}

static int note_damage(const char *id, uint64_t offset, uint64_t length, const char *what,
		       void *context)
{
	char *why = context;

	(void)length;
	snprintf(why, 256, "verify: %.8s at %llu: %s", id, (unsigned long long)offset, what);
	return 1;
}

static int find_state(struct cow_store *store, struct found *found, char why[256])
{
	int r = cow_store_list(store, find_one, found);

	if (r == 0)
		r = cow_store_list_tags(store, find_tag, found);
	if (r)
		snprintf(why, 256, "list: %s", strerror(-r));
	return r;
}

static void say_names(const struct work_state *state, const char *what, char *to, size_t room)
{
	size_t at = (size_t)snprintf(to, room, "%s: head %.4s,", what, state->head);

	for (size_t i = 0; i < state->count && at < room; i++)
		at += (size_t)snprintf(to + at, room - at, " %.4s", state->layers[i].id);
	for (size_t i = 0; i < WORK_TAGS && at < room; i++)
		if (state->tags[i].id[0])
			at += (size_t)snprintf(to + at, room - at, " t%zu=%.4s", i,
					       state->tags[i].id);
}

/* A layer of any identity gets that of the one that is found and otherwise not known. */
static void bind_any(const struct work_state *found, struct work_state *state)
{
	const char *id = NULL;

	for (size_t i = 0; i < found->count; i++)
		if (!find_layer(state, found->layers[i].id))
			id = found->layers[i].id;
	for (size_t i = 0; id && i < state->count; i++)
		if (strcmp(state->layers[i].id, WORK_ANY_ID) == 0)
			memcpy(state->layers[i].id, id, COW_ID_LENGTH);
	for (size_t i = 0; id && i < WORK_TAGS; i++)
		if (strcmp(state->tags[i].id, WORK_ANY_ID) == 0)
			memcpy(state->tags[i].id, id, COW_ID_LENGTH);
	if (id && strcmp(state->head, WORK_ANY_ID) == 0)
		memcpy(state->head, id, COW_ID_LENGTH);
}

/* The index of the state whose names these are. */
static int match(const struct work_state *found, struct work_state *const states[], size_t count,
		 char why[256])
{
	char one[120], other[120];

	for (size_t i = 0; i < count; i++) {
		bind_any(found, states[i]);
		if (same_names(found, states[i]))
			return (int)i;
	}
	say_names(found, "found", one, sizeof(one));
	say_names(states[0], "wanted", other, sizeof(other));
	snprintf(why, 256, "%s; %s", one, other);
	return -1;
}

static bool check_content(struct cow_store *store, const char *directory,
			  const struct work_state *state, char why[256])
{
	int r = cow_store_verify(store, NULL, note_damage, NULL, why);

	if (r != 0) {
		if (!why[0])
			snprintf(why, 256, "verify: %s", strerror(-r));
		return false;
	}
	for (size_t i = 0; i < state->count; i++)
		if (!check_by_image(directory, &state->layers[i], why) ||
		    !check_by_restore(store, &state->layers[i], why))
			return false;
	return true;
}

static int check_open(struct cow_store *store, const char *directory,
		      struct work_state *const states[], size_t count, char why[256])
{
	struct found *found = calloc(1, sizeof(*found));
	int which = -1;

	why[0] = '\0';
	if (!found)
		abort();
	if (find_state(store, found, why) == 0)
		which = match(&found->state, states, count, why);
	if (which >= 0 && !check_content(store, directory, states[which], why))
		which = -1;
	free(found);
	return which;
}

int work_check(const char *directory, struct work_state *const states[], size_t count,
	       char why[256])
{
	struct cow_store *store;
	int which, r = cow_store_open(directory, COW_STORE_CREATE, &store);

	if (r < 0) {
		snprintf(why, 256, "open: %s", strerror(-r));
		return -1;
	}
	which = check_open(store, directory, states, count, why);
	cow_store_close(store);
	return which;
}

bool work_holds(struct work *work, char why[256])
{
	struct work_state *const states[] = { &work->state };

	return check_open(work->store, work->directory, states, 1, why) == 0;
}

static int count_compressed(const struct cow_layer_info *info, void *context)
{
	*(unsigned *)context += (info->flags & COW_LAYER_COMPRESSED) != 0;
	return 0;
}

unsigned work_compressed(const struct work *work)
{
	unsigned count = 0;

	(void)cow_store_list(work->store, count_compressed, &count);
	return count;
}
