/* SPDX-License-Identifier: MIT */
#include "cli/demo/load.h"

#include <stdlib.h>
#include <string.h>

#include "cli/demo/measure.h"
#include "cli/demo/sql.h"

#define NEAR_NS (10 * NS_PER_MS) /* after the cut: the first writes to shared pages fall into it */

static int prepare_touch(struct load *load)
{
	char *text = sqlite3_mprintf("UPDATE %w SET touched = touched + 1 WHERE id = ?1",
				     load->demo->shared->data.table);
	int result = sql_prepare(load->demo, load->connection, text, &load->touch);

	sqlite3_free(text);
	return result;
}

int load_init(struct load *load, struct demo *demo, sqlite3 *connection)
{
	*load = (struct load){
		.demo = demo,
		.connection = connection,
		.shape = &demo->shared->data.shape,
		.gate = PTHREAD_MUTEX_INITIALIZER,
		.opened = PTHREAD_COND_INITIALIZER,
	};
	/* The same on both sides: a journal in memory, and SQLite's default page cache. */
	if (sql_exec(demo, connection, "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF") < 0 ||
	    sql_prepare(demo, connection, "BEGIN IMMEDIATE", &load->begin) < 0 ||
	    sql_prepare(demo, connection, "COMMIT", &load->commit) < 0 ||
	    sql_prepare(demo, connection,
			"UPDATE cow_demo_accounts SET amount = amount + ?2 WHERE id = ?1",
			&load->move) < 0 ||
	    sql_prepare(demo, connection, "INSERT INTO cow_demo_transfers VALUES (?1, ?2, ?3, ?4)",
			&load->insert) < 0)
		return -1;
	return prepare_touch(load);
}

void load_done(struct load *load)
{
	sqlite3_stmt *const statements[] = { load->begin, load->commit, load->move, load->touch,
					     load->insert };
	size_t i;

	load_stop(load);
	for (i = 0; i < sizeof(statements) / sizeof(statements[0]); i++)
		sqlite3_finalize(statements[i]);
	load->begin = load->commit = load->move = load->touch = load->insert = NULL;
}

static int run(struct load *load, sqlite3_stmt *statement)
{
	return sql_run(load->demo, load->connection, statement);
}

static int move(struct load *load, uint64_t account, int64_t amount)
{
	sqlite3_bind_int64(load->move, 1, (sqlite3_int64)account);
	sqlite3_bind_int64(load->move, 2, amount);
	return run(load, load->move);
}

static int touch(struct load *load, uint64_t row)
{
	sqlite3_bind_int64(load->touch, 1, (sqlite3_int64)row);
	return run(load, load->touch);
}

static int insert(struct load *load, uint64_t number, const struct model_step *step)
{
	sqlite3_bind_int64(load->insert, 1, (sqlite3_int64)number);
	sqlite3_bind_int64(load->insert, 2, (sqlite3_int64)step->source);
	sqlite3_bind_int64(load->insert, 3, (sqlite3_int64)step->target);
	sqlite3_bind_int64(load->insert, 4, step->amount);
	return run(load, load->insert);
}

static int transact(struct load *load, uint64_t number)
{
	struct model_step step;
	int i;

	model_step(load->shape, number, &step);
	if (run(load, load->begin) < 0 || move(load, step.source, -step.amount) < 0 ||
	    move(load, step.target, step.amount) < 0)
		return -1;
	for (i = 0; i < MODEL_TOUCHES; i++)
		if (touch(load, step.rows[i]) < 0)
			return -1;
	return insert(load, number, &step) < 0 ? -1 : run(load, load->commit);
}

static void note_near(struct load *load, uint64_t begin, uint64_t end)
{
	if (end < atomic_load_explicit(&load->near_begin, memory_order_relaxed) ||
	    begin > atomic_load_explicit(&load->near_end, memory_order_relaxed))
		return;
	if (end - begin > atomic_load_explicit(&load->near_longest, memory_order_relaxed))
		atomic_store_explicit(&load->near_longest, end - begin, memory_order_relaxed);
}

static int write_next(struct load *load)
{
	uint64_t number = atomic_load_explicit(&load->committed, memory_order_relaxed) + 1, begin,
		 end;
	int result;

	begin = now_ns();
	pthread_mutex_lock(&load->gate);
	while (atomic_load_explicit(&load->closed, memory_order_relaxed))
		pthread_cond_wait(&load->opened, &load->gate);
	result = transact(load, number);
	if (result == 0)
		atomic_store(&load->committed, number);
	pthread_mutex_unlock(&load->gate);
	end = now_ns();
	if (load->writes)
		histogram_add(load->writes, end - begin);
	note_near(load, begin, end);
	return result;
}

static void *write_on(void *context)
{
	struct load *load = context;

	while (!load->failed && !atomic_load_explicit(&load->stop, memory_order_relaxed))
		load->failed = write_next(load) < 0;
	load->waited_ns = thread_waited_ns();
	return NULL;
}

int load_start(struct load *load, struct histogram *writes)
{
	int error;

	load->writes = writes;
	atomic_store(&load->stop, false);
	error = pthread_create(&load->thread, NULL, write_on, load);
	if (error)
		return demo_fail(load->demo, "cannot start a thread: %s", strerror(error));
	load->started = true;
	return 0;
}

int load_stop(struct load *load)
{
	if (!load->started)
		return 0;
	atomic_store(&load->stop, true);
	pthread_join(load->thread, NULL);
	load->started = false;
	return load->failed ? -1 : 0;
}

int load_run_until(struct load *load, uint64_t transactions)
{
	load->writes = NULL;
	while (atomic_load(&load->committed) < transactions)
		if (write_next(load) < 0)
			return -1;
	return 0;
}

void load_wait_until(struct load *load, uint64_t transactions)
{
	/* A thread that failed has said so before it is joined. */
	while (atomic_load(&load->committed) < transactions &&
	       !atomic_load(&load->demo->shared->failed))
		sleep_until_ns(now_ns() + NS_PER_MS);
}

void load_close_gate(struct load *load)
{
	/* First, so that the writer cannot take the mutex again before us. */
	atomic_store(&load->closed, true);
	pthread_mutex_lock(&load->gate);
}

void load_open_gate(struct load *load)
{
	atomic_store(&load->closed, false);
	pthread_cond_signal(&load->opened);
	pthread_mutex_unlock(&load->gate);
}

void load_watch_begin(struct load *load)
{
	atomic_store(&load->near_longest, 0);
	atomic_store(&load->near_end, UINT64_MAX);
	atomic_store(&load->near_begin, now_ns());
}

void load_watch_end(struct load *load)
{
	atomic_store(&load->near_end, now_ns() + NEAR_NS);
}

uint64_t load_watched_ns(struct load *load)
{
	uint64_t over = atomic_load(&load->near_end);

	/* One more transaction, begun after that time, shows that none of it is under way. */
	sleep_until_ns(over);
	load_wait_until(load, atomic_load(&load->committed) + 2);
	return atomic_load(&load->near_longest);
}
