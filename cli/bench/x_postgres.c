/* SPDX-License-Identifier: MIT */
/*
 * postgres: what copy-on-write has to do with PostgreSQL, and what the settings do that are said to
 * help it. The real server, bulk inserts and checkpoints, under each setting in turns.
 *
 * Faults are counted by the kernel for each process and handed to its parent when it ends, so the
 * postmaster's count of its children grows by what a session took. Which of them copied is not
 * told; but nothing can be copied on write that was not private to the postmaster before the fork.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench/bench.h"
#include "cli/bench/run.h"
#include "cli/bench/service.h"
#include "proc/areas.h"
#include "proc/process.h"
#include "proc/root.h"

#define MIB    ((uint64_t)1 << 20)
#define SOCKET ".s.PGSQL.5432"

#define SWAPPINESS "/proc/sys/vm/swappiness"
#define OVERCOMMIT "/proc/sys/vm/overcommit_memory"
#define HUGE_PAGES "/sys/kernel/mm/transparent_hugepage/enabled"

static const struct setting {
	const char *key, *name;
	bool swap, huge;
} settings[] = {
	{ "default", "as the system is set", false, false },
	{ "swap", "vm.swappiness=10, vm.overcommit_memory=1", true, false },
	{ "huge", "these, and transparent_hugepage=always", true, true },
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

struct server {
	struct bench *bench;
	struct service service;
	const char *programs; /* the directory of PostgreSQL's */
	uint64_t buffers;     /* bytes, shared_buffers */
	uint64_t rows;        /* of a bulk insert */
	size_t settings;      /* how many of them may be tried */
	char old[3][64];      /* of the system's settings */
};

/* --- the server --- */

/* Debian keeps each version's programs in a directory of its own; elsewhere they are in PATH. */
static const char *find_programs(struct bench *bench)
{
	const char *directory = NULL, *found;
	glob_t versions;

	if (glob("/usr/lib/postgresql/*/bin", 0, NULL, &versions) == 0) {
		directory = bench_text(bench, "%s", versions.gl_pathv[versions.gl_pathc - 1]);
		globfree(&versions);
	}
	found = directory ? NULL : bench_find_program(bench, "initdb");
	if (found)
		directory = bench_text(bench, "%.*s", (int)(strrchr(found, '/') - found), found);
	return directory;
}

