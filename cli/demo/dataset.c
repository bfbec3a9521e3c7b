/* SPDX-License-Identifier: MIT */
/*
 * The walk stays on the file system of /, follows no links, opens regular files only, and leaves
 * access times alone where the kernel allows. What vanishes or cannot be read is counted. It ends
 * after WALK_S seconds, with the rows that it has: on a slow disk the demo is to end too.
 *
 * The user's database is loaded through the VFS, which opens it read-only and takes its
 * write-ahead log into account, and is exported from there: so both sides begin with one file, and
 * the user's is read once.
 */
#include "cli/demo/dataset.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "cli/demo/measure.h"
#include "cli/demo/sql.h"

enum {
	ACCOUNTS = 10000,
	BLOCK = 4096,
	WALK_S = 25,
};

/* No journal: what fails is thrown away. */
#define QUICK                                               \
	"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; " \
	"PRAGMA locking_mode=EXCLUSIVE; PRAGMA cache_size=-65536; BEGIN"

static int make_tables(struct demo *demo, sqlite3 *database)
{
	struct model_shape *shape = &demo->shared->data.shape;

	shape->accounts = ACCOUNTS;
	return sql_exec(demo, database,
			"CREATE TABLE cow_demo_accounts(id INTEGER PRIMARY KEY, amount INTEGER NOT "
			"NULL);"
			"CREATE TABLE cow_demo_transfers(id INTEGER PRIMARY KEY, source INTEGER, "
			"target INTEGER, amount INTEGER);"
			"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
			"%d) INSERT INTO cow_demo_accounts SELECT i, %d FROM n",
			ACCOUNTS, MODEL_AMOUNT);
}

/*
 * The questions to the stock sqlite3, whose answers check.c reads: integrity_check; the model's
 * state; then everything that the load leaves alone, which has to be the same in every export.
 */
static int write_questions(struct demo *demo, sqlite3 *database, const char *data_query)
{
	char path[DEMO_PATH_LENGTH], *state = model_query("main", demo->shared->data.table);
	sqlite3_stmt *tables = NULL;
	int result = -1, rc = SQLITE_DONE;
	FILE *file = NULL;

	if (!state) {
		demo_fail(demo, "out of memory");
		goto out;
	}
	if (!demo_path(demo, DATASET_CHECK, path))
		goto out;
	file = fopen(path, "we");
	if (!file) {
		demo_fail(demo, "cannot create %s: %s", path, strerror(errno));
		goto out;
	}
	fprintf(file, "PRAGMA integrity_check;\nSELECT 'state';\n%s;\nSELECT 'data';\n%s\n", state,
		data_query);
	if (sql_prepare(demo, database,
			"SELECT 'SELECT count(*) FROM \"' || replace(name, '\"', '\"\"') || '\";' "
			"FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' "
			"ESCAPE '\\' AND name NOT LIKE 'cow\\_demo\\_%' ESCAPE '\\' "
			"AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name",
			&tables) < 0)
		goto out;
	while ((rc = sqlite3_step(tables)) == SQLITE_ROW)
		fprintf(file, "%s\n", (const char *)sqlite3_column_text(tables, 0));
	if (rc != SQLITE_DONE)
		sql_failed(demo, database, "cannot list the tables");
	else
		result = 0;
out:
	if (file && ((ferror(file) | fclose(file)) && result == 0))
		result = demo_fail(demo, "cannot write %s", path);
	sqlite3_finalize(tables);
	sqlite3_free(state);
	return result;
}

static int finish(struct demo *demo, sqlite3 *database, const char *path)
{
	struct demo_data *data = &demo->shared->data;
	struct stat status;
	int64_t size;

	if (sql_exec(demo, database, "COMMIT") < 0 ||
	    sql_row(demo, database, &size, 1, "PRAGMA page_size") < 0)
		return -1;
	if (stat(path, &status) < 0)
		return demo_fail(demo, "cannot look at %s: %s", path, strerror(errno));
	data->page_size = (uint64_t)size;
	data->bytes = (uint64_t)status.st_size;
	return 0;
}

/* Walking the file system. */

