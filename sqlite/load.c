/* SPDX-License-Identifier: MIT */
/*
 * Bringing a real database file into a database: SQLite's backup API copies it, from a connection
 * on the default VFS to one on ours. So what is loaded is what any connection would read: a
 * write-ahead log is taken into account, locks of other processes are respected.
 *
 * The file is opened read-only. Only where SQLite cannot read it that way, because a process died
 * and left a journal to be rolled back or a log to be recovered, it is opened as any program opens
 * it, and SQLite recovers it as it would for any reader. Nothing else ever writes to it.
 */
#include <sys/stat.h>

#include "load.h"

/* How long a writer in another process may hold the file. */
enum { LOAD_BUSY_MS = 5000 };

static _Thread_local struct database *target;

struct database *load_target(void)
{
	return target;
}

static int count_pages(sqlite3 *source, sqlite3_int64 *ret_pages)
{
	sqlite3_stmt *statement = NULL;
	int rc = sqlite3_prepare_v2(source, "PRAGMA page_count", -1, &statement, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(statement);
	if (rc == SQLITE_ROW)
		*ret_pages = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int copy_all(sqlite3 *source, struct database *database, const char *path)
{
	sqlite3 *destination = NULL;
	sqlite3_backup *backup;
	int rc;

	target = database;
	rc = sqlite3_open_v2(path, &destination,
			     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_PRIVATECACHE,
			     "cow");
	target = NULL;
	if (rc != SQLITE_OK)
		goto out;
	backup = sqlite3_backup_init(destination, "main", source, "main");
	if (!backup) {
		rc = sqlite3_extended_errcode(destination);
		goto out;
	}
	do
		rc = sqlite3_backup_step(backup, -1);
	while (rc == SQLITE_BUSY || rc == SQLITE_LOCKED ? sqlite3_sleep(1) >= 0 : 0);
	rc = sqlite3_backup_finish(backup);
out:
	sqlite3_close(destination);
	return rc;
}

static int load_with(struct database *database, const char *path, int access)
{
	sqlite3_int64 pages = 0;
	sqlite3 *source = NULL;
	int rc;

	rc = sqlite3_open_v2(path, &source, access | SQLITE_OPEN_PRIVATECACHE,
			     database_loader()->zName);
	if (rc != SQLITE_OK)
		goto out;
	sqlite3_extended_result_codes(source, 1);
	sqlite3_busy_timeout(source, LOAD_BUSY_MS);
	/* A log that we did not write stays as it is. */
	sqlite3_db_config(source, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
	rc = sqlite3_exec(source, "BEGIN", NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = count_pages(source, &pages);
	/* The backup of a file of zero bytes would have one page. */
	if (rc == SQLITE_OK && pages > 0)
		rc = copy_all(source, database, path);
out:
	sqlite3_close(source);
	return rc;
}

int load_file(struct database *database, const char *path)
{
	struct stat status;
	int rc;

	if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
		sqlite3_log(SQLITE_CANTOPEN, "cow: %s is a directory", path);
		return SQLITE_CANTOPEN;
	}
	database->loading = true;
	rc = load_with(database, path, SQLITE_OPEN_READONLY);
	if (rc == SQLITE_READONLY_ROLLBACK || rc == SQLITE_READONLY_RECOVERY ||
	    rc == SQLITE_READONLY_CANTINIT || (rc & 0xff) == SQLITE_CANTOPEN)
		rc = load_with(database, path, SQLITE_OPEN_READWRITE);
	database->loading = false;
	if (rc != SQLITE_OK)
		sqlite3_log(rc, "cow: %s cannot be loaded: %s", path, sqlite3_errstr(rc));
	return rc;
}
