/* SPDX-License-Identifier: MIT */
/*
 * The methods of a database file: SQLite's locks and reads and writes, put on a database's
 * generations and its writer's place.
 *
 *	lock        what it means here
 *	SHARED      holds the generation that was current; never refused, except between a writer
 *	            and readers of which one asked for locking_mode=EXCLUSIVE
 *	RESERVED    holds the writer's place, SQLITE_BUSY while another does; SQLITE_BUSY_SNAPSHOT
 *	            when the generation that was read is not current any more
 *	PENDING,    the same: readers need not go away
 *	EXCLUSIVE
 *
 * A file of the past takes locks that mean nothing.
 *
 * xFetch hands out memory of a past's view only. Live memory may not be handed out: a page that no
 * snapshot reads any more is overwritten in place while SQLite holds a pointer to it.
 */
#include <string.h>

#include "file.h"

/* Files by the address of the name of their journal: the pager calls xAccess and
 * xDelete with the very string that it laid out beside the name of the database. */
enum { NAME_BUCKETS = 256 };
static pthread_mutex_t names_mutex = PTHREAD_MUTEX_INITIALIZER; /* guards names; taken alone */
static struct file *names[NAME_BUCKETS];

static struct file **bucket_of(const char *journal_name)
{
	return &names[((uintptr_t)journal_name >> 4) % NAME_BUCKETS];
}

/* A child may open databases of its own; the parent's files are not among the names any more. */
static void forget_names_in_child(void)
{
	pthread_mutex_init(&names_mutex, NULL);
	memset(names, 0, sizeof(names));
}

int file_init(void)
{
	return pthread_atfork(NULL, NULL, forget_names_in_child) ? SQLITE_NOMEM : SQLITE_OK;
}

static void name_add(struct file *file)
{
	struct file **bucket = bucket_of(file->journal_name);

	pthread_mutex_lock(&names_mutex);
	file->next_named = *bucket;
	*bucket = file;
	pthread_mutex_unlock(&names_mutex);
}

static void name_remove(struct file *file)
{
	struct file **link = bucket_of(file->journal_name);

	pthread_mutex_lock(&names_mutex);
	while (*link && *link != file)
		link = &(*link)->next_named;
	if (*link)
		*link = file->next_named;
	pthread_mutex_unlock(&names_mutex);
}

struct file *file_of_journal_name(const char *name)
{
	struct file *file;

	pthread_mutex_lock(&names_mutex);
	for (file = *bucket_of(name); file && file->journal_name != name;)
		file = file->next_named;
	pthread_mutex_unlock(&names_mutex);
	return file;
}

static struct file *file_of(sqlite3_file *handle)
{
	return (struct file *)(void *)handle;
}

/* A fork()ed child has no database; it must not wait for locks that no thread will release. */
static bool is_parents(const struct file *file)
{
	return file->epoch != database_epoch();
}

static bool is_writer(const struct file *file)
{
	return file->lock >= SQLITE_LOCK_RESERVED;
}

static int file_close(sqlite3_file *handle)
{
	struct file *file = file_of(handle);

	if (is_parents(file))
		return SQLITE_OK;
	handle->pMethods->xUnlock(handle, SQLITE_LOCK_NONE);
	name_remove(file);
	journal_free(&file->journal);
	generation_unref(file->next);
	database_close(file->database, file->past);
	return SQLITE_OK;
}

/* The pager reads the header before its first lock. */
static int read_unlocked(struct file *file, void *buffer, int length, sqlite3_int64 offset)
{
	struct generation *generation = database_pin(file->database);
	int rc = database_read_generation(file->database, generation, buffer, length, offset);

	generation_unref(generation);
	return rc;
}

static int file_read(sqlite3_file *handle, void *buffer, int length, sqlite3_int64 offset)
{
	struct file *file = file_of(handle);

	if (is_parents(file))
		return SQLITE_IOERR_READ;
	if (file->past)
		return read_past(file->past->snapshot, file->past->size, buffer, length, offset);
	if (is_writer(file))
		return database_read_live(file->database, buffer, length, offset);
	if (!file->generation)
		return read_unlocked(file, buffer, length, offset);
	return database_read_generation(file->database, file->generation, buffer, length, offset);
}

static int begin_write(struct file *file)
{
	int rc;

	if (file->writing)
		return SQLITE_OK;
	if (!file->next)
		file->next = generation_new();
	if (!file->next)
		return SQLITE_IOERR_NOMEM;
	rc = database_begin_write(file->database);
	file->writing = rc == SQLITE_OK;
	return rc;
}

