/* SPDX-License-Identifier: MIT */
/*
 * One database: its generations, the writer's place, reading and writing its bytes. See database.h
 * for the model, the invariants and the lock order.
 *
 * A transaction of the writer, as SQLite's pager drives it:
 *
 *	RESERVED             database_reserve(): one at a time, and only from the current generation
 *	first xWrite         database_begin_write(): the committed state gets its snapshot
 *	xWrite, xTruncate    live changes; readers read the snapshot
 *	COMMIT_PHASETWO      database_publish(): live is the current generation, the old one goes
 *away with its last reader, and its frames are used again unlock               database_release():
 *after anything but a commit live is set back to the snapshot, whatever the journal could or could
 *not restore
 */
#include <errno.h>
#include <string.h>

#include "table.h"

/* Places in the header of a database file: https://www.sqlite.org/fileformat2.html */
enum {
	HEADER_WRITE_VERSION = 18,
	HEADER_READ_VERSION = 19,
	HEADER_COUNTER = 24,
	HEADER_COOKIE = 40,
	HEADER_COUNTER_COPY = 92,
	HEADER_SIZE = 100,
};

static uint32_t get_be32(const unsigned char *bytes)
{
	return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
	       bytes[3];
}

static void put_be32(unsigned char *bytes, uint32_t value)
{
	bytes[0] = (unsigned char)(value >> 24);
	bytes[1] = (unsigned char)(value >> 16);
	bytes[2] = (unsigned char)(value >> 8);
	bytes[3] = (unsigned char)value;
}

/* Counters are 32 bits and wrap; so "above" is meant as for sequence numbers. */
static bool is_above(uint32_t value, uint32_t other)
{
	return (int32_t)(value - other) > 0;
}

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

static struct generation *generation_ref(struct generation *generation)
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

/* With the mutex held. */
static int generation_cut(struct database *database)
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

/* How many of length bytes at offset lie below size. */
static int bytes_below(sqlite3_int64 size, int length, sqlite3_int64 offset)
{
	if (offset >= size)
		return 0;
	return size - offset < length ? (int)(size - offset) : length;
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
	if (inside == length)
		return SQLITE_OK;
	memset((char *)buffer + inside, 0, (size_t)(length - inside));
	return SQLITE_IOERR_SHORT_READ;
}

int database_read_generation(struct database *database, struct generation *generation, void *buffer,
			     int length, sqlite3_int64 offset)
{
	struct cow_snapshot *snapshot;
	int result = generation_snapshot(database, generation, &snapshot);

	if (result)
		return sqlite_code(result, SQLITE_IOERR_READ);
	return read_past(snapshot, generation->size, buffer, length, offset);
}

int database_read_live(struct database *database, void *buffer, int length, sqlite3_int64 offset)
{
	int inside = bytes_below(database->size, length, offset);
	int result = 0;

	if (inside > 0)
		result = cow_region_read(database->region, (size_t)offset, buffer, (size_t)inside);
	if (result)
		return sqlite_code(result, SQLITE_IOERR_READ);
	if (inside == length)
		return SQLITE_OK;
	memset((char *)buffer + inside, 0, (size_t)(length - inside));
	return SQLITE_IOERR_SHORT_READ;
}

int database_reserve(struct database *database, const void *writer, struct generation *seen,
		     bool counted_exclusive)
{
	int rc = SQLITE_OK;

	pthread_mutex_lock(&database->mutex);
	if (database->writer)
		rc = SQLITE_BUSY;
	else if (database->exclusive > (counted_exclusive ? 1u : 0u))
		rc = SQLITE_BUSY;
	else if (seen && seen != database->current)
		rc = SQLITE_BUSY_SNAPSHOT;
	else
		database->writer = writer;
	pthread_mutex_unlock(&database->mutex);
	return rc;
}

/* Sets live back to the current generation. Leaves wrote set when that is not possible now. */
static int database_undo(struct database *database)
{
	struct generation *current = database->current;
	int result = cow_region_rollback(database->region, atomic_load(&current->snapshot));

	if (result)
		return result;
	database->size = current->size;
	database->wrote = false;
	return 0;
}

void database_release(struct database *database, const void *writer)
{
	int result = 0;

	if (database->wrote)
		result = database_undo(database);
	if (result)
		sqlite3_log(SQLITE_IOERR,
			    "cow: %s: a transaction could not be undone (errno %d); readers go on, "
			    "the next writer tries again",
			    database_path(database), -result);
	pthread_mutex_lock(&database->mutex);
	if (database->writer == writer)
		database->writer = NULL;
	pthread_mutex_unlock(&database->mutex);
}

