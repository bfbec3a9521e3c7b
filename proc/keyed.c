/* SPDX-License-Identifier: MIT */
#include "proc/keyed.h"

#include <errno.h>

static uint64_t *field_value(const struct keyed_field *field, void *result)
{
	return (uint64_t *)(void *)((char *)result + field->offset);
}

void keyed_clear(const struct keyed_field *fields, size_t count, void *result)
{
	size_t i;

	for (i = 0; i < count; i++)
		*field_value(&fields[i], result) = KEYED_ABSENT;
}

/* Files keep the order of their names, so the search begins after the last one found. */
static const struct keyed_field *find_field(const struct keyed_field *fields, size_t count,
					    size_t *hint, struct text name)
{
	size_t i, at;

	for (i = 0; i < count; i++) {
		at = (*hint + i) % count;
		if (text_is(name, fields[at].name)) {
			*hint = at + 1;
			return &fields[at];
		}
	}
	return NULL;
}

static int read_value(struct text rest, uint64_t *ret_value)
{
	uint64_t value;
	int error;

	text_skip_blanks(&rest);
	error = text_u64(&rest, 10, &value);
	if (error)
		return error;
	text_skip_blanks(&rest);
	if (text_is(rest, "kB")) {
		if (__builtin_mul_overflow(value, 1024, &value))
			return -ERANGE;
	} else if (rest.at != rest.end) {
		return -EINVAL;
	}
	/* The largest number stands for "absent". */
	if (value == KEYED_ABSENT)
		return -ERANGE;
	*ret_value = value;
	return 0;
}

static int store(uint64_t *to, uint64_t value, enum keyed_repeat repeat)
{
	if (*to == KEYED_ABSENT)
		*to = value;
	else if (repeat == KEYED_SUM &&
		 (__builtin_add_overflow(*to, value, to) || *to == KEYED_ABSENT))
		return -ERANGE;
	return 0;
}

int keyed_parse(struct text text, const struct keyed_field *fields, size_t count,
		enum keyed_repeat repeat, void *result)
{
	const struct keyed_field *field;
	struct text line, name;
	uint64_t value;
	size_t hint = 0;
	int used = 0, error;

	while (text_line(&text, &line)) {
		if (!text_word(&line, &name))
			continue;
		if (name.end[-1] == ':')
			name.end--;
		field = find_field(fields, count, &hint, name);
		if (!field)
			continue;
		error = read_value(line, &value);
		if (!error)
			error = store(field_value(field, result), value, repeat);
		if (error)
			return error;
		used++;
	}
	return used;
}
