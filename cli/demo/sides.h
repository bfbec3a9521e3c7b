/* SPDX-License-Identifier: MIT */
/*
 * The two sides of the comparison, as steps for worker_run(). Each runs the load for its share of
 * the time, copies the live database to a file at a fixed cadence, and fills
 * demo->shared->rounds[side][demo->round].
 *
 * The same work on both sides: take a consistent copy while the writer goes on, write it to a new
 * file, sync, give the copy up. At most one copy at a time: where writing one takes longer than the
 * cadence, the next waits.
 *
 *	libcow   cow_snapshot(), cow_export(), cow_drop() in a second connection
 *	fork()   the database is in SQLite's own memory VFS (sqlite3_deserialize()); a child
 *	         writes its copy of that memory to the file
 */
#ifndef CLI_DEMO_SIDES_H
#define CLI_DEMO_SIDES_H

#include "cli/demo/demo.h"
#include "cli/demo/load.h"

/* The largest database that SQLite's own memory VFS holds, with some room for the load. */
#define SIDE_FORK_MOST (UINT64_C(0x7fffff00) - (UINT64_C(64) << 20))

int side_libcow(struct demo *demo);
int side_fork(struct demo *demo);

/* Queries into the past, a branch, a rollback: on a database whose load runs. Adds its proofs. */
int travel(struct demo *demo, struct load *load, sqlite3 *connection, const char *path);

/* The load for a share of the time, with cuts. Fills in what both sides measure alike. */
typedef int (*cut_function)(void *context, struct cut *cut);
int window_run(struct demo *demo, enum side side, struct load *load, cut_function function,
	       void *context);

#endif
