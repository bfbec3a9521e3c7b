/* SPDX-License-Identifier: MIT */
/* COW_REGION_COPY_AHEAD: pages that are written between all cuts stop trapping, pages that no
 * longer are stop being copied, and every snapshot stays right, also while the writer is faster. */
#include "lib/helper.h"
#include "tests/api/common.h"

#define PAGES 512u

static uint32_t more_flags;

static struct cow_region *ahead_region(size_t limit)
{
	struct cow_region_options options = explicit_options();

	options.flags = COW_REGION_COPY_AHEAD | more_flags;
	options.block = PAGE;
	options.preimage_limit = limit;
	options.limit_policy = COW_LIMIT_DROP;
	return new_region_with(PAGES, &options);
}

static uint64_t copies(struct cow_region *region)
{
	struct cow_region_stats stats = COW_REGION_STATS_INIT;

	is_errno(cow_region_get_stats(region, &stats), 0, "stats");
	return stats.copied_pages;
}

/* ThreadSanitizer takes a plain store for done before it traps and waits for the copier, and has a
 * thread of its own. */
#ifdef __SANITIZE_THREAD__
#define SANITIZES_THREADS true
#else
#define SANITIZES_THREADS false
#endif

static void write_some(struct cow_region *region, unsigned step, unsigned char byte)
{
	unsigned char *base = cow_region_get_base(region);

	for (unsigned page = 0; page < PAGES; page += step)
		if (SANITIZES_THREADS)
			cow_region_write(region, page * PAGE + 5, &byte, 1);
		else
			base[page * PAGE + 5] = byte;
}

static void is_all(struct cow_snapshot *snapshot, unsigned step, unsigned char byte)
{
	unsigned wrong = 0;

	for (unsigned page = 0; page < PAGES; page += step) {
		unsigned char found = 0;

		if (cow_snapshot_read(snapshot, page * PAGE + 5, &found, 1) < 0 || found != byte)
			wrong++;
	}
	is_u64(wrong, 0, "pages of the snapshot that are not as they were");
}

/* The first interval is where it learns what is written; in each of the others it asks an eighth of
 * the pages whether they still are. */
static void few_are_copied(struct cow_region *region, uint64_t before, unsigned round)
{
	if (round > 2)
		ok(copies(region) - before <= PAGES / 4 / 8,
		   "round %u: few copies made by the writer", round);
}

TEST(what_is_written_again_does_not_trap)
{
	struct cow_region *region = ahead_region(0);
	struct cow_snapshot *snapshot = NULL;
	uint64_t before;

	write_some(region, 1, 1);
	for (unsigned char round = 2; round < 20; round++) {
		cow_snapshot_unref(snapshot);
		snapshot = take(region);
		helper_drain(region);
		before = copies(region);
		write_some(region, 4, round);
		is_all(snapshot, 4, (unsigned char)(round - 1));
		few_are_copied(region, before, round);
	}
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

/* The library's thread is not told from the program's before it runs. */
static void wait_until_alone(void)
{
	for (unsigned i = 0; i < 1000 && !sys_is_alone(); i++)
		usleep(1000);
}

static void keep_in_the_cut(void)
{
	struct cow_snapshot *snapshot = NULL;
	struct cow_region *region;
	uint64_t before;

	if (SANITIZES_THREADS) {
		skip("a thread of the sanitizer's is always there");
		return;
	}
	region = ahead_region(0);
	write_some(region, 1, 1);
	for (unsigned char round = 2; round < 20; round++) {
		struct cow_snapshot *older = snapshot;

		wait_until_alone();
		snapshot = take(region);
		before = copies(region);
		write_some(region, 4, round);
		is_all(snapshot, 4, (unsigned char)(round - 1));
		if (older)
			is_all(older, 4, (unsigned char)(round - 2));
		few_are_copied(region, before, round);
		cow_snapshot_unref(older);
	}
	cow_snapshot_unref(snapshot);
	space_validate(&region->space);
	cow_region_free(region);
}

TEST(a_single_thread_has_them_kept_in_the_cut)
{
	keep_in_the_cut();
}

/* What is left open by the inner back end has to be kept by it, whatever stands before it. */
TEST(also_where_bypassing_writes_are_looked_for)
{
	more_flags = COW_REGION_CHECK;
	keep_in_the_cut();
	more_flags = 0;
}

TEST(what_is_not_written_any_more_is_left_alone)
{
	struct cow_region *region = ahead_region(0);
	struct cow_snapshot *snapshot = NULL;
	uint64_t before = 0;

	write_some(region, 1, 1);
	for (unsigned round = 0; round < 12; round++) {
		cow_snapshot_unref(snapshot);
		before = copies(region);
		snapshot = take(region);
		helper_drain(region);
		if (round == 0)
			write_some(region, 4, 2);
	}
	is_u64(copies(region), before, "copies after the last cut");
	is_all(snapshot, 4, 2);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

TEST(a_writer_that_is_faster_is_right_as_well)
{
	struct cow_region *region = ahead_region(0);
	struct cow_snapshot *snapshots[8];

	write_some(region, 1, 1);
	for (unsigned char round = 0; round < 200; round++) {
		struct cow_snapshot **slot = &snapshots[round % 8];

		if (round >= 8) {
			is_all(*slot, 1, (unsigned char)(round - 7));
			cow_snapshot_unref(*slot);
		}
		*slot = take(region);
		write_some(region, 1, (unsigned char)(round + 2));
	}
	for (unsigned i = 0; i < 8; i++)
		cow_snapshot_unref(snapshots[i]);
	cow_region_free(region);
}

TEST(it_stops_near_the_limit)
{
	struct cow_region *region = ahead_region(COW_PREIMAGE_LIMIT_MIN + 64 * PAGE);
	struct cow_region_stats stats = COW_REGION_STATS_INIT;
	struct cow_snapshot *snapshot;

	write_some(region, 1, 1);
	for (unsigned char round = 2; round < 6; round++) {
		snapshot = take(region);
		helper_drain(region);
		is_errno(cow_region_get_stats(region, &stats), 0, "stats");
		ok(stats.preimage_bytes <= COW_PREIMAGE_LIMIT_MIN + 64 * PAGE, "within the limit");
		is_u64(stats.snapshots, 1, "the snapshot was not given up for it");
		is_all(snapshot, 1, (unsigned char)(round - 1));
		cow_snapshot_unref(snapshot);
		write_some(region, 1, round);
	}
	cow_region_free(region);
}

TAP_MAIN(CASE(what_is_written_again_does_not_trap), CASE(a_single_thread_has_them_kept_in_the_cut),
	 CASE(also_where_bypassing_writes_are_looked_for),
	 CASE(what_is_not_written_any_more_is_left_alone),
	 CASE(a_writer_that_is_faster_is_right_as_well), CASE(it_stops_near_the_limit))
