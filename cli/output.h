/* SPDX-License-Identifier: MIT */
/*
 * What every verb prints with: messages, colours, units.
 *
 * Results go to standard output, everything else (messages, progress) to standard error, so that
 * a pipe carries results alone. Colours appear only on a terminal, and never with NO_COLOR set,
 * TERM=dumb or --no-color.
 */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* The name that messages begin with: "cow", then "cow VERB". */
void output_set_verb(const char *verb);
void output_disable_color(void);

enum style {
	STYLE_NONE, /* back to normal */
	STYLE_BOLD,
	STYLE_DIM,
	STYLE_GOOD,
	STYLE_BAD,
	STYLE_WARN,
};

/* The escape sequence for a stream, or an empty string. */
const char *style(FILE *stream, enum style wanted);

/* Whether block characters can be shown on this stream: a terminal with UTF-8. */
bool output_has_blocks(FILE *stream);

/* The columns of the terminal; 0 where there is none. */
unsigned int output_columns(FILE *stream);

/* The columns of a line of text: the terminal's, but 40 to 100; 80 where there is none. */
unsigned int output_width(FILE *stream);

/*
 * The words of a text, on as many lines as they need: `indent` columns of the first are printed
 * already, and those that follow begin there. Blanks and line feeds are the same. Ends the line.
 */
void output_wrap(FILE *stream, unsigned int indent, const char *text);

/* "cow VERB: what was wrong; what to do", on standard error, in one line. */
__attribute__((format(printf, 1, 2))) void complain(const char *format, ...);

/* The same for a negative errno: "cow VERB: what: the error's text". */
__attribute__((format(printf, 2, 3))) void complain_errno(int error, const char *format, ...);

/*
 * Writes out what is buffered for standard output. Returns false, after a message, if any of it
 * was lost: a full disk, a closed pipe.
 */
bool output_finish(void);

/* Ends the process where memory for output runs out. */
void *output_realloc(void *pointer, size_t size);

/*
 * Human units: three significant digits, fewer where the value is exact, as text in the
 * caller's buffer, which they return.
 */
#define UNIT_LENGTH 32
const char *format_bytes(char text[UNIT_LENGTH], uint64_t bytes);  /* 12.3 MiB */
const char *format_ns(char text[UNIT_LENGTH], uint64_t ns);        /* 45.6 us */
const char *format_count(char text[UNIT_LENGTH], uint64_t number); /* 1,234,567 */

#endif
