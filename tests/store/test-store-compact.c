/* SPDX-License-Identifier: MIT */
/* Deleting and compacting: what is kept reads as before, under the same identity. */
#include "tests/store/common.h"

#define PAGES  3000u
#define LAYERS 40u

static char ids[LAYERS][COW_ID_LENGTH];
static unsigned char *contents[LAYERS];

static void forget_contents(void)
{
	for (unsigned i = 0; i < LAYERS; i++) {
		free(contents[i]);
		contents[i] = NULL;
	}
}

/* Layer after layer, and what each reads as. */
static struct cow_region *fill_store(struct cow_store *store)
{
	struct cow_region *region = new_region(PAGES);
	uint64_t x = 88172645463325252ull;

	forget_contents();
	for (uint64_t page = 0; page < PAGES / 2; page++)
		put(region, page, 1);
	for (unsigned i = 0; i < LAYERS; i++) {
		for (unsigned n = 0; n < 50; n++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			if (n % 10 == 0)
				is_errno(cow_region_discard(region, x % PAGES * PAGE, PAGE), 0,
					 "a discard");
			else
				put(region, x % PAGES, 2 + i);
		}
		is_errno(save(store, region, NULL, ids[i]), 0, "layer %u", i);
		contents[i] = malloc(PAGES * PAGE);
		for (uint64_t page = 0; page < PAGES; page++)
			cow_region_read(region, page * PAGE, contents[i] + page * PAGE, PAGE);
	}
	return region;
}

static bool layer_is(struct cow_store *store, unsigned i)
{
	char path[300];
	unsigned char *got = malloc(PAGES * PAGE);
	bool same;
	FILE *file;

	snprintf(path, sizeof(path), "%s/exported", scratch_path);
	is_errno(cow_store_export(store, ids[i], path, NULL, NULL), 0, "layer %u is exported", i);
	file = fopen(path, "rb");
	same = file && fread(got, PAGE, PAGES, file) == PAGES &&
	       memcmp(got, contents[i], PAGES * PAGE) == 0;
	if (file)
		fclose(file);
	unlink(path);
	free(got);
	return same;
}

static void check(struct cow_store *store, unsigned step)
{
	char path[300];

	for (unsigned i = 0; i < LAYERS; i += step) {
		FILE *file;

		ok(layer_is(store, i), "layer %u reads as before", i);
		if (i % (3 * step) != 0 || !have_qemu_img())
			continue;
		snprintf(path, sizeof(path), "%s/raw", scratch_path);
		file = fopen(path, "wb");
		fwrite(contents[i], PAGE, PAGES, file);
		fclose(file);
		ok(reads_as(scratch_path, ids[i], path), "and so says qemu-img");
	}
	is_errno(cow_store_verify(store, NULL, NULL, NULL, NULL), 0, "all checksums");
	if (have_qemu_img())
		check_layers(scratch_path);
}

static int count_layer(const struct cow_layer_info *info, void *context)
{
	unsigned *counts = context;

	counts[0]++;
	if (info->depth > counts[1])
		counts[1] = info->depth;
	counts[2] += (info->flags & COW_LAYER_DELETED) != 0;
	return 0;
}

TEST(deleted_layers_are_merged)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	struct cow_compact_stats stats = COW_COMPACT_STATS_INIT;
	struct cow_region *region = fill_store(store);
	unsigned counts[3] = { 0 };
	char id[COW_ID_LENGTH];

	for (unsigned i = 0; i < LAYERS; i++)
		if (i % 4 != 0)
			is_errno(cow_store_delete(store, ids[i]), 0, "layer %u is deleted", i);
	is_errno(cow_store_get_info(store, ids[1], &(struct cow_layer_info)COW_LAYER_INFO_INIT),
		 -ENOENT, "it has no name any more");
	is_errno(cow_store_list(store, count_layer, counts), 0, "the list");
	ok(counts[2] > 0, "some are there for their children");
	is_errno(cow_store_compact(store, NULL, &stats), 0, "compacted");
	memset(counts, 0, sizeof(counts));
	is_errno(cow_store_list(store, count_layer, counts), 0, "the list");
	is_u64(counts[0], LAYERS / 4, "layers");
	is_u64(counts[2], 0, "deleted ones");
	is_u64(stats.busy, 0, "in use");
	is_u64(stats.depth, counts[1], "depth");
	ok(stats.bytes_after < stats.bytes_before, "smaller");
	check(store, 4);
	put(region, 7, 99);
	is_errno(save(store, region, NULL, id), 0, "the next save");
	is_errno(cow_store_verify(store, NULL, NULL, NULL, NULL), 0, "all checksums");
	cow_region_free(region);
	cow_store_close(store);
	forget_contents();
}

