/* SPDX-License-Identifier: MIT */
#include "mmu/cost.h"

#include "core/host.h"

#define REPEATS 12u

/* The fastest of several: what disturbs a call only makes it longer. */
static bool time_change(void *memory, size_t page_size, unsigned pages, cost_change_fn change,
			void *context, double *ret_ns)
{
	size_t bytes = pages * page_size;
	uint64_t best = UINT64_MAX;

	for (unsigned i = 0; i < REPEATS; i++) {
		uint64_t start = host_now(), taken;

		if (change(context, memory, bytes, true) < 0)
			return false;
		taken = host_now() - start;
		if (taken < best)
			best = taken;
		if (change(context, memory, bytes, false) < 0)
			return false;
	}
	*ret_ns = (double)best;
	return true;
}

/* A line through two points, with prices that are not negative. */
static void fit(double few, double few_ns, double many, double many_ns, double *ret_call,
		double *ret_page)
{
	double page = (many_ns - few_ns) / (many - few);

	if (page < 0)
		page = 0;
	*ret_page = page;
	*ret_call = few_ns - page * few > 0 ? few_ns - page * few : 0;
}

/* In a cut the page tables are seldom in the cache: a short window pays for each line of them, a
 * long sweep has them fetched ahead. Measured with 1 % of 2 GiB written at random: with the price
 * of what is in the cache too much is joined, and the cut takes half as long again. */
#define COLD  4.0
#define SWEEP 2.0

void cost_measure(struct cost *cost, void *memory, size_t page_size, cost_change_fn change,
		  void *context)
{
	static const unsigned at[] = { 1, 16, 34, COST_PAGES };
	double ns[4];

	for (unsigned i = 0; i < 4; i++)
		if (!time_change(memory, page_size, at[i], change, context, &ns[i]))
			return;
	*cost = (struct cost){ 0 };
	fit(at[0], ns[0], at[1], ns[1], &cost->call, &cost->page);
	if (ns[2] >= ns[1])
		return;
	fit(at[2], ns[2], at[3], ns[3], &cost->wide_call, &cost->wide_page);
	cost->sweep_page = cost->wide_page * SWEEP;
	cost->wide_page *= COLD;
	cost->wide_pages = at[2];
}

static double wide_cost(const struct cost *cost, uint64_t pages)
{
	return cost->wide_call +
	       cost->wide_page * (double)(pages < cost->wide_pages ? cost->wide_pages : pages);
}

static bool is_better_wide(const struct cost *cost, uint64_t pages)
{
	return cost->wide_pages != 0 &&
	       (pages >= cost->wide_pages ||
		wide_cost(cost, pages) < cost->call + cost->page * (double)pages);
}

double cost_of(const struct cost *cost, uint64_t pages)
{
	return cost->extra + (is_better_wide(cost, pages) ?
				      wide_cost(cost, pages) :
				      cost->call + cost->page * (double)pages);
}

bool cost_is_dense(const struct cost *cost, uint64_t runs, uint64_t pages)
{
	return runs > 1 && cost->wide_pages != 0 && pages >= cost->wide_pages &&
	       cost->sweep_page * (double)pages + cost->extra <
		       (double)runs * (cost->extra + cost->call + cost->page);
}

uint64_t cost_widened(const struct cost *cost, uint64_t pages)
{
	return is_better_wide(cost, pages) && pages < cost->wide_pages ? cost->wide_pages : pages;
}

/* Half of what is new: a few cuts follow a change, one disturbed cut does not last. Page tables
 * that are not in the cache make a call up to half as long again; only what is beyond that is the
 * call's. And other processes take their time from a cut, too, which is no reason to cover more:
 * hence the cap, at a little more than an interrupt was seen to cost. */
#define FEW_CALLS  8u
#define SLACK      1.5
#define MOST_EXTRA 2500.0

void cost_learn(struct cost *cost, uint64_t calls, double expected_ns, double taken_ns)
{
	double more;

	if (calls < FEW_CALLS)
		return;
	more = cost->extra + (taken_ns - SLACK * expected_ns) / (double)calls;
	if (more > MOST_EXTRA)
		more = MOST_EXTRA;
	cost->extra = (cost->extra + (more > 0 ? more : 0)) / 2;
}
