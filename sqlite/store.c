/* SPDX-License-Identifier: MIT */
/*
 * A store is open for as long as a call takes: another process may write it in between, and only
 * then finds it busy. Within this process calls wait for each other. What makes a save incremental
 * is kept with the region, not with the open store.
 */
#include <errno.h>
#include <string.h>

#include "header.h"
#include "store.h"

/* The state of a layer: these eight bytes, then the size of the database, big-endian. */
#define STATE_MAGIC "cow-sql1"
enum { STATE_LENGTH = 16, STATE_SIZE = 8, CHUNK = 1 << 20 };

static pthread_mutex_t save_mutex = PTHREAD_MUTEX_INITIALIZER;

/* A save of the parent's goes on there. */
static void start_anew_in_child(void)
{
	pthread_mutex_init(&save_mutex, NULL);
}

int store_init(void)
{
	return pthread_atfork(NULL, NULL, start_anew_in_child) ? SQLITE_NOMEM : SQLITE_OK;
}

static int code_of(int result)
{
	switch (result) {
	case -EBUSY:
		return SQLITE_BUSY;
	case -EUCLEAN:
	case -ELOOP:
	case -E2BIG:
		return SQLITE_CORRUPT;
	case -ENOENT:
	case -ENOTDIR:
	case -EACCES:
	case -EROFS:
		return SQLITE_CANTOPEN;
	case -ENOMEM:
		return SQLITE_NOMEM;
	default:
		return sqlite_code(result, SQLITE_IOERR);
	}
}

/* What an errno means of a store, and what to do. */
static const char *meaning(int result)
{
	switch (result) {
	case -EBUSY:
		return "another process is writing it; try again when it has closed it";
	case -EUCLEAN:
		return "it is damaged; cow store verify says where";
	case -ENOENT:
		return "there is no such store, layer or tag; cow store log lists them";
	case -ELOOP:
		return "its layers run in a circle";
	case -E2BIG:
		return "too many layers lie on each other; cow store compact";
	case -ENOSPC:
	case -EDQUOT:
		return "no space is left; the store is as it was";
	default:
		return strerror(-result);
	}
}

static int fail(char **ret_error, int result, const char *what, const char *path)
{
	*ret_error = sqlite3_mprintf("%s %s: %s", what, path, meaning(result));
	return *ret_error ? code_of(result) : SQLITE_NOMEM;
}

/* --- saving --- */

static void put_be64(unsigned char *bytes, uint64_t value)
{
	put_be32(bytes, (uint32_t)(value >> 32));
	put_be32(bytes + 4, (uint32_t)value);
}

static uint64_t get_be64(const unsigned char *bytes)
{
	return (uint64_t)get_be32(bytes) << 32 | get_be32(bytes + 4);
}

static int save_open(struct cow_store *store, struct cow_snapshot *snapshot, sqlite3_int64 size,
		     const char *tag, char id[COW_ID_LENGTH])
{
	struct cow_save_options options = COW_SAVE_OPTIONS_INIT;
	unsigned char state[STATE_LENGTH] = STATE_MAGIC;

	put_be64(state + STATE_SIZE, (uint64_t)size);
	options.tag = tag;
	options.state = state;
	options.state_length = sizeof(state);
	return cow_store_save(store, snapshot, &options, id);
}

int store_save_database(struct cow_snapshot *snapshot, sqlite3_int64 size, const char *path,
			const char *tag, char **ret_id, char **ret_error)
{
	struct cow_store *store;
	char id[COW_ID_LENGTH];
	int result;

	pthread_mutex_lock(&save_mutex);
	result = cow_store_open(path, COW_STORE_CREATE, &store);
	if (result == 0) {
		result = save_open(store, snapshot, size, tag, id);
		cow_store_close(store);
	}
	pthread_mutex_unlock(&save_mutex);
	if (result == -EINVAL && tag) {
		*ret_error = sqlite3_mprintf("'%s' is no name for a tag: letters, digits and "
					     "-_.+@, at most %d of them",
					     tag, COW_TAG_LENGTH - 1);
		return *ret_error ? SQLITE_ERROR : SQLITE_NOMEM;
	}
	if (result)
		return fail(ret_error, result, "cannot save into", path);
	*ret_id = sqlite3_mprintf("%s", id);
	return *ret_id ? SQLITE_OK : SQLITE_NOMEM;
}

