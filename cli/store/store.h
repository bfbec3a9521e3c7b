/* SPDX-License-Identifier: MIT */
/*
 * What the actions of `cow store` share. An action is a word after the verb; each gets the store
 * open, and its operands.
 *
 *	cmd_store.c  the options, the table of actions, opening and closing
 *	layers.c     what there is: layers, tags, and how a layer is named by a person
 *	graph.c      the chain as a picture
 *	show.c       log, info
 *	check.c      verify, diff
 *	transfer.c   export, import
 *	edit.c       tag, delete, compact
 *
 * JSON is one report for each run; "action" says which. Times are CLOCK_REALTIME in nanoseconds.
 */
#ifndef CLI_STORE_STORE_H
#define CLI_STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include <cow.h>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/report.h"

struct store_options {
	const char *tag, *format;
	bool remove, compress, ascii;
	uint64_t limit, depth;
};

struct store_tag {
	char name[COW_TAG_LENGTH];
	char id[COW_ID_LENGTH];
};

/* Newest layer first; tags in the order of their names. */
struct store_layers {
	struct cow_layer_info *layers;
	struct store_tag *tags;
	size_t count, room, tag_count, tag_room;
};

struct store_run {
	struct cow_store *store;
	const char *directory;
	const struct store_options *options;
	struct store_layers found;
	json_object *json; /* NULL: text is wanted */
};

/* Each returns an exit status. operands[0] follows the directory. */
typedef int (*store_action)(struct store_run *run, int count, char **operands);

int store_log(struct store_run *run, int count, char **operands);
int store_info(struct store_run *run, int count, char **operands);
int store_verify(struct store_run *run, int count, char **operands);
int store_diff(struct store_run *run, int count, char **operands);
int store_export(struct store_run *run, int count, char **operands);
int store_import(struct store_run *run, int count, char **operands);
int store_tag(struct store_run *run, int count, char **operands);
int store_delete(struct store_run *run, int count, char **operands);
int store_compact(struct store_run *run, int count, char **operands);

/* --- layers.c --- */

/* False after a message. */
bool layers_read(struct cow_store *store, struct store_layers *ret_found);
void layers_free(struct store_layers *found);

/* An identity, the beginning of one that fits one layer alone (four characters at least), a tag,
 * or HEAD; NULL is HEAD. NULL after a message where there is none, or more than one. */
const struct cow_layer_info *layers_find(const struct store_run *run, const char *name);

/* The tags of a layer, and HEAD, as "HEAD, noon, v2"; empty where there are none. The caller's. */
char *layers_names(const struct store_layers *found, const struct cow_layer_info *layer);

enum { STORE_SHORT_ID = 8, STORE_TIME_LENGTH = 24 };
/* "2026-11-21 18:40:12", in local time. */
const char *layers_time(uint64_t time_ns, char text[STORE_TIME_LENGTH]);
void layers_add_json(json_object *to, const char *key, const struct store_layers *found,
		     const struct cow_layer_info *layer);

/* --- graph.c --- */

/*
 * Draws a history, line by line, as it is fed layers from the newest to the oldest: a column for
 * each line of descent that is under way. A layer stands in the column of its first child; where
 * other children's columns end there, a line that joins them comes before it.
 */
struct graph;

struct graph *graph_new(bool unicode);
void graph_free(struct graph *graph);
/* The columns of the layer's line; *ret_joint gets those of the line before it, or NULL. Both are
 * valid until the next call. */
const char *graph_next(struct graph *graph, const struct cow_layer_info *layer,
		       const char **ret_joint);

/* --- cmd_store.c --- */

/* Shows progress in bytes, and ends the call where the user interrupts it. */
int store_progress(uint64_t done, uint64_t total, void *context);
/* Clears the line of progress; says what failed. Returns an exit status. */
__attribute__((format(printf, 2, 3))) int store_result(int result, const char *format, ...);
/* Whether the library has named something that is wrong. */
bool store_has_complained(void);

#endif
