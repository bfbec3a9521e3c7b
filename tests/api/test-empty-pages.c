/* SPDX-License-Identifier: MIT */
/*
 * Pages without content of their own: never written, read before they were written, given back, put
 * back by a rollback, behind a huge zero page. The first store to each has to be noticed, although
 * there is nothing there to protect: kernels before 6.4 cannot protect what is not there.
 */
#include <sys/mman.h>

#include "tests/api/common.h"

#define REGION_PAGES 2048u /* 8 MiB: several huge pages, whatever the address */

static struct cow_region *new_empty(uint32_t flags)
{
	struct cow_region_options options = explicit_options();

	options.flags = flags;
	return new_region_with(REGION_PAGES, &options);
}

/* A plain store where the trap sees it, else a bracket. */
static void store(struct cow_region *region, size_t page, int byte)
{
	if (TEST_TRAP == COW_TRAP_EXPLICIT)
		cow_region_touch(region, page_of(region, page), PAGE);
	page_of(region, page)[page % PAGE] = (unsigned char)byte;
}

static bool has(struct cow_snapshot *snapshot, size_t page, int byte)
{
	unsigned char there = 0;

	return cow_snapshot_read(snapshot, page * PAGE + page % PAGE, &there, 1) == 0 &&
	       there == byte;
}

/* Every page is stored to, under a snapshot in which all have this byte. */
static void check_all(struct cow_region *region, int byte, const char *what)
{
	struct cow_snapshot *before = take(region), *after;
	size_t wrong = 0, missing = 0;

	for (size_t page = 0; page < REGION_PAGES; page += page % 64 < 60 ? 1 : 37)
		store(region, page, 77);
	after = take(region);
	for (size_t page = 0; page < REGION_PAGES; page += page % 64 < 60 ? 1 : 37) {
		wrong += !has(before, page, byte);
		missing += !has(after, page, 77);
	}
	is_u64(wrong, 0, "%s: pages of the earlier snapshot that changed", what);
	is_u64(missing, 0, "%s: stores that the later snapshot lacks", what);
	cow_snapshot_unref(before);
	cow_snapshot_unref(after);
}

static void read_all(struct cow_region *region)
{
	unsigned sum = 0;

	for (size_t page = 0; page < REGION_PAGES; page++)
		sum += *(volatile unsigned char *)page_of(region, page);
	is_u64(sum, 0, "an empty region reads as zero");
}

TEST(never_touched)
{
	struct cow_region *region = new_empty(0);

	check_all(region, 0, "never touched");
	cow_region_free(region);
}

TEST(read_before_the_first_cut)
{
	struct cow_region *region = new_empty(0);

	read_all(region);
	check_all(region, 0, "read before");
	cow_region_free(region);
}

TEST(read_after_the_first_cut)
{
	struct cow_region *region = new_empty(0);
	struct cow_snapshot *snapshot = take(region);

	read_all(region);
	check_all(region, 0, "read after");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

TEST(behind_huge_zero_pages)
{
	struct cow_region *region = new_empty(COW_REGION_HUGE_PAGES);
	struct cow_snapshot *snapshot;

	read_all(region);
	snapshot = take(region);
	store(region, 700, 5);
	is_int(has(snapshot, 700, 0), true, "the first store behind a huge zero page");
	cow_snapshot_unref(snapshot);
	store(region, 700, 0);
	check_all(region, 0, "huge zero pages");
	cow_region_free(region);
}

TEST(one_page_of_each_granule)
{
	struct cow_region *region = new_empty(COW_REGION_HUGE_PAGES);

	for (size_t page = 3; page < REGION_PAGES; page += 512)
		store(region, page, 0);
	check_all(region, 0, "nearly empty");
	cow_region_free(region);
}

TEST(discarded)
{
	struct cow_region *region = new_empty(0);

	for (size_t page = 0; page < REGION_PAGES; page++)
		store(region, page, 3);
	check_all(region, 3, "full");
	is_errno(cow_region_discard(region, 0, REGION_PAGES * PAGE), 0, "discard");
	check_all(region, 0, "discarded");
	cow_region_free(region);
}

TEST(rolled_back_to_nothing)
{
	struct cow_region *region = new_empty(0);
	struct cow_snapshot *empty = take(region);

	for (size_t page = 0; page < REGION_PAGES; page++)
		store(region, page, 3);
	is_errno(cow_region_rollback(region, empty), 0, "rollback");
	cow_snapshot_unref(empty);
	check_all(region, 0, "rolled back");
	cow_region_free(region);
}

TEST(of_a_shared_region)
{
	struct cow_region *region = new_empty(COW_REGION_SHARED);

	read_all(region);
	check_all(region, 0, "shared");
	is_errno(cow_region_discard(region, 0, REGION_PAGES * PAGE), 0, "discard");
	check_all(region, 0, "shared, discarded");
	cow_region_free(region);
}

TEST(of_a_branch)
{
	struct cow_region *region = new_empty(0), *branch = NULL;
	struct cow_region_options options = explicit_options();
	struct cow_snapshot *snapshot;

	for (size_t page = 0; page < REGION_PAGES; page += 2)
		store(region, page, 0);
	snapshot = take(region);
	is_errno(cow_snapshot_branch(snapshot, &options, &branch), 0, "branch");
	check_all(branch, 0, "a branch");
	cow_region_free(branch);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

/* What was adopted may be mapped by huge zero pages, too. */
TEST(of_adopted_memory)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *region = NULL;
	void *memory = mmap(NULL, REGION_PAGES * PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		bail("mmap: %s", strerror(errno));
	madvise(memory, REGION_PAGES * PAGE, MADV_HUGEPAGE);
	is_errno(cow_region_adopt(memory, REGION_PAGES * PAGE, &options, &region), 0, "adopt");
	read_all(region);
	check_all(region, 0, "adopted");
	cow_region_free(region);
	munmap(memory, REGION_PAGES * PAGE);
}

TAP_MAIN(CASE(never_touched), CASE(read_before_the_first_cut), CASE(read_after_the_first_cut),
	 CASE(behind_huge_zero_pages), CASE(one_page_of_each_granule), CASE(discarded),
	 CASE(rolled_back_to_nothing), CASE(of_a_shared_region), CASE(of_a_branch),
	 CASE(of_adopted_memory))
