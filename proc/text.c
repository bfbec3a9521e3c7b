/* SPDX-License-Identifier: MIT */
#include "proc/text.h"

#include <errno.h>
#include <string.h>

struct text text_of(const char *bytes, size_t length)
{
	return (struct text){ .at = bytes, .end = bytes + length };
}

struct text text_of_string(const char *string)
{
	return text_of(string, strlen(string));
}

bool text_line(struct text *text, struct text *ret_line)
{
	const char *newline;

	if (text->at == text->end)
		return false;
	newline = memchr(text->at, '\n', text_length(*text));
	*ret_line = (struct text){ .at = text->at, .end = newline ? newline : text->end };
	text->at = newline ? newline + 1 : text->end;
	return true;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

void text_skip_blanks(struct text *text)
{
	while (text->at < text->end && is_blank(*text->at))
		text->at++;
}

bool text_word(struct text *text, struct text *ret_word)
{
	const char *begin;

	text_skip_blanks(text);
	if (text->at == text->end)
		return false;
	begin = text->at;
	while (text->at < text->end && !is_blank(*text->at))
		text->at++;
	*ret_word = (struct text){ .at = begin, .end = text->at };
	return true;
}

bool text_take(struct text *text, char expected)
{
	if (text->at == text->end || *text->at != expected)
		return false;
	text->at++;
	return true;
}

/* The value of a digit, or 16 for what is none. */
static unsigned int digit(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned int)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned int)(c - 'a') + 10;
	return 16;
}

int text_u64(struct text *text, unsigned int base, uint64_t *ret_value)
{
	const char *at = text->at;
	uint64_t value = 0;

	for (; at < text->end && digit(*at) < base; at++)
		if (__builtin_mul_overflow(value, base, &value) ||
		    __builtin_add_overflow(value, digit(*at), &value))
			return -ERANGE;
	if (at == text->at)
		return -EINVAL;
	text->at = at;
	*ret_value = value;
	return 0;
}

int text_s64(struct text *text, int64_t *ret_value)
{
	struct text rest = *text;
	bool negative = text_take(&rest, '-');
	uint64_t value;
	int error;

	error = text_u64(&rest, 10, &value);
	if (error)
		return error;
	if (value > (uint64_t)INT64_MAX)
		return -ERANGE;
	*text = rest;
	*ret_value = negative ? -(int64_t)value : (int64_t)value;
	return 0;
}

static bool only_white_space(struct text text)
{
	text_skip_blanks(&text);
	text_take(&text, '\n');
	return text.at == text.end;
}

int text_only_u64(struct text text, uint64_t *ret_value)
{
	uint64_t value;
	int error;

	text_skip_blanks(&text);
	error = text_u64(&text, 10, &value);
	if (error)
		return error;
	if (!only_white_space(text))
		return -EINVAL;
	*ret_value = value;
	return 0;
}

int text_only_s64(struct text text, int64_t *ret_value)
{
	int64_t value;
	int error;

	text_skip_blanks(&text);
	error = text_s64(&text, &value);
	if (error)
		return error;
	if (!only_white_space(text))
		return -EINVAL;
	*ret_value = value;
	return 0;
}

bool text_is(struct text text, const char *string)
{
	return text_length(text) == strlen(string) && text_begins(text, string);
}

bool text_begins(struct text text, const char *prefix)
{
	size_t length = strlen(prefix);

	return text_length(text) >= length && memcmp(text.at, prefix, length) == 0;
}

void text_copy(struct text text, char *to, size_t room)
{
	size_t length = text_length(text) < room ? text_length(text) : room - 1;

	if (length)
		memcpy(to, text.at, length);
	to[length] = '\0';
}
