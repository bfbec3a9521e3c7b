/* SPDX-License-Identifier: MIT */
/*
 * cow demo: a SQLite database under a write load, copied again and again by libcow's snapshots and
 * by fork(), side by side, with proof that the copies are what they should be. This file is the
 * order of events; the parts are in cli/demo/.
 *
 *	1 data      the database, as a file
 *	2 load      rounds: libcow, fork(), libcow, ...; libcow's last ends with time travel
 *	3 checks    every export, by the stock sqlite3
 *	4 report
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/demo/check.h"
#include "cli/demo/dataset.h"
#include "cli/demo/demo.h"
#include "cli/demo/scratch.h"
#include "cli/demo/show.h"
#include "cli/demo/sides.h"
#include "cli/demo/worker.h"
#include "cli/output.h"
#include "cli/report.h"

enum { FILES_AT_LEAST = 6 /* of the database's size, that the disk has room for */ };

static const char *option_db, *option_keep;
static uint64_t option_rows = 300000, option_seconds = 10 * NS_PER_S;

/* Before anything is done: what would end in a failure later. */
static bool check_database(const char *path, const struct machine *machine)
{
	char size[UNIT_LENGTH], most[UNIT_LENGTH];
	struct stat status;

	if (stat(path, &status) < 0 || access(path, R_OK) < 0) {
		complain_errno(-errno, "cannot open %s", path);
		return false;
	}
	if (!S_ISREG(status.st_mode)) {
		complain("%s is not a file", path);
		return false;
	}
	if ((uint64_t)status.st_size > SIDE_FORK_MOST) {
		complain("%s has %s; SQLite's own memory database, which fork() is shown with, "
			 "holds %s at most",
			 path, format_bytes(size, (uint64_t)status.st_size),
			 format_bytes(most, SIDE_FORK_MOST));
		return false;
	}
	/* fork() at worst doubles it, and SQLite and the load need something too. */
	if ((uint64_t)status.st_size > machine->available_bytes / 3) {
		complain(
			"%s has %s, and only %s of memory are free: three times its size is needed",
			path, format_bytes(size, (uint64_t)status.st_size),
			format_bytes(most, machine->available_bytes));
		return false;
	}
	return true;
}

static bool make_data(struct demo *demo)
{
	bool given = demo->options->database != NULL;

	show_start(demo);
	if (!worker_run(demo, given ? dataset_from_database : dataset_from_files, NULL,
			given ? "rows read" : "files read", given ? 0 : demo->options->rows))
		return false;
	show_data(demo);
	return scratch_has_room(demo, FILES_AT_LEAST * demo->shared->data.bytes) &&
	       check_base(demo);
}

/* What fork()'s children wrote is of no use, but for the last of it, which is checked. */
static void drop_copies(struct demo *demo)
{
	struct round *round = &demo->shared->rounds[SIDE_FORK][demo->round];
	size_t kept = demo->round + 1 == DEMO_ROUNDS ? 1 : 0, i;

	for (i = 0; i + kept < round->cuts; i++)
		unlink(round->cut[i].path);
}

static bool run_load(struct demo *demo)
{
	static const struct {
		enum side side;
		worker_step step;
		const char *label;
	} turns[SIDES] = {
		{ SIDE_LIBCOW, side_libcow, "libcow: snapshots" },
		{ SIDE_FORK, side_fork, "fork(): children" },
	};
	size_t i;

	for (demo->round = 0; demo->round < DEMO_ROUNDS; demo->round++)
		for (i = 0; i < SIDES; i++) {
			if (!worker_run(demo, turns[i].step,
					&demo->shared->rounds[turns[i].side][demo->round],
					turns[i].label, 0))
				return false;
			show_round(demo, turns[i].side);
			if (turns[i].side == SIDE_FORK)
				drop_copies(demo);
		}
	return true;
}

/* True when there is something to report; the proofs need not hold. */
static bool run_steps(struct demo *demo)
{
	if (!make_data(demo) || !run_load(demo))
		return false;
	fputs("checks    the stock sqlite3 reads every export\n", demo->out);
	fflush(demo->out);
	return check_exports(demo);
}

