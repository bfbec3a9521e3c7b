/* SPDX-License-Identifier: MIT */
#include "cli/report.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli/fd.h"
#include "cli/output.h"

#define JSON_STYLE \
	(JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE)

#define MOST_READ ((size_t)64 << 20) /* bytes of a report */

static void *must(void *pointer)
{
	if (!pointer) {
		complain("out of memory");
		exit(1);
	}
	return pointer;
}

static void add(json_object *to, const char *key, json_object *value)
{
	int error = key ? json_object_object_add(to, key, value) : json_object_array_add(to, value);

	must(error ? NULL : to);
}

json_object *report_new(const char *verb)
{
	json_object *report = must(json_object_new_object());
	char schema[64];

	snprintf(schema, sizeof(schema), "cow-%s/1", verb);
	report_add_string(report, "schema", schema);
	return report;
}

/* The length of the UTF-8 sequence that text begins with, or 0 if it is none (RFC 3629). */
static size_t utf8_length(const unsigned char *text)
{
	size_t length, i;

	if (text[0] < 0x80)
		return 1;
	length = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
	if (text[0] < 0xc2 || text[0] > 0xf4)
		return 0;
	for (i = 1; i < length; i++)
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	/* Overlong forms, surrogates, and what lies beyond the last code point. */
	if ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f) ||
	    (text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] > 0x8f))
		return 0;
	return length;
}

/* File names are bytes, JSON is UTF-8: what is none becomes U+FFFD, as json-c does not check. */
static char *to_utf8(const char *text)
{
	static const char replacement[] = "\xef\xbf\xbd";
	char *result = output_realloc(NULL, 3 * strlen(text) + 1), *out = result;
	size_t length;

	while (*text) {
		length = utf8_length((const unsigned char *)text);
		memcpy(out, length ? text : replacement, length ? length : 3);
		out += length ? length : 3;
		text += length ? length : 1;
	}
	*out = '\0';
	return result;
}

void report_add_string(json_object *to, const char *key, const char *value)
{
	char *text;

	if (!value) {
		add(to, key, NULL);
		return;
	}
	text = to_utf8(value);
	add(to, key, must(json_object_new_string(text)));
	free(text);
}

void report_add_unsigned(json_object *to, const char *key, uint64_t value)
{
	add(to, key, must(json_object_new_uint64(value)));
}

void report_add_known(json_object *to, const char *key, uint64_t value)
{
	if (value == UINT64_MAX)
		add(to, key, NULL);
	else
		report_add_unsigned(to, key, value);
}

void report_add_word(json_object *to, const char *key, const char *word)
{
	report_add_string(to, key, word[0] ? word : NULL);
}

void report_add_signed(json_object *to, const char *key, int64_t value)
{
	add(to, key, must(json_object_new_int64(value)));
}

void report_add_bool(json_object *to, const char *key, bool value)
{
	add(to, key, must(json_object_new_boolean(value)));
}

void report_add_double(json_object *to, const char *key, double value, int decimals)
{
	char text[512];

	if (!isfinite(value)) {
		add(to, key, NULL);
		return;
	}
	snprintf(text, sizeof(text), "%.*f", decimals, value);
	add(to, key, must(json_object_new_double_s(value, text)));
}

json_object *report_add_object(json_object *to, const char *key)
{
	json_object *object = must(json_object_new_object());

	add(to, key, object);
	return object;
}

json_object *report_add_array(json_object *to, const char *key)
{
	json_object *array = must(json_object_new_array());

	add(to, key, array);
	return array;
}

static int write_in_place(const char *path, const char *text)
{
	int fd, error;

	fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return -errno;
	error = fd_write_all(fd, text, strlen(text));
	if (close(fd) < 0 && !error)
		error = -errno;
	return error;
}

/* mkostemp() makes files that only the owner may read; a report is a file like any other. */
static int allow_reading(int fd)
{
	mode_t mask = umask(0);

	umask(mask);
	return fchmod(fd, 0666 & ~mask) < 0 ? -errno : 0;
}

