/* SPDX-License-Identifier: MIT */
/* How pages are gathered into calls that protect them. */
#include "mmu/runs.h"
#include "tests/tap.h"

#define PAGES 4096u

static struct call {
	uint64_t first, count;
} calls[64];
static unsigned made;
static uint64_t uncovered = PAGES; /* nothing beyond this page may be covered in passing */

static int note_protect(struct trap *trap, uint64_t first, uint64_t count)
{
	(void)trap;
	if (made < 64)
		calls[made] = (struct call){ first, count };
	made++;
	return 0;
}

static bool covers(struct trap *trap, uint64_t first, uint64_t end)
{
	(void)trap;
	(void)first;
	return end <= uncovered;
}

static const struct trap_ops ops = { .protect = note_protect, .covers = covers };
static struct space space = { .pages = PAGES };

/* A call 1,000, a page 100; from 34 pages on a call 500 and a page 10. */
static struct trap trap = {
	.ops = &ops,
	.space = &space,
	.cost = { .call = 1000,
		  .page = 100,
		  .wide_call = 500,
		  .wide_page = 40,
		  .sweep_page = 10,
		  .wide_pages = 34 },
};

static struct runs begin(bool exact)
{
	made = 0;
	uncovered = PAGES;
	return (struct runs){ .trap = &trap, .exact = exact };
}

static void is_call(unsigned index, uint64_t first, uint64_t count)
{
	is_u64(calls[index].first, first, "call %u: first page", index);
	is_u64(calls[index].count, count, "call %u: pages", index);
}

TEST(exact_runs_have_no_gaps)
{
	struct runs runs = begin(true);

	for (uint64_t page = 10; page < 30; page++)
		runs_add(&runs, page);
	runs_add(&runs, 31);
	runs_end(&runs);
	is_u64(made, 2, "calls");
	is_call(0, 10, 20);
	is_call(1, 31, 1);
}

TEST(near_pages_are_joined_far_ones_are_not)
{
	struct runs runs = begin(false);

	runs_add(&runs, 10);
	runs_add(&runs, 13);
	runs_add(&runs, 2000);
	runs_end(&runs);
	is_u64(made, 2, "calls");
	is_call(0, 10, 4);
	is_call(1, 2000, 1);
}

TEST(a_short_run_is_widened_where_that_costs_less)
{
	struct runs runs = begin(false);

	for (uint64_t page = 100; page < 120; page++)
		runs_add(&runs, page);
	runs_end(&runs);
	is_u64(made, 1, "calls");
	is_call(0, 100, 34);
}

TEST(what_may_not_be_covered_is_not)
{
	struct runs runs = begin(false);

	uncovered = 125;
	for (uint64_t page = 100; page < 120; page++)
		runs_add(&runs, page);
	runs_end(&runs);
	is_call(0, 100, 20);
	runs = begin(false);
	for (uint64_t page = PAGES - 20; page < PAGES; page++)
		runs_add(&runs, page);
	runs_end(&runs);
	is_call(0, PAGES - 20, 20);
}

TEST(a_dense_leaf_is_swept)
{
	struct runs runs = begin(false);
	uint64_t bits[RUNS_WORDS];

	for (unsigned i = 0; i < RUNS_WORDS; i++)
		bits[i] = 0x0001000100010001;
	runs_add_words(&runs, 8, bits);
	runs_end(&runs);
	is_u64(made, 1, "calls");
	is_call(0, 512, 7 * 64 + 49);
	runs = begin(true);
	runs_add_words(&runs, 8, bits);
	runs_end(&runs);
	is_u64(made, 32, "calls where runs are exact");
}

TEST(bits_across_words_are_one_run)
{
	struct runs runs = begin(true);
	uint64_t bits[RUNS_WORDS] = { 0, (uint64_t)3 << 62, 7 };

	runs_add_words(&runs, 0, bits);
	runs_end(&runs);
	is_u64(made, 1, "calls");
	is_call(0, 126, 5);
}

TEST(cuts_learn_what_interrupting_others_adds)
{
	struct cost cost = trap.cost;

	cost_learn(&cost, 100, 100 * 1100, 100 * 9000);
	ok(cost.extra > 1000, "part of what was beyond the expectation");
	for (unsigned i = 0; i < 9; i++)
		cost_learn(&cost, 100, 100 * 1100, 100 * 90000);
	ok(cost.extra < 3000, "but no more than an interrupt costs");
	cost_learn(&cost, 4, 4 * 1100, 4 * 90000);
	ok(cost.extra < 3000, "a few calls say nothing");
	for (unsigned i = 0; i < 20; i++)
		cost_learn(&cost, 100, 100 * (1100 + cost.extra), 100 * 1100);
	ok(cost.extra < 10, "and forget it again");
}

TAP_MAIN(CASE(exact_runs_have_no_gaps), CASE(near_pages_are_joined_far_ones_are_not),
	 CASE(a_short_run_is_widened_where_that_costs_less), CASE(what_may_not_be_covered_is_not),
	 CASE(a_dense_leaf_is_swept), CASE(bits_across_words_are_one_run),
	 CASE(cuts_learn_what_interrupting_others_adds))
