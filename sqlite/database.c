/* SPDX-License-Identifier: MIT */
/*
 * One database: its generations, and reading its bytes. See database.h for the model, the
 * invariants and the lock order, writer.c for how a generation comes to be.
 */
#include <errno.h>
#include <string.h>

#include "header.h"
#include "table.h"

int sqlite_code(int result, int otherwise)
{
	switch (result) {
	case 0:
		return SQLITE_OK;
	case -ENOMEM:
		return SQLITE_IOERR_NOMEM;
	case -ENOSPC:
	case -EAGAIN:
		return SQLITE_FULL;
	default:
		return otherwise;
	}
}

struct generation *generation_new(void)
{
	struct generation *generation = sqlite3_malloc64(sizeof(*generation));

	if (!generation)
		return NULL;
	atomic_init(&generation->references, 1);
	atomic_init(&generation->snapshot, NULL);
	generation->size = 0;
	return generation;
}

void generation_unref(struct generation *generation)
{
	if (!generation)
		return;
	if (atomic_fetch_sub_explicit(&generation->references, 1, memory_order_acq_rel) != 1)
		return;
	cow_snapshot_unref(atomic_load_explicit(&generation->snapshot, memory_order_relaxed));
	sqlite3_free(generation);
}

struct generation *generation_ref(struct generation *generation)
{
	atomic_fetch_add_explicit(&generation->references, 1, memory_order_relaxed);
	return generation;
}

int database_new(struct cow_region *region, struct family *family, const char *name,
		 sqlite3_int64 size, struct database **ret_database)
{
	unsigned char header[HEADER_SIZE];
	struct database *database;
	size_t length = strlen(name) + 1;
	int rc = SQLITE_IOERR_NOMEM;

	database = sqlite3_malloc64(sizeof(*database) + length);
	if (!database) {
		cow_region_free(region);
		return rc;
	}
	memset(database, 0, sizeof(*database));
	memcpy(database->name, name, length);
	pthread_mutex_init(&database->mutex, NULL);
	database->region = region;
	database->family = family;
	database->size = size;
	database->current = generation_new();
	if (!database->current)
		goto out;
	database->current->size = size;
	rc = sqlite_code(cow_region_read(region, 0, header, sizeof(header)), SQLITE_IOERR_READ);
	if (rc != SQLITE_OK)
		goto out;
	database->counter_max = get_be32(header + HEADER_COUNTER);
	database->cookie_max = get_be32(header + HEADER_COOKIE);
	*ret_database = database;
	database = NULL;
out:
	database_free(database);
	return rc;
}

void named_snapshot_free(struct named_snapshot *named)
{
	if (!named)
		return;
	cow_snapshot_unref(named->snapshot);
	sqlite3_free(named);
}

void database_free(struct database *database)
{
	if (!database)
		return;
	while (database->snapshots) {
		struct named_snapshot *named = database->snapshots;

		database->snapshots = named->next;
		named_snapshot_free(named);
	}
	generation_unref(database->current);
	cow_region_free(database->region);
	sqlite3_free(database->pending);
	pthread_mutex_destroy(&database->mutex);
	sqlite3_free(database);
}

struct generation *database_pin(struct database *database)
{
	struct generation *generation;

	pthread_mutex_lock(&database->mutex);
	generation = generation_ref(database->current);
	pthread_mutex_unlock(&database->mutex);
	return generation;
}

int generation_cut(struct database *database)
{
	struct generation *current = database->current;
	struct cow_snapshot *snapshot;
	int result;

	if (atomic_load_explicit(&current->snapshot, memory_order_relaxed))
		return 0;
	result = cow_region_snapshot(database->region, &snapshot);
	if (result)
		return result;
	atomic_store_explicit(&current->snapshot, snapshot, memory_order_release);
	return 0;
}

int database_cut(struct database *database, struct cow_snapshot **ret_snapshot,
		 sqlite3_int64 *ret_size)
{
	int result;

	pthread_mutex_lock(&database->mutex);
	result = generation_cut(database);
	if (!result) {
		*ret_snapshot = cow_snapshot_ref(atomic_load(&database->current->snapshot));
		*ret_size = database->current->size;
	}
	pthread_mutex_unlock(&database->mutex);
	return sqlite_code(result, SQLITE_IOERR);
}

/* The snapshot of a generation that the caller holds. Only the current one can lack it. */
static int generation_snapshot(struct database *database, struct generation *generation,
			       struct cow_snapshot **ret_snapshot)
{
	int result = 0;

	*ret_snapshot = atomic_load_explicit(&generation->snapshot, memory_order_acquire);
	if (*ret_snapshot)
		return 0;
	pthread_mutex_lock(&database->mutex);
	if (generation == database->current)
		result = generation_cut(database);
	*ret_snapshot = atomic_load_explicit(&generation->snapshot, memory_order_acquire);
	pthread_mutex_unlock(&database->mutex);
	return result;
}

int bytes_below(sqlite3_int64 size, int length, sqlite3_int64 offset)
{
	if (offset >= size)
		return 0;
	return size - offset < length ? (int)(size - offset) : length;
}

int fill_rest(void *buffer, int inside, int length)
{
	if (inside == length)
		return SQLITE_OK;
	memset((char *)buffer + inside, 0, (size_t)(length - inside));
	return SQLITE_IOERR_SHORT_READ;
}

int read_past(struct cow_snapshot *snapshot, sqlite3_int64 size, void *buffer, int length,
	      sqlite3_int64 offset)
{
	int inside = bytes_below(size, length, offset);
	int result = 0;

	if (inside > 0)
		result = cow_snapshot_read(snapshot, (size_t)offset, buffer, (size_t)inside);
	if (result)
		return sqlite_code(result, SQLITE_IOERR_READ);
	return fill_rest(buffer, inside, length);
}

bool database_has_one_reader(const struct database *database)
{
	return atomic_load_explicit(&database->current->references, memory_order_acquire) == 2;
}

/* Without a snapshot live is the current generation, and stays so while the mutex is held. A reader
 * that shares it with nobody needs no cut then, and the pages stay open for the next writer. */
static bool read_alone(struct database *database, const struct generation *generation, void *buffer,
		       int length, sqlite3_int64 offset, int *ret_result)
{
	bool alone;

	if (atomic_load_explicit(&generation->snapshot, memory_order_acquire))
		return false;
	pthread_mutex_lock(&database->mutex);
	alone = generation == database->current && database_has_one_reader(database) &&
		!atomic_load_explicit(&generation->snapshot, memory_order_relaxed);
	if (alone)
		*ret_result = length > 0 ? cow_region_read(database->region, (size_t)offset, buffer,
							   (size_t)length) :
					   0;
	pthread_mutex_unlock(&database->mutex);
	return alone;
}

int database_read_generation(struct database *database, struct generation *generation, void *buffer,
			     int length, sqlite3_int64 offset)
{
	int inside = bytes_below(generation->size, length, offset);
	struct cow_snapshot *snapshot;
	int result;

	if (!read_alone(database, generation, buffer, inside, offset, &result)) {
		result = generation_snapshot(database, generation, &snapshot);
		if (!result)
			return read_past(snapshot, generation->size, buffer, length, offset);
	}
	if (result)
		return sqlite_code(result, SQLITE_IOERR_READ);
	return fill_rest(buffer, inside, length);
}
