/* SPDX-License-Identifier: MIT */
/*
 * Who outlives whom: children pin their parents, whatever the order in which the caller lets go. A
 * leak or a use after free is for the sanitizers to see; that the contents stay is checked here.
 */

#include <pthread.h>

#include "tests/api/common.h"

static struct cow_region *branch_of(struct cow_snapshot *snapshot)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *region = NULL;

	is_errno(cow_snapshot_branch(snapshot, &options, &region), 0, "branch");
	return region;
}

TEST(a_region_freed_before_its_snapshots)
{
	struct cow_region *region = new_region(3);
	struct cow_snapshot *first, *second;
	const void *view = NULL;

	fill(region, 0, 1);
	first = take(region);
	fill(region, 0, 2);
	fill(region, 1, 2);
	second = take(region);
	is_errno(cow_snapshot_map(first, 0, &view), 0, "map");
	cow_region_free(region);
	is_int(page_in(second, 1), 2, "read from what was the live region");
	is_int(page_in(first, 0), 1, "read from a kept page");
	is_int(uniform(view), 1, "through the view");
	is_u64(cow_snapshot_get_length(second), 3 * PAGE, "length");
	cow_snapshot_unref(second);
	is_int(page_in(first, 0), 1, "after the newer one went");
	cow_snapshot_unref(first);
}

TEST(references)
{
	struct cow_region *region = new_region(1);
	struct cow_snapshot *snapshot = take(region);
	const void *view = NULL;

	fill(region, 0, 1);
	is_errno(cow_snapshot_map(snapshot, COW_MAP_POPULATE, &view), 0, "map");
	ok(cow_snapshot_ref(snapshot) == snapshot, "ref returns the snapshot");
	ok(cow_snapshot_unref(snapshot) == NULL, "unref returns NULL");
	is_u64(stats_of(region).snapshots, 1, "a reference is left");
	is_int(uniform(view), 0, "the view is valid");
	cow_snapshot_unref(snapshot);
	is_u64(stats_of(region).snapshots, 0, "none is left");
	is_u64(stats_of(region).view_bytes, 0, "the view is gone");
	is_u64(stats_of(region).preimage_bytes, 0, "what it kept is free");
	cow_region_free(region);
}

/* Region, snapshot, branch, its snapshot, its branch: five objects, let go in every order. */
struct chain {
	struct cow_region *regions[3];
	struct cow_snapshot *snapshots[3];
	bool gone[6];
};

static struct chain make_chain(void)
{
	struct chain chain = { .regions = { new_region(4) } };

	for (size_t i = 0; i < 3; i++) {
		is_errno(fill(chain.regions[i], i, (int)i + 1), 0, "write");
		chain.snapshots[i] = take(chain.regions[i]);
		is_errno(fill(chain.regions[i], i, 99), 0, "write again");
		if (i < 2)
			chain.regions[i + 1] = branch_of(chain.snapshots[i]);
	}
	return chain;
}

static void let_go(struct chain *chain, unsigned which)
{
	chain->gone[which] = true;
	if (which < 3)
		cow_region_free(chain->regions[which]);
	else
		cow_snapshot_unref(chain->snapshots[which - 3]);
}

static bool still_holds(const struct chain *chain)
{
	bool good = true;

	for (int i = 0; i < 3; i++) {
		for (int page = 0; !chain->gone[i] && page < 3; page++)
			good &= live_page(chain->regions[i], (size_t)page) == (page < i ? page + 1 :
									       page == i ? 99 :
											   0);
		for (int page = 0; !chain->gone[i + 3] && page < 3; page++)
			good &= page_in(chain->snapshots[i], (size_t)page) ==
				(page <= i ? page + 1 : 0);
	}
	return good;
}

static unsigned factorial(unsigned n)
{
	return n <= 1 ? 1 : n * factorial(n - 1);
}

/* The nth order of six things. */
static void nth_order(unsigned n, unsigned order[6])
{
	unsigned left[6] = { 0, 1, 2, 3, 4, 5 };

	for (unsigned i = 0; i < 6; i++) {
		unsigned at = n / factorial(5 - i) % (6 - i);

		order[i] = left[at];
		memmove(&left[at], &left[at + 1], (5 - at) * sizeof(left[0]));
	}
}

TEST(branches_of_branches_freed_in_all_orders)
{
	for (unsigned n = 0; n < factorial(6); n++) {
		struct chain chain = make_chain();
		unsigned order[6];

		nth_order(n, order);
		for (unsigned i = 0; i < 6; i++) {
			let_go(&chain, order[i]);
			ok(still_holds(&chain), "order %u, after %u of them", n, i + 1);
		}
	}
}

/* Runs a function on a stack that is too small for a recursion as deep as what these tests
 * build. */
static void on_a_small_stack(void *(*run)(void *), void *context)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, (size_t)128 << 10);
	if (pthread_create(&thread, &attributes, run, context) != 0)
		bail("a thread cannot be had");
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attributes);
}

static void *read_and_free(void *context)
{
	struct cow_region *region = context;

	is_int(live_page(region, 0), 1, "read through all of them");
	is_errno(cow_region_touch(region, page_of(region, 0), 1), 0, "and brought in");
	cow_region_free(region);
	return NULL;
}

