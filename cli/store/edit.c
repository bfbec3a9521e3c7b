/* SPDX-License-Identifier: MIT */
/* tag, delete and compact. */
#include <errno.h>
#include <string.h>

#include "cli/store/store.h"
#include "cli/table.h"

/* --- tag --- */

static const struct table_column tag_columns[] = { { "tag", false },
						   { "layer", false },
						   { "taken", false } };

static const struct cow_layer_info *layer_of(const struct store_layers *found, const char *id)
{
	size_t i;

	for (i = 0; i < found->count; i++)
		if (strcmp(found->layers[i].id, id) == 0)
			return &found->layers[i];
	return NULL;
}

static int list_tags(struct store_run *run)
{
	json_object *array = run->json ? report_add_array(run->json, "tags") : NULL, *object;
	struct table *table = table_new(tag_columns, 3);
	char time[STORE_TIME_LENGTH];
	size_t i;

	for (i = 0; i < run->found.tag_count; i++) {
		const struct store_tag *tag = &run->found.tags[i];
		const struct cow_layer_info *layer = layer_of(&run->found, tag->id);

		if (array) {
			object = report_add_object(array, NULL);
			report_add_string(object, "tag", tag->name);
			report_add_string(object, "id", tag->id);
			continue;
		}
		table_cell(table, STYLE_GOOD, "%s", tag->name);
		table_cell(table, STYLE_NONE, "%.*s", STORE_SHORT_ID, tag->id);
		table_cell(table, STYLE_NONE, "%s",
			   layer ? layers_time(layer->time_ns, time) : "?");
	}
	if (!array && run->found.tag_count)
		table_print(table, stdout);
	else if (!array)
		printf("%s has no tags\n", run->directory);
	table_free(table);
	return COMMAND_OK;
}

static int remove_tag(struct store_run *run, const char *name)
{
	int r = cow_store_untag(run->store, name);

	if (r == -ENOENT) {
		complain("there is no tag '%s'; cow store tag %s lists them", name, run->directory);
		return COMMAND_FAILED;
	}
	if (r < 0)
		return store_result(r, "cannot remove the tag '%s'", name);
	if (run->json)
		report_add_string(run->json, "removed", name);
	else
		printf("tag %s is gone\n", name);
	return COMMAND_OK;
}

int store_tag(struct store_run *run, int count, char **operands)
{
	const struct cow_layer_info *layer;
	const char *name;
	int r;

	if (count == 0)
		return list_tags(run);
	name = operands[count - 1];
	if (run->options->remove)
		return remove_tag(run, name);
	layer = layers_find(run, count > 1 ? operands[0] : NULL);
	if (!layer)
		return COMMAND_FAILED;
	r = cow_store_tag(run->store, layer->id, name);
	if (r == -EINVAL) {
		complain(
			"'%s' is no name for a tag: letters, digits and -_.+@, at most %d of them, "
			"not HEAD, and no identity",
			name, COW_TAG_LENGTH - 1);
		return COMMAND_FAILED;
	}
	if (r < 0)
		return store_result(r, "cannot tag %.*s", STORE_SHORT_ID, layer->id);
	if (run->json) {
		report_add_string(run->json, "tag", name);
		report_add_string(run->json, "id", layer->id);
	} else {
		printf("%s is %.*s\n", name, STORE_SHORT_ID, layer->id);
	}
	return COMMAND_OK;
}

/* --- delete --- */

int store_delete(struct store_run *run, int count, char **operands)
{
	const struct cow_layer_info *layer = layers_find(run, operands[0]);
	char id[COW_ID_LENGTH];
	bool there;
	int r;

	(void)count;
	if (!layer)
		return COMMAND_FAILED;
	memcpy(id, layer->id, sizeof(id));
	r = cow_store_delete(run->store, id);
	if (r == -EBUSY) {
		complain("%.*s cannot go: a tag names it (cow store tag --remove), or it is HEAD "
			 "and has no parent",
			 STORE_SHORT_ID, id);
		return COMMAND_FAILED;
	}
	if (r < 0)
		return store_result(r, "cannot delete %.*s", STORE_SHORT_ID, id);
	layers_free(&run->found);
	if (!layers_read(run->store, &run->found))
		return COMMAND_FAILED;
	there = layer_of(&run->found, id) != NULL;
	if (run->json) {
		report_add_string(run->json, "id", id);
		report_add_bool(run->json, "file_removed", !there);
	} else {
		printf("%.*s is deleted%s\n", STORE_SHORT_ID, id,
		       there ? "; its file stays for its children until cow store compact" : "");
	}
	return COMMAND_OK;
}

/* --- compact --- */

static void print_compacted(const struct cow_compact_stats *stats)
{
	char before[UNIT_LENGTH], after[UNIT_LENGTH], cloned[UNIT_LENGTH];
	unsigned long long compressed = stats->compressed;

	printf("%u layer%s removed, %u rewritten; files from %s to %s; the deepest has %u below "
	       "it\n",
	       stats->removed, stats->removed == 1 ? "" : "s", stats->rewritten,
	       format_bytes(before, stats->bytes_before), format_bytes(after, stats->bytes_after),
	       stats->depth);
	if (compressed)
		printf("%llu layer%s compressed: %s of content in %s\n", compressed,
		       compressed == 1 ? "" : "s", format_bytes(before, stats->compressed_before),
		       format_bytes(after, stats->compressed_after));
	if (stats->cloned_bytes)
		printf("%s were shared with the old files, not copied\n",
		       format_bytes(cloned, stats->cloned_bytes));
	if (stats->busy)
		printf("%u deleted layer%s still in use\n", stats->busy,
		       stats->busy == 1 ? " is" : "s are");
}

int store_compact(struct store_run *run, int count, char **operands)
{
	struct cow_compact_options options = COW_COMPACT_OPTIONS_INIT;
	struct cow_compact_stats stats = COW_COMPACT_STATS_INIT;
	int r;

	(void)count;
	(void)operands;
	options.flags = run->options->compress ? COW_COMPACT_COMPRESS : 0;
	options.depth_max = (uint32_t)run->options->depth;
	options.progress = store_progress;
	r = cow_store_compact(run->store, &options, &stats);
	if (r < 0)
		return store_result(r, "cannot compact");
	store_result(0, "compact");
	if (!run->json) {
		print_compacted(&stats);
		return COMMAND_OK;
	}
	report_add_unsigned(run->json, "removed", stats.removed);
	report_add_unsigned(run->json, "rewritten", stats.rewritten);
	report_add_unsigned(run->json, "busy", stats.busy);
	report_add_unsigned(run->json, "depth", stats.depth);
	report_add_unsigned(run->json, "before_bytes", stats.bytes_before);
	report_add_unsigned(run->json, "after_bytes", stats.bytes_after);
	report_add_unsigned(run->json, "cloned_bytes", stats.cloned_bytes);
	report_add_unsigned(run->json, "compressed", stats.compressed);
	report_add_unsigned(run->json, "compressed_from_bytes", stats.compressed_before);
	report_add_unsigned(run->json, "compressed_to_bytes", stats.compressed_after);
	return COMMAND_OK;
}
