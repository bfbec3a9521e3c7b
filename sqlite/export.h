/* SPDX-License-Identifier: MIT */
#ifndef COW_SQLITE_EXPORT_H
#define COW_SQLITE_EXPORT_H

#include "database.h"

/* Writes size bytes of a snapshot to path, as a whole or not at all. An error is a text for
 * sqlite3_free() in *ret_error and an SQLite code. */
int export_snapshot(struct cow_snapshot *snapshot, sqlite3_int64 size, const char *path,
		    char **ret_error);

#endif
