/* SPDX-License-Identifier: MIT */
/*
 * What the parts of `cow demo` share.
 *
 * Model
 * - One coordinator process, single-threaded, small: it starts every step in a process of its own
 *   (worker.h), samples that process's memory from outside, removes what is temporary, reports.
 *   So each measured process holds its database and nothing else.
 * - A step has two sides, libcow and fork(), which run the same write load (load.h) on the same
 *   database file, in turn: libcow, fork, libcow, fork, and so on.
 * - Steps hand over results in struct demo_shared, anonymous shared memory, and say what went wrong
 *   in its `error`; the coordinator prints it.
 *
 * Invariants
 * - No SQLite connection is open, and no thread runs, in the coordinator: it fork()s.
 * - Everything temporary is in one directory, `scratch`; what survives is renamed or kept there.
 */
#ifndef CLI_DEMO_DEMO_H
#define CLI_DEMO_DEMO_H

#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "cli/demo/model.h"
#include "cli/demo/proofs.h"
#include "cli/histogram.h"

enum side {
	SIDE_LIBCOW,
	SIDE_FORK,
	SIDES,
};

enum {
	DEMO_ROUNDS = 4,     /* of each side: what else the machine does hits both alike */
	DEMO_CUTS_MAX = 128, /* in a round */
	DEMO_ERROR_LENGTH = 1024,
	DEMO_PATH_LENGTH = PATH_MAX,
};

#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

struct demo_options {
	const char *database; /* --db; NULL: this machine's files */
	const char *keep;     /* --keep; NULL: nothing is kept */
	uint64_t rows;
	uint64_t duration_ns; /* of the load, for each side */
};

/* The database that both sides begin with, and what it was made from. */
struct demo_data {
	struct model_shape shape;
	char table[32];       /* whose rows the load updates */
	uint64_t bytes;       /* of the database file */
	uint64_t page_size;   /* of the database, in bytes */
	uint64_t source_rows; /* files found, or rows of the user's tables */
	uint64_t source_tables;
	uint64_t unreadable;  /* files of which nothing but the name and the status is known */
	uint64_t vanished;    /* between being listed and being looked at */
	bool out_of_time;     /* the walk was ended before the machine or the cap */
	bool had_demo_tables; /* of an earlier demo, replaced in the copy */
};

/* One copy of the live database: a snapshot, or a child of fork(). */
struct cut {
	char name[16];
	char path[DEMO_PATH_LENGTH]; /* of the exported file; empty once it is gone */
	uint64_t low, high;          /* transactions that were committed before and after the cut */
	uint64_t stall_ns;           /* cow_snapshot(), or fork() in the parent */
	uint64_t near_ns;            /* longest write close to the cut */
	uint64_t export_ns;          /* to write it to a file */
	uint64_t bytes;              /* of that file */
	uint64_t transactions;       /* that the file was found to hold */
};

struct round {
	size_t cuts;
	struct cut cut[DEMO_CUTS_MAX];
	struct histogram writes; /* latency of every transaction, in ns */
	uint64_t window_ns;
	uint64_t cpu_ns;         /* of all threads and children, user and system */
	uint64_t waited_ns;      /* that the writer was ready to run while other threads ran */
	uint64_t baseline_bytes; /* PSS just before the first cut */
	uint64_t peak_bytes;     /* highest sum of PSS sampled since */
	uint64_t samples;
};

struct demo_shared {
	atomic_ullong progress; /* of the step that runs */
	atomic_bool measuring;  /* the first cut was made, the load runs */
	atomic_int copier;      /* pid of fork()'s child; 0: none */
	atomic_bool failed;     /* set by the first demo_fail(), whose text error gets */
	char error[DEMO_ERROR_LENGTH];
	struct demo_data data;
	struct round rounds[SIDES][DEMO_ROUNDS];
	struct cut past;     /* the snapshot that the queries into the past use */
	struct cut restored; /* the database after it was rolled back to it */
	struct cut stored;   /* the last one saved into a store, opened from there */
	struct proof_list proofs;
};

struct demo {
	const struct demo_options *options;
	struct demo_shared *shared;
	char scratch[DEMO_PATH_LENGTH]; /* directory */
	FILE *out;                      /* what a person reads */
	unsigned int round;             /* that runs, or runs next */
};

/* Set by SIGINT, SIGTERM and SIGHUP: the signal. */
extern volatile sig_atomic_t demo_interrupted;

/* Notes what went wrong, the first time only, for the coordinator to print. Returns -1. */
__attribute__((format(printf, 2, 3))) int demo_fail(struct demo *demo, const char *format, ...);

/* SCRATCH/NAME; false, with demo_fail(), where that is too long. */
bool demo_path(struct demo *demo, const char *name, char path[DEMO_PATH_LENGTH]);

#endif