struct walk {
	struct demo *demo;
	sqlite3 *database;
	sqlite3_stmt *insert;
	uint64_t rows;
	uint64_t deadline;
	dev_t scratch_device;
	ino_t scratch_inode;
};

/* Access times stay as they are where that is allowed: for files of one's own, and for root. */
static int open_quietly(const char *path)
{
	int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	int fd = open(path, flags | O_NOATIME);

	if (fd >= 0 || errno != EPERM)
		return fd;
	return open(path, flags);
}

/* XXH3 of the first block: 0 or a negative errno. */
static int sum_first_block(const char *path, uint64_t *ret_sum)
{
	char block[BLOCK];
	ssize_t length;
	int fd = open_quietly(path);

	if (fd < 0)
		return -errno;
	length = read(fd, block, sizeof(block));
	if (length >= 0)
		*ret_sum = XXH3_64bits(block, (size_t)length);
	else
		length = -errno;
	close(fd);
	return length < 0 ? (int)length : 0;
}

/* False: it is gone by now, and gets no row. */
static bool bind_sum(struct walk *walk, const char *path, const struct stat *status)
{
	uint64_t sum = 0;
	int error;

	sqlite3_bind_null(walk->insert, 7);
	if (!S_ISREG(status->st_mode))
		return true;
	error = sum_first_block(path, &sum);
	if (error == -ENOENT) {
		walk->demo->shared->data.vanished++;
		return false;
	}
	if (error)
		walk->demo->shared->data.unreadable++;
	else
		sqlite3_bind_int64(walk->insert, 7, (sqlite3_int64)sum);
	return true;
}

static int add_file(struct walk *walk, const char *path, const struct stat *status)
{
	if (!bind_sum(walk, path, status))
		return 0;
	sqlite3_bind_text(walk->insert, 1, path, -1, SQLITE_STATIC);
	sqlite3_bind_int64(walk->insert, 2, status->st_size);
	sqlite3_bind_int64(walk->insert, 3, status->st_mode);
	sqlite3_bind_int64(walk->insert, 4, status->st_mtim.tv_sec);
	sqlite3_bind_int64(walk->insert, 5, status->st_uid);
	sqlite3_bind_int64(walk->insert, 6, status->st_gid);
	if (sql_run(walk->demo, walk->database, walk->insert) < 0)
		return -1;
	walk->rows++;
	atomic_store(&walk->demo->shared->progress, walk->rows);
	return 0;
}

/* Mostly mounts of their own, which the walk does not enter anyway; but not in every chroot. */
static bool is_left_out(const struct walk *walk, const FTSENT *entry)
{
	static const char *const names[] = { "/proc", "/sys", "/dev", "/run" };
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(entry->fts_path, names[i]) == 0)
			return true;
	return entry->fts_statp->st_dev == walk->scratch_device &&
	       entry->fts_statp->st_ino == walk->scratch_inode;
}

static int visit(struct walk *walk, FTS *tree, FTSENT *entry)
{
	switch (entry->fts_info) {
	case FTS_D:
		if (!is_left_out(walk, entry))
			return add_file(walk, entry->fts_path, entry->fts_statp);
		fts_set(tree, entry, FTS_SKIP);
		return 0;
	case FTS_DNR: /* comes after its FTS_D */
		walk->demo->shared->data.unreadable++;
		return 0;
	case FTS_NS:
	case FTS_ERR:
		walk->demo->shared->data.vanished++;
		return 0;
	case FTS_F:
	case FTS_SL:
	case FTS_SLNONE:
	case FTS_DEFAULT:
		return add_file(walk, entry->fts_path, entry->fts_statp);
	default:
		return 0;
	}
}

static int walk_root(struct walk *walk)
{
	char root[] = "/";
	char *const roots[] = { root, NULL };
	FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, NULL);
	struct demo *demo = walk->demo;
	FTSENT *entry;
	int result = 0;

	if (!tree)
		return demo_fail(demo, "cannot list /: %s", strerror(errno));
	while (result == 0 && walk->rows < demo->options->rows) {
		entry = fts_read(tree);
		if (!entry)
			break;
		if (now_ns() > walk->deadline) {
			demo->shared->data.out_of_time = true;
			break;
		}
		result = visit(walk, tree, entry);
	}
	fts_close(tree);
	return result;
}

