/* SPDX-License-Identifier: MIT */
/*
 * The file HEAD: lines of text, which people may read and only the library writes.
 *
 *   cow-store 1 IDENTITY        of the store
 *   sequence NUMBER
 *   head IDENTITY
 *   tag NAME IDENTITY           as many as there are
 *   deleted IDENTITY            likewise
 *   crc32c NUMBER               of everything before this line
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/io.h"
#include "store/store.h"
#include "sys/sys.h"

#define HEAD_BYTES_MAX ((size_t)64 << 20)
#define LINE_MAX_BYTES 160u

void refs_free(struct refs *refs)
{
	sys_free(refs->tags);
	sys_free(refs->deleted);
	*refs = (struct refs){ 0 };
}

/* With room for one more, which is why most copies are made. */
static void *copy_array(const void *from, size_t count, size_t bytes, size_t *ret_room)
{
	void *copy = sys_alloc_array(count + 1, bytes);

	if (copy && count > 0)
		memcpy(copy, from, count * bytes);
	*ret_room = count + 1;
	return copy;
}

/* The array, or a larger one in its place; NULL: no memory, and it is as it was. */
static void *with_room(void *array, size_t count, size_t bytes, size_t *room)
{
	size_t more = *room * 2 + 8;
	void *grown;

	if (count < *room)
		return array;
	grown = sys_alloc_array(more, bytes);
	if (!grown)
		return NULL;
	if (count > 0)
		memcpy(grown, array, count * bytes);
	sys_free(array);
	*room = more;
	return grown;
}

int refs_copy(const struct refs *refs, struct refs *ret_copy)
{
	struct refs copy = *refs;

	copy.tags = copy_array(refs->tags, refs->tag_count, sizeof(refs->tags[0]), &copy.tag_room);
	copy.deleted = copy_array(refs->deleted, refs->deleted_count, sizeof(refs->deleted[0]),
				  &copy.deleted_room);
	if (!copy.tags || !copy.deleted) {
		refs_free(&copy);
		return -ENOMEM;
	}
	*ret_copy = copy;
	return 0;
}

static bool tags_equal(const struct refs *a, const struct refs *b)
{
	bool equal = a->tag_count == b->tag_count;

	for (size_t i = 0; equal && i < a->tag_count; i++)
		equal = strcmp(a->tags[i].name, b->tags[i].name) == 0 &&
			id_equal(&a->tags[i].id, &b->tags[i].id);
	return equal;
}

static bool deleted_equal(const struct refs *a, const struct refs *b)
{
	bool equal = a->deleted_count == b->deleted_count;

	for (size_t i = 0; equal && i < a->deleted_count; i++)
		equal = id_equal(&a->deleted[i], &b->deleted[i]);
	return equal;
}

bool refs_equal(const struct refs *a, const struct refs *b)
{
	return id_equal(&a->store, &b->store) && id_equal(&a->head, &b->head) &&
	       a->sequence == b->sequence && tags_equal(a, b) && deleted_equal(a, b);
}

