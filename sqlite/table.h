/* SPDX-License-Identifier: MIT */
/*
 * The table of families and what is inside it: for the files that
 * make databases what they are: table.c, database.c, writer.c, names.c.
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
	bool store;      /* path is a store's directory; a tag of its own is another family */
	const char *tag; /* behind the path, in the same allocation; NULL: the newest layer */
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

struct generation *generation_ref(struct generation *generation);
/* With the mutex held: sees to it that the current generation has its snapshot. 0 or an errno. */
int generation_cut(struct database *database);
/* With the mutex held: whether only one file holds the current generation, beside the database. */
bool database_has_one_reader(const struct database *database);
/* How many of length bytes at offset lie below size. */
int bytes_below(sqlite3_int64 size, int length, sqlite3_int64 offset);
/* What a read past the end is to return, after inside bytes were read. */
int fill_rest(void *buffer, int inside, int length);

/* The snapshot of the current generation, with a reference; cuts when there is none. */
int database_cut(struct database *database, struct cow_snapshot **ret_snapshot,
		 sqlite3_int64 *ret_size);

#endif
