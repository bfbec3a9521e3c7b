/* SPDX-License-Identifier: MIT */
#include "cli/demo/sql.h"

#include <pthread.h>
#include <stdarg.h>
#include <string.h>

/* The extension, linked statically; this is the prototype that its entry point documents. */
int sqlite3_cowsqlite_init(sqlite3 *connection, char **ret_error, const void *api);

enum { BUSY_MS = 10000 };

/* The last message that the VFS logged: it knows more than the result code that SQLite hands on. */
static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER; /* guards logged */
static char logged[512];

static void note_message(void *context, int code, const char *message)
{
	if (strncmp(message, "cow: ", 5) != 0)
		return;
	pthread_mutex_lock(&log_mutex);
	snprintf(logged, sizeof(logged), "%s", message + 5);
	pthread_mutex_unlock(&log_mutex);
}

int sql_begin(struct demo *demo, bool with_cow)
{
	int rc;

	sqlite3_config(SQLITE_CONFIG_LOG, note_message, NULL);
	rc = with_cow ? sqlite3_cowsqlite_init(NULL, NULL, NULL) : sqlite3_initialize();
	if (rc != SQLITE_OK && rc != SQLITE_OK_LOAD_PERMANENTLY)
		return demo_fail(demo, "cannot start SQLite: %s", sqlite3_errstr(rc));
	return 0;
}

static bool is_plain(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
	       (c && strchr("/._-~", c));
}

char *sql_uri(const char *path, const char *query)
{
	sqlite3_str *uri = sqlite3_str_new(NULL);

	sqlite3_str_appendall(uri, "file:");
	for (; *path; path++)
		if (is_plain(*path))
			sqlite3_str_appendchar(uri, 1, *path);
		else
			sqlite3_str_appendf(uri, "%%%02X", (unsigned int)(unsigned char)*path);
	sqlite3_str_appendf(uri, "?%s", query);
	return sqlite3_str_finish(uri);
}

int sql_failed(struct demo *demo, sqlite3 *connection, const char *what)
{
	const char *error = connection ? sqlite3_errmsg(connection) : "out of memory";
	bool full = connection && sqlite3_errcode(connection) == SQLITE_FULL, more;

	pthread_mutex_lock(&log_mutex);
	more = logged[0] && !strstr(logged, error);
	demo_fail(
		demo, "%s: %s%s%s%s", what, logged[0] ? logged : error,
		more ? "; SQLite says: " : "", more ? error : "",
		full ? "; set TMPDIR, or --keep, to a place with more room, or ask for fewer rows" :
		       "");
	pthread_mutex_unlock(&log_mutex);
	return -1;
}

int sql_open(struct demo *demo, const char *name, int flags, sqlite3 **ret_connection)
{
	sqlite3 *connection;

	if (!name)
		return demo_fail(demo, "out of memory");
	if (sqlite3_open_v2(name, &connection, flags | SQLITE_OPEN_URI, NULL) != SQLITE_OK) {
		sql_failed(demo, connection, "cannot open the database");
		sqlite3_close(connection);
		return -1;
	}
	sqlite3_busy_timeout(connection, BUSY_MS);
	*ret_connection = connection;
	return 0;
}

int sql_open_cow(struct demo *demo, const char *path, const char *query, sqlite3 **ret_connection)
{
	char *uri = sql_uri(path, query);
	int result = sql_open(demo, uri, SQLITE_OPEN_READWRITE, ret_connection);

	sqlite3_free(uri);
	return result;
}

int sql_exec(struct demo *demo, sqlite3 *connection, const char *format, ...)
{
	va_list arguments;
	char *text;
	int rc = SQLITE_NOMEM;

	va_start(arguments, format);
	text = sqlite3_vmprintf(format, arguments);
	va_end(arguments);
	if (text)
		rc = sqlite3_exec(connection, text, NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		sql_failed(demo, text ? connection : NULL, text ? text : "SQL");
	sqlite3_free(text);
	return rc == SQLITE_OK ? 0 : -1;
}

int sql_prepare(struct demo *demo, sqlite3 *connection, const char *text,
		sqlite3_stmt **ret_statement)
{
	if (!text)
		return demo_fail(demo, "out of memory");
	if (sqlite3_prepare_v3(connection, text, -1, SQLITE_PREPARE_PERSISTENT, ret_statement,
			       NULL) != SQLITE_OK)
		return sql_failed(demo, connection, text);
	return 0;
}

int sql_run(struct demo *demo, sqlite3 *connection, sqlite3_stmt *statement)
{
	int rc = sqlite3_step(statement);

	if (rc == SQLITE_ROW || rc == SQLITE_DONE)
		rc = sqlite3_reset(statement);
	if (rc == SQLITE_OK)
		return 0;
	sql_failed(demo, connection, sqlite3_sql(statement));
	sqlite3_reset(statement);
	return -1;
}

int sql_row(struct demo *demo, sqlite3 *connection, int64_t values[], int count, const char *format,
	    ...)
{
	sqlite3_stmt *statement = NULL;
	va_list arguments;
	int result, i;
	char *text;

	va_start(arguments, format);
	text = sqlite3_vmprintf(format, arguments);
	va_end(arguments);
	result = sql_prepare(demo, connection, text, &statement);
	if (result == 0 && sqlite3_step(statement) != SQLITE_ROW)
		result = sql_failed(demo, connection, text);
	for (i = 0; result == 0 && i < count; i++)
		values[i] = sqlite3_column_int64(statement, i);
	sqlite3_finalize(statement);
	sqlite3_free(text);
	return result;
}
