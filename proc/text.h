/* SPDX-License-Identifier: MIT */
/*
 * Reading the kernel's texts: a cursor over bytes that need not end with a zero.
 *
 * Every parser of this folder is built on it, so that none can run past its input: what is not
 * there is an error, never a look behind the end. /proc is not always the kernel's (a captured
 * tree, a FUSE mount in a container), hence nothing about its form is taken for granted.
 */
#ifndef PROC_TEXT_H
#define PROC_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
	const char *at, *end;
};

struct text text_of(const char *bytes, size_t length);
struct text text_of_string(const char *string);
static inline size_t text_length(struct text text)
{
	return (size_t)(text.end - text.at);
}

/* Takes the next line, without its newline; false at the end. */
bool text_line(struct text *text, struct text *ret_line);
/* Takes what stands before the next blank or tab, after skipping those before it. */
bool text_word(struct text *text, struct text *ret_word);
/* Takes a character if it is the next one. */
bool text_take(struct text *text, char expected);
void text_skip_blanks(struct text *text);

/* Take a number in base 10 or 16: 0, -EINVAL where there is none, -ERANGE beyond 64 bits. */
int text_u64(struct text *text, unsigned int base, uint64_t *ret_value);
int text_s64(struct text *text, int64_t *ret_value);
/* A text that is a number and nothing else, apart from blanks and a newline around it. */
int text_only_u64(struct text text, uint64_t *ret_value);
int text_only_s64(struct text text, int64_t *ret_value);

bool text_is(struct text text, const char *string);
bool text_begins(struct text text, const char *prefix);
/* Copies as much as fits, with a zero at the end. */
void text_copy(struct text text, char *to, size_t room);

#endif
