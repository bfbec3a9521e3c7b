/* SPDX-License-Identifier: MIT */
/*
 * The VFS "cow": which file goes where.
 *
 *	main database           a database of this process (database.h)
 *	its rollback journal    memory beside the connection's file (journal.c)
 *	write-ahead log         never
 *	super-journal           the default VFS. SQLite makes one only when two or more real files
 *	                        are in one transaction, since ours report that they are in memory;
 *	                        without it on disk a crash would tear those files
 *	temporary files, and    the default VFS
 *	what is no file
 *
 * No real file with the name of a database's journal or log is ever looked at: it belongs to the
 * real database of that path.
 */
#include <string.h>

#include "file.h"
#include "vfs.h"

static sqlite3_vfs cow_vfs;

static sqlite3_vfs *below(void)
{
	return database_loader();
}

static bool has_suffix(const char *name, const char *suffix)
{
	size_t length = strlen(name), suffix_length = strlen(suffix);

	return length >= suffix_length && strcmp(name + length - suffix_length, suffix) == 0;
}

/* Of a journal or a write-ahead log that is not a real file. */
static bool is_ours(const char *name)
{
	return has_suffix(name, "-journal") || has_suffix(name, "-wal");
}

static const char *parameter(const char *name, const char *key)
{
	const char *value = sqlite3_uri_parameter(name, key);

	return value && value[0] ? value : NULL;
}

/* Bytes, or with K, M, G or T behind. -1: not a size. */
static sqlite3_int64 parse_size(const char *text)
{
	static const char units[] = "KMGT";
	sqlite3_int64 size = 0;
	const char *unit;

	if (!text)
		return 0;
	for (; *text >= '0' && *text <= '9' && size < (sqlite3_int64)1 << 50; text++)
		size = size * 10 + (*text - '0');
	unit = *text ? strchr(units, *text & ~0x20) : NULL;
	if (*text && (!unit || text[1]))
		return -1;
	if (unit)
		size <<= 10 * (unit - units + 1);
	return size > 0 && size <= (sqlite3_int64)1 << 44 ? size : -1;
}

static int refuse_open(const char *name, const char *why)
{
	sqlite3_log(SQLITE_CANTOPEN, "cow: %s: %s", name, why);
	return SQLITE_CANTOPEN;
}

static int open_database(const char *name, struct file *file, int flags, int *ret_flags)
{
	struct database_request request = { 0 };
	int rc;

	memset(file, 0, sizeof(*file));
	if (!name)
		return refuse_open("(no name)", "a cow database needs a name");
	request.path = name;
	request.branch = parameter(name, "branch");
	request.snapshot = parameter(name, "snapshot");
	request.store = sqlite3_uri_boolean(name, "store", 0) != 0;
	request.tag = parameter(name, "tag");
	request.reserve = parse_size(parameter(name, "reserve"));
	request.create = (flags & SQLITE_OPEN_CREATE) != 0;
	if (request.reserve < 0)
		return refuse_open(name,
				   "reserve= is to be a number of bytes up to 16T, such as 64G");
	if (request.tag && !request.store)
		return refuse_open(name, "tag= is for stores: add store=1");
	if (!request.snapshot &&
	    (sqlite3_uri_boolean(name, "nolock", 0) || sqlite3_uri_boolean(name, "immutable", 0)))
		return refuse_open(name, "nolock and immutable are for snapshots only");
	file->journal_name = sqlite3_filename_journal(name);
	rc = file_open(file, &request);
	if (rc != SQLITE_OK)
		return rc;
	if (ret_flags) {
		*ret_flags = flags | SQLITE_OPEN_MEMORY;
		if (request.snapshot)
			*ret_flags = (*ret_flags & ~SQLITE_OPEN_READWRITE) | SQLITE_OPEN_READONLY;
	}
	return SQLITE_OK;
}

