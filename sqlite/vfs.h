/* SPDX-License-Identifier: MIT */
#ifndef COW_SQLITE_VFS_H
#define COW_SQLITE_VFS_H

#include "sqlite.h"

/* Registers the VFS "cow" over loader, not as the default. */
int vfs_register(sqlite3_vfs *loader);

#endif
