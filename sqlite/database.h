/* SPDX-License-Identifier: MIT */
/*
 * The databases of this process: what connections share.
 *
 * Model
 * - A family is everything that began from one path: the root database, its branches, the named
 *   snapshots of each. It is made by the first connection and freed with the last one of any
 *   member. The table of families is keyed by canonical path.
 * - A database is a region that holds the bytes of a database file, in the writer's state ("live"),
 *   and the current generation.
 * - A generation is one committed state. Its snapshot is cut when it is first needed: by a reader
 *   that reads a page, or by a writer before it changes live. So there is at most one cut for each
 *   commit, and beginning a read costs a reference.
 *
 * Invariants
 * - wrote == false: live is the current generation, byte for byte; changes of an open transaction,
 *   if any, wait beside it.
 * - Live is changed without the database's mutex only while the current generation has its snapshot
 *   (wrote == true), and then by `writer` alone. So whoever holds the mutex and finds no snapshot
 *   may read live, or cut, and gets the committed state.
 * - A generation that is not current any more, and that somebody holds, has its snapshot.
 * - Live bytes at and above `size` are zero, as in a file that was truncated and grows again.
 * - The change counter (bytes 24..27, 92..95) of each published generation is above those of all
 *   earlier ones, also after a rollback to a snapshot: no page cache takes one history for another.
 *
 * Locks, in this order, none held while SQLite is called (but for its allocator)
 * 1. the table's mutex: families, branches, named snapshots, every count of openings
 * 2. a database's mutex: its writer, current generation, exclusive readers
 * 3. libcow's own
 * What only the holder of the writer's place touches needs none.
 *
 * fork(): a child keeps no database. Its files belong to an earlier epoch and every call on them
 * fails; the table starts anew, so that the child may open databases of its own.
 */
#ifndef COW_SQLITE_DATABASE_H
#define COW_SQLITE_DATABASE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cow.h"
#include "sqlite.h"

struct family;
struct pending;

struct generation {
	atomic_uint references;
	sqlite3_int64 size;                      /* bytes of the database file */
	_Atomic(struct cow_snapshot *) snapshot; /* set once, under the database's mutex */
};

struct named_snapshot {
	struct named_snapshot *next;
	struct cow_snapshot *snapshot;
	sqlite3_int64 size;    /* bytes of the database file */
	sqlite3_int64 time_ms; /* since 1970, UTC, when it got its name */
	unsigned int opens;    /* files that read it; guarded by the table's mutex */
	unsigned int branches; /* databases that began from it; likewise */
	char name[];
};

struct database {
	struct family *family;
	struct database *next;         /* among the family's branches */
	struct database *parent;       /* of a branch: where `origin` belongs; NULL for the root */
	struct named_snapshot *origin; /* what a branch began from */
	struct named_snapshot *snapshots; /* table's mutex */
	unsigned int opens;               /* files of it, pasts included; table's mutex */
	struct cow_region *region;

	pthread_mutex_t mutex; /* guards the next three */
	const void *writer;    /* the file, or the rollback, that may change live; NULL: none */
	struct generation *current;
	unsigned int exclusive; /* files that hold SHARED in locking_mode=EXCLUSIVE */

	/* The writer's own */
	bool wrote;              /* live differs from the current generation */
	struct pending *pending; /* changes that wait for their commit; NULL before the first */
	sqlite3_int64 size;      /* of live */
	uint32_t counter_max;    /* highest change counter published */
	uint32_t cookie_max;     /* highest schema cookie published */
	bool rewound;            /* was ever rolled back to a snapshot */
	bool loading;            /* the first contents are on their way in */

	char name[]; /* of a branch; empty for the root */
};

/* What a file is opened on. */
struct database_request {
	const char *path;      /* canonical */
	bool store;            /* path is a store's directory */
	const char *tag;       /* of a store: a tag or a layer's identity; NULL: the newest */
	const char *branch;    /* NULL: the root */
	const char *snapshot;  /* NULL: live */
	sqlite3_int64 reserve; /* bytes of address space, 0: the default; for the first opener */
	bool create;           /* a path that does not exist starts empty */
};

/* Process-wide set-up; call once. loader is the VFS that real files are read through. */
int database_init(sqlite3_vfs *loader);
sqlite3_vfs *database_loader(void);

/* Changes in a fork()ed child. */
unsigned int database_epoch(void);

/* Opens; a later database_close() with the same arguments. Messages go to sqlite3_log(). */
int database_open(const struct database_request *request, struct database **ret_database,
		  struct named_snapshot **ret_past);
void database_close(struct database *database, struct named_snapshot *past);

const char *database_path(const struct database *database);
/* The tag that a store was opened with, or NULL; *ret_store: whether it is one. */
const char *database_tag(const struct database *database, bool *ret_store);
/* A region for a database of up to so many bytes, or as many as there are addresses for: 0. */
int database_reserve_region(sqlite3_int64 length, struct cow_region **ret_region);

/* The current generation, with a reference. */
struct generation *database_pin(struct database *database);
void generation_unref(struct generation *generation);
/* Reads committed bytes; cuts when nobody did so far. Past the end: zeroes and
 * SQLITE_IOERR_SHORT_READ. */
int database_read_generation(struct database *database, struct generation *generation, void *buffer,
			     int length, sqlite3_int64 offset);

/* Takes the writer's place. seen: the generation that the writer's knowledge comes from, NULL for
 * whatever is current. SQLITE_BUSY, SQLITE_BUSY_SNAPSHOT, SQLITE_IOERR. */
int database_reserve(struct database *database, const void *writer, struct generation *seen,
		     bool counted_exclusive);
/* Gives the place back; what was not published is undone. */
void database_release(struct database *database, const void *writer);
/* Before the first change of a transaction. */
int database_begin_write(struct database *database);
/* From now on the committed state has its snapshot, and changes are made in the region itself. */
int database_make_live(struct database *database);
/* Makes live the current generation, which becomes next (from generation_new()). */
int database_publish(struct database *database, struct generation *next);
struct generation *generation_new(void);

/* For the writer. */
int database_read_live(struct database *database, void *buffer, int length, sqlite3_int64 offset);
int database_write(struct database *database, const void *buffer, int length, sqlite3_int64 offset);
int database_truncate(struct database *database, sqlite3_int64 size);

int sqlite_code(int result, int otherwise); /* of a negative errno */
int read_past(struct cow_snapshot *snapshot, sqlite3_int64 size, void *buffer, int length,
	      sqlite3_int64 offset);

/* Names (names.c). An error is a text for sqlite3_free() in *ret_error and an SQLite code. */
int database_add_snapshot(struct database *database, const char *name, char **ret_error);
int database_drop(struct database *database, const char *name, char **ret_error);
int database_add_branch(struct database *database, const char *snapshot, const char *name,
			char **ret_error);
int database_rollback(struct database *database, const char *name, char **ret_error);

/* A committed state to export: a named one, or with name NULL the present. The caller unrefs
 * *ret_snapshot. */
int database_take(struct database *database, const char *name, struct cow_snapshot **ret_snapshot,
		  sqlite3_int64 *ret_size, char **ret_error);

/* Lists, for the table-valued functions: a copy taken at once, freed with sqlite3_free(). */
struct listed_name {
	char *name;   /* inside the same allocation, as is origin */
	char *origin; /* of a branch */
	sqlite3_int64 time_ms, size, shared_bytes, private_bytes;
	unsigned int opens, branches;
};
int database_list_snapshots(struct database *database, struct listed_name **ret_list,
			    size_t *ret_count);
int database_list_branches(struct database *database, struct listed_name **ret_list,
			   size_t *ret_count);

#endif
