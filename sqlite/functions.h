/* SPDX-License-Identifier: MIT */
#ifndef COW_SQLITE_FUNCTIONS_H
#define COW_SQLITE_FUNCTIONS_H

#include "sqlite.h"

struct file;

/* Gives a connection the SQL functions, and the table-valued ones. */
int functions_register(sqlite3 *connection);
int lists_register(sqlite3 *connection);

/* The file that a schema of a connection is open on. NULL: *ret_error says why. */
struct file *file_of_schema(sqlite3 *connection, const char *schema, char **ret_error);

#endif
