/* SPDX-License-Identifier: MIT */
/* The side of libcow: see sides.h. */
#include "cli/demo/dataset.h"
#include "cli/demo/measure.h"
#include "cli/demo/sides.h"
#include "cli/demo/sql.h"

struct snapshots {
	struct demo *demo;
	struct load *load;
	sqlite3 *connection; /* not the writer's */
	sqlite3_stmt *snapshot, *export, *drop;
};

static int prepare(struct snapshots *snapshots)
{
	struct demo *demo = snapshots->demo;
	sqlite3 *connection = snapshots->connection;

	if (sql_prepare(demo, connection, "SELECT cow_snapshot(?1)", &snapshots->snapshot) < 0 ||
	    sql_prepare(demo, connection, "SELECT cow_export(?1, ?2)", &snapshots->export) < 0)
		return -1;
	return sql_prepare(demo, connection, "SELECT cow_drop(?1)", &snapshots->drop);
}

static int run_named(struct snapshots *snapshots, sqlite3_stmt *statement, const char *name)
{
	sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
	return sql_run(snapshots->demo, snapshots->connection, statement);
}

static int take(struct snapshots *snapshots, struct cut *cut)
{
	uint64_t begin;
	int result;

	load_watch_begin(snapshots->load);
	/* The writer may have committed a transaction that it has not yet counted. */
	cut->low = atomic_load(&snapshots->load->committed);
	begin = now_ns();
	result = run_named(snapshots, snapshots->snapshot, cut->name);
	cut->stall_ns = now_ns() - begin;
	cut->high = atomic_load(&snapshots->load->committed) + 1;
	load_watch_end(snapshots->load);
	return result;
}

static int cut_snapshot(void *context, struct cut *cut)
{
	struct snapshots *snapshots = context;
	uint64_t begin;

	if (take(snapshots, cut) < 0)
		return -1;
	begin = now_ns();
	sqlite3_bind_text(snapshots->export, 2, cut->path, -1, SQLITE_STATIC);
	if (run_named(snapshots, snapshots->export, cut->name) < 0)
		return -1;
	cut->export_ns = now_ns() - begin;
	return run_named(snapshots, snapshots->drop, cut->name);
}

static void finish(struct snapshots *snapshots)
{
	sqlite3_finalize(snapshots->snapshot);
	sqlite3_finalize(snapshots->export);
	sqlite3_finalize(snapshots->drop);
	snapshots->snapshot = snapshots->export = snapshots->drop = NULL;
}

int side_libcow(struct demo *demo)
{
	struct snapshots snapshots = { .demo = demo };
	sqlite3 *writer = NULL;
	struct load load = { 0 };
	char path[DEMO_PATH_LENGTH];
	int result = -1;

	if (!demo_path(demo, DATASET_FILE, path) || sql_begin(demo, true) < 0 ||
	    sql_open_cow(demo, path, "vfs=cow", &writer) < 0 ||
	    sql_open_cow(demo, path, "vfs=cow", &snapshots.connection) < 0 ||
	    load_init(&load, demo, writer) < 0 || prepare(&snapshots) < 0)
		goto out;
	snapshots.load = &load;
	result = window_run(demo, SIDE_LIBCOW, &load, cut_snapshot, &snapshots);
	finish(&snapshots);
	if (result == 0 && demo->round + 1 == DEMO_ROUNDS)
		result = travel(demo, &load, snapshots.connection, path);
out:
	finish(&snapshots);
	load_done(&load);
	sqlite3_close(snapshots.connection);
	sqlite3_close(writer);
	return result;
}
