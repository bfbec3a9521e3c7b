/* SPDX-License-Identifier: MIT */
/* Saving beside running writers, with bounded memory, and snapshots that are read from layers. */
#include <pthread.h>

#include "tests/store/common.h"

static int save_with(struct cow_store *store, struct cow_snapshot *snapshot, uint32_t flags,
		     char id[COW_ID_LENGTH])
{
	struct cow_save_options options = COW_SAVE_OPTIONS_INIT;

	options.flags = flags;
	return cow_store_save(store, snapshot, &options, id);
}

static bool snapshot_has(struct cow_snapshot *snapshot, uint64_t page, uint64_t time)
{
	unsigned char got[PAGE], content[PAGE];

	make_content(content, page, time);
	return cow_snapshot_read(snapshot, page * PAGE, got, PAGE) == 0 &&
	       memcmp(got, content, PAGE) == 0;
}

/* A thread that rewrites pages for as long as it is let. */
struct writer {
	struct cow_region *region;
	uint64_t pages, time;
	bool all; /* every page once, in order; else at random until told to stop */
	_Atomic bool stop;
	int failed;
	pthread_t thread;
};

static void *write_pages(void *context)
{
	struct writer *writer = context;
	unsigned char content[PAGE];
	uint64_t x = 88172645463325252ull;

	for (uint64_t i = 0; writer->all ? i < writer->pages : !writer->stop; i++) {
		uint64_t page = i;
		int r;

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		if (!writer->all)
			page = x % writer->pages;
		make_content(content, page, writer->time + i / writer->pages);
		r = cow_region_write(writer->region, page * PAGE, content, PAGE);
		if (r < 0 && writer->failed == 0)
			writer->failed = r;
	}
	return NULL;
}

TEST(a_save_beside_writers_is_the_snapshot)
{
	const char *directory = scratch();
	struct cow_store *store = open_store(directory, COW_STORE_CREATE);
	struct cow_region *region = new_region(8000);
	struct writer writer = { .region = region, .pages = 8000, .time = 100 };
	char raw[300], id[COW_ID_LENGTH];
	struct cow_snapshot *snapshot;
	unsigned char *expected = malloc(8000 * PAGE);

	for (uint64_t page = 0; page < 8000; page++)
		put(region, page, 1);
	fill(region, 17, 0);
	pthread_create(&writer.thread, NULL, write_pages, &writer);
	for (unsigned round = 0; round < 6; round++) {
		FILE *file;

		snapshot = take(region);
		is_errno(save_with(store, snapshot, 0, id), 0, "it is saved");
		is_errno(cow_snapshot_read(snapshot, 0, expected, 8000 * PAGE), 0, "and read");
		snprintf(raw, sizeof(raw), "%s/raw", directory);
		file = fopen(raw, "wb");
		ok(file && fwrite(expected, PAGE, 8000, file) == 8000, "written");
		fclose(file);
		ok(reads_as(directory, id, raw), "round %u: the layer is the snapshot", round);
		cow_snapshot_unref(snapshot);
	}
	writer.stop = true;
	pthread_join(writer.thread, NULL);
	is_errno(cow_store_verify(store, NULL, NULL, NULL, NULL), 0, "all checksums");
	check_layers(directory);
	free(expected);
	cow_region_free(region);
	cow_store_close(store);
}

