/* SPDX-License-Identifier: MIT */
/*
 * The SQLite extension under threads and fork(), through SQLite's C interface: readers beside a
 * writer never wait and never see half a transaction; names come and go meanwhile; a child is
 * refused and does not hang.
 */
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/tap.h"

enum { ROWS = 500, SUM = ROWS * 100 };

static sqlite3 *open_uri(const char *uri)
{
	sqlite3 *connection = NULL;
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;

	if (sqlite3_open_v2(uri, &connection, flags, NULL) != SQLITE_OK)
		diag("%s: %s", uri, sqlite3_errmsg(connection));
	sqlite3_extended_result_codes(connection, 1);
	return connection;
}

static void load_once(void)
{
	const char *path = getenv("COW_SQLITE");
	static bool loaded;
	sqlite3 *connection;
	char *error = NULL;

	if (loaded)
		return;
	if (!path)
		skip_all("COW_SQLITE does not name the extension");
	connection = open_uri(":memory:");
	sqlite3_db_config(connection, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, (int *)NULL);
	if (sqlite3_load_extension(connection, path, NULL, &error) != SQLITE_OK)
		bail("%s", error);
	sqlite3_close(connection);
	loaded = true;
}

static int run(sqlite3 *connection, const char *sql)
{
	return sqlite3_exec(connection, sql, NULL, NULL, NULL);
}

static void must(sqlite3 *connection, const char *sql)
{
	int rc = run(connection, sql);

	ok(rc == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(connection));
}

/* Runs a statement of one number; its code, SQLITE_ROW when there is one. */
static int get_number(sqlite3 *connection, const char *sql, sqlite3_int64 *ret_number)
{
	sqlite3_stmt *statement = NULL;
	int rc = sqlite3_prepare_v2(connection, sql, -1, &statement, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(statement);
	if (rc == SQLITE_ROW)
		*ret_number = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return rc;
}

static sqlite3 *filled(const char *uri)
{
	sqlite3 *connection;

	load_once();
	connection = open_uri(uri);
	must(connection, "CREATE TABLE t(id INTEGER PRIMARY KEY, amount INT, filler)");
	must(connection,
	     "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
	     "INSERT INTO t SELECT i, 100, zeroblob(400) FROM n");
	return connection;
}

struct crowd {
	const char *uri;
	unsigned int stop;   /* atomic */
	unsigned long scans; /* atomic */
	unsigned long commits;
};

static bool stopped(struct crowd *crowd)
{
	return __atomic_load_n(&crowd->stop, __ATOMIC_RELAXED);
}

static void *scan(void *argument)
{
	struct crowd *crowd = argument;
	sqlite3 *connection = open_uri(crowd->uri);

	must(connection, "PRAGMA cache_size=4");
	while (!stopped(crowd)) {
		sqlite3_int64 first = 0, second = 0;

		if (!ok(run(connection, "BEGIN") == SQLITE_OK, "a read transaction begins"))
			break;
		is_int(get_number(connection, "SELECT sum(amount) FROM t", &first), SQLITE_ROW,
		       "a scan never waits");
		is_int(get_number(connection,
				  "SELECT sum(amount) FROM t WHERE length(filler) = 400", &second),
		       SQLITE_ROW, "nor does the next one");
		must(connection, "COMMIT");
		if (!is_int(first, SUM, "no scan sees half a transaction") ||
		    !is_int(second, SUM, "nor a change while it is open"))
			break;
		__atomic_fetch_add(&crowd->scans, 2, __ATOMIC_RELAXED);
	}
	sqlite3_close(connection);
	return NULL;
}

/* Transactions that spill before they end, every fifth rolled back. */
static void *write_and_spill(void *argument)
{
	struct crowd *crowd = argument;
	sqlite3 *connection = open_uri(crowd->uri);
	unsigned long i;

	sqlite3_busy_timeout(connection, 10000);
	must(connection, "PRAGMA cache_size=4");
	for (i = 0; !stopped(crowd); i++) {
		must(connection, "BEGIN IMMEDIATE");
		must(connection, "UPDATE t SET amount = amount - 7 WHERE id % 2");
		must(connection, "UPDATE t SET filler = zeroblob(400) WHERE id % 3 = 0");
		must(connection, "UPDATE t SET amount = amount + 7 WHERE id % 2 = 0");
		must(connection, i % 5 == 4 ? "ROLLBACK" : "COMMIT");
		crowd->commits++;
	}
	sqlite3_close(connection);
	return NULL;
}

/* Transactions of a few pages, which wait for their commit and are then stored at once. */
static void *move_amounts(void *argument)
{
	struct crowd *crowd = argument;
	sqlite3 *connection = open_uri(crowd->uri);
	unsigned int i;
	char sql[256];

	sqlite3_busy_timeout(connection, 10000);
	for (i = 0; !stopped(crowd); i++) {
		snprintf(sql, sizeof(sql),
			 "BEGIN IMMEDIATE; UPDATE t SET amount = amount - 1 WHERE id = %u;"
			 "UPDATE t SET amount = amount + 1 WHERE id = %u; %s",
			 i * 7 % ROWS + 1, i * 11 % ROWS + 1, i % 9 == 8 ? "ROLLBACK" : "COMMIT");
		must(connection, sql);
		crowd->commits++;
		/* So that a generation has no reader, one, or several when it is replaced. */
		if (i % 16 == 0)
			usleep(200);
	}
	sqlite3_close(connection);
	return NULL;
}

static void run_for(struct crowd *crowd, void *(*const threads[])(void *), size_t count, int ms)
{
	struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };
	pthread_t ids[8];
	size_t i;

	for (i = 0; i < count; i++)
		pthread_create(&ids[i], NULL, threads[i], crowd);
	nanosleep(&time, NULL);
	__atomic_store_n(&crowd->stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < count; i++)
		pthread_join(ids[i], NULL);
}