/* Where the tag is, or would be. */
static size_t tag_index(const struct refs *refs, const char *name)
{
	size_t low = 0, high = refs->tag_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(refs->tags[middle].name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct tag *refs_find_tag(const struct refs *refs, const char *name)
{
	size_t at = tag_index(refs, name);

	if (at >= refs->tag_count || strcmp(refs->tags[at].name, name) != 0)
		return NULL;
	return &refs->tags[at];
}

int refs_set_tag(struct refs *refs, const char *name, const struct layer_id *id)
{
	size_t at = tag_index(refs, name);
	struct tag *tags;

	if (refs_find_tag(refs, name)) {
		refs->tags[at].id = *id;
		return 0;
	}
	tags = with_room(refs->tags, refs->tag_count, sizeof(tags[0]), &refs->tag_room);
	if (!tags)
		return -ENOMEM;
	memmove(tags + at + 1, tags + at, (refs->tag_count - at) * sizeof(tags[0]));
	tags[at].id = *id;
	snprintf(tags[at].name, sizeof(tags[at].name), "%s", name);
	refs->tags = tags;
	refs->tag_count++;
	return 0;
}

void refs_drop_tag(struct refs *refs, const char *name)
{
	size_t at = tag_index(refs, name);

	if (!refs_find_tag(refs, name))
		return;
	refs->tag_count--;
	memmove(refs->tags + at, refs->tags + at + 1,
		(refs->tag_count - at) * sizeof(refs->tags[0]));
}

bool refs_is_tagged(const struct refs *refs, const struct layer_id *id)
{
	for (size_t i = 0; i < refs->tag_count; i++)
		if (id_equal(&refs->tags[i].id, id))
			return true;
	return false;
}

static size_t deleted_index(const struct refs *refs, const struct layer_id *id)
{
	size_t at = 0;

	while (at < refs->deleted_count && !id_equal(&refs->deleted[at], id))
		at++;
	return at;
}

bool refs_is_deleted(const struct refs *refs, const struct layer_id *id)
{
	return deleted_index(refs, id) < refs->deleted_count;
}

int refs_add_deleted(struct refs *refs, const struct layer_id *id)
{
	struct layer_id *deleted;

	if (refs_is_deleted(refs, id))
		return 0;
	deleted = with_room(refs->deleted, refs->deleted_count, sizeof(deleted[0]),
			    &refs->deleted_room);
	if (!deleted)
		return -ENOMEM;
	deleted[refs->deleted_count++] = *id;
	refs->deleted = deleted;
	return 0;
}

void refs_drop_deleted(struct refs *refs, const struct layer_id *id)
{
	size_t at = deleted_index(refs, id);

	if (at < refs->deleted_count)
		refs->deleted[at] = refs->deleted[--refs->deleted_count];
}

/* --- reading --- */

/* The rest of a line that begins with a word, or NULL. */
static const char *after(const char *line, const char *word)
{
	size_t length = strlen(word);

	return strncmp(line, word, length) == 0 && line[length] == ' ' ? line + length + 1 : NULL;
}

static int parse_tag(const char *rest, struct refs *refs)
{
	const char *space = strchr(rest, ' ');
	char name[COW_TAG_LENGTH];
	struct layer_id id;

	if (!space || (size_t)(space - rest) >= sizeof(name) || !id_parse(space + 1, &id))
		return -EUCLEAN;
	memcpy(name, rest, (size_t)(space - rest));
	name[space - rest] = '\0';
	return tag_is_valid(name) ? refs_set_tag(refs, name, &id) : -EUCLEAN;
}

static int parse_sequence(const char *rest, uint64_t *ret_sequence)
{
	char *end;

	errno = 0;
	*ret_sequence = strtoull(rest, &end, 10);
	return errno == 0 && end != rest && *end == '\0' && *ret_sequence <= SEQUENCE_MAX ?
		       0 :
		       -EUCLEAN;
}

static int parse_line(const char *line, struct refs *refs)
{
	struct layer_id id;
	const char *rest;

	if ((rest = after(line, "head")))
		return id_parse(rest, &refs->head) ? 0 : -EUCLEAN;
	if ((rest = after(line, "tag")))
		return parse_tag(rest, refs);
	if ((rest = after(line, "deleted")))
		return id_parse(rest, &id) ? refs_add_deleted(refs, &id) : -EUCLEAN;
	if ((rest = after(line, "sequence")))
		return parse_sequence(rest, &refs->sequence);
	return -EUCLEAN;
}

/* The text, with its checksum cut off; NULL: damaged. */
static char *check_sum(char *text, size_t length)
{
	char *last = NULL;
	char line[32];

	for (char *at = text; (at = strstr(at, "\ncrc32c ")); at++)
		last = at;
	if (!last || strlen(text) != length)
		return NULL;
	snprintf(line, sizeof(line), "crc32c %08" PRIx32 "\n",
		 crc32c(text, (size_t)(last + 1 - text)));
	if (strcmp(last + 1, line) != 0)
		return NULL;
	last[1] = '\0';
	return text;
}

static int parse(char *text, size_t length, struct refs *refs)
{
	char *line, *rest = NULL;
	const char *first;
	int r = 0;

	if (!check_sum(text, length))
		return -EUCLEAN;
	line = strtok_r(text, "\n", &rest);
	first = line ? after(line, "cow-store") : NULL;
	first = first ? after(first, "1") : NULL;
	if (!first || !id_parse(first, &refs->store))
		return -EUCLEAN;
	while (r == 0 && (line = strtok_r(NULL, "\n", &rest)))
		r = parse_line(line, refs);
	return r;
}

static int read_text(int fd, char **ret_text, size_t *ret_length)
{
	uint64_t bytes, links;
	char *text;
	int r;

	r = sys_file_size(fd, &bytes, &links);
	if (r < 0)
		return r;
	if (bytes > HEAD_BYTES_MAX)
		return -EUCLEAN;
	text = sys_alloc(bytes + 1);
	if (!text)
		return -ENOMEM;
	r = io_read(fd, text, bytes, 0);
	if (r < 0) {
		sys_free(text);
		return r;
	}
	*ret_text = text;
	*ret_length = bytes;
	return 0;
}

int refs_read(struct cow_store *store, struct refs *ret_refs)
{
	struct refs refs = { 0 };
	size_t length = 0;
	char *text = NULL;
	int fd, r;

	fd = io_open(store->directory, NAME_HEAD, O_RDONLY);
	if (fd < 0)
		return fd;
	r = read_text(fd, &text, &length);
	io_close(fd);
	if (r == 0)
		r = parse(text, length, &refs);
	sys_free(text);
	if (r < 0) {
		refs_free(&refs);
		if (r == -EUCLEAN)
			store_complain(store, NAME_HEAD, "damaged: " HEAD_ADVICE);
		return r;
	}
	*ret_refs = refs;
	return 0;
}

/* --- writing --- */

static size_t print_ids(const struct refs *refs, char *text, size_t room)
{
	char id[COW_ID_LENGTH];
	size_t at;

	id_print(&refs->store, id);
	at = (size_t)snprintf(text, room, "cow-store 1 %s\nsequence %" PRIu64 "\n", id,
			      refs->sequence);
	if (!id_is_none(&refs->head)) {
		id_print(&refs->head, id);
		at += (size_t)snprintf(text + at, room - at, "head %s\n", id);
	}
	for (size_t i = 0; i < refs->tag_count; i++) {
		id_print(&refs->tags[i].id, id);
		at += (size_t)snprintf(text + at, room - at, "tag %s %s\n", refs->tags[i].name, id);
	}
	for (size_t i = 0; i < refs->deleted_count; i++) {
		id_print(&refs->deleted[i], id);
		at += (size_t)snprintf(text + at, room - at, "deleted %s\n", id);
	}
	return at;
}

static int write_text(struct cow_store *store, const char *text, size_t length)
{
	int fd = io_open(store->directory, NAME_HEAD_NEW, O_WRONLY | O_CREAT | O_TRUNC);
	int r;

	if (fd < 0)
		return fd;
	r = io_write_bytes(fd, text, length, 0);
	if (r == 0)
		r = io_sync_data(fd);
	io_close(fd);
	if (r == 0)
		r = io_rename(store->directory, NAME_HEAD_NEW, NAME_HEAD);
	if (r < 0)
		(void)io_unlink(store->directory, NAME_HEAD_NEW);
	return r;
}

int refs_write(struct cow_store *store, const struct refs *refs)
{
	size_t room = (4 + refs->tag_count + refs->deleted_count) * LINE_MAX_BYTES, length;
	char *text = sys_alloc(room);
	int r;

	if (!text)
		return -ENOMEM;
	length = print_ids(refs, text, room);
	length += (size_t)snprintf(text + length, room - length, "crc32c %08" PRIx32 "\n",
				   crc32c(text, length));
	r = write_text(store, text, length);
	sys_free(text);
	return r < 0 ? r : io_sync_dir(store->directory);
}
