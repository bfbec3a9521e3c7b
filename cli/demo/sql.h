/* SPDX-License-Identifier: MIT */
/*
 * SQLite as the demo's steps use it: each call returns 0, or -1 after demo_fail() has noted what
 * SQLite, and the VFS through SQLite's log, had to say. Formats are those of sqlite3_mprintf().
 */
#ifndef CLI_DEMO_SQL_H
#define CLI_DEMO_SQL_H

#include <sqlite3.h>

#include "cli/demo/demo.h"

/* Before the first connection of a process: the log, and with it the VFS where wanted. */
int sql_begin(struct demo *demo, bool with_cow);

/* "file:PATH?QUERY", with what means something in a URI escaped. For sqlite3_free(). */
char *sql_uri(const char *path, const char *query);

int sql_open(struct demo *demo, const char *name, int flags, sqlite3 **ret_connection);
/* The cow database of a path. */
int sql_open_cow(struct demo *demo, const char *path, const char *query, sqlite3 **ret_connection);

int sql_exec(struct demo *demo, sqlite3 *connection, const char *format, ...);
/* The integers of the first row. */
int sql_row(struct demo *demo, sqlite3 *connection, int64_t values[], int count, const char *format,
	    ...);
int sql_prepare(struct demo *demo, sqlite3 *connection, const char *text,
		sqlite3_stmt **ret_statement);
/* Runs a prepared statement that gives no rows, or one that nobody looks at. */
int sql_run(struct demo *demo, sqlite3 *connection, sqlite3_stmt *statement);

int sql_failed(struct demo *demo, sqlite3 *connection, const char *what);

#endif
