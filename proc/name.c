/* SPDX-License-Identifier: MIT */
#include "proc/name.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Decodes a UTF-8 sequence (RFC 3629): its length, or 0 if it is none. */
static size_t decode(const unsigned char *text, uint32_t *ret_code)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2, i;
	uint32_t code = text[0] & (0x7fU >> length);

	if (text[0] < 0xc2 || text[0] > 0xf4)
		return 0;
	for (i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (text[i] & 0x3fU);
	}
	if (code < least[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
		return 0;
	*ret_code = code;
	return length;
}

/* Characters that change how a terminal shows the others: C1 controls, marks of direction. */
static bool is_control(uint32_t code)
{
	return code < 0xa0 || (code >= 0x200b && code <= 0x200f) ||
	       (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) ||
	       code == 0xfeff;
}

static size_t escape_byte(unsigned char c, char *to)
{
	const char *short_form = c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\\' ? "\\\\" : NULL;

	if (short_form)
		return (size_t)sprintf(to, "%s", short_form);
	if (c >= ' ' && c < 0x7f)
		return (size_t)sprintf(to, "%c", c);
	return (size_t)sprintf(to, "\\x%02x", c);
}

const char *proc_name_escape(const char *name, char *to, size_t room)
{
	const unsigned char *at = (const unsigned char *)name;
	size_t used = 0, taken, length, i;
	char piece[20];
	uint32_t code;

	for (; *at; at += taken) {
		taken = *at >= 0x80 ? decode(at, &code) : 0;
		if (taken && !is_control(code)) {
			memcpy(piece, at, taken);
			length = taken;
		} else {
			taken = taken ? taken : 1;
			for (i = length = 0; i < taken; i++)
				length += escape_byte(at[i], piece + length);
		}
		if (used + length >= room)
			break;
		memcpy(to + used, piece, length);
		used += length;
	}
	to[used] = '\0';
	return to;
}