TEST(readers_beside_a_writer)
{
	void *(*const threads[])(void *) = { write_and_spill, scan, scan, scan };
	struct crowd crowd = { .uri = "file:/cow-threads-readers?vfs=cow" };
	sqlite3 *keeper = filled(crowd.uri);

	run_for(&crowd, threads, 4, 1500);
	ok(crowd.scans > 0 && crowd.commits > 0, "both made progress");
	diag("%lu scans beside %lu transactions", crowd.scans, crowd.commits);
	sqlite3_close(keeper);
}

TEST(readers_beside_small_transactions)
{
	void *(*const threads[])(void *) = { move_amounts, scan, scan };
	struct crowd crowd = { .uri = "file:/cow-threads-small?vfs=cow" };
	sqlite3 *keeper = filled(crowd.uri);

	run_for(&crowd, threads, 3, 1500);
	ok(crowd.scans > 0 && crowd.commits > 0, "both made progress");
	diag("%lu scans beside %lu transactions", crowd.scans, crowd.commits);
	sqlite3_close(keeper);
}

TEST(two_writers_and_readers)
{
	void *(*const threads[])(void *) = { write_and_spill, write_and_spill, scan, scan };
	struct crowd crowd = { .uri = "file:/cow-threads-writers?vfs=cow" };
	sqlite3 *keeper = filled(crowd.uri);

	run_for(&crowd, threads, 4, 1000);
	ok(crowd.scans > 0, "readers made progress");
	sqlite3_close(keeper);
}

/* Names, pasts and branches made and dropped while others read and write. */
static void *come_and_go(void *argument)
{
	struct crowd *crowd = argument;
	sqlite3 *connection = open_uri(crowd->uri);
	char uri[128];

	while (!stopped(crowd)) {
		sqlite3_int64 sum = 0;
		sqlite3 *other;

		must(connection, "SELECT cow_snapshot('here')");
		must(connection, "SELECT cow_branch('here', 'there')");
		snprintf(uri, sizeof(uri), "%s&snapshot=here", crowd->uri);
		other = open_uri(uri);
		must(other, "PRAGMA mmap_size=100000000");
		is_int(get_number(other, "SELECT sum(amount) FROM t", &sum), SQLITE_ROW,
		       "the past");
		is_int(sum, SUM, "a snapshot is a committed state");
		sqlite3_close(other);
		snprintf(uri, sizeof(uri), "%s&branch=there", crowd->uri);
		other = open_uri(uri);
		must(other, "UPDATE t SET amount = 1");
		is_int(get_number(other, "SELECT sum(amount) FROM t", &sum), SQLITE_ROW,
		       "a branch");
		is_int(sum, ROWS, "a branch is written by itself");
		sqlite3_close(other);
		must(connection, "SELECT cow_drop('there'), cow_drop('here')");
		is_int(get_number(connection, "SELECT count(*) FROM cow_snapshots", &sum),
		       SQLITE_ROW, "the list");
		crowd->commits++;
	}
	sqlite3_close(connection);
	return NULL;
}

TEST(names_come_and_go)
{
	void *(*const threads[])(void *) = { write_and_spill, scan, scan, come_and_go };
	struct crowd crowd = { .uri = "file:/cow-threads-names?vfs=cow" };
	sqlite3 *keeper = filled(crowd.uri);

	run_for(&crowd, threads, 4, 1500);
	ok(crowd.scans > 0 && crowd.commits > 0, "all made progress");
	sqlite3_close(keeper);
}

/* Goes back to the beginning whenever nobody writes. */
static void *go_back(void *argument)
{
	struct crowd *crowd = argument;
	sqlite3 *connection = open_uri(crowd->uri);

	while (!stopped(crowd)) {
		int rc = run(connection, "SELECT cow_rollback('beginning')");

		ok(rc == SQLITE_OK || rc == SQLITE_BUSY, "cow_rollback: %s",
		   sqlite3_errmsg(connection));
		usleep(500);
	}
	sqlite3_close(connection);
	return NULL;
}