TEST(deep_chains_are_cut)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	struct cow_compact_options options = COW_COMPACT_OPTIONS_INIT;
	struct cow_compact_stats stats = COW_COMPACT_STATS_INIT;
	struct cow_region *region = fill_store(store);
	unsigned counts[3] = { 0 };

	options.depth_max = 5;
	is_errno(cow_store_compact(store, &options, &stats), 0, "compacted");
	is_errno(cow_store_list(store, count_layer, counts), 0, "the list");
	is_u64(counts[0], LAYERS, "layers");
	ok(counts[1] <= 5, "depth %u", counts[1]);
	check(store, 1);
	stats.rewritten = 77;
	is_errno(cow_store_compact(store, &options, &stats), 0, "again");
	is_u64(stats.rewritten, 0, "nothing to do");
	cow_region_free(region);
	cow_store_close(store);
	forget_contents();
}

TEST(a_depth_without_bound)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	struct cow_compact_options options = COW_COMPACT_OPTIONS_INIT;
	struct cow_compact_stats stats = COW_COMPACT_STATS_INIT;
	struct cow_region *region = fill_store(store);

	options.depth_max = UINT32_MAX;
	is_errno(cow_store_compact(store, &options, &stats), 0, "compacted");
	is_u64(stats.rewritten, 0, "nothing is to be done");
	is_u64(stats.depth, LAYERS - 1, "depth");
	cow_region_free(region);
	cow_store_close(store);
	forget_contents();
}

TEST(what_is_in_use_stays)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE), *reader;
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_compact_stats stats = COW_COMPACT_STATS_INIT;
	struct cow_region *region = fill_store(store), *restored = NULL;
	struct cow_layer_info info = COW_LAYER_INFO_INIT;

	options.trap = TEST_TRAP;
	reader = open_store(scratch_path, COW_STORE_READ_ONLY);
	is_errno(cow_store_restore(reader, ids[LAYERS - 1], &options, &restored), 0, "restored");
	is_errno(cow_store_delete(store, NULL), 0, "HEAD is deleted");
	is_errno(cow_store_get_info(store, NULL, &info), 0, "HEAD");
	is_str(info.id, ids[LAYERS - 2], "its parent is HEAD");
	is_errno(cow_store_compact(store, NULL, &stats), 0, "compacted");
	is_u64(stats.busy, 1, "one is in use");
	ok(memcmp(cow_region_get_base(restored), contents[LAYERS - 1], PAGES * PAGE) == 0,
	   "the region reads on");
	cow_region_free(restored);
	is_errno(cow_store_compact(store, NULL, &stats), 0, "compacted");
	is_u64(stats.busy, 0, "none is");
	is_u64(stats.removed, 1, "it is gone");
	cow_store_close(reader);
	cow_region_free(region);
	cow_store_close(store);
	forget_contents();
}

TEST(what_is_named_is_not_deleted)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	struct cow_region *region = new_region(10);
	char id[COW_ID_LENGTH], second[COW_ID_LENGTH];

	put(region, 1, 1);
	is_errno(save(store, region, "first", id), 0, "saved");
	is_errno(cow_store_delete(store, id), -EBUSY, "it has a tag");
	is_errno(cow_store_untag(store, "first"), 0, "the tag goes");
	is_errno(cow_store_untag(store, "first"), -ENOENT, "there is none");
	is_errno(cow_store_delete(store, id), -EBUSY, "it is HEAD, and there is nothing below");
	put(region, 2, 1);
	is_errno(save(store, region, NULL, second), 0, "saved");
	is_errno(cow_store_delete(store, "nothing"), -ENOENT, "no such layer");
	is_errno(cow_store_delete(store, id), 0, "deleted");
	is_errno(cow_store_tag(store, id, "again"), -ENOENT, "it has no name");
	is_errno(cow_store_tag(store, second, "a/b"), -EINVAL, "not a tag");
	is_errno(cow_store_tag(store, NULL, "head"), 0, "HEAD");
	cow_region_free(region);
	cow_store_close(store);
}

TAP_MAIN(CASE(deleted_layers_are_merged), CASE(deep_chains_are_cut), CASE(a_depth_without_bound),
	 CASE(what_is_in_use_stays), CASE(what_is_named_is_not_deleted))
