/* SPDX-License-Identifier: MIT */
#include "mmu/runs.h"

static bool may_cover(struct trap *trap, uint64_t first, uint64_t end)
{
	return end <= trap->space->pages &&
	       (!trap->ops->covers || trap->ops->covers(trap, first, end));
}

void runs_end(struct runs *runs)
{
	struct trap *trap = runs->trap;
	uint64_t pages = runs->end - runs->first;

	if (pages == 0 || runs->error)
		return;
	runs->expected_ns += cost_of(&trap->cost, pages);
	runs->calls++;
	if (!runs->exact) {
		uint64_t wide = cost_widened(&trap->cost, pages);

		if (wide > pages && may_cover(trap, runs->end, runs->first + wide))
			pages = wide;
	}
	runs->error = trap->ops->protect(trap, runs->first, pages);
	runs->first = runs->end = 0;
}

/* Whether one call over all of it is cheaper than ending the run here. */
static bool is_worth_joining(const struct runs *runs, uint64_t page)
{
	const struct cost *cost = &runs->trap->cost;

	return cost_of(cost, page + 1 - runs->first) <
	       cost_of(cost, runs->end - runs->first) + cost_of(cost, 1);
}

void runs_add(struct runs *runs, uint64_t page)
{
	bool joined = runs->first < runs->end &&
		      (page == runs->end || (!runs->exact && is_worth_joining(runs, page) &&
					     may_cover(runs->trap, runs->end, page)));

	if (!joined) {
		runs_end(runs);
		runs->first = page;
	}
	runs->end = page + 1;
}

static void add_range(struct runs *runs, uint64_t first, uint64_t end)
{
	runs_add(runs, first);
	runs->end = end;
}

struct extent {
	uint64_t runs, first, end; /* end 0: no page at all */
};

static struct extent measure(uint64_t word, const uint64_t bits[RUNS_WORDS])
{
	struct extent extent = { .runs = 0 };
	uint64_t before = 0;

	for (unsigned i = 0; i < RUNS_WORDS; i++) {
		uint64_t start = (word + i) * 64;

		/* A run begins at each bit whose lower neighbour is clear. */
		extent.runs += (uint64_t)__builtin_popcountll(bits[i] & ~(bits[i] << 1 | before));
		before = bits[i] >> 63;
		if (bits[i] == 0)
			continue;
		if (extent.end == 0)
			extent.first = start + (uint64_t)__builtin_ctzll(bits[i]);
		extent.end = start + 64 - (uint64_t)__builtin_clzll(bits[i]);
	}
	return extent;
}

void runs_add_words(struct runs *runs, uint64_t word, const uint64_t bits[RUNS_WORDS])
{
	struct extent extent = measure(word, bits);

	if (extent.end == 0)
		return;
	if (!runs->exact &&
	    cost_is_dense(&runs->trap->cost, extent.runs, extent.end - extent.first) &&
	    may_cover(runs->trap, extent.first, extent.end)) {
		add_range(runs, extent.first, extent.end);
		return;
	}
	for (unsigned i = 0; i < RUNS_WORDS; i++)
		for (uint64_t left = bits[i]; left; left &= left - 1)
			runs_add(runs, (word + i) * 64 + (uint64_t)__builtin_ctzll(left));
}
