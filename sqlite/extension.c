/* SPDX-License-Identifier: MIT */
/*
 * The entry points. Loading, once in a process, registers the VFS "cow" and has every later
 * connection given the functions; the library then stays loaded, since databases outlive the
 * connection that loaded it. The connection that loads gets the functions too.
 *
 * Statically linked (built with SQLITE_CORE), before the first connection:
 *
 *	int sqlite3_cowsqlite_init(sqlite3 *, char **, const sqlite3_api_routines *);
 *	sqlite3_cowsqlite_init(NULL, NULL, NULL);
 */
#include <pthread.h>

#define COW_SQLITE_MAIN
#include "sqlite.h"

SQLITE_EXTENSION_INIT1

#include "cow.h"
#include "file.h"
#include "functions.h"
#include "store.h"
#include "vfs.h"

/* sqlite3_txn_state() and the rest are there since 3.34; 3.40 is what is tested. */
enum { LEAST_SQLITE = 3040000 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int once_result;

static int give_functions(sqlite3 *connection, char **ret_error, const sqlite3_api_routines *api)
{
	int rc = functions_register(connection);

	return rc == SQLITE_OK ? lists_register(connection) : rc;
}

static void register_process(void)
{
	sqlite3_vfs *loader = sqlite3_vfs_find(NULL);

	once_result = loader ? database_init(loader) : SQLITE_ERROR;
	if (once_result == SQLITE_OK)
		once_result = file_init();
	if (once_result == SQLITE_OK)
		once_result = store_init();
	if (once_result == SQLITE_OK)
		once_result = vfs_register(loader);
	if (once_result == SQLITE_OK)
		once_result = sqlite3_auto_extension((void (*)(void))give_functions);
}

COW_API int sqlite3_cowsqlite_init(sqlite3 *connection, char **ret_error,
				   const sqlite3_api_routines *api);

int sqlite3_cowsqlite_init(sqlite3 *connection, char **ret_error, const sqlite3_api_routines *api)
{
	int rc;

	SQLITE_EXTENSION_INIT2(api);
	if (sqlite3_libversion_number() < LEAST_SQLITE) {
		if (ret_error)
			*ret_error = sqlite3_mprintf("cow_sqlite needs SQLite 3.40 or later, this "
						     "is %s",
						     sqlite3_libversion());
		return SQLITE_ERROR;
	}
#ifdef SQLITE_CORE
	if (sqlite3_initialize() != SQLITE_OK)
		return SQLITE_ERROR;
#endif
	pthread_once(&once, register_process);
	rc = once_result;
	if (rc == SQLITE_OK && connection)
		rc = give_functions(connection, ret_error, api);
	return rc == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc;
}

#ifndef SQLITE_CORE
/* The name that a loader tries first; linked statically it would clash with other extensions'. */
COW_API int sqlite3_extension_init(sqlite3 *connection, char **ret_error,
				   const sqlite3_api_routines *api);

int sqlite3_extension_init(sqlite3 *connection, char **ret_error, const sqlite3_api_routines *api)
{
	return sqlite3_cowsqlite_init(connection, ret_error, api);
}
#endif
