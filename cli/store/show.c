/* SPDX-License-Identifier: MIT */
/* log and info. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/store/store.h"
#include "cli/table.h"

/* --- log --- */

enum { LOG_GRAPH, LOG_ID, LOG_TIME, LOG_DATA, LOG_LENGTH, LOG_DEPTH, LOG_NAMES, LOG_COLUMNS };

static const struct table_column log_columns[LOG_COLUMNS] = {
	[LOG_GRAPH] = { "", false },       [LOG_ID] = { "layer", false },
	[LOG_TIME] = { "taken", false },   [LOG_DATA] = { "data", true },
	[LOG_LENGTH] = { "length", true }, [LOG_DEPTH] = { "below", true },
	[LOG_NAMES] = { "names", false },
};

static void add_joint(struct table *table, const char *joint)
{
	int i;

	table_cell(table, STYLE_NONE, "%s", joint);
	for (i = 1; i < LOG_COLUMNS; i++)
		table_cell(table, STYLE_NONE, "%s", "");
}

static void add_row(struct table *table, const struct store_layers *found,
		    const struct cow_layer_info *layer, const char *graph)
{
	bool head = layer->flags & COW_LAYER_HEAD, deleted = layer->flags & COW_LAYER_DELETED;
	bool damaged = layer->flags & COW_LAYER_DAMAGED;
	enum style row = deleted ? STYLE_DIM : head ? STYLE_BOLD : STYLE_NONE;
	char time[STORE_TIME_LENGTH], bytes[UNIT_LENGTH], *names = layers_names(found, layer);

	table_cell(table, STYLE_NONE, "%s", graph);
	table_cell(table, row, "%.*s", STORE_SHORT_ID, layer->id);
	if (damaged) {
		table_cell(table, STYLE_BAD, "damaged");
		table_cell(table, row, "?");
		table_cell(table, row, "?");
		table_cell(table, row, "?");
		table_cell(table, STYLE_GOOD, "%s", names);
		free(names);
		return;
	}
	table_cell(table, row, "%s", layers_time(layer->time_ns, time));
	table_cell(table, row, "%s", format_bytes(bytes, layer->data_bytes));
	table_cell(table, row, "%s", format_bytes(bytes, layer->length));
	table_cell(table, row, "%u", layer->depth);
	table_cell(table, deleted ? STYLE_DIM : STYLE_GOOD, "%s%s", names,
		   deleted ? "(deleted)" : "");
	free(names);
}

static size_t shown(const struct store_run *run)
{
	uint64_t limit = run->options->limit;

	return limit && limit < run->found.count ? (size_t)limit : run->found.count;
}

static void print_sum(const struct store_run *run, size_t rows)
{
	char bytes[UNIT_LENGTH];
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < run->found.count; i++)
		sum += run->found.layers[i].file_bytes;
	printf("%zu layer%s, %s of files", run->found.count, run->found.count == 1 ? "" : "s",
	       format_bytes(bytes, sum));
	if (rows < run->found.count)
		printf("; the newest %zu are shown", rows);
	putchar('\n');
}

static void print_log(const struct store_run *run)
{
	struct graph *graph = graph_new(!run->options->ascii && output_has_blocks(stdout));
	struct table *table = table_new(log_columns, LOG_COLUMNS);
	size_t rows = shown(run), i;

	for (i = 0; i < rows; i++) {
		const char *joint;
		const char *line = graph_next(graph, &run->found.layers[i], &joint);

		if (joint)
			add_joint(table, joint);
		add_row(table, &run->found, &run->found.layers[i], line);
	}
	if (rows)
		table_print(table, stdout);
	print_sum(run, rows);
	table_free(table);
	graph_free(graph);
}

int store_log(struct store_run *run, int count, char **operands)
{
	json_object *array;
	size_t i;

	(void)count;
	(void)operands;
	if (!run->json) {
		print_log(run);
		return COMMAND_OK;
	}
	array = report_add_array(run->json, "layers");
	for (i = 0; i < shown(run); i++)
		layers_add_json(array, NULL, &run->found, &run->found.layers[i]);
	return COMMAND_OK;
}

/* --- info --- */

static const struct table_column info_columns[] = { { NULL, false }, { NULL, false } };

__attribute__((format(printf, 3, 4))) static void say(struct table *table, const char *what,
						      const char *format, ...)
{
	va_list arguments;
	char text[512];

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	table_cell(table, STYLE_NONE, "%s", what);
	table_cell(table, STYLE_NONE, "%s", text);
}

static void say_bytes(struct table *table, const char *what, uint64_t bytes)
{
	char text[UNIT_LENGTH], exact[UNIT_LENGTH];

	if (bytes < 1024)
		say(table, what, "%s", format_bytes(text, bytes));
	else
		say(table, what, "%s (%s bytes)", format_bytes(text, bytes),
		    format_count(exact, bytes));
}

static const char *kind(const struct cow_layer_info *layer)
{
	if (layer->flags & COW_LAYER_DAMAGED)
		return "damaged: cow store verify says where";
	if (layer->flags & COW_LAYER_DELETED)
		return "deleted: there for its children, until cow store compact";
	return layer->flags & COW_LAYER_COMPRESSED ? "compressed" : "plain";
}

static void print_info(const struct store_run *run, const struct cow_layer_info *layer)
{
	struct table *table = table_new(info_columns, 2);
	char time[STORE_TIME_LENGTH], *names = layers_names(&run->found, layer);

	say(table, "layer", "%s", layer->id);
	say(table, "names", "%s", names[0] ? names : "-");
	say(table, "file", "%s/%s.qcow2", run->directory, layer->id);
	say(table, "kind", "%s", kind(layer));
	say(table, "parent", "%s", layer->parent[0] ? layer->parent : "- (a full save)");
	say(table, "layers below", "%u", layer->depth);
	say(table, "number", "%" PRIu64, layer->sequence);
	say(table, "taken", "%s", layers_time(layer->time_ns, time));
	say_bytes(table, "region", layer->length);
	say(table, "address", "%#" PRIx64, layer->address);
	say_bytes(table, "page size", layer->page_size);
	say_bytes(table, "data", layer->data_bytes);
	say_bytes(table, "zeroed", layer->zero_bytes);
	say_bytes(table, "file size", layer->file_bytes);
	say_bytes(table, "caller's state", layer->state_length);
	table_print(table, stdout);
	table_free(table);
	free(names);
}

int store_info(struct store_run *run, int count, char **operands)
{
	const struct cow_layer_info *layer = layers_find(run, count ? operands[0] : NULL);

	if (!layer)
		return COMMAND_FAILED;
	if (run->json)
		layers_add_json(run->json, "layer", &run->found, layer);
	else
		print_info(run, layer);
	return COMMAND_OK;
}