static int open_journal(const char *name, struct journal_file *handle, int flags, int *ret_flags)
{
	struct file *owner = file_of_handle(sqlite3_database_file_object(name));

	if (!owner)
		return SQLITE_CANTOPEN;
	if (ret_flags)
		*ret_flags = flags;
	return journal_open(handle, owner, flags);
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *handle, int flags,
		    int *ret_flags)
{
	handle->pMethods = NULL;
	if (flags & SQLITE_OPEN_MAIN_DB)
		return open_database(name, (struct file *)(void *)handle, flags, ret_flags);
	if (flags & SQLITE_OPEN_MAIN_JOURNAL)
		return open_journal(name, (struct journal_file *)(void *)handle, flags, ret_flags);
	if (flags & SQLITE_OPEN_WAL)
		return refuse_open(name, "a cow database keeps no write-ahead log");
	return below()->xOpen(below(), name, handle, flags, ret_flags);
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_directory)
{
	struct file *file = file_of_journal_name(name);

	if (file)
		journal_delete(&file->journal);
	if (file || is_ours(name))
		return SQLITE_OK;
	return below()->xDelete(below(), name, sync_directory);
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret_result)
{
	struct file *file;

	*ret_result = 0;
	/* Twice for each read transaction, so the usual answer is to be cheap. */
	if (is_ours(name) && !journal_any())
		return SQLITE_OK;
	file = file_of_journal_name(name);
	if (file)
		*ret_result = file->journal.exists;
	if (file || is_ours(name))
		return SQLITE_OK;
	return below()->xAccess(below(), name, flags, ret_result);
}

static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int size, char *ret_path)
{
	return below()->xFullPathname(below(), name, size, ret_path);
}

static void *vfs_dl_open(sqlite3_vfs *vfs, const char *name)
{
	return below()->xDlOpen(below(), name);
}

static void vfs_dl_error(sqlite3_vfs *vfs, int size, char *ret_message)
{
	below()->xDlError(below(), size, ret_message);
}

static void (*vfs_dl_symbol(sqlite3_vfs *vfs, void *library, const char *name))(void)
{
	return below()->xDlSym(below(), library, name);
}

static void vfs_dl_close(sqlite3_vfs *vfs, void *library)
{
	below()->xDlClose(below(), library);
}

static int vfs_randomness(sqlite3_vfs *vfs, int size, char *ret_bytes)
{
	return below()->xRandomness(below(), size, ret_bytes);
}

static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
	return below()->xSleep(below(), microseconds);
}

static int vfs_current_time(sqlite3_vfs *vfs, double *ret_days)
{
	return below()->xCurrentTime(below(), ret_days);
}

static int vfs_last_error(sqlite3_vfs *vfs, int size, char *ret_message)
{
	return below()->xGetLastError ? below()->xGetLastError(below(), size, ret_message) : 0;
}

static int vfs_current_time_ms(sqlite3_vfs *vfs, sqlite3_int64 *ret_time)
{
	return below()->xCurrentTimeInt64(below(), ret_time);
}

static int larger(int one, int other)
{
	return one > other ? one : other;
}

int vfs_register(sqlite3_vfs *loader)
{
	cow_vfs = (sqlite3_vfs){
		.iVersion = loader->iVersion >= 2 ? 2 : 1,
		/* Temporary files are the default VFS's own objects. */
		.szOsFile = larger(larger(sizeof(struct file), sizeof(struct journal_file)),
				   loader->szOsFile),
		.mxPathname = loader->mxPathname,
		.zName = "cow",
		.xOpen = vfs_open,
		.xDelete = vfs_delete,
		.xAccess = vfs_access,
		.xFullPathname = vfs_full_pathname,
		.xDlOpen = vfs_dl_open,
		.xDlError = vfs_dl_error,
		.xDlSym = vfs_dl_symbol,
		.xDlClose = vfs_dl_close,
		.xRandomness = vfs_randomness,
		.xSleep = vfs_sleep,
		.xCurrentTime = vfs_current_time,
		.xGetLastError = vfs_last_error,
		.xCurrentTimeInt64 = loader->iVersion >= 2 ? vfs_current_time_ms : NULL,
	};
	return sqlite3_vfs_register(&cow_vfs, 0);
}
