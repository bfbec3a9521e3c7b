/* SPDX-License-Identifier: MIT */
#include "cli/demo/model.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include <sqlite3.h>

/* Also in model_query(). Products of them with ids and with sums stay far below 2^63. */
#define WEIGHT_FACTOR  INT64_C(2654435761)
#define WEIGHT_MODULUS INT64_C(16777213)
#define WEIGHT         "(id * 2654435761 %% 16777213)" /* in a format */

enum { MOST_AMOUNT = 100, DRAWS = 8 };

/* splitmix64: every input gives a value of its own, so no state has to be carried along. */
static uint64_t mix(uint64_t value)
{
	value += UINT64_C(0x9e3779b97f4a7c15);
	value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
	return value ^ (value >> 31);
}

static uint64_t draw(uint64_t number, uint64_t which)
{
	return mix(number * DRAWS + which);
}

static int64_t weight(uint64_t id)
{
	return (int64_t)id * WEIGHT_FACTOR % WEIGHT_MODULUS;
}

void model_step(const struct model_shape *shape, uint64_t number, struct model_step *ret_step)
{
	uint64_t distance = 1 + draw(number, 1) % (shape->accounts - 1), i;

	ret_step->source = 1 + draw(number, 0) % shape->accounts;
	ret_step->target = 1 + (ret_step->source - 1 + distance) % shape->accounts;
	ret_step->amount = (int64_t)(1 + draw(number, 2) % MOST_AMOUNT);
	for (i = 0; i < MODEL_TOUCHES; i++)
		ret_step->rows[i] = 1 + draw(number, 3 + i) % shape->rows;
}

void model_begin(const struct model_shape *shape, struct model_state *ret_state)
{
	uint64_t id;

	*ret_state = (struct model_state){
		.accounts = (int64_t)shape->accounts,
		.amounts = (int64_t)shape->accounts * MODEL_AMOUNT,
	};
	for (id = 1; id <= shape->accounts; id++)
		ret_state->amounts_digest += MODEL_AMOUNT * weight(id);
}

static void advance_one(const struct model_shape *shape, struct model_state *state)
{
	struct model_step step;
	int i;

	state->transactions++;
	state->last = state->transactions;
	model_step(shape, (uint64_t)state->transactions, &step);
	state->transfers_digest += step.amount * weight((uint64_t)state->transactions);
	state->amounts_digest += step.amount * (weight(step.target) - weight(step.source));
	for (i = 0; i < MODEL_TOUCHES; i++) {
		state->touched++;
		state->touched_digest += weight(step.rows[i]);
	}
}

void model_advance(const struct model_shape *shape, struct model_state *state,
		   uint64_t transactions)
{
	while ((uint64_t)state->transactions < transactions)
		advance_one(shape, state);
}

int model_compare(const struct model_shape *shape, uint64_t from, uint64_t to,
		  struct model_difference *ret_difference)
{
	int64_t *amounts = calloc(shape->accounts + 1, sizeof(*amounts));
	bool *touched = calloc(shape->rows + 1, sizeof(*touched));
	struct model_difference difference = { 0 };
	struct model_step step;
	uint64_t i, j;
	int error = amounts && touched ? 0 : -ENOMEM;

	if (error)
		goto out;
	for (i = from + 1; i <= to; i++) {
		model_step(shape, i, &step);
		amounts[step.source] -= step.amount;
		amounts[step.target] += step.amount;
		for (j = 0; j < MODEL_TOUCHES; j++)
			touched[step.rows[j]] = true;
	}
	for (i = 1; i <= shape->accounts; i++)
		difference.accounts += amounts[i] != 0;
	for (i = 1; i <= shape->rows; i++)
		difference.rows += touched[i];
	*ret_difference = difference;
out:
	free(amounts);
	free(touched);
	return error;
}

char *model_query(const char *schema, const char *table)
{
	return sqlite3_mprintf(
		"SELECT t.count, t.last, t.digest, a.count, a.sum, a.digest, r.sum, r.digest FROM\n"
		" (SELECT count(*) count, coalesce(max(id), 0) last,\n"
		"  coalesce(sum(amount * " WEIGHT "), 0) digest FROM %w.cow_demo_transfers) t,\n"
		" (SELECT count(*) count, sum(amount) sum, sum(amount * " WEIGHT ") digest\n"
		"  FROM %w.cow_demo_accounts) a,\n"
		" (SELECT sum(touched) sum, sum(touched * " WEIGHT ") digest FROM %w.%w) r",
		schema, schema, schema, table);
}
