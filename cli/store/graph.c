/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "cli/store/store.h"

/* A column waits for a layer to come: the parent of the last one drawn in it. Empty: free. */
struct graph {
	char (*waiting)[COW_ID_LENGTH];
	size_t count, room;
	char *line, *joint; /* one column is at most eight bytes */
	const struct glyphs *glyphs;
};

static const struct glyphs {
	const char *layer, *deleted, *pass, *bar, *fork, *join, *last, *cross;
} unicode_glyphs = { "●", "○", "│", "─", "├", "┴", "╯", "┼" },
  ascii_glyphs = { "*", "o", "|", "-", "+", "+", "'", "+" };

enum { COLUMN_BYTES = 8 };

struct graph *graph_new(bool unicode)
{
	struct graph *graph = output_realloc(NULL, sizeof(*graph));

	*graph = (struct graph){ .glyphs = unicode ? &unicode_glyphs : &ascii_glyphs };
	return graph;
}

void graph_free(struct graph *graph)
{
	if (!graph)
		return;
	free(graph->waiting);
	free(graph->line);
	free(graph->joint);
	free(graph);
}

static bool waits_for(const struct graph *graph, size_t column, const char *id)
{
	return strcmp(graph->waiting[column], id) == 0;
}

static bool is_free(const struct graph *graph, size_t column)
{
	return graph->waiting[column][0] == '\0';
}

static void add_column(struct graph *graph)
{
	if (graph->count == graph->room) {
		graph->room = graph->room ? 2 * graph->room : 8;
		graph->waiting = output_realloc(graph->waiting,
						graph->room * sizeof(graph->waiting[0]));
		graph->line = output_realloc(graph->line, graph->room * COLUMN_BYTES + 1);
		graph->joint = output_realloc(graph->joint, graph->room * COLUMN_BYTES + 1);
	}
	graph->waiting[graph->count++][0] = '\0';
}

/* The first column that waits for the layer; else one that is free. */
static size_t column_of(struct graph *graph, const char *id)
{
	size_t column;

	for (column = 0; column < graph->count; column++)
		if (waits_for(graph, column, id))
			return column;
	for (column = 0; column < graph->count; column++)
		if (is_free(graph, column))
			return column;
	add_column(graph);
	return column;
}

static size_t last_column_of(const struct graph *graph, const char *id, size_t first)
{
	size_t column, last = first;

	for (column = first + 1; column < graph->count; column++)
		if (waits_for(graph, column, id))
			last = column;
	return last;
}

static const char *joint_glyph(const struct graph *graph, size_t column, size_t first, size_t last,
			       const char *id)
{
	const struct glyphs *glyphs = graph->glyphs;
	bool free_column = is_free(graph, column);

	if (column < first || column > last)
		return free_column ? " " : glyphs->pass;
	if (column == first)
		return glyphs->fork;
	if (column == last)
		return glyphs->last;
	if (waits_for(graph, column, id))
		return glyphs->join;
	return free_column ? glyphs->bar : glyphs->cross;
}

static void draw_joint(struct graph *graph, size_t first, size_t last, const char *id)
{
	char *at = graph->joint;
	size_t column;

	for (column = 0; column < graph->count; column++) {
		at = stpcpy(at, joint_glyph(graph, column, first, last, id));
		at = stpcpy(at, column >= first && column < last ? graph->glyphs->bar : " ");
	}
	for (column = first + 1; column <= last; column++)
		if (waits_for(graph, column, id))
			graph->waiting[column][0] = '\0';
	while (at > graph->joint && at[-1] == ' ')
		*--at = '\0';
}

static void drop_free_columns(struct graph *graph)
{
	while (graph->count > 0 && is_free(graph, graph->count - 1))
		graph->count--;
}

static void draw_line(struct graph *graph, size_t own, bool deleted)
{
	const struct glyphs *glyphs = graph->glyphs;
	char *at = graph->line;
	size_t column;

	for (column = 0; column < graph->count; column++) {
		const char *glyph = column == own ? deleted ? glyphs->deleted : glyphs->layer :
				    is_free(graph, column) ? " " :
							     glyphs->pass;

		at = stpcpy(at, glyph);
		at = stpcpy(at, " ");
	}
	while (at > graph->line && at[-1] == ' ')
		*--at = '\0';
}

const char *graph_next(struct graph *graph, const struct cow_layer_info *layer,
		       const char **ret_joint)
{
	size_t own = column_of(graph, layer->id);
	size_t last = is_free(graph, own) ? own : last_column_of(graph, layer->id, own);

	*ret_joint = NULL;
	if (last > own) {
		draw_joint(graph, own, last, layer->id);
		*ret_joint = graph->joint;
	}
	memcpy(graph->waiting[own], layer->id, COW_ID_LENGTH);
	drop_free_columns(graph);
	draw_line(graph, own, layer->flags & COW_LAYER_DELETED);
	memcpy(graph->waiting[own], layer->parent, COW_ID_LENGTH);
	drop_free_columns(graph);
	return graph->line;
}