int database_begin_write(struct database *database)
{
	int result = 0;

	/* Left over from a transaction that could not be undone. */
	if (database->wrote)
		result = database_undo(database);
	if (result)
		return sqlite_code(result, SQLITE_IOERR_WRITE);
	pthread_mutex_lock(&database->mutex);
	result = generation_cut(database);
	pthread_mutex_unlock(&database->mutex);
	if (!result)
		database->wrote = true;
	return sqlite_code(result, SQLITE_IOERR_WRITE);
}

static int write_be32(struct database *database, size_t offset, uint32_t value)
{
	unsigned char bytes[4];

	put_be32(bytes, value);
	return cow_region_write(database->region, offset, bytes, sizeof(bytes));
}

/* Lifts the change counter, and after a rollback to a snapshot the schema cookie, above every value
 * that some connection's caches may know with other contents. A connection compares bytes 24..39
 * with what it knows when it takes SHARED, and the cookie when it starts a statement. */
static int seal_header(struct database *database, uint32_t *ret_counter, uint32_t *ret_cookie)
{
	unsigned char header[HEADER_SIZE];
	uint32_t counter, cookie;
	int result;

	*ret_counter = database->counter_max;
	*ret_cookie = database->cookie_max;
	if (database->size < HEADER_SIZE)
		return 0;
	result = cow_region_read(database->region, 0, header, sizeof(header));
	if (result)
		return result;
	counter = get_be32(header + HEADER_COUNTER);
	cookie = get_be32(header + HEADER_COOKIE);
	if (!is_above(counter, database->counter_max) && !database->loading) {
		counter = database->counter_max + 1;
		result = write_be32(database, HEADER_COUNTER, counter);
		if (!result)
			result = write_be32(database, HEADER_COUNTER_COPY, counter);
	}
	if (!result && database->rewound && cookie != database->cookie_max &&
	    !is_above(cookie, database->cookie_max)) {
		cookie = database->cookie_max + 1;
		result = write_be32(database, HEADER_COOKIE, cookie);
	}
	*ret_counter = counter;
	*ret_cookie = is_above(cookie, database->cookie_max) ? cookie : database->cookie_max;
	return result;
}

int database_publish(struct database *database, struct generation *next)
{
	struct generation *old;
	uint32_t counter, cookie;
	int result = seal_header(database, &counter, &cookie);

	if (result)
		return sqlite_code(result, SQLITE_IOERR_WRITE);
	next->size = database->size;
	database->counter_max = counter;
	database->cookie_max = cookie;
	pthread_mutex_lock(&database->mutex);
	old = database->current;
	database->current = generation_ref(next);
	pthread_mutex_unlock(&database->mutex);
	database->wrote = false;
	generation_unref(old);
	return SQLITE_OK;
}

/* The VFS keeps no write-ahead log: page 1 of a database that came from one (through the backup
 * API) must not send SQLite looking for it. The counter moves on too, so that
 * the connection that wrote the page reads it again. */
static int clear_wal_version(struct database *database, const unsigned char *page)
{
	static const unsigned char rollback_journal[2] = { 1, 1 };
	int result;

	if (page[HEADER_WRITE_VERSION] != 2 && page[HEADER_READ_VERSION] != 2)
		return 0;
	result = cow_region_write(database->region, HEADER_WRITE_VERSION, rollback_journal, 2);
	if (!result && !database->loading) {
		uint32_t counter = get_be32(page + HEADER_COUNTER) + 1;

		result = write_be32(database, HEADER_COUNTER, counter);
		if (!result)
			result = write_be32(database, HEADER_COUNTER_COPY, counter);
	}
	return result;
}

int database_write(struct database *database, const void *buffer, int length, sqlite3_int64 offset)
{
	sqlite3_int64 end = offset + length;
	int result;

	if (end > (sqlite3_int64)cow_region_get_length(database->region)) {
		sqlite3_log(SQLITE_FULL,
			    "cow: %s: larger than the %lld bytes of address space reserved for it; "
			    "open it with &reserve=BYTES",
			    database_path(database),
			    (long long)cow_region_get_length(database->region));
		return SQLITE_FULL;
	}
	result = cow_region_write(database->region, (size_t)offset, buffer, (size_t)length);
	if (!result && offset == 0 && length >= HEADER_SIZE)
		result = clear_wal_version(database, buffer);
	if (result)
		return sqlite_code(result, SQLITE_IOERR_WRITE);
	if (end > database->size)
		database->size = end;
	return SQLITE_OK;
}

int database_truncate(struct database *database, sqlite3_int64 size)
{
	int result = 0;

	if (size < database->size)
		result = cow_region_discard(database->region, (size_t)size,
					    (size_t)(database->size - size));
	if (result)
		return sqlite_code(result, SQLITE_IOERR_TRUNCATE);
	database->size = size;
	return SQLITE_OK;
}
