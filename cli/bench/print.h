/* SPDX-License-Identifier: MIT */
/* Documents as text for a person, as Markdown, as CSV, as a page. */
#ifndef CLI_BENCH_PRINT_H
#define CLI_BENCH_PRINT_H

#include <stdio.h>

#include "cli/bench/document.h"
#include "cli/bench/result.h"

/* Text, on standard output. */
void print_header(const struct documents *documents);
void print_experiment(const struct documents *documents, const struct across *experiment,
		      void *context);
void print_summary(const struct documents *documents);

/* Files; false after a message. HTML writes index.html in a directory, which it makes. */
bool write_markdown(const struct documents *documents, const char *path);
bool write_csv(const struct documents *documents, const char *path);
bool write_html(const struct documents *documents, const char *directory);

/* --- shared by the writers --- */

/* A figure of a row, "median" and so on, as text: "45.6 us"; "-" where there is none. */
const char *row_figure(json_object *row, const char *member, char text[BENCH_FIGURE_LENGTH]);
/* "Linux 6.18, 2 x Xeon, 24 GiB, ...": the machine in a line. The caller frees it. */
char *machine_line(json_object *document);
/* "quick, 5 runs after 1 warm-up, seed 1, ..." */
char *settings_line(json_object *document);

/*
 * The table of an experiment's rows, cell by cell and the same in every form: the label, the figure
 * of each document, the spread of one document's where a row has samples, and what the text says,
 * or why there is none of ours. CELL_LABEL begins a line, CELL_SAID ends it.
 */
enum row_cell { CELL_LABEL, CELL_FIGURE, CELL_SPREAD, CELL_SAID };
typedef void (*row_cell_fn)(enum row_cell cell, const char *text, void *context);

/* The titles stay where they are as long as the documents. */
void titles_each_cell(const struct documents *documents, const struct across *experiment,
		      row_cell_fn put, void *context);
void rows_each_cell(const struct across *experiment, row_cell_fn put, void *context);

#endif
