/* SPDX-License-Identifier: MIT */
/*
 * Databases in stores: directories of layers, written by cow_save() and opened with store=1.
 *
 * A layer is the region, which is larger than the database; how much of it the database is stands
 * in the layer's state. A layer without that state (an imported image) is taken for a database file
 * as it is, and its size for that of the file.
 */
#ifndef COW_SQLITE_STORE_H
#define COW_SQLITE_STORE_H

#include "database.h"

int store_init(void);

/* Saves a state of a database into the store at path, made where there is none. tag may be NULL.
 * *ret_id is for sqlite3_free(). */
int store_save_database(struct cow_snapshot *snapshot, sqlite3_int64 size, const char *path,
			const char *tag, char **ret_id, char **ret_error);

/* A region with what a layer holds: that of a tag or an identity, or with NULL the newest. reserve:
 * what the database can grow to, where the layer itself says nothing; 0: a default. Messages go to
 * sqlite3_log(). */
int store_load_database(const char *path, const char *tag, sqlite3_int64 reserve,
			struct cow_region **ret_region, sqlite3_int64 *ret_size);

#endif
