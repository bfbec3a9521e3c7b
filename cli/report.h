/* SPDX-License-Identifier: MIT */
/*
 * What a verb found, as JSON. A report's first key is "schema", "cow-VERB/1"; the number grows
 * when a key changes its meaning or goes, not when one is added.
 *
 * Where memory runs out the process ends, so that no caller has to look. A report is either
 * written whole or not at all: a file appears under its name when it is complete.
 */
#ifndef CLI_REPORT_H
#define CLI_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <json-c/json_object.h>

/* The caller frees it with json_object_put(). */
json_object *report_new(const char *verb);

/* Each adds a member to an object, or an element to an array where key is NULL. */
void report_add_string(json_object *to, const char *key, const char *value); /* NULL: null */
void report_add_unsigned(json_object *to, const char *key, uint64_t value);
/* Whatever is not known is UINT64_MAX or an empty text in all of the command, and null here. */
void report_add_known(json_object *to, const char *key, uint64_t value);
void report_add_word(json_object *to, const char *key, const char *word);
void report_add_signed(json_object *to, const char *key, int64_t value);
void report_add_bool(json_object *to, const char *key, bool value);
/* With so many decimals; what JSON cannot say (infinities, NaN) becomes null. */
void report_add_double(json_object *to, const char *key, double value, int decimals);
/* An empty object or array; it belongs to the one it was added to. */
json_object *report_add_object(json_object *to, const char *key);
json_object *report_add_array(json_object *to, const char *key);

/*
 * Writes a report to a file, or to standard output where path is NULL. A regular file is replaced
 * at once, by renaming; anything else (a pipe, a device) is written to. Returns false after a
 * message on standard error.
 */
bool report_write(json_object *report, const char *path);

/*
 * A report that another run has written; `writer`, what writes such, is named where it is none.
 * Returns NULL after a message; else the caller frees it. Whether it has the wanted schema, and
 * even that it is an object, is for the caller to see.
 */
json_object *report_read(const char *path, const char *writer);

/* A text of any other kind, written like a report to a file: begun, printed to out, and ended. */
struct report_text {
	FILE *out;
	char *text;
	size_t length;
};
void report_text_begin(struct report_text *text);
bool report_text_end(struct report_text *text, const char *path); /* "-": standard output */

/* Whether a path, which may be NULL, stands for standard output. */
bool report_is_stdout(const char *path);

/* Whether report_write() may work later, so that a long run does not end in vain. As above. */
bool report_check_path(const char *path);

#endif