static bool start_server(struct server *server)
{
	struct bench *bench = server->bench;
	const char *data = bench_text(bench, "%s/data", server->service.directory);
	const char *initdb[] = { bench_text(bench, "%s/initdb", server->programs),
				 "--no-sync",
				 "--auth=trust",
				 "--username=bench",
				 "--encoding=UTF8",
				 "--locale=C",
				 "--pgdata",
				 data,
				 NULL };
	/* Shared memory of other kinds would outlive a server that was killed. */
	const char *argv[] = { bench_text(bench, "%s/postgres", server->programs),
			       "-D",
			       data,
			       "-k",
			       server->service.directory,
			       "-c",
			       "listen_addresses=",
			       "-c",
			       "port=5432",
			       "-c",
			       "dynamic_shared_memory_type=mmap",
			       "-c",
			       "autovacuum=off",
			       "-c",
			       "checkpoint_timeout=1h",
			       "-c",
			       "max_wal_size=16GB",
			       "-c",
			       "huge_pages=off",
			       "-c",
			       "max_parallel_workers=0",
			       "-c",
			       bench_text(bench, "shared_buffers=%" PRIu64 "MB",
					  server->buffers / MIB),
			       NULL };
	int fd;

	if (service_run(bench, &server->service, initdb, NULL) != 0 ||
	    !service_start(bench, &server->service, argv))
		return false;
	fd = service_connect(bench, &server->service, SOCKET);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* Runs statements in a session of its own, with times; the output is to be freed. */
static char *run_session(struct server *server, const char *const statements[])
{
	struct bench *bench = server->bench;
	const char *argv[32] = { bench_text(bench, "%s/psql", server->programs),
				 "-h",
				 server->service.directory,
				 "-U",
				 "bench",
				 "-d",
				 "postgres",
				 "-XAtq",
				 "-v",
				 "ON_ERROR_STOP=1",
				 "-c",
				 "\\timing on" };
	char *output = NULL;
	size_t at = 12;

	for (; *statements && at + 2 < 32; statements++) {
		argv[at++] = "-c";
		argv[at++] = *statements;
	}
	argv[at] = NULL;
	if (service_run(bench, &server->service, argv, &output) != 0) {
		free(output);
		return NULL;
	}
	return output;
}

/* A server that is still starting refuses sessions. */
static bool wait_until_ready(struct server *server)
{
	const char *argv[] = { bench_text(server->bench, "%s/pg_isready", server->programs),
			       "-q",
			       "-t",
			       "20",
			       "-h",
			       server->service.directory,
			       NULL };
	int tries;

	for (tries = 0; tries < 1000; tries++) {
		if (bench_run(server->bench, argv, NULL) == 0)
			return true;
		usleep(10000);
	}
	bench_fail(server->bench, 0, "PostgreSQL does not become ready");
	return false;
}

/* The n-th "Time: 12.345 ms", in ns. */
static double time_of(const char *output, int number)
{
	const char *at = output;

	while (at && (at = strstr(at, "Time: "))) {
		at += 6;
		if (number-- == 0)
			return 1e6 * strtod(at, NULL);
	}
	return NAN;
}

/* --- faults --- */

static double faults_of_children(pid_t pid)
{
	struct proc_buffer buffer = { 0 };
	struct proc_root root;
	struct proc_stat stat;
	double faults = NAN;
	struct text text;
	char path[64];

	snprintf(path, sizeof(path), "proc/%d/stat", (int)pid);
	if (proc_root_open(NULL, &root) < 0)
		return NAN;
	if (proc_root_read(&root, path, &buffer, &text) == 0 && proc_stat_parse(text, &stat) == 0)
		faults = (double)stat.child_minor_faults;
	proc_buffer_free(&buffer);
	proc_root_close(&root);
	return faults;
}

/* The largest writable area that is shared: bytes. */
static double largest_shared(pid_t pid)
{
	struct proc_buffer buffer = { 0 };
	struct proc_area area;
	struct proc_root root;
	struct text text;
	uint64_t largest = 0;
	char path[64];

	snprintf(path, sizeof(path), "proc/%d/maps", (int)pid);
	if (proc_root_open(NULL, &root) < 0)
		return 0;
	if (proc_root_read(&root, path, &buffer, &text) == 0)
		while (proc_area_next(&text, &area) > 0)
			if (area.shared && area.writable && area.end - area.start > largest)
				largest = area.end - area.start;
	proc_buffer_free(&buffer);
	proc_root_close(&root);
	return (double)largest;
}

static void look_at_memory(struct server *server)
{
	struct bench *bench = server->bench;
	struct bench_memory memory = { 0 };
	double shared = largest_shared(server->service.pid);
	int error = bench_memory(server->service.pid, &memory);

	if (error) {
		bench_fail(bench, error, "cannot read the postmaster's memory");
		return;
	}
	bench_add_value(
		bench,
		&(struct bench_row){ "shared",
				     "the data that processes share is one mapping, MAP_SHARED",
				     BENCH_BYTES },
		shared);
	bench_add_value(
		bench,
		&(struct bench_row){ "private",
				     "the postmaster's private memory: all that a fork of it "
				     "can ever have copied",
				     BENCH_BYTES },
		(double)memory.anonymous);
	bench_check(bench, shared >= (double)server->buffers,
		    "shared_buffers lie in memory that is not copied on write");
}

/* --- settings of the system --- */

static const char *const files[3] = { SWAPPINESS, OVERCOMMIT, HUGE_PAGES };

/* The first change of a file goes through bench_tune(), which has it put back in the end. */
static void find_settings(struct server *server)
{
	struct bench *bench = server->bench;
	const char *reason = NULL;
	int i, error = 0;
	size_t k;

	server->settings = SETTINGS;
	for (i = 0; i < 3 && !reason; i++) {
		if (bench_setting_read(files[i], server->old[i], sizeof(server->old[i])) < 0)
			reason = bench_text(bench, "%s cannot be read", files[i]);
		else
			error = bench_tune(bench, files[i], server->old[i]);
		if (error == -EPERM)
			reason = "it changes settings of the system: needs root and --allow-tuning";
		else if (error)
			reason = bench_text(bench, "%s: %s", files[i], strerror(-error));
	}
	if (!reason)
		return;
	server->settings = 1;
	for (k = 1; k < SETTINGS; k++)
		bench_add_skipped(
			bench,
			&(struct bench_row){
				bench_text(bench, "%s/faults", settings[k].key),
				bench_text(bench, "bulk insert: faults, %s", settings[k].name),
				BENCH_COUNT },
			"%s", reason);
}

static void apply(struct server *server, const struct setting *setting)
{
	const char *const values[3] = { setting->swap ? "10" : server->old[0],
					setting->swap ? "1" : server->old[1],
					setting->huge ? "always" : server->old[2] };
	int i, error;

	if (server->settings == 1)
		return;
	for (i = 0; i < 3; i++) {
		error = bench_setting_write(files[i], values[i]);
		if (error)
			bench_fail(server->bench, error, "cannot set %s", files[i]);
	}
}

/* --- measuring --- */

struct figures {
	struct bench_samples faults, insert, checkpoint;
};

static void measure(struct server *server, struct figures *figures, bool counts)
{
	const char *prepare[] = { "DROP TABLE IF EXISTS bulk",
				  "CREATE TABLE bulk (id bigint, name text, amount numeric)",
				  "CHECKPOINT", NULL };
	const char *work[] = { bench_text(server->bench,
					  "INSERT INTO bulk SELECT n, md5(n::text), n * 0.01 "
					  "FROM generate_series(1, %" PRIu64 ") AS n",
					  server->rows),
			       "CHECKPOINT", NULL };
	double before, after;
	char *output;

	free(run_session(server, prepare));
	before = faults_of_children(server->service.pid);
	output = run_session(server, work);
	/* The session's process has ended when the postmaster has taken its count. */
	usleep(50000);
	after = faults_of_children(server->service.pid);
	if (output && counts && !bench_over(server->bench)) {
		bench_samples_add(&figures->faults, after - before);
		bench_samples_add(&figures->insert, time_of(output, 0));
		bench_samples_add(&figures->checkpoint, time_of(output, 1));
	}
	free(output);
}

static void add_rows(struct bench *bench, const struct setting *setting,
		     const struct figures *figures)
{
	const char *faults_text = setting->swap && !setting->huge ? "-23 %" : NULL;
	const char *checkpoint_text = setting->huge ? "-5 ms" : NULL;

	bench_add(bench,
		  &(struct bench_row){ bench_text(bench, "%s/faults", setting->key),
				       bench_text(bench, "bulk insert: faults, %s", setting->name),
				       BENCH_COUNT, faults_text, "faults", "faults" },
		  &figures->faults);
	bench_add(bench,
		  &(struct bench_row){ bench_text(bench, "%s/insert", setting->key),
				       bench_text(bench, "bulk insert, %s", setting->name),
				       BENCH_NS },
		  &figures->insert);
	bench_add(bench,
		  &(struct bench_row){
			  bench_text(bench, "%s/checkpoint", setting->key),
			  bench_text(bench, "the checkpoint after it, %s", setting->name), BENCH_NS,
			  checkpoint_text, "checkpoint", "checkpoint" },
		  &figures->checkpoint);
}

static void take_turns(struct server *server)
{
	struct bench *bench = server->bench;
	const unsigned int turns = bench->warm_ups + bench->runs;
	struct figures figures[SETTINGS] = { 0 };
	unsigned int turn;
	size_t i, k;

	for (turn = 0; turn < turns && !bench_over(bench); turn++) {
		bench_progress(bench, turn, turns);
		for (i = 0; i < server->settings && !bench_over(bench); i++) {
			k = turn % 2 ? server->settings - 1 - i : i;
			apply(server, &settings[k]);
			measure(server, &figures[k], turn >= bench->warm_ups);
		}
	}
	apply(server, &settings[0]);
	bench_progress(bench, turns, turns);
	for (k = 0; k < server->settings; k++) {
		if (!bench_over(bench) && figures[k].faults.count)
			add_rows(bench, &settings[k], &figures[k]);
		bench_samples_free(&figures[k].faults);
		bench_samples_free(&figures[k].insert);
		bench_samples_free(&figures[k].checkpoint);
	}
}

static void add_ratios(struct server *server)
{
	if (server->settings < SETTINGS || bench_over(server->bench))
		return;
	bench_add_ratio(
		server->bench,
		&(struct bench_row){ "faults/ratio",
				     "faults with vm.swappiness=10, vm.overcommit_memory=1, "
				     "of those without",
				     BENCH_RATIO, "0.77" },
		"swap/faults", "default/faults");
	bench_add_ratio(
		server->bench,
		&(struct bench_row){ "checkpoint/ratio",
				     "a checkpoint with transparent_hugepage=always, too, of "
				     "one without",
				     BENCH_RATIO },
		"huge/checkpoint", "swap/checkpoint");
}

static void run(struct bench *bench)
{
	struct server server = { .bench = bench,
				 .programs = find_programs(bench),
				 .buffers = BENCH_BY_SCALE(bench, 16, 64, 128, 512) * MIB,
				 .rows = BENCH_BY_SCALE(bench, 2000, 100000, 500000, 2000000) };

	if (!server.programs) {
		bench_skip(bench, "PostgreSQL is not installed (package postgresql)");
		return;
	}
	if (!service_prepare(bench, "postgres", "postgres", &server.service))
		return;
	if (start_server(&server) && wait_until_ready(&server)) {
		look_at_memory(&server);
		bench_add_value(bench,
				&(struct bench_row){ "rows", "rows of a bulk insert", BENCH_COUNT },
				(double)server.rows);
		find_settings(&server);
		take_turns(&server);
		add_ratios(&server);
	}
	service_stop(&server.service);
}

/* --- judging --- */

static void judge_use(struct bench *bench)
{
	double shared = bench_median(bench, "shared"), own = bench_median(bench, "private");
	double faults = bench_median(bench, "default/faults");

	bench_judge(
		bench, "PostgreSQL uses COW extensively (background writer, snapshot isolation)",
		shared > 4 * own ? BENCH_DOES_NOT_HOLD : BENCH_HOLDS,
		"its data is in %s of MAP_SHARED memory, where nothing is copied on write; what a "
		"fork can have copied is the postmaster's own %s, %.0f pages, while a bulk insert "
		"takes %.0f faults. Snapshot isolation keeps versions of rows, not of pages",
		bench_figure(bench, BENCH_BYTES, shared), bench_figure(bench, BENCH_BYTES, own),
		own / 4096, faults);
}

static void judge_faults(struct bench *bench)
{
	const char *part = "vm.swappiness=10 and vm.overcommit_memory=1: 23 % fewer faults";
	double ratio = bench_median(bench, "faults/ratio");
	bool apart = bench_is_above(bench, "default/faults", "swap/faults");

	if (isnan(ratio)) {
		bench_judge(bench, part, BENCH_NOT_JUDGED, "not tried: needs --allow-tuning");
		return;
	}
	bench_judge(bench, part,
		    apart && ratio < 0.85 ? BENCH_HOLDS :
		    apart && ratio < 0.95 ? BENCH_HOLDS_IN_PART :
					    BENCH_DOES_NOT_HOLD,
		    "%.3f of the faults (%.3f to %.3f)", ratio, bench_min(bench, "faults/ratio"),
		    bench_max(bench, "faults/ratio"));
}

static void judge_checkpoint(struct bench *bench)
{
	const char *part = "transparent_hugepage=always shaves 5 ms off a checkpoint";
	double without = bench_median(bench, "swap/checkpoint");
	double with = bench_median(bench, "huge/checkpoint");
	bool apart = bench_is_above(bench, "swap/checkpoint", "huge/checkpoint");

	if (isnan(with)) {
		bench_judge(bench, part, BENCH_NOT_JUDGED, "not tried: needs --allow-tuning");
		return;
	}
	bench_judge(bench, part,
		    apart && without - with > 3e6 ? BENCH_HOLDS :
		    apart                         ? BENCH_HOLDS_IN_PART :
						    BENCH_DOES_NOT_HOLD,
		    "%s without, %s with, ratio %.2f to %.2f%s",
		    bench_figure(bench, BENCH_NS, without), bench_figure(bench, BENCH_NS, with),
		    bench_min(bench, "checkpoint/ratio"), bench_max(bench, "checkpoint/ratio"),
		    apart ? "" :
			    ": within its spread; the setting is about private memory, and a "
			    "checkpoint writes shared memory");
}

static void judge(struct bench *bench)
{
	judge_use(bench);
	judge_faults(bench);
	judge_checkpoint(bench);
}

static const struct bench_plot plots[] = {
	{ "faults", "Faults of a bulk insert, by setting", NULL, "faults" },
	{ "checkpoint", "The checkpoint after it, by setting", NULL, "ns" },
	{ 0 },
};

const struct bench_experiment experiment_postgres = {
	.name = "postgres",
	.title = "PostgreSQL: bulk inserts, checkpoints, and settings said to help",
	.source = BENCH_SOURCE_PRODUCTION,
	.claim =
		"PostgreSQL uses COW extensively for its fork-based background writer and snapshot "
		"isolation. In a production cluster of 8 TB vm.swappiness=10 and "
		"vm.overcommit_memory=1 reduced COW-induced page faults by 23 % during bulk "
		"INSERTs, and transparent_hugepage=always shaved 5 ms off each checkpoint.",
	.method =
		"The real PostgreSQL in a data directory of its own, as an ordinary user. Where "
		"its data is mapped, and how much private memory its postmaster has before it "
		"forks; then a bulk INSERT ... SELECT and a CHECKPOINT, timed by psql, and the "
		"minor faults of the session's process; under the system's settings, with the two "
		"of vm, and with huge pages, in turns (with --allow-tuning; put back afterwards).",
	.plots = plots,
	.seconds = 60,
	.run = run,
	.judge = judge,
};