static int fill_files(struct demo *demo, sqlite3 *database)
{
	struct walk walk = { .demo = demo, .database = database };
	struct stat scratch;
	int result;

	if (stat(demo->scratch, &scratch) < 0)
		return demo_fail(demo, "cannot look at %s: %s", demo->scratch, strerror(errno));
	walk.scratch_device = scratch.st_dev;
	walk.scratch_inode = scratch.st_ino;
	walk.deadline = now_ns() + WALK_S * NS_PER_S;
	if (sql_prepare(demo, database,
			"INSERT INTO files(path, size, mode, mtime, uid, gid, checksum) "
			"VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
			&walk.insert) < 0)
		return -1;
	result = walk_root(&walk);
	sqlite3_finalize(walk.insert);
	if (result == 0 && !walk.rows)
		result = demo_fail(demo, "no file was found below /");
	demo->shared->data.shape.rows = walk.rows;
	demo->shared->data.source_rows = walk.rows;
	demo->shared->data.source_tables = 1;
	return result;
}

int dataset_from_files(struct demo *demo)
{
	char path[DEMO_PATH_LENGTH];
	sqlite3 *database = NULL;
	int result = -1;

	snprintf(demo->shared->data.table, sizeof(demo->shared->data.table), "files");
	if (!demo_path(demo, DATASET_FILE, path) || sql_begin(demo, false) < 0 ||
	    sql_open(demo, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &database) < 0)
		return -1;
	if (sql_exec(demo, database, QUICK) < 0 ||
	    sql_exec(demo, database,
		     "CREATE TABLE files(id INTEGER PRIMARY KEY, path TEXT NOT NULL, size INTEGER, "
		     "mode INTEGER, mtime INTEGER, uid INTEGER, gid INTEGER, checksum INTEGER, "
		     "touched INTEGER NOT NULL DEFAULT 0)") < 0 ||
	    fill_files(demo, database) < 0 ||
	    sql_exec(demo, database,
		     "CREATE UNIQUE INDEX files_path ON files(path);"
		     "CREATE INDEX files_size ON files(size);"
		     "CREATE INDEX files_mtime ON files(mtime)") < 0 ||
	    make_tables(demo, database) < 0 || finish(demo, database, path) < 0 ||
	    write_questions(demo, database,
			    "SELECT total(length(path)), sum(size), sum(mtime), sum(mode), "
			    "sum(uid + gid), sum(checksum >> 20), count(checksum) FROM files;") < 0)
		goto out;
	result = 0;
out:
	sqlite3_close(database);
	return result;
}

/* The user's database. */

/* Loads it through the VFS, and writes what was loaded to path. */
static int copy_database(struct demo *demo, const char *path)
{
	sqlite3 *database = NULL;
	char real[PATH_MAX], *uri;
	int64_t bytes;
	int result;

	if (!realpath(demo->options->database, real))
		return demo_fail(demo, "cannot open %s: %s", demo->options->database,
				 strerror(errno));
	uri = sql_uri(real, "vfs=cow");
	/* With the right to create it: to SQLite a file of zero bytes is not there. */
	result = sql_open(demo, uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &database);
	sqlite3_free(uri);
	if (result < 0)
		return -1;
	result = sql_row(demo, database, &bytes, 1, "SELECT cow_export(NULL, %Q)", path);
	if (result == 0 && !bytes)
		/* An empty file is a database without tables; it has no pages to export. */
		result = truncate(path, 0) < 0 && errno != ENOENT ?
				 demo_fail(demo, "cannot write %s: %s", path, strerror(errno)) :
				 0;
	sqlite3_close(database);
	return result;
}

