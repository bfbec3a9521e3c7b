/* SPDX-License-Identifier: MIT */
/* The extension linked into a program that links SQLite itself. */
#include <sqlite3.h>

#include "tests/tap.h"

struct sqlite3_api_routines;
int sqlite3_cowsqlite_init(sqlite3 *connection, char **ret_error,
			   const struct sqlite3_api_routines *api);

static int keep_text(void *context, int count, char **values, char **names)
{
	snprintf(context, 64, "%s", count ? values[0] : "");
	return 0;
}

TEST(linked_statically)
{
	sqlite3 *connection = NULL;
	char text[64] = "";

	is_int(sqlite3_cowsqlite_init(NULL, NULL, NULL), SQLITE_OK_LOAD_PERMANENTLY,
	       "initialised without a connection");
	is_int(sqlite3_cowsqlite_init(NULL, NULL, NULL), SQLITE_OK_LOAD_PERMANENTLY,
	       "twice is once");
	is_int(sqlite3_open_v2("file:/cow-static?vfs=cow", &connection,
			       SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL),
	       SQLITE_OK, "opens");
	is_int(sqlite3_exec(
		       connection,
		       "CREATE TABLE t(a); INSERT INTO t VALUES('kept'); SELECT cow_snapshot('s');"
		       "DELETE FROM t; SELECT cow_rollback('s'); SELECT a FROM t",
		       keep_text, text, NULL),
	       SQLITE_OK, "every connection has the functions");
	is_str(text, "kept", "and they work");
	sqlite3_close(connection);
}

TAP_MAIN(CASE(linked_statically))