static int file_write(sqlite3_file *handle, const void *buffer, int length, sqlite3_int64 offset)
{
	struct file *file = file_of(handle);
	int rc;

	if (is_parents(file) || !is_writer(file))
		return SQLITE_IOERR_WRITE;
	rc = begin_write(file);
	if (rc != SQLITE_OK)
		return rc;
	return database_write(file->database, buffer, length, offset);
}

static int file_truncate(sqlite3_file *handle, sqlite3_int64 size)
{
	struct file *file = file_of(handle);
	int rc;

	if (is_parents(file) || !is_writer(file))
		return SQLITE_IOERR_TRUNCATE;
	rc = begin_write(file);
	if (rc != SQLITE_OK)
		return rc;
	return database_truncate(file->database, size);
}

static int file_sync(sqlite3_file *handle, int flags)
{
	return is_parents(file_of(handle)) ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}

static int file_size(sqlite3_file *handle, sqlite3_int64 *ret_size)
{
	struct file *file = file_of(handle);
	struct generation *generation;

	if (is_parents(file))
		return SQLITE_IOERR_FSTAT;
	if (file->past) {
		*ret_size = file->past->size;
	} else if (is_writer(file)) {
		*ret_size = file->database->size;
	} else if (file->generation) {
		*ret_size = file->generation->size;
	} else {
		generation = database_pin(file->database);
		*ret_size = generation->size;
		generation_unref(generation);
	}
	return SQLITE_OK;
}

/* Counts the file, or not any more, among the readers that keep writers away. */
static int count_exclusive(struct file *file, bool counted)
{
	struct database *database = file->database;
	int rc = SQLITE_OK;

	if (counted == file->counted)
		return SQLITE_OK;
	pthread_mutex_lock(&database->mutex);
	if (counted && database->writer && database->writer != file)
		rc = SQLITE_BUSY;
	else if (counted)
		database->exclusive++;
	else
		database->exclusive--;
	pthread_mutex_unlock(&database->mutex);
	if (rc == SQLITE_OK)
		file->counted = counted;
	return rc;
}

static int lock_shared(struct file *file)
{
	int rc = file->exclusive ? count_exclusive(file, true) : SQLITE_OK;

	if (rc == SQLITE_OK)
		file->generation = database_pin(file->database);
	return rc;
}

static int file_lock(sqlite3_file *handle, int level)
{
	struct file *file = file_of(handle);
	int rc = SQLITE_OK;

	if (is_parents(file))
		return SQLITE_IOERR_LOCK;
	if (level <= file->lock)
		return SQLITE_OK;
	if (!file->past && level == SQLITE_LOCK_SHARED)
		rc = lock_shared(file);
	else if (!file->past && !is_writer(file))
		rc = database_reserve(file->database, file, file->generation, file->counted);
	if (rc == SQLITE_OK)
		file->lock = level;
	return rc;
}

/* The end of a transaction that may have written. Unless it was published, it is undone; a journal
 * that SQLite could not roll back by itself would later be rolled back over the commits of others.
 */
static void release(struct file *file)
{
	if (file->writing)
		file->journal.size = 0;
	file->writing = false;
	database_release(file->database, file);
}

static int file_unlock(sqlite3_file *handle, int level)
{
	struct file *file = file_of(handle);

	if (is_parents(file))
		return SQLITE_IOERR_UNLOCK;
	if (level >= file->lock)
		return SQLITE_OK;
	if (!file->past && is_writer(file) && level < SQLITE_LOCK_RESERVED)
		release(file);
	if (!file->past && level == SQLITE_LOCK_NONE) {
		count_exclusive(file, false);
		generation_unref(file->generation);
		file->generation = NULL;
	}
	file->lock = level;
	return SQLITE_OK;
}

static int file_check_reserved(sqlite3_file *handle, int *ret_reserved)
{
	struct file *file = file_of(handle);

	if (is_parents(file))
		return SQLITE_IOERR_CHECKRESERVEDLOCK;
	*ret_reserved = 0;
	if (file->past)
		return SQLITE_OK;
	pthread_mutex_lock(&file->database->mutex);
	*ret_reserved = file->database->writer != NULL;
	pthread_mutex_unlock(&file->database->mutex);
	return SQLITE_OK;
}

/* The journal is gone: the transaction is committed. */
static int commit(struct file *file)
{
	struct generation *old = file->generation;
	int rc;

	if (!file->writing)
		return SQLITE_OK;
	rc = database_publish(file->database, file->next);
	if (rc != SQLITE_OK)
		return rc;
	file->generation = file->next;
	file->next = NULL;
	file->writing = false;
	generation_unref(old);
	return SQLITE_OK;
}