static int drop_old_tables(struct demo *demo, sqlite3 *database)
{
	int64_t count;

	if (sql_row(demo, database, &count, 1,
		    "SELECT count(*) FROM sqlite_schema WHERE name IN ('cow_demo_accounts', "
		    "'cow_demo_transfers', 'cow_demo_touched')") < 0)
		return -1;
	demo->shared->data.had_demo_tables = count > 0;
	return sql_exec(demo, database,
			"DROP TABLE IF EXISTS cow_demo_accounts;"
			"DROP TABLE IF EXISTS cow_demo_transfers;"
			"DROP TABLE IF EXISTS cow_demo_touched");
}

/* The table with the most rows; *ret_name NULL: there is none. */
static int find_largest(struct demo *demo, sqlite3 *database, char **ret_name, int64_t *ret_rows)
{
	struct demo_data *data = &demo->shared->data;
	sqlite3_stmt *tables;
	char *name = NULL;
	int64_t rows, most = -1;
	int result;

	result = sql_prepare(demo, database,
			     "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT "
			     "LIKE 'sqlite\\_%' ESCAPE '\\' AND sql NOT LIKE 'CREATE VIRTUAL%'",
			     &tables);
	while (result == 0 && sqlite3_step(tables) == SQLITE_ROW) {
		result = sql_row(demo, database, &rows, 1, "SELECT count(*) FROM \"%w\"",
				 (const char *)sqlite3_column_text(tables, 0));
		if (result < 0)
			break;
		data->source_tables++;
		data->source_rows += (uint64_t)rows;
		atomic_store(&demo->shared->progress, data->source_rows);
		if (rows <= most)
			continue;
		most = rows;
		sqlite3_free(name);
		name = sqlite3_mprintf("%s", (const char *)sqlite3_column_text(tables, 0));
	}
	sqlite3_finalize(tables);
	*ret_name = name;
	*ret_rows = most;
	return result;
}

static int make_touched(struct demo *demo, sqlite3 *database)
{
	char *name = NULL;
	int64_t rows, values[2];
	int result = find_largest(demo, database, &name, &rows);

	if (result < 0)
		goto out;
	result = sql_exec(demo, database,
			  "CREATE TABLE cow_demo_touched(id INTEGER PRIMARY KEY, row INTEGER, "
			  "touched INTEGER NOT NULL DEFAULT 0)");
	/* A table without rowids gives no number to name its rows with. */
	if (result == 0 && name && rows > 0)
		result = sql_exec(demo, database,
				  "INSERT INTO cow_demo_touched(row) SELECT row_number() OVER () "
				  "FROM \"%w\" LIMIT %lld",
				  name, (long long)demo->options->rows);
	if (result == 0 && rows <= 0)
		result = sql_exec(demo, database,
				  "INSERT INTO cow_demo_touched(row) VALUES (NULL)");
	if (result == 0)
		result = sql_row(demo, database, values, 2,
				 "SELECT count(*), max(id) FROM cow_demo_touched");
	if (result == 0)
		demo->shared->data.shape.rows = (uint64_t)values[0];
out:
	sqlite3_free(name);
	return result;
}

/* Says whose fault it is. */
static int blame_database(struct demo *demo)
{
	char *error = demo->shared->error, *what = sqlite3_mprintf("%s", error);

	if (what)
		snprintf(error, DEMO_ERROR_LENGTH, "%s: %s", demo->options->database, what);
	sqlite3_free(what);
	return -1;
}

int dataset_from_database(struct demo *demo)
{
	char path[DEMO_PATH_LENGTH];
	sqlite3 *database = NULL;
	int result = -1;

	snprintf(demo->shared->data.table, sizeof(demo->shared->data.table), "cow_demo_touched");
	if (!demo_path(demo, DATASET_FILE, path) || sql_begin(demo, true) < 0 ||
	    copy_database(demo, path) < 0 ||
	    sql_open(demo, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &database) < 0)
		return blame_database(demo);
	if (sql_exec(demo, database, QUICK) < 0 || drop_old_tables(demo, database) < 0 ||
	    make_touched(demo, database) < 0 || make_tables(demo, database) < 0 ||
	    finish(demo, database, path) < 0 || write_questions(demo, database, "") < 0)
		goto out;
	result = 0;
out:
	sqlite3_close(database);
	return result == 0 ? 0 : blame_database(demo);
}