static bool report(struct demo *demo, const struct machine *machine, const char *sqlite)
{
	json_object *json;
	bool written;

	show_results(demo);
	show_proofs(demo);
	if (demo->options->keep)
		fprintf(demo->out, "exports are in %s\n", demo->scratch);
	if (!command_json_wanted)
		return true;
	json = show_json(demo, machine, sqlite);
	written = report_write(json, command_json_path);
	json_object_put(json);
	return written;
}

/* The way a program that did not catch the signal would end: callers look at that. */
static int end_by_signal(void)
{
	int number = demo_interrupted;

	complain("interrupted; nothing is left behind");
	signal(number, SIG_DFL);
	raise(number);
	return COMMAND_FAILED;
}

static int run_in_scratch(struct demo *demo, const struct machine *machine, const char *sqlite)
{
	bool done, written = false;

	if (!scratch_make(demo))
		return COMMAND_FAILED;
	show_machine(demo, machine, sqlite);
	done = run_steps(demo);
	if (done)
		written = report(demo, machine, sqlite);
	scratch_remove(demo, written && demo->options->keep);
	if (demo_interrupted)
		return end_by_signal();
	return done && written && proofs_hold(&demo->shared->proofs) ? COMMAND_OK : COMMAND_FAILED;
}

static int run_shared(struct demo *demo, const struct machine *machine, const char *sqlite)
{
	int status;

	demo->shared = mmap(NULL, sizeof(*demo->shared), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (demo->shared == MAP_FAILED) {
		complain_errno(-errno, "cannot get shared memory");
		return COMMAND_FAILED;
	}
	status = run_in_scratch(demo, machine, sqlite);
	munmap(demo->shared, sizeof(*demo->shared));
	return status;
}

static int run(const struct command *command, int argc, char **argv)
{
	const struct demo_options wanted = {
		.database = option_db,
		.keep = option_keep,
		.rows = option_rows,
		.duration_ns = option_seconds,
	};
	struct demo demo = { .options = &wanted };
	bool text = !(command_json_wanted && !command_json_path);
	struct machine machine;
	char sqlite[32];
	int status;

	machine_look(&machine);
	worker_begin();
	if ((option_db && !check_database(option_db, &machine)) || !check_find_program(sqlite))
		return demo_interrupted ? end_by_signal() : COMMAND_FAILED;
	demo.out = text ? stdout : fopen("/dev/null", "we");
	if (!demo.out) {
		complain_errno(-errno, "cannot open /dev/null");
		return COMMAND_FAILED;
	}
	status = run_shared(&demo, &machine, sqlite);
	if (!text)
		fclose(demo.out);
	return status;
}

static const struct command_option options[] = {
	{ .name = "db",
	  .type = OPTION_PATH,
	  .argument = "FILE",
	  .help = "a copy of this SQLite database instead of the files of this machine",
	  .value.string = &option_db },
	{ .name = "rows",
	  .type = OPTION_COUNT,
	  .argument = "N",
	  .help = "at most so many files, or counters for rows",
	  .value.number = &option_rows,
	  .min = 1,
	  .max = 1000000000 },
	{ .name = "seconds",
	  .type = OPTION_DURATION,
	  .argument = "S",
	  .help = "how long each side writes",
	  .value.number = &option_seconds,
	  .min = NS_PER_S / 2,
	  .max = 3600 * NS_PER_S },
	{ .name = "keep",
	  .type = OPTION_PATH,
	  .argument = "DIR",
	  .help = "keep the exported databases, in a new directory in DIR",
	  .value.string = &option_keep },
	{ 0 },
};

const struct command command_demo = {
	.name = "demo",
	.summary = "snapshot a live SQLite database, side by side with fork()",
	.description =
		"Builds a SQLite database from the files of this machine (or takes a copy of\n"
		"yours), runs a write load on it, and copies it to files while the load goes on:\n"
		"by libcow's snapshots, and by children of fork(). Shows what each costs the\n"
		"writer, in memory and in CPU time. Every export is checked by the stock sqlite3;\n"
		"then come a query into the past, a branch, and a rollback. The exit status is 0\n"
		"only if every proof holds.\n",
	.options = options,
	.json = COMMAND_JSON_FILE,
	.run = run,
};
