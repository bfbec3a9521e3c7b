/* SPDX-License-Identifier: MIT */
/*
 * Aligned tables on a stream. Cells are added row by row; widths are known when it is printed.
 *
 *	struct table *table = table_new(columns, 2);
 *
 *	table_cell(table, STYLE_NONE, "%s", name);
 *	table_cell(table, STYLE_GOOD, "%d", number);
 *	table_print(table, stdout);
 *	table_free(table);
 */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <stddef.h>
#include <stdio.h>

#include "cli/output.h"

struct table;

struct table_column {
	const char *title; /* NULL in every column: no line of titles */
	bool right;        /* numbers stand at the right edge */
};

struct table *table_new(const struct table_column *columns, size_t count);
void table_free(struct table *table);

/* Before there are cells: this column is not shown, whatever is added to it. One has to stay. */
void table_hide(struct table *table, size_t column);

/* Adds the next cell of the current row; a full row is followed by the next one. */
__attribute__((format(printf, 3, 4))) void table_cell(struct table *table, enum style cell_style,
						      const char *format, ...);

/* Cuts the last column, but not below so many columns, where lines would be wider than width. */
void table_set_width(struct table *table, size_t width, size_t least);

/* A row that lacks cells at its end is printed without them. */
void table_print(const struct table *table, FILE *stream);

/* How many columns of a terminal UTF-8 text takes, wide and combining characters aside. */
size_t text_width(const char *text);

#endif
