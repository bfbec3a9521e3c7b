/* SPDX-License-Identifier: MIT */
/*
 * The write load as arithmetic: what each transaction does, and so what the database holds after
 * any number of them. Snapshots are compared with this, not with another copy made by SQLite.
 *
 * Transaction i (from 1 on) moves an amount from one account to another, counts up `touched` of
 * MODEL_TOUCHES rows, and adds row i to the table of transfers. All of it follows from i alone.
 *
 * A digest is a sum of values, each weighted by a number that its row's id gives. It is linear, so
 * that it follows each transaction in constant time; it finds what goes wrong by accident, not what
 * is built to deceive.
 */
#ifndef CLI_DEMO_MODEL_H
#define CLI_DEMO_MODEL_H

#include <stddef.h>
#include <stdint.h>

enum {
	MODEL_TOUCHES = 2,
	MODEL_AMOUNT = 1000, /* that every account begins with */
};

struct model_shape {
	uint64_t accounts; /* at least 2 */
	uint64_t rows;     /* at least 1 */
};

struct model_step {
	uint64_t source, target; /* accounts, from 1 on, different */
	int64_t amount;
	uint64_t rows[MODEL_TOUCHES]; /* from 1 on */
};

void model_step(const struct model_shape *shape, uint64_t number, struct model_step *ret_step);

/* In the order of the columns of model_query(). */
struct model_state {
	int64_t transactions; /* rows of the table of transfers */
	int64_t last;         /* its highest id: the same */
	int64_t transfers_digest;
	int64_t accounts;
	int64_t amounts; /* the invariant: their sum never changes */
	int64_t amounts_digest;
	int64_t touched; /* sum */
	int64_t touched_digest;
};
#define MODEL_COLUMNS (sizeof(struct model_state) / sizeof(int64_t))

void model_begin(const struct model_shape *shape, struct model_state *ret_state);
/* Runs the transactions from the state's on until so many are done. */
void model_advance(const struct model_shape *shape, struct model_state *state,
		   uint64_t transactions);

/* How many rows, and how many accounts, differ between the states after from and to. */
struct model_difference {
	uint64_t rows, accounts;
};
int model_compare(const struct model_shape *shape, uint64_t from, uint64_t to,
		  struct model_difference *ret_difference); /* -ENOMEM */

/* The query that gives a state, of a schema and of the table whose rows are touched. To be freed
 * with sqlite3_free(); NULL when memory ran out. */
char *model_query(const char *schema, const char *table);

#endif
