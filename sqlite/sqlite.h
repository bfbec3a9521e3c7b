/* SPDX-License-Identifier: MIT */
/*
 * The one place that includes SQLite: as a loadable extension every call goes through the table of
 * the program that loads us; with SQLITE_CORE defined it is linked like any other library.
 */
#ifndef COW_SQLITE_SQLITE_H
#define COW_SQLITE_SQLITE_H

#include <sqlite3ext.h>

#ifndef COW_SQLITE_MAIN
SQLITE_EXTENSION_INIT3
#endif

#endif
