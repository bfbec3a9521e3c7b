/* SPDX-License-Identifier: MIT */
/*
 * Brackets and cuts: who waits for whom, who is refused, and that nobody waits for ever.
 *
 * Waiting is shown by order, not by time: a thread that has to wait sets a flag when it got
 * through, and that flag is looked at while it still must not be set; a cut that has to give up is
 * given a short cut_timeout_ns.
 */
#include <pthread.h>

#include "tests/api/common.h"

TEST(a_bracket_keeps_this_threads_cut_away)
{
	struct cow_region *region = new_region(2), *other = new_region(1);
	struct cow_region *both[] = { other, region };
	struct cow_snapshot *snapshot = take(region), *many[2] = { NULL, NULL };

	is_errno(cow_region_write_begin(region, page_of(region, 0), 1), 0, "a bracket");
	is_errno(cow_region_snapshot(region, &many[0]), -EDEADLK, "snapshot");
	is_errno(cow_region_snapshot_many(both, 2, many), -EDEADLK, "snapshot of several");
	is_errno(cow_region_rollback(region, snapshot), -EDEADLK, "rollback");
	ok(!many[0] && !many[1], "no result was written");
	is_errno(cow_region_snapshot(other, &many[0]), 0, "another region may be cut");
	cow_region_write_end(region, page_of(region, 0), 1);
	is_errno(cow_region_snapshot(region, &many[1]), 0, "and this one after the end");
	cow_snapshot_unref(many[0]);
	cow_snapshot_unref(many[1]);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	cow_region_free(other);
}