static int replace_file(const char *path, const char *text)
{
	char temporary[PATH_MAX];
	int fd, error;

	if ((size_t)snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path) >= sizeof(temporary))
		return -ENAMETOOLONG;
	fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	error = fd_write_all(fd, text, strlen(text));
	if (!error)
		error = allow_reading(fd);
	if (close(fd) < 0 && !error)
		error = -errno;
	if (!error && rename(temporary, path) < 0)
		error = -errno;
	if (error)
		unlink(temporary);
	return error;
}

/* Behind a symbolic link it is the file that is replaced, not the link. */
static int write_file(const char *path, const char *text)
{
	struct stat status;
	char *target;
	int error;

	if (stat(path, &status) < 0)
		return errno == ENOENT ? replace_file(path, text) : -errno;
	if (!S_ISREG(status.st_mode))
		return write_in_place(path, text);
	target = realpath(path, NULL);
	if (!target)
		return -errno;
	error = replace_file(target, text);
	free(target);
	return error;
}

static bool write_text(const char *text, const char *path)
{
	int error = write_file(path, text);

	if (error)
		complain_errno(error, "cannot write %s", path);
	return !error;
}

bool report_write(json_object *report, const char *path)
{
	const char *json = must((void *)json_object_to_json_string_ext(report, JSON_STYLE));
	char *text;
	bool written;

	if (!path) {
		puts(json);
		return output_finish();
	}
	if (asprintf(&text, "%s\n", json) < 0)
		text = must(NULL);
	written = write_text(text, path);
	free(text);
	return written;
}

/* The whole of a file, or NULL with the reason; a device may have no end. */
static char *read_file(const char *path, int *ret_error)
{
	char *text = NULL;
	size_t length = 0, room = 0, n;
	FILE *file = fopen(path, "re");
	int error = 0;

	if (!file) {
		*ret_error = -errno;
		return NULL;
	}
	do {
		if (room - length < 65536) {
			room += 1 << 20;
			text = output_realloc(text, room);
		}
		n = fread(text + length, 1, room - length - 1, file);
		length += n;
	} while (n > 0 && length <= MOST_READ);
	text[length] = '\0';
	if (ferror(file))
		error = errno ? -errno : -EIO;
	else if (length > MOST_READ)
		error = -EFBIG;
	fclose(file);
	if (!error)
		return text;
	free(text);
	*ret_error = error;
	return NULL;
}

json_object *report_read(const char *path, const char *writer)
{
	enum json_tokener_error why = json_tokener_success;
	json_object *report;
	char *text;
	int error = 0;

	text = read_file(path, &error);
	if (!text) {
		complain_errno(error, "cannot read %s", path);
		return NULL;
	}
	report = json_tokener_parse_verbose(text, &why);
	free(text);
	if (!report)
		complain("%s is not JSON (%s); give a file that %s has written", path,
			 why == json_tokener_success ? "null" : json_tokener_error_desc(why),
			 writer);
	return report;
}

void report_text_begin(struct report_text *text)
{
	*text = (struct report_text){ 0 };
	text->out = must(open_memstream(&text->text, &text->length));
}

bool report_text_end(struct report_text *text, const char *path)
{
	bool written;

	must(fclose(text->out) == 0 ? text->text : NULL);
	if (report_is_stdout(path)) {
		fwrite(text->text, 1, text->length, stdout);
		written = output_finish();
	} else {
		written = write_text(text->text, path);
	}
	free(text->text);
	return written;
}

bool report_is_stdout(const char *path)
{
	return path && strcmp(path, "-") == 0;
}

bool report_check_path(const char *path)
{
	char copy[PATH_MAX];
	struct stat status;
	int error = 0;

	if (!path || report_is_stdout(path))
		return true;
	snprintf(copy, sizeof(copy), "%s", path);
	if (stat(path, &status) == 0 && S_ISDIR(status.st_mode))
		error = -EISDIR;
	else if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
		error = access(path, W_OK) < 0 ? -errno : 0;
	else if (access(dirname(copy), W_OK) < 0)
		error = -errno;
	if (error)
		complain_errno(error, "cannot write %s", path);
	return !error;
}
