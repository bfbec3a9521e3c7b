/* SPDX-License-Identifier: MIT */
/*
 * SQLite on the VFS "cow", beside what its users have today. Each turn runs every side, in an order
 * that rotates; a ratio is taken within a turn. A second run of the baseline in each turn (A/A)
 * shows the noise.
 *
 *	throughput  one connection, small transactions [SQLite's memdb VFS, the same journal mode]
 *	readers     one writer, three threads that scan without pause [memdb, busy_timeout 5000]
 *	branch      branch, open, one committed write, discard [copies of a file, backup API]
 *
 * The extension is found through $COW_SQLITE, else in the build directory. $BENCH_ONLY names the
 * parts to run, where not all are wanted.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/harness.h"

enum { SCANNERS = 3 };

static struct bench_options options;
static char directory[256]; /* a temporary one */

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

static double seconds_of(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void report_ratio(const char *name, const struct samples *side,
			 const struct samples *baseline, double least)
{
	struct samples ratios = { 0 };
	size_t i;

	for (i = 0; i < side->count; i++)
		samples_add(&ratios, side->values[i] / baseline->values[i]);
	bench_result(name, "", &ratios, least > 0 ? AT_LEAST : BOUND_NONE, least);
	samples_free(&ratios);
}

/* SQL helpers; any unexpected error ends the benchmark. */

static int run(sqlite3 *connection, const char *format, ...)
{
	va_list arguments;
	char *sql;
	int rc;

	va_start(arguments, format);
	sql = sqlite3_vmprintf(format, arguments);
	va_end(arguments);
	rc = sqlite3_exec(connection, sql, NULL, NULL, NULL);
	sqlite3_free(sql);
	return rc;
}

#define must(connection, ...)                                                             \
	do {                                                                              \
		if (run(connection, __VA_ARGS__))                                         \
			die("%s:%d: %s", __FILE__, __LINE__, sqlite3_errmsg(connection)); \
	} while (0)

static sqlite3_stmt *prepare(sqlite3 *connection, const char *sql)
{
	sqlite3_stmt *statement;

	if (sqlite3_prepare_v2(connection, sql, -1, &statement, NULL))
		die("%s: %s", sql, sqlite3_errmsg(connection));
	return statement;
}

static sqlite3_int64 number(sqlite3 *connection, const char *sql)
{
	sqlite3_stmt *statement = prepare(connection, sql);
	sqlite3_int64 result;

	if (sqlite3_step(statement) != SQLITE_ROW)
		die("%s: %s", sql, sqlite3_errmsg(connection));
	result = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return result;
}

static sqlite3 *open_uri(const char *uri)
{
	sqlite3 *connection;

	if (sqlite3_open_v2(uri, &connection,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI |
				    SQLITE_OPEN_NOMUTEX,
			    NULL))
		die("%s: %s", uri, sqlite3_errmsg(connection));
	return connection;
}

static void find_extension(char *path, size_t room)
{
	static const char beside[] = "/../sqlite/cow_sqlite.so";
	const char *given = getenv("COW_SQLITE");
	ssize_t length;
	char *slash;

	if (given) {
		snprintf(path, room, "%s", given);
		return;
	}
	length = readlink("/proc/self/exe", path, room - 64);
	path[length > 0 ? length : 0] = '\0';
	slash = strrchr(path, '/');
	check(slash, "set COW_SQLITE to the extension");
	memcpy(slash, beside, sizeof(beside));
}

static void load_extension(void)
{
	sqlite3 *connection = open_uri(":memory:");
	char path[4096], *error = NULL;

	find_extension(path, sizeof(path));
	sqlite3_db_config(connection, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, (int *)NULL);
	if (sqlite3_load_extension(connection, path, NULL, &error))
		die("%s", error);
	sqlite3_close(connection);
}

/* One connection, small transactions */

struct side {
	const char *name;
	char uri[128];
	sqlite3 *connection;
	bool snapshot; /* one is taken before each turn and lives throughout it */
	uint64_t random;
	sqlite3_stmt *begin, *commit, *update, *insert, *select;
	struct samples rates;
};

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void step(sqlite3_stmt *statement)
{
	int rc;

	while ((rc = sqlite3_step(statement)) == SQLITE_ROW)
		;
	if (rc != SQLITE_DONE)
		die("%s: %s", sqlite3_sql(statement), sqlite3_errmsg(sqlite3_db_handle(statement)));
	sqlite3_reset(statement);
}

static void fill(sqlite3 *connection, int rows)
{
	must(connection, "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF;"
			 "CREATE TABLE account(id INTEGER PRIMARY KEY, amount INT, note TEXT)");
	must(connection,
	     "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
	     "INSERT INTO account SELECT i, 1000, hex(randomblob(40)) FROM n",
	     rows);
	must(connection, "CREATE INDEX account_amount ON account(amount)");
	must(connection, "CREATE TABLE log(id INTEGER PRIMARY KEY, a INT, b INT)");
}

static void prepare_side(struct side *side, int rows)
{
	side->connection = open_uri(side->uri);
	fill(side->connection, rows);
	side->random = 88172645463325252u;
	side->begin = prepare(side->connection, "BEGIN IMMEDIATE");
	side->commit = prepare(side->connection, "COMMIT");
	side->update = prepare(side->connection,
			       "UPDATE account SET amount = amount + ?2 WHERE id = ?1");
	side->insert = prepare(side->connection, "INSERT INTO log(a, b) VALUES(?1, ?2)");
	side->select = prepare(side->connection,
			       "SELECT sum(amount), max(note) FROM account WHERE id BETWEEN ?1 AND "
			       "?1 + 20");
}

/* Moves an amount between two rows, logs it, and reads a range. */
static void transact(struct side *side, int rows)
{
	int from = (int)(next_random(&side->random) % (uint64_t)rows) + 1;
	int to = (int)(next_random(&side->random) % (uint64_t)rows) + 1;

	step(side->begin);
	sqlite3_bind_int(side->update, 1, from);
	sqlite3_bind_int(side->update, 2, -1);
	step(side->update);
	sqlite3_bind_int(side->update, 1, to);
	sqlite3_bind_int(side->update, 2, 1);
	step(side->update);
	sqlite3_bind_int(side->insert, 1, from);
	sqlite3_bind_int(side->insert, 2, to);
	step(side->insert);
	step(side->commit);
	sqlite3_bind_int(side->select, 1, to);
	step(side->select);
}

static void close_side(struct side *side)
{
	sqlite3_finalize(side->begin);
	sqlite3_finalize(side->commit);
	sqlite3_finalize(side->update);
	sqlite3_finalize(side->insert);
	sqlite3_finalize(side->select);
	sqlite3_close(side->connection);
	samples_free(&side->rates);
}

/* A database exists as long as somebody has it open, and has its page size from its first table;
 * ":memory:" is another one each time, and keeps SQLite's own. */
static void prepare_sized(struct side *side, int rows, int page_size)
{
	sqlite3 *first = open_uri(side->uri);

	must(first, "PRAGMA page_size=%d; CREATE TABLE page_size_is_fixed(a)", page_size);
	prepare_side(side, rows);
	sqlite3_close(first);
}

/* Transactions a second. */
static double turn_of(struct side *side, int rows, int count)
{
	double began, rate;

	if (side->snapshot)
		must(side->connection, "SELECT cow_snapshot('turn')");
	began = seconds_of(CLOCK_MONOTONIC);
	for (int i = 0; i < count; i++)
		transact(side, rows);
	rate = count / (seconds_of(CLOCK_MONOTONIC) - began);
	if (side->snapshot)
		must(side->connection, "SELECT cow_drop('turn')");
	return rate;
}

static void throughput(int page_size)
{
	struct side sides[] = {
		{ .name = "memdb", .uri = "file:/bench-a?vfs=memdb" },
		{ .name = "memdb again (A/A)", .uri = "file:/bench-b?vfs=memdb" },
		{ .name = "cow", .uri = "file:/bench-c?vfs=cow" },
		{ .name = "cow, a snapshot alive",
		  .uri = "file:/bench-d?vfs=cow",
		  .snapshot = true },
		{ .name = ":memory:", .uri = ":memory:" },
	};
	enum { SIDES = sizeof(sides) / sizeof(sides[0]) };
	int rows = options.quick ? 5000 : 100000, count = options.quick ? 500 : 15000;
	int turn, i;

	bench_section("throughput: %d rows, page size %d, %d small transactions a turn", rows,
		      page_size, count);
	for (i = 0; i < SIDES; i++)
		prepare_sized(&sides[i], rows, page_size);
	for (turn = -(int)BENCH_WARM_UP; turn < (int)options.runs; turn++) {
		for (i = 0; i < SIDES; i++) {
			struct side *side = &sides[(i + turn + (int)BENCH_WARM_UP) % SIDES];
			double rate = turn_of(side, rows, count);

			if (turn >= 0)
				samples_add(&side->rates, rate);
		}
	}
	for (i = 0; i < SIDES; i++)
		bench_result(sides[i].name, "tx/s", &sides[i].rates, BOUND_NONE, 0);
	report_ratio("A/A: memdb / memdb", &sides[1].rates, &sides[0].rates, 0);
	report_ratio("cow / memdb", &sides[2].rates, &sides[0].rates, 0.9);
	report_ratio("cow with a snapshot alive / memdb", &sides[3].rates, &sides[0].rates, 0.85);
	report_ratio(":memory: / memdb", &sides[4].rates, &sides[0].rates, 0);
	for (i = 0; i < SIDES; i++)
		close_side(&sides[i]);
}

/* One writer and three that scan */

struct crowd {
	const char *uri;
	bool apart; /* each scanner has a database of its own */
	int rows;
	double seconds;
	bool stop;                                /* atomic */
	unsigned long commits, scans, busy, torn; /* atomic */
	double writer_cpu; /* seconds on a core; the writer's, until joined */
};

/* NOLINTNEXTLINE(readability-non-const-parameter): the builtin writes through it */
static void count_up(unsigned long *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static bool stopped(const struct crowd *crowd)
{
	return __atomic_load_n(&crowd->stop, __ATOMIC_RELAXED);
}

static void *scan_thread(void *argument)
{
	struct crowd *crowd = argument;
	sqlite3 *connection = open_uri(crowd->apart ? ":memory:" : crowd->uri);
	sqlite3_stmt *scan;

	if (crowd->apart)
		fill(connection, crowd->rows);
	sqlite3_busy_timeout(connection, 5000);
	must(connection, "PRAGMA cache_size=-64");
	scan = prepare(connection, "SELECT sum(amount), count(*) FROM account NOT INDEXED");
	while (!stopped(crowd)) {
		int rc = sqlite3_step(scan);

		if (rc == SQLITE_ROW) {
			count_up(&crowd->scans);
			if (sqlite3_column_int64(scan, 0) != 1000 * (sqlite3_int64)crowd->rows ||
			    sqlite3_column_int(scan, 1) != crowd->rows)
				count_up(&crowd->torn);
		} else if ((rc & 0xff) == SQLITE_BUSY) {
			count_up(&crowd->busy);
		} else {
			die("scan: %s", sqlite3_errmsg(connection));
		}
		sqlite3_reset(scan);
	}
	sqlite3_finalize(scan);
	sqlite3_close(connection);
	return NULL;
}

static bool try_statement(struct crowd *crowd, sqlite3_stmt *statement)
{
	int rc = sqlite3_step(statement);

	sqlite3_reset(statement);
	if ((rc & 0xff) == SQLITE_BUSY)
		count_up(&crowd->busy);
	else if (rc != SQLITE_DONE)
		die("writer: %s", sqlite3_errstr(rc));
	return rc == SQLITE_DONE;
}

static void *write_thread(void *argument)
{
	struct crowd *crowd = argument;
	struct side side = { .random = 99991 };
	int i;

	side.connection = open_uri(crowd->uri);
	sqlite3_busy_timeout(side.connection, 5000);
	must(side.connection, "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF");
	side.begin = prepare(side.connection, "BEGIN IMMEDIATE");
	side.commit = prepare(side.connection, "COMMIT");
	side.update = prepare(side.connection,
			      "UPDATE account SET amount = amount + ?2 WHERE id = ?1");
	while (!stopped(crowd)) {
		if (!try_statement(crowd, side.begin))
			continue;
		for (i = 0; i < 4; i++) {
			int id = (int)(next_random(&side.random) % (uint64_t)crowd->rows) + 1;

			sqlite3_bind_int(side.update, 1, id);
			sqlite3_bind_int(side.update, 2, i % 2 ? 1 : -1);
			step(side.update);
		}
		if (try_statement(crowd, side.commit))
			count_up(&crowd->commits);
		else
			must(side.connection, "ROLLBACK");
	}
	crowd->writer_cpu = seconds_of(CLOCK_THREAD_CPUTIME_ID);
	close_side(&side);
	return NULL;
}

static void crowd_run(struct crowd *crowd)
{
	pthread_t threads[SCANNERS + 1];
	sqlite3 *keeper = open_uri(crowd->uri);
	double began;
	int i;

	fill(keeper, crowd->rows);
	pthread_create(&threads[0], NULL, write_thread, crowd);
	for (i = 1; i <= SCANNERS; i++)
		pthread_create(&threads[i], NULL, scan_thread, crowd);
	began = seconds_of(CLOCK_MONOTONIC);
	while (seconds_of(CLOCK_MONOTONIC) - began < crowd->seconds)
		usleep(1000);
	__atomic_store_n(&crowd->stop, true, __ATOMIC_RELAXED);
	for (i = 0; i <= SCANNERS; i++)
		pthread_join(threads[i], NULL);
	crowd->seconds = seconds_of(CLOCK_MONOTONIC) - began;
	sqlite3_close(keeper);
}

/* memdb's scanners mostly sleep in their busy handler, so its writer has a core to itself. The last
 * side shows what the machine can do at all: a writer that shares nothing with three threads that
 * work as hard as readers that never wait. */
static const struct {
	const char *name, *uri;
	bool apart;
} crowds[] = {
	{ "memdb", "file:/bench-readers?vfs=memdb", false },
	{ "cow", "file:/bench-readers?vfs=cow", false },
	{ "memdb again (A/A)", "file:/bench-readers-again?vfs=memdb", false },
	{ "memdb, scans of other databases", "file:/bench-readers-apart?vfs=memdb", true },
};
enum { CROWDS = sizeof(crowds) / sizeof(crowds[0]) };

struct crowd_result {
	struct samples commits, per_cpu, scans;
	unsigned long busy, torn;
};

static void add_turn(struct crowd_result *result, const struct crowd *crowd)
{
	/* memdb's scanners may not come through at all: a ratio wants a number. */
	samples_add(&result->commits, (double)(crowd->commits + 1) / crowd->seconds);
	samples_add(&result->per_cpu, (double)(crowd->commits + 1) / crowd->writer_cpu);
	samples_add(&result->scans, (double)(crowd->scans + 1) / crowd->seconds);
	result->busy += crowd->busy;
	result->torn += crowd->torn;
}

static void report_crowd(const char *name, struct crowd_result *result, enum bench_bound kind)
{
	char line[96];

	snprintf(line, sizeof(line), "%s: writer", name);
	bench_result(line, "tx/s", &result->commits, BOUND_NONE, 0);
	snprintf(line, sizeof(line), "%s: writer, a CPU second", name);
	bench_result(line, "tx/s", &result->per_cpu, BOUND_NONE, 0);
	snprintf(line, sizeof(line), "%s: scans", name);
	bench_result(line, "1/s", &result->scans, BOUND_NONE, 0);
	snprintf(line, sizeof(line), "%s: SQLITE_BUSY", name);
	bench_value(line, "", (double)result->busy, kind, 0);
	snprintf(line, sizeof(line), "%s: inconsistent scans", name);
	bench_value(line, "", (double)result->torn, kind, 0);
}

static void readers(void)
{
	static struct crowd_result results[CROWDS];
	int rows = options.quick ? 2000 : 20000;
	bool enough_cores = sysconf(_SC_NPROCESSORS_ONLN) > SCANNERS;
	int turn, i;

	bench_section("readers: one writer, %d threads that scan %d rows without pause, %ld cores",
		      SCANNERS, rows, sysconf(_SC_NPROCESSORS_ONLN));
	for (turn = -1; turn < (int)options.runs; turn++) {
		for (i = 0; i < CROWDS; i++) {
			int side = (i + turn + 1) % CROWDS;
			struct crowd crowd = {
				.uri = crowds[side].uri,
				.apart = crowds[side].apart,
				.rows = rows,
				.seconds = options.quick ? 0.1 : 1.0,
			};

			crowd_run(&crowd);
			if (turn >= 0)
				add_turn(&results[side], &crowd);
		}
	}
	for (i = 0; i < CROWDS; i++)
		report_crowd(crowds[i].name, &results[i], i == 1 ? AT_MOST : BOUND_NONE);
	report_ratio("A/A: writer, memdb / memdb", &results[2].commits, &results[0].commits, 0);
	report_ratio("A/A: scans, memdb / memdb", &results[2].scans, &results[0].scans, 0);
	report_ratio("scans, cow / memdb", &results[1].scans, &results[0].scans, 2.5);
	report_ratio("writer, cow / memdb", &results[1].commits, &results[0].commits,
		     enough_cores ? 0.9 : 0);
	if (!enough_cores)
		bench_note(
			"fewer cores than threads that work: the writer is judged beside one that "
			"shares nothing with its scanners");
	report_ratio("writer, cow / memdb with scans of other databases", &results[1].commits,
		     &results[3].commits, enough_cores ? 0 : 0.9);
	for (i = 0; i < CROWDS; i++) {
		samples_free(&results[i].commits);
		samples_free(&results[i].per_cpu);
		samples_free(&results[i].scans);
	}
}

/* Branch */

static void fill_bytes(sqlite3 *connection, sqlite3_int64 bytes)
{
	must(connection, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
			 "CREATE TABLE big(id INTEGER PRIMARY KEY, b BLOB);"
			 "CREATE TABLE small(id INTEGER PRIMARY KEY, v)");
	must(connection, "INSERT INTO small VALUES(1, 0)");
	must(connection,
	     "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %lld)"
	     "INSERT INTO big SELECT i, randomblob(65000) FROM n",
	     bytes / 65536);
	must(connection, "PRAGMA journal_mode=MEMORY");
}

static void one_commit(const char *uri)
{
	sqlite3 *connection = open_uri(uri);

	must(connection, "UPDATE small SET v = v + 1 WHERE id = 1");
	sqlite3_close(connection);
}

static bool copy_file(const char *from, const char *to, const char *reflink)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		return false;
	if (child == 0) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

		dup2(null, STDERR_FILENO);
		execlp("cp", "cp", reflink, from, to, (char *)NULL);
		_exit(127);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void measure_copies(const char *name, const char *source, const char *where,
			   const char *reflink, int times)
{
	struct samples took = { 0 };
	char copy[300], uri[340];
	int i;

	snprintf(copy, sizeof(copy), "%s/copy.db", where);
	snprintf(uri, sizeof(uri), "file:%s?vfs=unix", copy);
	for (i = 0; i < times; i++) {
		double began = seconds_of(CLOCK_MONOTONIC);

		if (!copy_file(source, copy, reflink)) {
			bench_note("%s: not possible there", name);
			unlink(copy);
			break;
		}
		one_commit(uri);
		unlink(copy);
		samples_add(&took, (seconds_of(CLOCK_MONOTONIC) - began) * 1e3);
	}
	if (took.count)
		bench_result(name, "ms", &took, BOUND_NONE, 0);
	samples_free(&took);
}

static void measure_backup(sqlite3 *source, int times)
{
	struct samples took = { 0 };
	int i;

	for (i = 0; i < times; i++) {
		double began = seconds_of(CLOCK_MONOTONIC);
		sqlite3 *copy = open_uri(":memory:");
		sqlite3_backup *backup = sqlite3_backup_init(copy, "main", source, "main");

		if (!backup || sqlite3_backup_step(backup, -1) != SQLITE_DONE)
			die("backup: %s", sqlite3_errmsg(copy));
		sqlite3_backup_finish(backup);
		must(copy, "UPDATE small SET v = v + 1 WHERE id = 1");
		sqlite3_close(copy);
		samples_add(&took, (seconds_of(CLOCK_MONOTONIC) - began) * 1e3);
	}
	bench_result("SQLite's backup API into :memory:", "ms", &took, BOUND_NONE, 0);
	samples_free(&took);
}

__attribute__((format(printf, 1, 2))) static bool run_shell(const char *format, ...)
{
	char command[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(command, sizeof(command), format, arguments);
	va_end(arguments);
	return system(command) == 0;
}

/* cp --reflink needs a file system that can: an XFS image, where root may mount one. */
static void measure_reflink(const char *source, sqlite3_int64 bytes, int times)
{
	char mounted[300], here[320];

	snprintf(mounted, sizeof(mounted), "%s/xfs", directory);
	snprintf(here, sizeof(here), "%s/source.db", mounted);
	if (geteuid() != 0 ||
	    !run_shell("truncate -s %lld '%s/image' && mkfs.xfs -q '%s/image' 2>/dev/null "
		       "&& mkdir '%s' && mount -o loop '%s/image' '%s' 2>/dev/null",
		       (long long)(bytes * 3 + ((sqlite3_int64)512 << 20)), directory, directory,
		       mounted, directory, mounted)) {
		bench_note(
			"cp --reflink=always on XFS: skipped, needs root, mkfs.xfs, loop mounts");
	} else {
		if (copy_file(source, here, "--reflink=never"))
			measure_copies("cp --reflink=always on XFS", here, mounted,
				       "--reflink=always", times);
		run_shell("umount '%s'", mounted);
	}
	run_shell("rm -rf '%s/image' '%s'", directory, mounted);
}

static void branch(void)
{
	sqlite3_int64 bytes = (sqlite3_int64)(options.quick ? 16 : 1024) << 20;
	int count = options.quick ? 10 : 200, copies = options.quick ? 1 : 5, i;
	sqlite3 *trunk = open_uri("file:/bench-branch?vfs=cow");
	struct samples took = { 0 };
	char path[300];

	bench_section("branch: a database of %lld MiB; branch or copy, open, one committed write, "
		      "discard",
		      (long long)(bytes >> 20));
	fill_bytes(trunk, bytes);
	must(trunk, "SELECT cow_snapshot('base')");
	for (i = 0; i < count; i++) {
		double began = seconds_of(CLOCK_MONOTONIC);

		must(trunk, "SELECT cow_branch('base', 'one')");
		one_commit("file:/bench-branch?vfs=cow&branch=one");
		must(trunk, "SELECT cow_drop('one')");
		samples_add(&took, (seconds_of(CLOCK_MONOTONIC) - began) * 1e3);
	}
	bench_result("cow_branch", "ms", &took, AT_MOST, 1);
	bench_value("cow_branch, slowest of all", "ms", samples_quantile(&took, 1), BOUND_NONE, 0);
	samples_free(&took);
	check(number(trunk, "SELECT v FROM small") == 0, "a branch wrote into its trunk");
	snprintf(path, sizeof(path), "%s/source.db", directory);
	must(trunk, "SELECT cow_export(NULL, %Q)", path);
	measure_copies("cp", path, directory, "--reflink=never", copies);
	measure_reflink(path, bytes, copies);
	measure_backup(trunk, copies);
	unlink(path);
	sqlite3_close(trunk);
}

static bool wanted(const char *part)
{
	const char *only = getenv("BENCH_ONLY");

	return !only || strstr(only, part);
}

int main(int argc, char **argv)
{
	bench_begin("bench-sqlite", "SQLite on the VFS cow, beside memdb and copies of files", argc,
		    argv, &options);
	bench_note("SQLite %s", sqlite3_libversion());
	snprintf(directory, sizeof(directory), "%.200s/bench-sqlite-XXXXXX", options.directory);
	check(mkdtemp(directory), "a temporary directory in --directory");
	load_extension();
	if (wanted("throughput")) {
		throughput(4096);
		if (!options.quick)
			throughput(1024);
	}
	if (wanted("readers"))
		readers();
	if (wanted("branch"))
		branch();
	rmdir(directory);
	return bench_end();
}