TEST(rollbacks_beside_readers_and_a_writer)
{
	void *(*const threads[])(void *) = { write_and_spill, scan, scan, go_back };
	struct crowd crowd = { .uri = "file:/cow-threads-back?vfs=cow" };
	sqlite3 *keeper = filled(crowd.uri);

	must(keeper, "SELECT cow_snapshot('beginning')");
	run_for(&crowd, threads, 4, 1500);
	ok(crowd.scans > 0 && crowd.commits > 0, "all made progress");
	sqlite3_close(keeper);
}

/* In the child: exit status 0 when everything is refused as it should be. */
static int use_in_child(sqlite3 *connection, sqlite3 *writing)
{
	sqlite3_int64 number = 0;
	sqlite3 *fresh;

	if ((get_number(connection, "SELECT count(*) FROM t", &number) & 0xff) != SQLITE_IOERR)
		return 1;
	if ((run(connection, "INSERT INTO t(amount) VALUES(1)") & 0xff) != SQLITE_IOERR)
		return 2;
	if (run(connection, "SELECT cow_snapshot('child')") != SQLITE_IOERR)
		return 3;
	if (run(writing, "COMMIT") == SQLITE_OK)
		return 4;
	if (run(connection, "SELECT * FROM cow_snapshots") == SQLITE_OK)
		return 5;
	sqlite3_close(connection);
	/* A database of its own, by the same path. */
	fresh = open_uri("file:/cow-threads-fork?vfs=cow");
	if (run(fresh,
		"CREATE TABLE own(a); INSERT INTO own VALUES(1); SELECT cow_snapshot('own')"))
		return 6;
	if (get_number(fresh, "SELECT count(*) FROM own", &number) != SQLITE_ROW || number != 1)
		return 7;
	sqlite3_close(fresh);
	return 0;
}

TEST(a_child_is_refused_and_does_not_hang)
{
	sqlite3 *connection = filled("file:/cow-threads-fork?vfs=cow");
	sqlite3 *writing = open_uri("file:/cow-threads-fork?vfs=cow");
	sqlite3_int64 number = 0;
	int status = 0;
	pid_t child;

	must(writing, "BEGIN IMMEDIATE");
	must(writing, "DELETE FROM t WHERE id = 1");
	child = fork();
	if (child == 0) {
		alarm(20);
		_exit(use_in_child(connection, writing));
	}
	waitpid(child, &status, 0);
	ok(WIFEXITED(status), "the child ends by itself (signal %d)",
	   WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	is_int(WEXITSTATUS(status), 0, "each call in the child is refused");
	must(writing, "COMMIT");
	is_int(get_number(connection, "SELECT count(*) FROM t", &number), SQLITE_ROW, "goes on");
	is_int(number, ROWS - 1, "the parent's transaction was not disturbed");
	sqlite3_close(writing);
	sqlite3_close(connection);
}

/* What the pager would call. SQLite's own locks, its allocator's for one, are as the fork left
 * them, so a child must not enter SQLite where other threads were inside of it: the VFS is called
 * directly. */
static int call_methods(sqlite3_file *file)
{
	sqlite3_int64 size;
	char byte;
	int reserved;

	alarm(20);
	return file->pMethods->xLock(file, SQLITE_LOCK_SHARED) == SQLITE_IOERR_LOCK &&
	       file->pMethods->xRead(file, &byte, 1, 0) == SQLITE_IOERR_READ &&
	       file->pMethods->xFileSize(file, &size) == SQLITE_IOERR_FSTAT &&
	       file->pMethods->xCheckReservedLock(file, &reserved) ==
		       SQLITE_IOERR_CHECKRESERVEDLOCK &&
	       file->pMethods->xUnlock(file, SQLITE_LOCK_NONE) == SQLITE_IOERR_UNLOCK &&
	       file->pMethods->xClose(file) == SQLITE_OK;
}

TEST(forks_under_load)
{
	struct crowd crowd = { .uri = "file:/cow-threads-load?vfs=cow" };
	sqlite3 *keeper = filled(crowd.uri);
	sqlite3_file *file = NULL;
	pthread_t writer, reader;
	int i, status;

	sqlite3_file_control(keeper, "main", SQLITE_FCNTL_FILE_POINTER, (void *)&file);
	pthread_create(&writer, NULL, write_and_spill, &crowd);
	pthread_create(&reader, NULL, scan, &crowd);
	for (i = 0; i < 30; i++) {
		pid_t child = fork();

		if (child == 0)
			_exit(call_methods(file) ? 0 : 1);
		waitpid(child, &status, 0);
		ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d: status %#x", i,
		   (unsigned int)status);
		usleep(2000);
	}
	__atomic_store_n(&crowd.stop, 1, __ATOMIC_RELAXED);
	pthread_join(writer, NULL);
	pthread_join(reader, NULL);
	sqlite3_close(keeper);
}

TAP_MAIN(CASE(readers_beside_a_writer), CASE(readers_beside_small_transactions),
	 CASE(two_writers_and_readers), CASE(names_come_and_go),
	 CASE(rollbacks_beside_readers_and_a_writer), CASE(a_child_is_refused_and_does_not_hang),
	 CASE(forks_under_load))
