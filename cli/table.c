/* SPDX-License-Identifier: MIT */
#include "cli/table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define GAP "  " /* between columns */

struct cell {
	char *text;
	enum style style;
};

/* What is hidden is in neither the columns nor the cells. */
struct table {
	struct table_column *columns;
	size_t count;
	bool *hidden; /* by the columns as they were given */
	size_t given, next;
	struct cell *cells; /* row by row */
	size_t used, room;
	size_t width, least; /* of a line, and of its last cell; 0: as it comes */
};

struct table *table_new(const struct table_column *columns, size_t count)
{
	struct table *table = output_realloc(NULL, sizeof(*table));

	assert(count > 0);
	*table = (struct table){ .count = count, .given = count };
	table->columns = output_realloc(NULL, count * sizeof(*columns));
	memcpy(table->columns, columns, count * sizeof(*columns));
	table->hidden = output_realloc(NULL, count * sizeof(bool));
	memset(table->hidden, 0, count * sizeof(bool));
	return table;
}

void table_hide(struct table *table, size_t column)
{
	size_t shown = 0, i;

	assert(column < table->given && !table->hidden[column] && !table->used && table->count > 1);
	for (i = 0; i < column; i++)
		shown += !table->hidden[i];
	table->hidden[column] = true;
	table->count--;
	memmove(&table->columns[shown], &table->columns[shown + 1],
		(table->count - shown) * sizeof(*table->columns));
}

void table_free(struct table *table)
{
	size_t i;

	if (!table)
		return;
	for (i = 0; i < table->used; i++)
		free(table->cells[i].text);
	free(table->cells);
	free(table->columns);
	free(table->hidden);
	free(table);
}

void table_cell(struct table *table, enum style cell_style, const char *format, ...)
{
	const size_t column = table->next;
	va_list arguments;
	char text[1024];

	table->next = (column + 1) % table->given;
	if (table->hidden[column])
		return;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (table->used == table->room) {
		table->room = table->room ? 2 * table->room : 32;
		table->cells = output_realloc(table->cells, table->room * sizeof(*table->cells));
	}
	table->cells[table->used].style = cell_style;
	table->cells[table->used].text = output_realloc(NULL, strlen(text) + 1);
	memcpy(table->cells[table->used].text, text, strlen(text) + 1);
	table->used++;
}

void table_set_width(struct table *table, size_t width, size_t least)
{
	table->width = width;
	table->least = least;
}

size_t text_width(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

static size_t column_width(const struct table *table, size_t column)
{
	const char *title = table->columns[column].title;
	size_t width = title ? text_width(title) : 0, i;

	for (i = column; i < table->used; i += table->count)
		if (text_width(table->cells[i].text) > width)
			width = text_width(table->cells[i].text);
	return width;
}

/* The columns that the last cell of a row may take. */
static size_t room_of_last(const struct table *table, const size_t *widths)
{
	size_t others = (table->count - 1) * strlen(GAP), i;

	for (i = 0; i + 1 < table->count; i++)
		others += widths[i];
	return table->width > others + table->least ? table->width - others : table->least;
}

/* Ends a text after so many columns, between characters. */
static void cut(char *text, size_t width)
{
	for (; *text; text++)
		if (((unsigned char)*text & 0xc0) != 0x80 && width-- == 0) {
			*text = '\0';
			return;
		}
}

static void cut_last_column(const struct table *table, size_t *widths)
{
	const size_t last = table->count - 1, room = room_of_last(table, widths);
	size_t i;

	if (!table->width || widths[last] <= room)
		return;
	for (i = last; i < table->used; i += table->count)
		cut(table->cells[i].text, room);
	widths[last] = room;
}

static void print_spaces(FILE *stream, size_t count)
{
	fprintf(stream, "%*s", (int)count, "");
}

/* The last column on the left gets no trailing blanks. */
static void print_cell(const struct table *table, FILE *stream, size_t column, size_t width,
		       const char *text, enum style cell_style, bool last)
{
	size_t padding = width - text_width(text);
	const char *begin = cell_style == STYLE_NONE ? "" : style(stream, cell_style);

	if (column)
		fputs(GAP, stream);
	if (table->columns[column].right)
		print_spaces(stream, padding);
	fprintf(stream, "%s%s%s", begin, text, begin[0] ? style(stream, STYLE_NONE) : "");
	if (!table->columns[column].right && !last)
		print_spaces(stream, padding);
}

static void print_titles(const struct table *table, FILE *stream, const size_t *widths)
{
	const char *title;
	size_t column, end = 0;

	for (column = 0; column < table->count; column++) {
		title = table->columns[column].title;
		if (title && title[0])
			end = column + 1;
	}
	if (!end)
		return;
	for (column = 0; column < end; column++) {
		title = table->columns[column].title;
		print_cell(table, stream, column, widths[column], title ? title : "", STYLE_BOLD,
			   column + 1 == end);
	}
	fputc('\n', stream);
}

/* Whether nothing follows a cell in its row, so that no blanks need. */
static bool ends_row(const struct table *table, size_t i)
{
	for (i++; i < table->used && i % table->count != 0; i++)
		if (table->cells[i].text[0])
			return false;
	return true;
}

void table_print(const struct table *table, FILE *stream)
{
	size_t *widths = output_realloc(NULL, table->count * sizeof(*widths));
	size_t column, i;
	bool last;

	assert(table->count > 0);
	for (column = 0; column < table->count; column++)
		widths[column] = column_width(table, column);
	cut_last_column(table, widths);
	print_titles(table, stream, widths);
	for (i = 0; i < table->used; i++) {
		column = i % table->count;
		last = ends_row(table, i);
		print_cell(table, stream, column, widths[column], table->cells[i].text,
			   table->cells[i].style, last);
		if (!last)
			continue;
		fputc('\n', stream);
		i += table->count - 1 - column; /* what is left of the row is empty */
	}
	free(widths);
}