TEST(an_offloaded_snapshot_costs_no_memory)
{
	const char *directory = scratch();
	struct cow_store *store = open_store(directory, COW_STORE_CREATE);
	struct cow_region *region = new_region(2000), *branch = NULL;
	struct cow_region_options options = explicit_options();
	struct cow_snapshot *snapshot, *next;
	struct cow_snapshot_stats stats;
	const unsigned char *view = NULL;
	unsigned char content[PAGE];

	for (uint64_t page = 0; page < 2000; page++)
		put(region, page, 1);
	snapshot = take(region);
	for (uint64_t page = 0; page < 1000; page++)
		put(region, page, 2);
	ok(stats_of(region).preimage_bytes >= 1000 * PAGE, "pre-images are kept");
	is_errno(save_with(store, snapshot, COW_SAVE_OFFLOAD, NULL), 0, "it is saved");
	is_u64(stats_of(region).preimage_bytes, 0, "pre-images");
	stats = snapshot_stats_of(snapshot);
	is_u64(stats.dropped, 0, "it was not given up");
	for (uint64_t page = 1000; page < 2000; page++)
		put(region, page, 2);
	is_u64(stats_of(region).preimage_bytes, 0, "pre-images, after more writes");
	for (uint64_t page = 0; page < 2000; page++)
		if (!ok(snapshot_has(snapshot, page, 1), "page %llu", (unsigned long long)page))
			break;
	next = take(region);
	cow_store_close(store);
	is_errno(cow_snapshot_map(snapshot, 0, (const void **)&view), 0, "it is mapped");
	make_content(content, 77, 1);
	ok(view && memcmp(view + 77 * PAGE, content, PAGE) == 0, "the view");
	is_errno(cow_snapshot_branch(snapshot, &options, &branch), 0, "it is branched");
	ok(branch && cow_region_read(branch, 5 * PAGE, content, PAGE) == 0 && content[0] != 0,
	   "the branch");
	cow_region_free(branch);
	is_errno(cow_region_rollback(region, snapshot), 0, "rolled back to it");
	for (uint64_t page = 0; page < 2000; page++) {
		make_content(content, page, 1);
		if (!ok(memcmp(page_of(region, page), content, PAGE) == 0, "live page %llu",
			(unsigned long long)page))
			break;
	}
	ok(snapshot_has(next, 3, 2), "another snapshot stays what it was");
	cow_snapshot_unref(next);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

/* 64 MiB rewritten completely while 8 MiB may be kept. */
TEST(a_consumed_snapshot_needs_no_room)
{
	const char *directory = scratch();
	struct cow_region_options options = explicit_options();
	struct cow_store *store = open_store(directory, COW_STORE_CREATE);
	struct cow_region *region;
	struct cow_snapshot *snapshot;
	struct writer writer = { .pages = 16384, .time = 2, .all = true };
	uint64_t most = 0;

	options.preimage_limit = 8 << 20;
	options.limit_policy = COW_LIMIT_BLOCK;
	options.limit_timeout_ns = 60000000000ull;
	region = new_region_with(16384, &options);
	writer.region = region;
	for (uint64_t page = 0; page < 16384; page++)
		put(region, page, 1);
	snapshot = take(region);
	pthread_create(&writer.thread, NULL, write_pages, &writer);
	is_errno(save_with(store, snapshot, COW_SAVE_CONSUME, NULL), 0, "it is saved");
	pthread_join(writer.thread, NULL);
	is_errno(writer.failed, 0, "every write went through");
	most = stats_of(region).preimage_bytes;
	is_u64(most, 0, "kept afterwards");
	for (uint64_t page = 0; page < 16384; page += 7)
		if (!ok(snapshot_has(snapshot, page, 1), "page %llu", (unsigned long long)page))
			break;
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	cow_store_close(store);
}

static int stop_half_way(uint64_t done, uint64_t total, void *context)
{
	return done > total / 2;
}

TEST(a_save_that_is_stopped_leaves_nothing)
{
	const char *directory = scratch();
	struct cow_store *store = open_store(directory, COW_STORE_CREATE);
	struct cow_save_options options = COW_SAVE_OPTIONS_INIT;
	struct cow_region *region = new_region(8000);
	struct cow_snapshot *snapshot;

	for (uint64_t page = 0; page < 8000; page++)
		put(region, page, 1);
	snapshot = take(region);
	options.progress = stop_half_way;
	is_errno(cow_store_save(store, snapshot, &options, NULL), -ECANCELED, "it is stopped");
	is_int(run("test $(ls '%s' | wc -l) = 2", directory), 0, "HEAD and lock are all there is");
	ok(snapshot_has(snapshot, 7999, 1), "the snapshot is still good");
	options.flags = COW_SAVE_CONSUME;
	is_errno(cow_store_save(store, snapshot, &options, NULL), -ECANCELED, "again");
	ok(!snapshot_has(snapshot, 7999, 1), "it was given up");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	cow_store_close(store);
}

/* What was discarded and written again later: a save of the state in between has to say zero. */
TEST(a_discarded_page_is_saved_as_zero)
{
	const char *directory = scratch();
	struct cow_store *store = open_store(directory, COW_STORE_CREATE);
	struct cow_region *region = new_region(100), *restored = NULL;
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_snapshot *snapshot;
	char id[COW_ID_LENGTH];

	options.trap = TEST_TRAP;
	for (uint64_t page = 0; page < 100; page++)
		put(region, page, 1);
	is_errno(save(store, region, NULL, NULL), 0, "the first");
	is_errno(cow_region_discard(region, 10 * PAGE, 10 * PAGE), 0, "ten pages go");
	snapshot = take(region);
	for (uint64_t page = 0; page < 100; page++)
		put(region, page, 2);
	is_errno(save_with(store, snapshot, 0, id), 0, "the second");
	is_errno(cow_store_restore(store, id, &options, &restored), 0, "restored");
	if (restored) {
		is_int(live_page(restored, 12), 0, "a discarded page");
		ok(live_page(restored, 9) == -1, "one beside it");
	}
	cow_region_free(restored);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	cow_store_close(store);
}

static bool reads_as_region(struct cow_store *store, const char *id, struct cow_region *region)
{
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	size_t length = cow_region_get_length(region);
	unsigned char *a = malloc(length), *b = malloc(length);
	struct cow_region *restored = NULL;
	bool same;

	options.trap = COW_TRAP_EXPLICIT;
	same = a && b && cow_store_restore(store, id, &options, &restored) == 0 &&
	       cow_region_read(region, 0, a, length) == 0 &&
	       cow_region_read(restored, 0, b, length) == 0 && memcmp(a, b, length) == 0;
	cow_region_free(restored);
	free(a);
	free(b);
	return same;
}

/* Explicit ones read through their source, and go on from the layer that it, or something before
 * it, was saved as. */
TEST(a_branch_is_saved_on_its_source)
{
	struct cow_store *store = open_store(scratch(), COW_STORE_CREATE);
	struct cow_region *region = new_region(2000), *branch = NULL, *second = NULL;
	struct cow_region_options options = explicit_options();
	struct cow_layer_info info = COW_LAYER_INFO_INIT;
	char first[COW_ID_LENGTH], id[COW_ID_LENGTH];
	struct cow_snapshot *snapshot, *of_branch;

	for (uint64_t page = 0; page < 1500; page++)
		put(region, page, 1);
	is_errno(save(store, region, NULL, first), 0, "the region is saved");
	for (uint64_t page = 0; page < 30; page++)
		put(region, page * 40, 2);
	snapshot = take(region);
	is_errno(cow_snapshot_branch(snapshot, &options, &branch), 0,
		 "a branch of what came later");
	for (uint64_t page = 0; page < 20; page++)
		put(branch, page * 90 + 7, 3);
	is_errno(cow_region_discard(branch, 4 * PAGE, 3 * PAGE), 0, "some of it is discarded");
	put(region, 3, 4); /* none of the branch's business */
	of_branch = take(branch);
	is_errno(cow_snapshot_branch(of_branch, &options, &second), 0, "a branch of the branch");
	put(second, 1999, 5);
	is_errno(save(store, second, NULL, id), 0, "that is saved");
	is_errno(cow_store_get_info(store, id, &info), 0, "its layer");
	ok(reads_as_region(store, id, second), "it reads as the branch of the branch");
	if (TEST_TRAP == COW_TRAP_EXPLICIT) {
		is_str(info.parent, first, "its parent");
		is_u64(info.data_bytes, 51 * PAGE, "what changed since");
		is_u64(info.zero_bytes, 3 * PAGE, "what was discarded");
	}
	is_errno(save(store, branch, NULL, id), 0, "the branch is saved");
	ok(reads_as_region(store, id, branch), "it reads as the branch");
	put(branch, 100, 6);
	is_errno(save(store, branch, NULL, id), 0, "and again");
	ok(reads_as_region(store, id, branch), "it reads as the branch");
	is_errno(cow_store_verify(store, NULL, NULL, NULL, NULL), 0, "all checksums");
	cow_region_free(second);
	cow_snapshot_unref(of_branch);
	cow_region_free(branch);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	cow_store_close(store);
}

TAP_MAIN(CASE(a_save_beside_writers_is_the_snapshot), CASE(an_offloaded_snapshot_costs_no_memory),
	 CASE(a_consumed_snapshot_needs_no_room), CASE(a_save_that_is_stopped_leaves_nothing),
	 CASE(a_discarded_page_is_saved_as_zero), CASE(a_branch_is_saved_on_its_source))
