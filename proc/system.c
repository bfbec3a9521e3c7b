/* SPDX-License-Identifier: MIT */
#include "proc/system.h"

#include <errno.h>
#include <string.h>

#define FIELD(name, member)                                 \
	{                                                   \
		name, offsetof(struct proc_meminfo, member) \
	}

static const struct keyed_field meminfo_fields[] = {
	FIELD("MemTotal", total),           FIELD("MemAvailable", available),
	FIELD("SwapTotal", swap_total),     FIELD("SwapFree", swap_free),
	FIELD("CommitLimit", commit_limit), FIELD("Committed_AS", committed),
};

#define FIELDS (sizeof(meminfo_fields) / sizeof(meminfo_fields[0]))

int proc_meminfo_parse(struct text text, struct proc_meminfo *ret_meminfo)
{
	struct proc_meminfo meminfo;
	int used;

	keyed_clear(meminfo_fields, FIELDS, &meminfo);
	used = keyed_parse(text, meminfo_fields, FIELDS, KEYED_FIRST, &meminfo);
	if (used < 0)
		return used;
	if (meminfo.total == KEYED_ABSENT)
		return -ENODATA;
	*ret_meminfo = meminfo;
	return 0;
}

int proc_choice_parse(struct text text, struct text *ret_choice)
{
	const char *open = memchr(text.at, '[', text_length(text)), *close;

	if (!open)
		return -EINVAL;
	open++;
	close = memchr(open, ']', (size_t)(text.end - open));
	if (!close || close == open)
		return -EINVAL;
	*ret_choice = (struct text){ .at = open, .end = close };
	return 0;
}

/* Takes what stands before a separator, and the separator; all of it where there is none. */
static struct text take_until(struct text *text, char separator)
{
	const char *found = text->at == text->end ? NULL :
						    memchr(text->at, separator, text_length(*text));
	struct text piece = { .at = text->at, .end = found ? found : text->end };

	text->at = found ? found + 1 : text->end;
	return piece;
}

static bool lists(struct text controllers, const char *controller)
{
	if (!controller[0])
		return text_length(controllers) == 0;
	while (controllers.at < controllers.end)
		if (text_is(take_until(&controllers, ','), controller))
			return true;
	return false;
}

int proc_cgroup_find(struct text text, const char *controller, struct text *ret_path)
{
	struct text line, id, controllers;

	while (text_line(&text, &line)) {
		id = take_until(&line, ':');
		controllers = take_until(&line, ':');
		if (text_length(line) == 0 || *line.at != '/' || !lists(controllers, controller))
			continue;
		/* Only version 2 has the number 0. */
		if (!controller[0] != text_is(id, "0"))
			continue;
		*ret_path = line;
		return 0;
	}
	return -ENOENT;
}

int proc_mount_next(struct text *mountinfo, struct proc_mount *ret_mount)
{
	struct proc_mount mount;
	struct text line, word;
	int i;

	if (!text_line(mountinfo, &line))
		return 0;
	for (i = 0; i < 6; i++) {
		if (!text_word(&line, &word))
			return -EINVAL;
		if (i == 0 && text_only_u64(word, &mount.id) < 0)
			return -EINVAL;
		if (i == 3)
			mount.root = word;
		else if (i == 4)
			mount.point = word;
	}
	/* Any number of optional fields, up to a dash. */
	do {
		if (!text_word(&line, &word))
			return -EINVAL;
	} while (!text_is(word, "-"));
	if (!text_word(&line, &mount.type) || !text_word(&line, &word))
		return -EINVAL;
	if (!text_word(&line, &mount.super_options))
		mount.super_options = text_of(line.at, 0);
	*ret_mount = mount;
	return 1;
}

static struct text trim_value(struct text value)
{
	struct text rest;

	text_skip_blanks(&value);
	if (text_take(&value, '\''))
		return take_until(&value, '\'');
	rest = take_until(&value, '#');
	return text_word(&rest, &value) ? value : rest;
}

static bool take_name(struct text *line, const char *name)
{
	size_t length = strlen(name);

	text_skip_blanks(line);
	if (text_length(*line) <= length || !text_begins(*line, name))
		return false;
	line->at += length;
	if (*line->at != ' ' && *line->at != '\t' && *line->at != '=')
		return false;
	text_skip_blanks(line);
	text_take(line, '=');
	return true;
}

int proc_setting_find(struct text text, const char *name, struct text *ret_value)
{
	struct text line;
	int error = -ENOENT;

	while (text_line(&text, &line)) {
		if (!take_name(&line, name))
			continue;
		*ret_value = trim_value(line);
		error = 0;
	}
	return error;
}

static const struct {
	const char *suffix;
	uint64_t bytes;
} units[] = {
	{ "B", 1 },
	{ "kB", UINT64_C(1) << 10 },
	{ "MB", UINT64_C(1) << 20 },
	{ "GB", UINT64_C(1) << 30 },
	{ "TB", UINT64_C(1) << 40 },
};

#define UNITS (sizeof(units) / sizeof(units[0]))

int proc_setting_size(struct text value, uint64_t unit_bytes, uint64_t *ret_bytes)
{
	uint64_t number;
	size_t i;
	int error = text_u64(&value, 10, &number);

	if (error)
		return error;
	text_skip_blanks(&value);
	if (value.at < value.end) {
		for (i = 0; i < UNITS && !text_is(value, units[i].suffix); i++)
			;
		if (i == UNITS)
			return -EINVAL;
		unit_bytes = units[i].bytes;
	}
	if (__builtin_mul_overflow(number, unit_bytes, &number))
		return -ERANGE;
	*ret_bytes = number;
	return 0;
}
