/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/store/store.h"

static int add_layer(const struct cow_layer_info *info, void *context)
{
	struct store_layers *found = context;

	if (found->count == found->room) {
		found->room = found->room ? 2 * found->room : 64;
		found->layers = output_realloc(found->layers,
					       found->room * sizeof(found->layers[0]));
	}
	found->layers[found->count++] = *info;
	return 0;
}

static int add_tag(const char *name, const char *id, void *context)
{
	struct store_layers *found = context;
	struct store_tag *tag;

	if (found->tag_count == found->tag_room) {
		found->tag_room = found->tag_room ? 2 * found->tag_room : 16;
		found->tags = output_realloc(found->tags, found->tag_room * sizeof(found->tags[0]));
	}
	tag = &found->tags[found->tag_count++];
	snprintf(tag->name, sizeof(tag->name), "%s", name);
	snprintf(tag->id, sizeof(tag->id), "%s", id);
	return 0;
}

bool layers_read(struct cow_store *store, struct store_layers *ret_found)
{
	struct store_layers found = { 0 };
	int r = cow_store_list(store, add_layer, &found);

	if (r == 0)
		r = cow_store_list_tags(store, add_tag, &found);
	if (r < 0) {
		complain_errno(r, "cannot list the layers");
		layers_free(&found);
		return false;
	}
	*ret_found = found;
	return true;
}

void layers_free(struct store_layers *found)
{
	free(found->layers);
	free(found->tags);
	memset(found, 0, sizeof(*found));
}

static const struct cow_layer_info *find_id(const struct store_layers *found, const char *id)
{
	size_t i;

	for (i = 0; i < found->count; i++)
		if (strcmp(found->layers[i].id, id) == 0)
			return &found->layers[i];
	return NULL;
}

static const struct cow_layer_info *find_head(const struct store_layers *found)
{
	size_t i;

	for (i = 0; i < found->count; i++)
		if (found->layers[i].flags & COW_LAYER_HEAD)
			return &found->layers[i];
	return NULL;
}

static const struct store_tag *find_tag(const struct store_layers *found, const char *name)
{
	size_t i;

	for (i = 0; i < found->tag_count; i++)
		if (strcmp(found->tags[i].name, name) == 0)
			return &found->tags[i];
	return NULL;
}

/* How many layers begin so; the last of them. */
static size_t find_prefix(const struct store_layers *found, const char *prefix,
			  const struct cow_layer_info **ret_layer)
{
	size_t count = 0, length = strlen(prefix), i;

	/* One that was deleted can no longer be named. */
	for (i = 0; i < found->count && length >= 4; i++)
		if (!(found->layers[i].flags & COW_LAYER_DELETED) &&
		    strncmp(found->layers[i].id, prefix, length) == 0) {
			*ret_layer = &found->layers[i];
			count++;
		}
	return count;
}

const struct cow_layer_info *layers_find(const struct store_run *run, const char *name)
{
	const struct store_layers *found = &run->found;
	const struct cow_layer_info *layer;
	const struct store_tag *tag;
	size_t fitting;

	if (!name || strcmp(name, "HEAD") == 0) {
		layer = find_head(found);
		if (!layer && !store_has_complained())
			complain("%s has no HEAD yet: nothing was saved in it", run->directory);
		return layer;
	}
	tag = find_tag(found, name);
	if (tag) /* the library has said where its layer is missing */
		return find_id(found, tag->id);
	fitting = find_prefix(found, name, &layer);
	if (fitting == 1)
		return layer;
	if (fitting > 1)
		complain("%zu layers begin with '%s'; give more of the identity", fitting, name);
	else
		complain("no layer or tag '%s' in %s; cow store log lists them", name,
			 run->directory);
	return NULL;
}

char *layers_names(const struct store_layers *found, const struct cow_layer_info *layer)
{
	size_t room = 8, length = 0, i;
	char *names;

	for (i = 0; i < found->tag_count; i++)
		room += strlen(found->tags[i].name) + 2;
	names = output_realloc(NULL, room);
	names[0] = '\0';
	if (layer->flags & COW_LAYER_HEAD)
		length = (size_t)snprintf(names, room, "HEAD");
	for (i = 0; i < found->tag_count; i++)
		if (strcmp(found->tags[i].id, layer->id) == 0)
			length += (size_t)snprintf(names + length, room - length, "%s%s",
						   length ? ", " : "", found->tags[i].name);
	return names;
}

const char *layers_time(uint64_t time_ns, char text[STORE_TIME_LENGTH])
{
	time_t seconds = (time_t)(time_ns / 1000000000);
	struct tm parts;

	if (!localtime_r(&seconds, &parts) ||
	    strftime(text, STORE_TIME_LENGTH, "%Y-%m-%d %H:%M:%S", &parts) == 0)
		snprintf(text, STORE_TIME_LENGTH, "?");
	return text;
}

void layers_add_json(json_object *to, const char *key, const struct store_layers *found,
		     const struct cow_layer_info *layer)
{
	json_object *object = report_add_object(to, key), *tags;
	size_t i;

	report_add_string(object, "id", layer->id);
	report_add_string(object, "parent", layer->parent[0] ? layer->parent : NULL);
	report_add_unsigned(object, "sequence", layer->sequence);
	report_add_unsigned(object, "depth", layer->depth);
	report_add_unsigned(object, "time_ns", layer->time_ns);
	report_add_bool(object, "head", layer->flags & COW_LAYER_HEAD);
	tags = report_add_array(object, "tags");
	for (i = 0; i < found->tag_count; i++)
		if (strcmp(found->tags[i].id, layer->id) == 0)
			report_add_string(tags, NULL, found->tags[i].name);
	report_add_bool(object, "deleted", layer->flags & COW_LAYER_DELETED);
	report_add_bool(object, "damaged", layer->flags & COW_LAYER_DAMAGED);
	report_add_bool(object, "compressed", layer->flags & COW_LAYER_COMPRESSED);
	report_add_unsigned(object, "length_bytes", layer->length);
	report_add_unsigned(object, "address", layer->address);
	report_add_unsigned(object, "page_size", layer->page_size);
	report_add_unsigned(object, "data_bytes", layer->data_bytes);
	report_add_unsigned(object, "zero_bytes", layer->zero_bytes);
	report_add_unsigned(object, "file_bytes", layer->file_bytes);
	report_add_unsigned(object, "state_bytes", layer->state_length);
}