/* Nothing bounds how deep branches go: neither reading nor freeing may need a stack as deep. */
TEST(a_chain_of_branches)
{
	enum { DEEP = 5000 };
	struct cow_region *region = new_region(2);
	struct cow_snapshot *last = NULL;

	fill(region, 0, 1);
	for (unsigned i = 0; i < DEEP; i++) {
		struct cow_snapshot *snapshot = take(region);

		cow_region_free(region);
		cow_snapshot_unref(last);
		last = snapshot;
		region = branch_of(snapshot);
	}
	cow_snapshot_unref(last);
	on_a_small_stack(read_and_free, region);
}

TEST(branches_are_counted)
{
	struct cow_region *region = new_region(1), *a, *b;
	struct cow_snapshot *snapshot = take(region);

	a = branch_of(snapshot);
	b = branch_of(snapshot);
	is_u64(snapshot_stats_of(snapshot).branches, 2, "two");
	cow_region_free(a);
	is_u64(snapshot_stats_of(snapshot).branches, 1, "one");
	cow_region_free(b);
	is_u64(snapshot_stats_of(snapshot).branches, 0, "none");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

/* What one release frees is known from private_bytes, in every layout of who read what. */
static void check_private(struct cow_region *region, struct cow_snapshot *snapshot,
			  const char *what)
{
	uint64_t expected = snapshot_stats_of(snapshot).private_bytes;
	uint64_t before = stats_of(region).preimage_bytes;

	cow_snapshot_unref(snapshot);
	is_u64(before - stats_of(region).preimage_bytes, expected, "%s", what);
}

TEST(private_bytes_are_what_an_unref_frees)
{
	struct cow_region *region = new_region(64);
	struct cow_snapshot *s[8];

	for (int i = 0; i < 8; i++) {
		for (size_t page = 0; page < 64; page += (size_t)(i % 3) + 1)
			fill(region, page, i + 1);
		s[i] = take(region);
	}
	fill_all(region, 77);
	check_private(region, s[3], "in the middle");
	check_private(region, s[7], "the newest");
	check_private(region, s[0], "the oldest");
	check_private(region, s[4], "beside a gap");
	check_private(region, s[1], "the oldest again");
	check_private(region, s[6], "the newest again");
	check_private(region, s[5], "one of two");
	check_private(region, s[2], "the last");
	is_u64(stats_of(region).preimage_bytes, 0, "nothing is kept");
	cow_region_free(region);
}

TEST(private_bytes_of_adopted_memory)
{
	struct cow_region_options options = explicit_options();
	void *memory = aligned_alloc(PAGE, 8 * PAGE);
	struct cow_region *region = NULL;
	struct cow_snapshot *snapshot;

	memset(memory, 1, 8 * PAGE);
	is_errno(cow_region_adopt(memory, 8 * PAGE, &options, &region), 0, "adopt");
	fill(region, 0, 2);
	snapshot = take(region);
	fill_all(region, 3);
	is_u64(snapshot_stats_of(snapshot).private_bytes, 8 * PAGE, "what was there before counts");
	check_private(region, snapshot, "and comes free");
	cow_region_free(region);
	free(memory);
}

/* Every page's content is of an epoch of its own: the pages a snapshot keeps form a long chain in
 * its heap. */
enum { EPOCHS = 10000 };

static void *count_and_free(void *context)
{
	is_u64(snapshot_stats_of(context).private_bytes, EPOCHS * PAGE, "all of it is private");
	cow_snapshot_unref(context);
	return NULL;
}

TEST(ten_thousand_epochs_under_one_snapshot)
{
	struct cow_region *region = new_region(EPOCHS);
	unsigned char byte = 1;
	size_t wrong = 0;
	struct cow_snapshot *snapshot;

	for (size_t page = 0; page < EPOCHS; page++) {
		wrong += cow_region_write(region, page * PAGE, &byte, 1) != 0;
		cow_snapshot_unref(take(region));
	}
	snapshot = take(region);
	byte = 2;
	for (size_t page = 0; page < EPOCHS; page++)
		wrong += cow_region_write(region, page * PAGE, &byte, 1) != 0;
	is_u64(wrong, 0, "writes that fail");
	on_a_small_stack(count_and_free, snapshot);
	is_u64(stats_of(region).preimage_bytes, 0, "and freed");
	cow_region_free(region);
}

TEST(discard_and_the_past)
{
	struct cow_region *region = new_region(8);
	struct cow_snapshot *before, *after;

	fill_all(region, 4);
	before = take(region);
	is_errno(cow_region_discard(region, PAGE / 2, 3 * PAGE), 0, "discard");
	after = take(region);
	fill(region, 1, 5);
	is_int(page_in(before, 0), 4, "before: a part");
	is_int(page_in(before, 1), 4, "before: a whole page");
	is_int(page_in(after, 0), -1, "after: half of the first page");
	is_int(page_in(after, 1), 0, "after: a whole page");
	is_int(page_in(after, 3), -1, "after: half of the last page");
	is_int(live_page(region, 1), 5, "written again");
	is_errno(cow_region_rollback(region, after), 0, "rollback");
	is_int(live_page(region, 1), 0, "zero again");
	cow_snapshot_unref(before);
	cow_snapshot_unref(after);
	cow_region_free(region);
}

TAP_MAIN(CASE(a_region_freed_before_its_snapshots), CASE(references),
	 CASE(branches_of_branches_freed_in_all_orders), CASE(a_chain_of_branches),
	 CASE(branches_are_counted), CASE(private_bytes_are_what_an_unref_frees),
	 CASE(private_bytes_of_adopted_memory), CASE(ten_thousand_epochs_under_one_snapshot),
	 CASE(discard_and_the_past))