/* arguments: [0] the result or an error for SQLite to free, [1] the pragma's name, [2] its value.
 */
static int pragma(struct file *file, char **arguments)
{
	const char *value = arguments[2];

	if (!value || file->past)
		return SQLITE_NOTFOUND;
	if (sqlite3_stricmp(arguments[1], "locking_mode") == 0) {
		file->exclusive = sqlite3_stricmp(value, "exclusive") == 0;
		if (!file->exclusive)
			count_exclusive(file, false);
		else if (file->lock >= SQLITE_LOCK_SHARED)
			count_exclusive(file, true);
	}
	/* SQLite itself keeps the mode where a VFS has no shared memory, except when a connection
	 * that is alone could do without. */
	if (sqlite3_stricmp(arguments[1], "journal_mode") == 0 && file->exclusive &&
	    sqlite3_stricmp(value, "wal") == 0) {
		arguments[0] = sqlite3_mprintf("a cow database keeps no write-ahead log, and needs "
					       "none for readers beside a writer: the journal mode "
					       "stays as it is");
		return SQLITE_ERROR;
	}
	return SQLITE_NOTFOUND;
}

static int name_vfs(const struct file *file, char **ret_name)
{
	*ret_name = sqlite3_mprintf("cow(%s%s%s%s%s)", database_path(file->database),
				    file->database->name[0] ? ", branch " : "",
				    file->database->name, file->past ? ", snapshot " : "",
				    file->past ? file->past->name : "");
	return *ret_name ? SQLITE_OK : SQLITE_NOMEM;
}

static int file_control(sqlite3_file *handle, int operation, void *argument)
{
	struct file *file = file_of(handle);

	if (is_parents(file))
		return operation == SQLITE_FCNTL_COMMIT_PHASETWO ? SQLITE_IOERR : SQLITE_NOTFOUND;
	switch (operation) {
	case SQLITE_FCNTL_COMMIT_PHASETWO:
		return commit(file);
	case SQLITE_FCNTL_PRAGMA:
		return pragma(file, argument);
	case SQLITE_FCNTL_VFSNAME:
		return name_vfs(file, argument);
	default:
		return SQLITE_NOTFOUND;
	}
}

/* 512 and POWERSAFE_OVERWRITE, as the default VFS reports: so files come out the same. */
static int file_sector_size(sqlite3_file *handle)
{
	return 512;
}

static int file_characteristics(sqlite3_file *handle)
{
	return SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_SEQUENTIAL |
	       SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static int file_fetch(sqlite3_file *handle, sqlite3_int64 offset, int length, void **ret_memory)
{
	struct file *file = file_of(handle);
	const void *base;

	*ret_memory = NULL;
	if (!file->past || is_parents(file) || offset + length > file->past->size)
		return SQLITE_OK;
	if (!file->view) {
		/* A view is a convenience: without one SQLite reads. */
		if (cow_snapshot_map(file->past->snapshot, 0, &base))
			return SQLITE_OK;
		file->view = base;
	}
	*ret_memory = (void *)(uintptr_t)(file->view + offset);
	return SQLITE_OK;
}

static int file_unfetch(sqlite3_file *handle, sqlite3_int64 offset, void *memory)
{
	return SQLITE_OK;
}

static const sqlite3_io_methods file_methods = {
	.iVersion = 3,
	.xClose = file_close,
	.xRead = file_read,
	.xWrite = file_write,
	.xTruncate = file_truncate,
	.xSync = file_sync,
	.xFileSize = file_size,
	.xLock = file_lock,
	.xUnlock = file_unlock,
	.xCheckReservedLock = file_check_reserved,
	.xFileControl = file_control,
	.xSectorSize = file_sector_size,
	.xDeviceCharacteristics = file_characteristics,
	/* No xShm methods: no write-ahead log. */
	.xFetch = file_fetch,
	.xUnfetch = file_unfetch,
};

struct file *file_of_handle(sqlite3_file *handle)
{
	return handle && handle->pMethods == &file_methods ? file_of(handle) : NULL;
}

int file_open(struct file *file, const struct database_request *request)
{
	int rc = database_open(request, &file->database, &file->past);

	if (rc != SQLITE_OK)
		return rc;
	file->epoch = database_epoch();
	name_add(file);
	file->base.pMethods = &file_methods;
	return SQLITE_OK;
}
