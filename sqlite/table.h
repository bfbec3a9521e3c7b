/* SPDX-License-Identifier: MIT */
/*
 * The table of families and what is inside it: for database.c, table.c and names.c only.
 */
#ifndef COW_SQLITE_TABLE_H
#define COW_SQLITE_TABLE_H

#include "database.h"

enum family_state {
	FAMILY_LOADING, /* its opener copies the file in; others wait */
	FAMILY_READY,
};

struct family {
	struct family *next;
	enum family_state state;
	unsigned int opens; /* files of any member */
	struct database *root;
	struct database *branches;
	char path[];
};

void table_lock(void);
void table_unlock(void);

/* With the table locked. NULL: no such name. */
struct named_snapshot *find_snapshot(const struct database *database, const char *name);
struct database *find_branch(const struct family *family, const char *name);

/* region is taken over, also on failure. */
int database_new(struct cow_region *region, struct family *family, const char *name,
		 sqlite3_int64 size, struct database **ret_database);
void database_free(struct database *database);
void named_snapshot_free(struct named_snapshot *named);

/* The snapshot of the current generation, with a reference; cuts when there is none. */
int database_cut(struct database *database, struct cow_snapshot **ret_snapshot,
		 sqlite3_int64 *ret_size);

#endif
