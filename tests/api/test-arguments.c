/* SPDX-License-Identifier: MIT */
/*
 * Bad input: every refusal that cow.h promises, and that a refused call leaves what it was given
 * alone.
 */
#include <sys/mman.h>

#include "tests/api/common.h"

#define NEVER ((void *)(uintptr_t)0x1234) /* a result that was not written */

/* What is refused is refused with a reason. */
static int new_with(size_t length, const struct cow_region_options *options)
{
	struct cow_region *region = NEVER;
	int r;

	cow_log_set(note_message, NULL);
	logged.count = 0;
	r = cow_region_new(length, options, &region);
	cow_log_set(NULL, NULL);
	if (r == 0) {
		cow_region_free(region);
	} else {
		ok(region == NEVER, "a refused region leaves the result alone");
		ok(logged.count == 1, "and says why: %s", logged.count ? logged.last : "");
	}
	return r;
}

TEST(lengths)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *region;

	is_errno(new_with(0, &options), -EINVAL, "no length");
	is_errno(new_with(((size_t)1 << 44) + 1, &options), -EINVAL, "above 16 TiB");
	is_errno(new_with(SIZE_MAX, &options), -EINVAL, "SIZE_MAX");
	is_errno(new_with(SIZE_MAX - PAGE + 1, &options), -EINVAL, "a length that rounds to zero");
	is_errno(cow_region_new(PAGE, &options, NULL), -EINVAL, "no result");
	is_errno(cow_region_new(1, &options, &region), 0, "one byte");
	is_u64(cow_region_get_length(region), PAGE, "one byte is one page");
	cow_region_free(region);
	region = new_region(((size_t)1 << 38) / PAGE);
	is_errno(fill(region, ((size_t)1 << 38) / PAGE - 1, 7), 0, "the last page of 256 GiB");
	ok(stats_of(region).metadata_bytes < 1 << 20, "metadata follows the pages, not the length");
	cow_region_free(region);
}

TEST(traps)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_region *region = NULL;

	cow_log_set(note_message, NULL);
	for (int trap = COW_TRAP_SIGNAL; trap <= COW_TRAP_EXPLICIT; trap++) {
		int r;

		options.trap = (enum cow_trap)trap;
		logged.count = 0;
		r = cow_region_new(PAGE, &options, &region);
		/* Not every machine allows each; then it says what to do. */
		ok(r == 0 || (r == -EOPNOTSUPP && logged.count == 1), "trap %d: %d", trap, r);
		ok(r < 0 || stats_of(region).trap == options.trap, "the one that was asked for");
		if (r == 0)
			cow_region_free(region);
	}
	logged.count = 0;
	if (is_errno(cow_region_new(PAGE, NULL, &region), 0, "the defaults ask for AUTO")) {
		ok(stats_of(region).trap != COW_TRAP_AUTO, "which chooses one");
		ok(strstr(logged.last, "COW_TRAP_AUTO chose"), "and says so: %s", logged.last);
		cow_region_free(region);
		is_errno(cow_region_new(PAGE, NULL, &region), 0, "once more");
		is_u64(logged.count, 1, "said once");
		cow_region_free(region);
	}
	cow_log_set(NULL, NULL);
	logged.count = 0;
	cow_region_free(new_region(1));
	is_u64(logged.count, 0, "silenced");
	options.trap = (enum cow_trap)(COW_TRAP_EXPLICIT + 1);
	is_errno(new_with(PAGE, &options), -EINVAL, "a trap that is none");
	options.trap = (enum cow_trap) - 1;
	is_errno(new_with(PAGE, &options), -EINVAL, "another one");
}

