/* SPDX-License-Identifier: MIT */
/*
 * Rollback journals in memory, for journal_mode DELETE, TRUNCATE and PERSIST (MEMORY keeps its own
 * inside SQLite).
 *
 * SQLite writes the name of a super-journal at the end of a journal when several files take part in
 * a commit, and asks on a rollback whether it still exists: if not, the transaction is taken for
 * committed and nothing is rolled back. That is meant for what is found after a crash. A journal
 * here never outlives its process, so a rollback of it is always to be done: the name is not shown.
 *
 * Nothing but growth can fail, so that a journal's end, which is the commit, cannot.
 */
#include <string.h>

#include "file.h"

enum {
	SUPER_TRAILER = 8,          /* bytes of the mark that ends a super-journal's name */
	KEPT_CAPACITY = 256 * 1024, /* memory that stays for the next transaction */
	LEAST_CAPACITY = 16 * 1024,
};

static atomic_uint existing;

bool journal_any(void)
{
	return atomic_load_explicit(&existing, memory_order_relaxed) > 0;
}

void journal_delete(struct journal *journal)
{
	if (!journal->exists)
		return;
	journal->exists = false;
	journal->size = 0;
	atomic_fetch_sub_explicit(&existing, 1, memory_order_relaxed);
	if (journal->capacity <= KEPT_CAPACITY)
		return;
	sqlite3_free(journal->bytes);
	journal->bytes = NULL;
	journal->capacity = 0;
}

void journal_free(struct journal *journal)
{
	journal_delete(journal);
	sqlite3_free(journal->bytes);
	journal->bytes = NULL;
	journal->capacity = 0;
}

static struct journal *journal_of(sqlite3_file *handle)
{
	return &((struct journal_file *)(void *)handle)->owner->journal;
}

static int journal_close(sqlite3_file *handle)
{
	return SQLITE_OK;
}

static int journal_read(sqlite3_file *handle, void *buffer, int length, sqlite3_int64 offset)
{
	const struct journal *journal = journal_of(handle);
	sqlite3_int64 inside = journal->size - offset;

	if (inside < 0)
		inside = 0;
	if (inside > length)
		inside = length;
	/* Nothing else reads exactly the last eight bytes: records and headers are longer. */
	if (length == SUPER_TRAILER && offset == journal->size - SUPER_TRAILER)
		memset(buffer, 0, SUPER_TRAILER);
	else if (inside > 0)
		memcpy(buffer, journal->bytes + offset, (size_t)inside);
	if (inside == length)
		return SQLITE_OK;
	memset((char *)buffer + inside, 0, (size_t)(length - inside));
	return SQLITE_IOERR_SHORT_READ;
}

static int journal_grow(struct journal *journal, sqlite3_int64 size)
{
	sqlite3_int64 capacity = journal->capacity ? journal->capacity : LEAST_CAPACITY;
	unsigned char *bytes;

	while (capacity < size)
		capacity *= 2;
	bytes = sqlite3_realloc64(journal->bytes, (sqlite3_uint64)capacity);
	if (!bytes)
		return SQLITE_IOERR_NOMEM;
	journal->bytes = bytes;
	journal->capacity = capacity;
	return SQLITE_OK;
}

static int journal_write(sqlite3_file *handle, const void *buffer, int length, sqlite3_int64 offset)
{
	struct journal *journal = journal_of(handle);
	sqlite3_int64 end = offset + length;

	if (end > journal->capacity && journal_grow(journal, end) != SQLITE_OK)
		return SQLITE_IOERR_NOMEM;
	if (offset > journal->size)
		memset(journal->bytes + journal->size, 0, (size_t)(offset - journal->size));
	memcpy(journal->bytes + offset, buffer, (size_t)length);
	if (end > journal->size)
		journal->size = end;
	return SQLITE_OK;
}

static int journal_truncate(sqlite3_file *handle, sqlite3_int64 size)
{
	struct journal *journal = journal_of(handle);

	if (size < journal->size)
		journal->size = size;
	return SQLITE_OK;
}

static int journal_sync(sqlite3_file *handle, int flags)
{
	return SQLITE_OK;
}

static int journal_size(sqlite3_file *handle, sqlite3_int64 *ret_size)
{
	*ret_size = journal_of(handle)->size;
	return SQLITE_OK;
}

static int journal_no_lock(sqlite3_file *handle, int level)
{
	return SQLITE_OK;
}

static int journal_not_reserved(sqlite3_file *handle, int *ret_reserved)
{
	*ret_reserved = 0;
	return SQLITE_OK;
}

static int journal_control(sqlite3_file *handle, int operation, void *argument)
{
	return SQLITE_NOTFOUND;
}

static int journal_sector_size(sqlite3_file *handle)
{
	return 512;
}

static int journal_characteristics(sqlite3_file *handle)
{
	return SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_SEQUENTIAL |
	       SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static const sqlite3_io_methods journal_methods = {
	.iVersion = 1,
	.xClose = journal_close,
	.xRead = journal_read,
	.xWrite = journal_write,
	.xTruncate = journal_truncate,
	.xSync = journal_sync,
	.xFileSize = journal_size,
	.xLock = journal_no_lock,
	.xUnlock = journal_no_lock,
	.xCheckReservedLock = journal_not_reserved,
	.xFileControl = journal_control,
	.xSectorSize = journal_sector_size,
	.xDeviceCharacteristics = journal_characteristics,
};

int journal_open(struct journal_file *handle, struct file *owner, int flags)
{
	struct journal *journal = &owner->journal;

	if (!journal->exists && !(flags & SQLITE_OPEN_CREATE))
		return SQLITE_CANTOPEN;
	if (!journal->exists) {
		journal->exists = true;
		journal->size = 0;
		atomic_fetch_add_explicit(&existing, 1, memory_order_relaxed);
	}
	handle->owner = owner;
	handle->base.pMethods = &journal_methods;
	return SQLITE_OK;
}
