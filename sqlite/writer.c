/* SPDX-License-Identifier: MIT */
/*
 * The writer of a database: its place, its changes, and how these become the next generation.
 *
 * A transaction, as SQLite's pager drives it:
 *
 *	RESERVED           database_reserve(): one at a time, and only from the current generation
 *	first xWrite       database_begin_write()
 *	xWrite             small transactions wait in `pending`, beside the region
 *	more than fits,    database_make_live(): the committed state gets its snapshot, which
 *	xTruncate, a read  readers read from now on, and changes go to live at once
 *	COMMIT_PHASETWO    database_publish(): live is the current generation, the old one goes
 *	                   away with its last reader, and its frames are used again
 *	unlock             database_release(): after anything but a commit live is set back to the
 *	                   snapshot, whatever the journal could or could not restore
 *
 * What waits in `pending` until its commit is put into the region under the database's mutex, if
 * nobody reads the generation that it replaces: then no snapshot and no copy of the old pages is
 * needed. Readers that arrive meanwhile wait for a few copies of memory, never for a transaction.
 * Where somebody does read, the snapshot is made first.
 */
#include <errno.h>
#include <string.h>

#include "header.h"
#include "table.h"

enum { PENDING_WRITES = 64, PENDING_BYTES = 96 * 1024 };

struct pending {
	bool open; /* writes may be added */
	int count;
	int used; /* of bytes */
	struct {
		sqlite3_int64 offset;
		int length;
	} writes[PENDING_WRITES];
	unsigned char bytes[PENDING_BYTES]; /* one write's after the other's */
};

