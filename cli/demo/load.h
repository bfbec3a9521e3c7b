/* SPDX-License-Identifier: MIT */
/*
 * The write load: one thread, one connection, transaction after transaction as the model says,
 * without a pause, the latency of each recorded. The same code for both sides.
 *
 * Model
 * - A transaction's latency begins before the gate and ends when COMMIT has returned.
 * - The gate is for fork(), which has to see the database between two transactions: a child whose
 *   parent's writer was in the middle of one would have half of it. libcow's side never closes it.
 * - The next transaction begins when the last is done, so that a stall is counted once, however
 *   many transactions would have come in meanwhile.
 */
#ifndef CLI_DEMO_LOAD_H
#define CLI_DEMO_LOAD_H

#include <pthread.h>

#include <sqlite3.h>

#include "cli/demo/demo.h"

struct load {
	struct demo *demo;
	sqlite3 *connection;
	sqlite3_stmt *begin, *commit, *move, *touch, *insert;
	const struct model_shape *shape;
	struct histogram *writes; /* NULL: not recorded */
	pthread_t thread;
	bool started;
	bool failed;        /* the thread's, read after it was joined */
	uint64_t waited_ns; /* likewise: see thread_waited_ns() */
	atomic_bool stop;
	atomic_ullong committed; /* transactions */

	pthread_mutex_t gate; /* held by the writer during a transaction; guards its own closing */
	pthread_cond_t opened;
	atomic_bool closed;

	/* The longest transaction that overlaps a span of time around a cut. */
	atomic_ullong near_begin, near_end, near_longest;
};

/* The connection stays the caller's; it must have the demo's tables. */
int load_init(struct load *load, struct demo *demo, sqlite3 *connection);
void load_done(struct load *load);

/* Goes on from the transaction that `committed` names. */
int load_start(struct load *load, struct histogram *writes);
int load_stop(struct load *load);
/* In the calling thread, until so many are committed. */
int load_run_until(struct load *load, uint64_t transactions);
/* Waits until the thread has committed so many, or has ended. */
void load_wait_until(struct load *load, uint64_t transactions);

void load_close_gate(struct load *load); /* when it returns, no transaction is open */
void load_open_gate(struct load *load);

/* From begin to shortly after end; the result is complete once that time is over. */
void load_watch_begin(struct load *load);
void load_watch_end(struct load *load);
uint64_t load_watched_ns(struct load *load);

#endif