/* --- opening --- */

/* The header of a database file says how many pages there are; a file that says nothing sensible is
 * as long as it is, and SQLite will judge it. */
static sqlite3_int64 size_of_image(struct cow_region *region)
{
	sqlite3_int64 length = (sqlite3_int64)cow_region_get_length(region), size;
	unsigned char header[HEADER_SIZE];
	uint32_t page_size;

	if (cow_region_read(region, 0, header, sizeof(header)) ||
	    memcmp(header, "SQLite format 3", 16) != 0)
		return length;
	page_size = get_be32(header + HEADER_PAGE_SIZE) >> 16;
	if (page_size == 1)
		page_size = 65536;
	size = (sqlite3_int64)page_size * get_be32(header + HEADER_PAGES);
	return size > 0 && size <= length ? size : length;
}

/* Chunks of zeroes are left alone: they are zero in the new region. */
static int copy_region(struct cow_region *from, struct cow_region *to, sqlite3_int64 size)
{
	unsigned char *chunk = sqlite3_malloc(CHUNK);
	int result = chunk ? 0 : -ENOMEM;

	for (sqlite3_int64 at = 0; !result && at < size; at += CHUNK) {
		size_t length = size - at < CHUNK ? (size_t)(size - at) : CHUNK;

		result = cow_region_read(from, (size_t)at, chunk, length);
		if (!result && (chunk[0] || memcmp(chunk, chunk + 1, length - 1) != 0))
			result = cow_region_write(to, (size_t)at, chunk, length);
	}
	sqlite3_free(chunk);
	return result;
}

/* An image has no room to grow: its content goes into a region that has. */
static int make_room(struct cow_region **region, sqlite3_int64 size, sqlite3_int64 reserve)
{
	struct cow_region *larger;
	int result, rc = database_reserve_region(reserve, &larger);

	if (rc != SQLITE_OK)
		return -ENOMEM;
	if ((sqlite3_int64)cow_region_get_length(larger) < size) {
		cow_region_free(larger);
		return 0;
	}
	result = copy_region(*region, larger, size);
	cow_region_free(result ? larger : *region);
	if (result == 0)
		*region = larger;
	return result;
}

static int load_open(struct cow_store *store, const char *tag, sqlite3_int64 reserve,
		     struct cow_region **ret_region, sqlite3_int64 *ret_size)
{
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	unsigned char state[STATE_LENGTH];
	struct cow_region *region;
	sqlite3_int64 size;
	ssize_t length = cow_store_get_state(store, tag, state, sizeof(state));
	int result;

	if (length < 0)
		return (int)length;
	options.trap = COW_TRAP_EXPLICIT;
	result = cow_store_restore(store, tag, &options, &region);
	if (result)
		return result;
	if (length == STATE_LENGTH && memcmp(state, STATE_MAGIC, STATE_SIZE) == 0) {
		size = (sqlite3_int64)get_be64(state + STATE_SIZE);
		if (size < 0 || (uint64_t)size > cow_region_get_length(region))
			result = -EUCLEAN;
	} else {
		size = size_of_image(region);
		result = make_room(&region, size, reserve);
	}
	if (result) {
		cow_region_free(region);
		return result;
	}
	*ret_region = region;
	*ret_size = size;
	return 0;
}

int store_load_database(const char *path, const char *tag, sqlite3_int64 reserve,
			struct cow_region **ret_region, sqlite3_int64 *ret_size)
{
	struct cow_store *store;
	int result = cow_store_open(path, COW_STORE_READ_ONLY, &store);

	if (result == 0) {
		result = load_open(store, tag, reserve, ret_region, ret_size);
		cow_store_close(store);
	}
	if (result == 0)
		return SQLITE_OK;
	sqlite3_log(SQLITE_CANTOPEN, "cow: store %s%s%s: %s", path, tag ? ", tag " : "",
		    tag ? tag : "", meaning(result));
	return result == -ENOMEM ? SQLITE_NOMEM : SQLITE_CANTOPEN;
}