TEST(options_that_are_refused)
{
	struct cow_region_options good = explicit_options(), bad;

#define REFUSED(member, value)                                                       \
	do {                                                                         \
		bad = good;                                                          \
		bad.member = (value);                                                \
		is_errno(new_with(PAGE, &bad), -EINVAL, "%s = %s", #member, #value); \
	} while (0)

	REFUSED(flags, 0x10u);
	REFUSED(flags, 0x80000000u);
	REFUSED(address, (void *)(uintptr_t)0x10001);
	REFUSED(preimage_limit, 1);
	REFUSED(preimage_limit, COW_PREIMAGE_LIMIT_MIN - 1);
	REFUSED(limit_policy, (enum cow_limit_policy)3);
	REFUSED(limit_policy, (enum cow_limit_policy) - 1);
	REFUSED(block, 1);
	REFUSED(block, PAGE / 2);
	REFUSED(block, 3 * PAGE);
	bad = good;
	bad.preimage_limit = COW_PREIMAGE_LIMIT_MIN;
	bad.block = 2 * PAGE;
	is_errno(new_with(PAGE, &bad), 0, "the least that is allowed");
}

TEST(sizes_of_structs)
{
	struct {
		struct cow_region_options options;
		unsigned char tail[64];
	} later = { .options = explicit_options() };

	later.options.size = 0;
	is_errno(new_with(PAGE, &later.options), -EINVAL, "size zero");
	later.options.size = sizeof(size_t);
	is_errno(new_with(PAGE, &later.options), -EINVAL, "smaller than the first release's");
	later.options.size = sizeof(later.options) - 1;
	is_errno(new_with(PAGE, &later.options), -EINVAL, "one less");
	later.options.size = sizeof(later);
	is_errno(new_with(PAGE, &later.options), 0, "larger, the rest zero");
	later.tail[63] = 1;
	is_errno(new_with(PAGE, &later.options), -E2BIG, "larger, the rest not zero");
	later.options.size = sizeof(later) - 1;
	is_errno(new_with(PAGE, &later.options), 0, "what lies beyond the size is not looked at");
}

TEST(sizes_of_results)
{
	struct cow_region *region = new_region(4);
	struct cow_snapshot *snapshot = take(region);
	struct {
		struct cow_region_stats stats;
		unsigned char tail[64];
	} of_region = { .stats = COW_REGION_STATS_INIT };
	struct {
		struct cow_snapshot_stats stats;
		unsigned char tail[64];
	} of_snapshot = { .stats = COW_SNAPSHOT_STATS_INIT };

	of_region.stats.size = of_snapshot.stats.size = 0;
	is_errno(cow_region_get_stats(region, &of_region.stats), -EINVAL, "size zero");
	is_errno(cow_snapshot_get_stats(snapshot, &of_snapshot.stats), -EINVAL, "size zero");
	of_region.stats.size = of_snapshot.stats.size = sizeof(size_t);
	is_errno(cow_region_get_stats(region, &of_region.stats), -EINVAL, "too small");
	is_errno(cow_snapshot_get_stats(snapshot, &of_snapshot.stats), -EINVAL, "too small");
	is_u64(of_region.stats.pages, 0, "a refused call writes nothing");
	of_region.stats.size = sizeof(of_region);
	of_snapshot.stats.size = sizeof(of_snapshot);
	is_errno(cow_region_get_stats(region, &of_region.stats), 0, "larger, the rest zero");
	is_errno(cow_snapshot_get_stats(snapshot, &of_snapshot.stats), 0, "larger, the rest zero");
	is_u64(of_region.stats.pages, 4, "the pages");
	is_u64(of_snapshot.stats.length, 4 * PAGE, "the length");
	of_region.tail[0] = of_snapshot.tail[0] = 1;
	of_region.stats.size = sizeof(of_region);
	of_snapshot.stats.size = sizeof(of_snapshot);
	is_errno(cow_region_get_stats(region, &of_region.stats), -E2BIG, "the rest not zero");
	is_errno(cow_snapshot_get_stats(snapshot, &of_snapshot.stats), -E2BIG, "the rest not zero");
	is_errno(cow_region_get_stats(region, NULL), -EINVAL, "no result");
	is_errno(cow_snapshot_get_stats(snapshot, NULL), -EINVAL, "no result");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

static int ignore_range(size_t offset, size_t length, void *context)
{
	(void)offset;
	(void)length;
	(void)context;
	return 0;
}

TEST(nulls)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *region = new_region(1), *none = NULL;
	struct cow_snapshot *snapshot = take(region), *ret;
	unsigned char byte = 0;
	const void *view;

	is_errno(cow_region_write_begin(NULL, &byte, 1), -EINVAL, "write_begin");
	cow_region_write_end(NULL, &byte, 1);
	is_errno(cow_region_touch(NULL, &byte, 1), -EINVAL, "touch");
	is_errno(cow_region_write(NULL, 0, &byte, 1), -EINVAL, "write");
	is_errno(cow_region_write(region, 0, NULL, 1), -EINVAL, "write from nowhere");
	is_errno(cow_region_write(region, 0, NULL, 0), 0, "nothing from nowhere");
	is_errno(cow_region_read(NULL, 0, &byte, 1), -EINVAL, "read");
	is_errno(cow_region_read(region, 0, NULL, 1), -EINVAL, "read to nowhere");
	is_errno(cow_region_discard(NULL, 0, 1), -EINVAL, "discard");
	is_errno(cow_region_arm(NULL), -EINVAL, "arm");
	is_errno(cow_region_arm(region), 0, "arm has nothing to do");
	is_errno(cow_region_snapshot(NULL, &ret), -EINVAL, "snapshot");
	is_errno(cow_region_snapshot(region, NULL), -EINVAL, "snapshot to nowhere");
	is_errno(cow_region_snapshot_many(NULL, 1, &ret), -EINVAL, "snapshot_many");
	is_errno(cow_region_snapshot_many(&none, 1, &ret), -EINVAL, "snapshot_many of NULL");
	is_errno(cow_region_snapshot_many(&region, 1, NULL), -EINVAL, "snapshot_many to nowhere");
	is_errno(cow_region_rollback(NULL, snapshot), -EINVAL, "rollback");
	is_errno(cow_region_rollback(region, NULL), -EINVAL, "rollback to NULL");
	is_errno(cow_region_merge(NULL, NULL), -EINVAL, "merge");
	is_errno(cow_region_merge(region, NULL), 0, "merge whose result nobody wants");
	is_errno(cow_region_get_stats(NULL, NULL), -EINVAL, "stats");
	is_errno(cow_snapshot_get_stats(NULL, NULL), -EINVAL, "stats of a snapshot");
	is_errno(cow_snapshot_read(NULL, 0, &byte, 1), -EINVAL, "read of a snapshot");
	is_errno(cow_snapshot_read(snapshot, 0, NULL, 1), -EINVAL, "read of a snapshot to nowhere");
	is_errno(cow_snapshot_map(NULL, 0, &view), -EINVAL, "map");
	is_errno(cow_snapshot_map(snapshot, 0, NULL), -EINVAL, "map to nowhere");
	is_errno(cow_snapshot_map(snapshot, 2, &view), -EINVAL, "map with an unknown flag");
	is_errno(cow_snapshot_branch(NULL, &options, &none), -EINVAL, "branch");
	is_errno(cow_snapshot_branch(snapshot, &options, NULL), -EINVAL, "branch to nowhere");
	is_errno(cow_snapshot_diff(NULL, snapshot, ignore_range, NULL), -EINVAL, "diff");
	is_errno(cow_snapshot_diff(snapshot, snapshot, NULL, NULL), -EINVAL, "diff to nowhere");
	ok(!none, "no result was written");
	ok(cow_snapshot_unref(NULL) == NULL && cow_snapshot_ref(NULL) == NULL, "ref and unref");
	cow_region_free(NULL);
	ok(cow_region_get_base(NULL) == NULL && cow_region_get_length(NULL) == 0, "getters");
	is_u64(cow_snapshot_get_length(NULL), 0, "length");
	is_u64(snapshot_stats_of(snapshot).branches, 0, "a refused branch pins nothing");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

static void check_range(struct cow_region *region, struct cow_snapshot *snapshot, size_t offset,
			size_t length, int expected)
{
	static unsigned char buffer[8 * PAGE];
	const void *address = (void *)((uintptr_t)cow_region_get_base(region) + offset);

	is_errno(cow_region_write(region, offset, buffer, length), expected, "write %zu+%zu",
		 offset, length);
	is_errno(cow_region_read(region, offset, buffer, length), expected, "read %zu+%zu", offset,
		 length);
	is_errno(cow_region_discard(region, offset, length), expected, "discard %zu+%zu", offset,
		 length);
	is_errno(cow_region_touch(region, address, length), expected, "touch %zu+%zu", offset,
		 length);
	is_errno(cow_snapshot_read(snapshot, offset, buffer, length), expected,
		 "snapshot read %zu+%zu", offset, length);
}

TEST(ranges)
{
	struct cow_region *region = new_region(4);
	struct cow_snapshot *snapshot = take(region);

	check_range(region, snapshot, 0, 4 * PAGE, 0);
	check_range(region, snapshot, 4 * PAGE - 1, 1, 0);
	check_range(region, snapshot, 4 * PAGE, 0, 0);
	check_range(region, snapshot, 0, 0, 0);
	check_range(region, snapshot, 0, 4 * PAGE + 1, -ERANGE);
	check_range(region, snapshot, 4 * PAGE, 1, -ERANGE);
	check_range(region, snapshot, 4 * PAGE + 1, 0, -ERANGE);
	check_range(region, snapshot, PAGE, SIZE_MAX, -ERANGE);
	check_range(region, snapshot, 1, SIZE_MAX, -ERANGE);
	check_range(region, snapshot, PAGE, SIZE_MAX - PAGE + 1, -ERANGE);
	is_errno(cow_region_write_begin(region, page_of(region, 0) - 1, 1), -ERANGE,
		 "before the base");
	is_errno(cow_region_write_begin(region, page_of(region, 3), PAGE + 1), -ERANGE,
		 "past the end");
	cow_snapshot_unref(snapshot);
	snapshot = NULL;
	is_errno(cow_region_snapshot(region, &snapshot), 0, "no refusal left a bracket open");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

TEST(objects_that_do_not_match)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *a = new_region(1), *b = new_region(1), *branch = NULL;
	struct cow_region *twice[] = { a, b, a };
	struct cow_snapshot *of_a = take(a), *of_b = take(b), *many[3] = { NEVER, NEVER, NEVER };

	fill(a, 0, 1);
	is_errno(cow_region_rollback(b, of_a), -EINVAL, "rollback to a snapshot of another region");
	is_errno(cow_snapshot_diff(of_a, of_b, ignore_range, NULL), -EINVAL, "diff across regions");
	is_errno(cow_snapshot_branch(of_a, &options, &branch), 0, "branch");
	is_errno(cow_region_rollback(branch, of_a), -EINVAL,
		 "rollback of a branch to what it came from");
	is_errno(cow_region_snapshot_many(twice, 3, many), -EINVAL, "a region twice");
	is_errno(cow_region_snapshot_many(twice, 0, many), -EINVAL, "none");
	is_errno(cow_region_snapshot_many(twice, COW_SNAPSHOT_MANY_MAX + 1, many), -EINVAL,
		 "too many");
	ok(many[0] == NEVER && many[1] == NEVER, "no result was written");
	is_int(live_page(b, 0), 0, "nothing was changed");
	cow_region_free(branch);
	cow_snapshot_unref(of_a);
	cow_snapshot_unref(of_b);
	cow_region_free(a);
	cow_region_free(b);
}

TEST(wanted_addresses)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *region, *other = NEVER;
	void *base;

	region = new_region(16);
	base = cow_region_get_base(region);
	options.address = base;
	is_errno(cow_region_new(PAGE, &options, &other), -EEXIST, "taken");
	options.address = (char *)base - PAGE;
	is_errno(cow_region_new(2 * PAGE, &options, &other), -EEXIST, "partly taken");
	ok(other == NEVER, "no result was written");
	cow_region_free(region);
	options.address = base;
	is_errno(cow_region_new(16 * PAGE, &options, &other), 0, "free again");
	ok(cow_region_get_base(other) == base, "where it was wanted");
	cow_region_free(other);
}

TEST(adopting)
{
	struct cow_region_options options = explicit_options();
	char *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);
	struct cow_region *region = NEVER;
	struct cow_snapshot *snapshot;

	memset(memory, 5, 4 * PAGE);
	munmap(memory + 2 * PAGE, PAGE);
	is_errno(cow_region_adopt(NULL, PAGE, &options, &region), -EINVAL, "nothing");
	is_errno(cow_region_adopt(memory + 1, PAGE, &options, &region), -EINVAL, "unaligned");
	is_errno(cow_region_adopt(memory, PAGE + 1, &options, &region), -EINVAL, "not whole pages");
	is_errno(cow_region_adopt(memory, 0, &options, &region), -EINVAL, "no length");
	is_errno(cow_region_adopt(memory, 4 * PAGE, &options, &region), -ENOMEM, "a hole");
	is_errno(cow_region_adopt(memory, (size_t)1 << 44, &options, &region), -ENOMEM,
		 "far too long");
	is_errno(cow_region_adopt(memory, PAGE, &options, NULL), -EINVAL, "no result");
	options.flags = COW_REGION_SHARED;
	is_errno(cow_region_adopt(memory, PAGE, &options, &region), -EINVAL, "flags");
	ok(region == NEVER, "no result was written");
	options.flags = 0;
	options.address = (void *)(uintptr_t)0x10001;
	is_errno(cow_region_adopt(memory, 2 * PAGE, &options, &region), 0,
		 "the address is ignored");
	if (region == NEVER)
		return;
	is_int(live_page(region, 1), 5, "with what it holds");
	snapshot = take(region);
	fill(region, 0, 6);
	is_int(page_in(snapshot, 0), 5, "its past is kept");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	is_int(memory[0], 6, "it stays mapped when the region is freed");
	munmap(memory, 4 * PAGE);
}

TEST(huge_pages)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *region;
	struct cow_snapshot *snapshot;

	options.flags = COW_REGION_HUGE_PAGES;
	region = new_region_with(1024, &options);
	fill(region, 3, 1);
	snapshot = take(region);
	fill(region, 3, 2);
	fill(region, 1023, 2);
	is_int(page_in(snapshot, 3), 1, "kept");
	is_int(page_in(snapshot, 1023), 0, "kept");
	is_errno(cow_region_rollback(region, snapshot), 0, "rollback");
	is_int(live_page(region, 3), 1, "put back");
	is_int(live_page(region, 1023), 0, "put back");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

TAP_MAIN(CASE(lengths), CASE(traps), CASE(options_that_are_refused), CASE(sizes_of_structs),
	 CASE(sizes_of_results), CASE(nulls), CASE(ranges), CASE(objects_that_do_not_match),
	 CASE(wanted_addresses), CASE(adopting), CASE(huge_pages))
