/* SPDX-License-Identifier: MIT */
/* Bringing a real database file into a database. */
#ifndef COW_SQLITE_LOAD_H
#define COW_SQLITE_LOAD_H

#include "database.h"

/* Fills an empty database, that nobody else sees yet, with what a connection would read from path.
 */
int load_file(struct database *database, const char *path);

/* The database that this thread is loading, or NULL: where the loader's own connection goes. */
struct database *load_target(void);

#endif
