/* SPDX-License-Identifier: MIT */
#include "proc/overlay.h"

#include <errno.h>
#include <string.h>

static bool is_octal(char c)
{
	return c >= '0' && c <= '7';
}

/* The next character behind the kernel's escapes, or -1. */
static int take_character(struct text *text)
{
	const char *at = text->at;

	if (at == text->end)
		return -1;
	if (text->end - at >= 4 && at[0] == '\\' && is_octal(at[1]) && is_octal(at[2]) &&
	    is_octal(at[3])) {
		text->at += 4;
		return ((at[1] - '0') << 6 | (at[2] - '0') << 3 | (at[3] - '0')) & 0xff;
	}
	text->at++;
	return (unsigned char)*at;
}

int proc_mount_path(struct text escaped, char *to, size_t room)
{
	size_t length = 0;
	int c;

	while ((c = take_character(&escaped)) > 0) {
		if (length + 1 >= room)
			return -ENAMETOOLONG;
		to[length++] = (char)c;
	}
	to[length] = '\0';
	return c == 0 ? -EINVAL : 0;
}

void proc_overlay_begin(struct text super_options, struct proc_overlay *ret_overlay)
{
	*ret_overlay = (struct proc_overlay){
		.options = super_options,
		.layers = text_of(super_options.end, 0),
	};
}

/* What stands before the next comma. A comma within a value is escaped by the kernel. */
static bool take_option(struct text *options, struct text *ret_option)
{
	struct text option = *options;

	if (option.at == option.end)
		return false;
	while (options->at != options->end && *options->at != ',')
		options->at++;
	option.end = options->at;
	text_take(options, ',');
	*ret_option = option;
	return true;
}

bool proc_overlay_has(struct text super_options, const char *name)
{
	struct text option;

	while (take_option(&super_options, &option))
		if (text_is(option, name))
			return true;
	return false;
}

/* Up to the next colon, if colons part; a backslash makes the next character an ordinary one. */
static int take_path(struct text *layers, bool parted, char path[PROC_OVERLAY_PATH])
{
	size_t length = 0;
	int c;

	while ((c = take_character(layers)) >= 0) {
		if (parted && c == ':')
			break;
		if (parted && c == '\\')
			c = take_character(layers);
		if (c <= 0)
			return -EINVAL;
		if (length + 1 >= PROC_OVERLAY_PATH)
			return -ENAMETOOLONG;
		path[length++] = (char)c;
	}
	path[length] = '\0';
	return length ? 1 : -EINVAL;
}

static bool take_value(struct text option, const char *key, struct text *ret_value)
{
	if (!text_begins(option, key))
		return false;
	option.at += strlen(key);
	*ret_value = option;
	return true;
}

static int take_lower(struct proc_overlay *overlay, enum proc_overlay_kind *ret_kind,
		      char path[PROC_OVERLAY_PATH])
{
	/* The first colon of "::" was taken as the end of the layer before. */
	if (text_take(&overlay->layers, ':'))
		overlay->kind = PROC_OVERLAY_DATA;
	*ret_kind = overlay->kind;
	return take_path(&overlay->layers, true, path);
}

int proc_overlay_next(struct proc_overlay *overlay, enum proc_overlay_kind *ret_kind,
		      char ret_path[PROC_OVERLAY_PATH])
{
	struct text option, value;

	if (overlay->layers.at != overlay->layers.end)
		return take_lower(overlay, ret_kind, ret_path);
	while (take_option(&overlay->options, &option)) {
		if (take_value(option, "lowerdir=", &overlay->layers)) {
			overlay->kind = PROC_OVERLAY_LOWER;
			return take_lower(overlay, ret_kind, ret_path);
		}
		if (take_value(option, "upperdir=", &value))
			*ret_kind = PROC_OVERLAY_UPPER;
		else if (take_value(option, "lowerdir+=", &value))
			*ret_kind = PROC_OVERLAY_LOWER;
		else if (take_value(option, "datadir+=", &value))
			*ret_kind = PROC_OVERLAY_DATA;
		else
			continue;
		return take_path(&value, *ret_kind == PROC_OVERLAY_UPPER, ret_path);
	}
	return 0;
}
