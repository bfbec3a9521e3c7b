/* SPDX-License-Identifier: MIT */
/* export and import. */
#include <errno.h>

#include "cli/store/store.h"

int store_export(struct store_run *run, int count, char **operands)
{
	const struct cow_layer_info *layer = layers_find(run, count > 1 ? operands[0] : NULL);
	const char *path = operands[count - 1];
	char bytes[UNIT_LENGTH];
	int r;

	if (!layer)
		return COMMAND_FAILED;
	r = cow_store_export(run->store, layer->id, path, store_progress, NULL);
	if (r == -EEXIST) {
		store_result(0, "export");
		complain("%s is there already; remove it, or give another name", path);
		return COMMAND_FAILED;
	}
	if (r < 0)
		return store_result(r, "cannot export to %s", path);
	store_result(0, "export");
	if (run->json) {
		report_add_string(run->json, "path", path);
		layers_add_json(run->json, "layer", &run->found, layer);
	} else {
		printf("%.*s is in %s, %s\n", STORE_SHORT_ID, layer->id, path,
		       format_bytes(bytes, layer->length));
	}
	return COMMAND_OK;
}

int store_import(struct store_run *run, int count, char **operands)
{
	struct cow_import_options options = COW_IMPORT_OPTIONS_INIT;
	const struct cow_layer_info *layer;
	char id[COW_ID_LENGTH];
	int r;

	(void)count;
	options.tag = run->options->tag;
	options.format = run->options->format;
	options.progress = store_progress;
	r = cow_store_import(run->store, operands[0], &options, id);
	if (r < 0)
		return store_result(r, "cannot import %s", operands[0]);
	store_result(0, "import");
	layers_free(&run->found);
	if (!layers_read(run->store, &run->found))
		return COMMAND_FAILED;
	layer = layers_find(run, id);
	if (!layer)
		return COMMAND_FAILED;
	if (run->json)
		layers_add_json(run->json, "layer", &run->found, layer);
	else
		printf("%s is layer %s, and HEAD\n", operands[0], id);
	return COMMAND_OK;
}
