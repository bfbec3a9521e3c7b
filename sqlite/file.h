/* SPDX-License-Identifier: MIT */
/*
 * What SQLite holds open: a file of a database (live, a branch, or read-only in the past), and the
 * rollback journal that belongs to it.
 */
#ifndef COW_SQLITE_FILE_H
#define COW_SQLITE_FILE_H

#include "database.h"

/* A journal is private to the connection that made it: kept in memory beside its file, so that no
 * other connection, and no other process, takes it for the journal of a crash. */
struct journal {
	unsigned char *bytes;
	sqlite3_int64 size;
	sqlite3_int64 capacity;
	bool exists;
};

struct file {
	sqlite3_file base; /* first: SQLite sees nothing else */
	struct database *database;
	struct named_snapshot *past; /* read-only; NULL: live */
	const unsigned char *view;   /* of the past, once SQLite asked for it */
	unsigned int epoch;          /* of the process that opened it */
	int lock;                    /* SQLITE_LOCK_... */
	bool exclusive;              /* locking_mode=EXCLUSIVE was asked for */
	bool counted;                /* among the database's exclusive readers */
	bool writing; /* database_begin_write() was called, nothing published since */
	struct generation *generation; /* what is read, from SHARED on */
	struct generation *next;       /* what the transaction becomes */
	struct journal journal;
	const char *journal_name; /* the very pointer that the pager passes to the VFS */
	struct file *next_named;
};

struct journal_file {
	sqlite3_file base;
	struct file *owner;
};

/* Process-wide set-up; call once. */
int file_init(void);
/* Opens a file; the caller has zeroed it. */
int file_open(struct file *file, const struct database_request *request);
/* NULL when the handle is not one of ours. */
struct file *file_of_handle(sqlite3_file *handle);
/* The file whose journal has the name that is at this very address; NULL: none. */
struct file *file_of_journal_name(const char *name);

int journal_open(struct journal_file *handle, struct file *owner, int flags);
void journal_delete(struct journal *journal);
void journal_free(struct journal *journal);
/* False: no connection of the process has a journal, there is nothing to look for. */
bool journal_any(void);

#endif