/* Counters are 32 bits and wrap; so "above" is meant as for sequence numbers. */
static bool is_above(uint32_t value, uint32_t other)
{
	return (int32_t)(value - other) > 0;
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

	if (database->pending && database->pending->open) {
		database->pending->open = false;
		database->size = database->current->size;
	}
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
	/* Left over from a transaction that could not be undone. */
	if (database->wrote) {
		int result = database_undo(database);

		if (result)
			return sqlite_code(result, SQLITE_IOERR_WRITE);
	}
	if (!database->pending)
		database->pending = sqlite3_malloc64(sizeof(*database->pending));
	if (!database->pending)
		return SQLITE_IOERR_NOMEM;
	database->pending->open = true;
	database->pending->count = 0;
	database->pending->used = 0;
	return SQLITE_OK;
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

static int write_live(struct database *database, const void *buffer, int length,
		      sqlite3_int64 offset)
{
	int result = cow_region_write(database->region, (size_t)offset, buffer, (size_t)length);

	if (!result && offset == 0 && length >= HEADER_SIZE)
		result = clear_wal_version(database, buffer);
	return result;
}

static int write_pending(struct database *database)
{
	const struct pending *pending = database->pending;
	const unsigned char *bytes = pending->bytes;
	int i, result = 0;

	for (i = 0; i < pending->count && !result; i++) {
		result = write_live(database, bytes, pending->writes[i].length,
				    pending->writes[i].offset);
		bytes += pending->writes[i].length;
	}
	return result;
}

int database_make_live(struct database *database)
{
	int result;

	if (database->wrote)
		return SQLITE_OK;
	pthread_mutex_lock(&database->mutex);
	result = generation_cut(database);
	pthread_mutex_unlock(&database->mutex);
	if (result)
		return sqlite_code(result, SQLITE_IOERR_WRITE);
	database->wrote = true;
	database->pending->open = false;
	return sqlite_code(write_pending(database), SQLITE_IOERR_WRITE);
}

static void close_pending(struct database *database, int count)
{
	const struct pending *pending = database->pending;
	char *base = cow_region_get_base(database->region);

	while (count-- > 0)
		cow_region_write_end(database->region, base + pending->writes[count].offset,
				     (size_t)pending->writes[count].length);
}

/* All that can fail, before anything changes: all or none of the brackets are open afterwards. */
static int open_pending(struct database *database)
{
	const struct pending *pending = database->pending;
	char *base = cow_region_get_base(database->region);
	int i, result = 0;

	for (i = 0; i < pending->count; i++) {
		result = cow_region_write_begin(database->region, base + pending->writes[i].offset,
						(size_t)pending->writes[i].length);
		if (result) {
			close_pending(database, i);
			return result;
		}
	}
	return 0;
}

static void store_pending(struct database *database)
{
	const struct pending *pending = database->pending;
	const unsigned char *bytes = pending->bytes;
	char *base = cow_region_get_base(database->region);
	int i;

	for (i = 0; i < pending->count; i++) {
		memcpy(base + pending->writes[i].offset, bytes, (size_t)pending->writes[i].length);
		bytes += pending->writes[i].length;
	}
}

/* The first page holds the change counter: where it is among the writes, nothing that follows them
 * can fail. SQLite writes it in every transaction. */
static bool is_first_page_pending(const struct pending *pending)
{
	int i;

	for (i = 0; i < pending->count; i++)
		if (pending->writes[i].offset == 0 && pending->writes[i].length >= HEADER_SIZE)
			return true;
	return false;
}

/* With the mutex held. -EAGAIN: the generation is to be kept for its readers. */
static int replace_unread(struct database *database)
{
	struct cow_snapshot *snapshot;

	if (!database_has_one_reader(database) || !is_first_page_pending(database->pending))
		return -EAGAIN;
	snapshot = atomic_exchange_explicit(&database->current->snapshot, NULL,
					    memory_order_acq_rel);
	cow_snapshot_unref(snapshot);
	if (open_pending(database))
		return -EAGAIN;
	store_pending(database);
	close_pending(database, database->pending->count);
	return clear_wal_version(database, cow_region_get_base(database->region));
}

/* With the mutex held. */
static int seal_and_switch(struct database *database, struct generation *next,
			   struct generation **ret_old)
{
	uint32_t counter, cookie;
	int result = seal_header(database, &counter, &cookie);

	if (result)
		return result;
	next->size = database->size;
	database->counter_max = counter;
	database->cookie_max = cookie;
	*ret_old = database->current;
	database->current = generation_ref(next);
	return 0;
}

static int publish_pending(struct database *database, struct generation *next,
			   struct generation **ret_old)
{
	int result;

	pthread_mutex_lock(&database->mutex);
	result = replace_unread(database);
	if (!result)
		result = seal_and_switch(database, next, ret_old);
	pthread_mutex_unlock(&database->mutex);
	return result;
}

int database_publish(struct database *database, struct generation *next)
{
	struct generation *old = NULL;
	int rc, result = -EAGAIN;

	if (!database->wrote)
		result = publish_pending(database, next, &old);
	if (result == -EAGAIN) {
		rc = database_make_live(database);
		if (rc != SQLITE_OK)
			return rc;
		pthread_mutex_lock(&database->mutex);
		result = seal_and_switch(database, next, &old);
		pthread_mutex_unlock(&database->mutex);
	}
	if (result)
		return sqlite_code(result, SQLITE_IOERR_WRITE);
	database->wrote = false;
	database->pending->open = false;
	generation_unref(old);
	return SQLITE_OK;
}

int database_read_live(struct database *database, void *buffer, int length, sqlite3_int64 offset)
{
	int inside = bytes_below(database->size, length, offset);
	int result = 0;

	if (database->pending && database->pending->open && database->pending->count > 0) {
		int rc = database_make_live(database);

		if (rc != SQLITE_OK)
			return rc;
	}
	if (inside > 0)
		result = cow_region_read(database->region, (size_t)offset, buffer, (size_t)inside);
	if (result)
		return sqlite_code(result, SQLITE_IOERR_READ);
	return fill_rest(buffer, inside, length);
}

static bool add_pending(struct pending *pending, const void *buffer, int length,
			sqlite3_int64 offset)
{
	if (!pending->open || pending->count == PENDING_WRITES ||
	    length > PENDING_BYTES - pending->used)
		return false;
	pending->writes[pending->count].offset = offset;
	pending->writes[pending->count].length = length;
	memcpy(pending->bytes + pending->used, buffer, (size_t)length);
	pending->count++;
	pending->used += length;
	return true;
}

int database_write(struct database *database, const void *buffer, int length, sqlite3_int64 offset)
{
	sqlite3_int64 end = offset + length;

	if (end > (sqlite3_int64)cow_region_get_length(database->region)) {
		sqlite3_log(SQLITE_FULL,
			    "cow: %s: larger than the %lld bytes of address space reserved for it; "
			    "open it with &reserve=BYTES",
			    database_path(database),
			    (long long)cow_region_get_length(database->region));
		return SQLITE_FULL;
	}
	if (!add_pending(database->pending, buffer, length, offset)) {
		int rc = database_make_live(database);

		if (rc == SQLITE_OK)
			rc = sqlite_code(write_live(database, buffer, length, offset),
					 SQLITE_IOERR_WRITE);
		if (rc != SQLITE_OK)
			return rc;
	}
	if (end > database->size)
		database->size = end;
	return SQLITE_OK;
}

int database_truncate(struct database *database, sqlite3_int64 size)
{
	int result = 0, rc = database_make_live(database);

	if (rc != SQLITE_OK)
		return rc;
	if (size < database->size)
		result = cow_region_discard(database->region, (size_t)size,
					    (size_t)(database->size - size));
	if (result)
		return sqlite_code(result, SQLITE_IOERR_TRUNCATE);
	database->size = size;
	return SQLITE_OK;
}