TEST(brackets_nest)
{
	struct cow_region *region = new_region(4);
	struct cow_snapshot *snapshot = NULL;

	for (size_t i = 0; i < 3; i++)
		is_errno(cow_region_write_begin(region, page_of(region, i), PAGE + 1), 0,
			 "bracket %zu", i);
	cow_region_write_end(region, page_of(region, 2), PAGE + 1);
	cow_region_write_end(region, page_of(region, 1), PAGE + 1);
	is_errno(cow_region_snapshot(region, &snapshot), -EDEADLK, "one is still open");
	cow_region_write_end(region, page_of(region, 0), PAGE + 1);
	is_errno(cow_region_snapshot(region, &snapshot), 0, "none is");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

TEST(an_end_without_a_begin)
{
	struct cow_region *region = new_region(1);
	struct cow_snapshot *snapshot = NULL;

	for (int i = 0; i < 3; i++)
		cow_region_write_end(region, page_of(region, 0), 1);
	is_errno(cow_region_snapshot(region, &snapshot), 0, "does no harm to the gate");
	is_errno(fill(region, 0, 1), 0, "nor to the next bracket");
	is_int(page_in(snapshot, 0), 0, "which keeps what it should");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

TEST(touch_opens_every_page_of_its_range)
{
	struct cow_region *region = new_region(6);
	struct cow_snapshot *snapshot;

	fill_all(region, 1);
	snapshot = take(region);
	is_errno(cow_region_touch(region, page_of(region, 1) + PAGE - 1, 2 * PAGE + 2), 0, "touch");
	is_u64(stats_of(region).open_pages, 4, "pages that the range touches");
	memset(page_of(region, 1) + PAGE - 1, 2, 2 * PAGE + 2);
	for (size_t page = 0; page < 6; page++)
		is_int(page_in(snapshot, page), 1, "page %zu of the snapshot", page);
	is_errno(cow_region_touch(region, page_of(region, 0), 0), 0, "an empty range");
	is_u64(stats_of(region).open_pages, 4, "opens nothing");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

TEST(many_regions_in_one_thread)
{
	enum { COUNT = 40 };
	struct cow_region *regions[COUNT];
	unsigned opened = 0;
	int r = 0;

	for (unsigned i = 0; i < COUNT; i++)
		regions[i] = new_region(1);
	while (opened < COUNT &&
	       (r = cow_region_write_begin(regions[opened], page_of(regions[opened], 0), 1)) == 0)
		opened++;
	diag("%u regions at once, then %s", opened, r < 0 ? strerror(-r) : "no refusal");
	ok(opened >= 32, "32 regions may have a bracket of one thread");
	ok(r == 0 || r == -EMFILE, "then it is refused");
	for (unsigned i = 0; i < opened; i++)
		cow_region_write_end(regions[i], page_of(regions[i], 0), 1);
	for (unsigned i = 0; i < COUNT; i++) {
		cow_snapshot_unref(take(regions[i]));
		cow_region_free(regions[i]);
	}
}

/* A cut holds a mutex of each region; ThreadSanitizer's search for deadlocks ends at 64 of them. */
#ifdef __SANITIZE_THREAD__
#define MANY ((size_t)60)
#else
#define MANY ((size_t)COW_SNAPSHOT_MANY_MAX)
#endif

TEST(as_many_regions_in_one_cut_as_there_may_be)
{
	static struct cow_region *regions[MANY];
	static struct cow_snapshot *snapshots[MANY];
	uint64_t time_ns;
	size_t wrong = 0;

	for (size_t i = 0; i < MANY; i++) {
		regions[i] = new_region(1);
		fill(regions[i], 0, (int)(i % 200) + 1);
	}
	is_errno(cow_region_snapshot_many(regions, MANY, snapshots), 0, "one cut");
	time_ns = snapshot_stats_of(snapshots[0]).time_ns;
	for (size_t i = 0; i < MANY; i++) {
		fill(regions[i], 0, 255);
		wrong += page_in(snapshots[i], 0) != (int)(i % 200) + 1;
		wrong += snapshot_stats_of(snapshots[i]).time_ns != time_ns;
		cow_snapshot_unref(snapshots[i]);
		cow_region_free(regions[i]);
	}
	is_u64(wrong, 0, "snapshots that are not their region's, or not of the same time");
}

/* --- with a second thread --- */

static struct {
	struct cow_region *a, *b;
	pthread_barrier_t barrier;
	_Atomic bool through, go;
	int result;
} two;

static void meet(void)
{
	pthread_barrier_wait(&two.barrier);
}

static void *hold_a_bracket(void *context)
{
	(void)context;
	if (cow_region_write_begin(two.a, page_of(two.a, 0), 1) < 0)
		abort();
	meet();
	meet();
	page_of(two.a, 0)[0] = 1;
	cow_region_write_end(two.a, page_of(two.a, 0), 1);
	return NULL;
}

TEST(a_cut_gives_up_and_opens_the_gate_again)
{
	struct cow_region_options options = explicit_options();
	struct cow_snapshot *snapshot = NULL, *before;
	pthread_t thread;

	options.cut_timeout_ns = 1000000;
	two.a = new_region_with(2, &options);
	before = take(two.a);
	pthread_barrier_init(&two.barrier, NULL, 2);
	pthread_create(&thread, NULL, hold_a_bracket, NULL);
	meet();
	is_errno(cow_region_snapshot(two.a, &snapshot), -ETIMEDOUT, "a foreign bracket is open");
	ok(!snapshot, "no result was written");
	is_u64(stats_of(two.a).snapshots, 1, "and no snapshot is left behind");
	is_errno(fill(two.a, 1, 3), 0, "writers pass the gate");
	meet();
	pthread_join(thread, NULL);
	is_errno(cow_region_snapshot(two.a, &snapshot), 0, "the next cut succeeds");
	is_int(page_in(snapshot, 1), 3, "with what was written");
	is_int(page_in(before, 1), 0, "the one before is unharmed");
	cow_snapshot_unref(before);
	cow_snapshot_unref(snapshot);
	cow_region_free(two.a);
	pthread_barrier_destroy(&two.barrier);
}

TEST(several_regions_give_up_together)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *both[2];
	struct cow_snapshot *many[2] = { NULL, NULL };
	pthread_t thread;

	options.cut_timeout_ns = 1000000;
	two.a = both[1] = new_region_with(1, &options);
	two.b = both[0] = new_region_with(1, &options);
	pthread_barrier_init(&two.barrier, NULL, 2);
	pthread_create(&thread, NULL, hold_a_bracket, NULL);
	meet();
	is_errno(cow_region_snapshot_many(both, 2, many), -ETIMEDOUT, "a bracket on one of them");
	ok(!many[0] && !many[1], "none of them was taken");
	is_u64(stats_of(two.b).snapshots, 0, "none is left behind");
	is_errno(fill(two.b, 0, 1), 0, "the other gate is open");
	meet();
	pthread_join(thread, NULL);
	is_errno(cow_region_snapshot_many(both, 2, many), 0, "the next one succeeds");
	is_u64(snapshot_stats_of(many[0]).time_ns, snapshot_stats_of(many[1]).time_ns,
	       "at one time");
	cow_snapshot_unref(many[0]);
	cow_snapshot_unref(many[1]);
	cow_region_free(two.a);
	cow_region_free(two.b);
	pthread_barrier_destroy(&two.barrier);
}

static void *cut_once(void *context)
{
	struct cow_snapshot **ret_snapshot = context;

	meet();
	two.result = cow_region_snapshot(two.a, ret_snapshot);
	two.through = true;
	return NULL;
}

TEST(a_cut_waits_for_a_bracket)
{
	struct cow_region_options options = explicit_options();
	struct cow_snapshot *snapshot = NULL;
	pthread_t thread;

	options.cut_timeout_ns = UINT64_MAX; /* for ever */
	two.a = new_region_with(1, &options);
	two.through = false;
	pthread_barrier_init(&two.barrier, NULL, 2);
	is_errno(cow_region_write_begin(two.a, page_of(two.a, 0), PAGE), 0, "a bracket");
	pthread_create(&thread, NULL, cut_once, &snapshot);
	meet();
	usleep(5000);
	memset(page_of(two.a, 0), 9, PAGE);
	ok(!two.through, "the cut does not fall into the bracket");
	cow_region_write_end(two.a, page_of(two.a, 0), PAGE);
	pthread_join(thread, NULL);
	is_errno(two.result, 0, "it succeeds");
	is_int(page_in(snapshot, 0), 9, "and has all of the bracket");
	cow_snapshot_unref(snapshot);
	cow_region_free(two.a);
	pthread_barrier_destroy(&two.barrier);
}

/* One thread always holds A when it wants B; the others cut both at once, A alone, and B alone. */
static void *write_both(void *context)
{
	uintptr_t sum = 0;

	(void)context;
	for (unsigned i = 1; two.go; i++) {
		sum += cow_region_write_begin(two.a, page_of(two.a, 0), sizeof(i)) != 0;
		sum += cow_region_write_begin(two.b, page_of(two.b, 0), sizeof(i)) != 0;
		memcpy(page_of(two.a, 0), &i, sizeof(i));
		memcpy(page_of(two.b, 0), &i, sizeof(i));
		cow_region_write_end(two.a, page_of(two.a, 0), sizeof(i));
		cow_region_write_end(two.b, page_of(two.b, 0), sizeof(i));
	}
	return (void *)sum;
}

static void *cut_one(void *context)
{
	struct cow_region *region = context;
	uintptr_t failures = 0;

	while (two.go) {
		struct cow_snapshot *snapshot = NULL;

		failures += cow_region_snapshot(region, &snapshot) != 0;
		cow_snapshot_unref(snapshot);
	}
	return (void *)failures;
}

static bool same_counter(struct cow_snapshot *const many[2])
{
	unsigned a = 0, b = 1;

	return cow_snapshot_read(many[0], 0, &a, sizeof(a)) == 0 &&
	       cow_snapshot_read(many[1], 0, &b, sizeof(b)) == 0 && a == b;
}

TEST(nested_brackets_and_cuts_of_both_regions)
{
	enum { CUTS = 400 };
	struct cow_region *both[2];
	pthread_t threads[4];
	void *failures;

	two.a = both[0] = new_region(1);
	two.b = both[1] = new_region(1);
	two.go = true;
	pthread_create(&threads[0], NULL, write_both, NULL);
	pthread_create(&threads[1], NULL, cut_one, two.a);
	pthread_create(&threads[2], NULL, cut_one, two.b);
	for (unsigned i = 0; i < CUTS; i++) {
		struct cow_snapshot *many[2] = { NULL, NULL };

		is_errno(cow_region_snapshot_many(both, 2, many), 0, "cut %u", i);
		ok(same_counter(many), "cut %u is not torn", i);
		cow_snapshot_unref(many[0]);
		cow_snapshot_unref(many[1]);
	}
	two.go = false;
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(threads[i], &failures);
		is_u64((uintptr_t)failures, 0, "failures of thread %u", i);
	}
	cow_region_free(two.a);
	cow_region_free(two.b);
}

TAP_MAIN(CASE(a_bracket_keeps_this_threads_cut_away), CASE(brackets_nest),
	 CASE(an_end_without_a_begin), CASE(touch_opens_every_page_of_its_range),
	 CASE(many_regions_in_one_thread), CASE(as_many_regions_in_one_cut_as_there_may_be),
	 CASE(a_cut_gives_up_and_opens_the_gate_again), CASE(several_regions_give_up_together),
	 CASE(a_cut_waits_for_a_bracket), CASE(nested_brackets_and_cuts_of_both_regions))
