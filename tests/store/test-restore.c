/* SPDX-License-Identifier: MIT */
/* Regions from layers: their content, their address, what the next save of them writes. */
#include "tests/store/common.h"

#define PAGES 5000u

/* Three layers of a region whose pages are 1, then every 7th 2, then every 11th 3. */
static struct cow_store *make_store(const char *directory, char ids[3][COW_ID_LENGTH], void **base)
{
	struct cow_store *store = open_store(directory, COW_STORE_CREATE);
	struct cow_region *region = new_region(PAGES);

	for (uint64_t page = 0; page < PAGES; page++)
		if (page % 100 < 80)
			put(region, page, 1);
	is_errno(save(store, region, NULL, ids[0]), 0, "the first");
	for (uint64_t page = 0; page < PAGES; page += 7)
		put(region, page, 2);
	is_errno(save(store, region, "second", ids[1]), 0, "the second");
	for (uint64_t page = 0; page < PAGES; page += 11)
		put(region, page, 3);
	fill(region, 33, 0);
	is_errno(save(store, region, NULL, ids[2]), 0, "the third");
	if (base)
		*base = cow_region_get_base(region);
	cow_region_free(region);
	return store;
}

static bool page_is_right(const unsigned char *got, uint64_t page, unsigned layers)
{
	unsigned char content[PAGE] = { 0 };

	if (layers >= 3 && page == 33)
		;
	else if (layers >= 3 && page % 11 == 0)
		make_content(content, page, 3);
	else if (layers >= 2 && page % 7 == 0)
		make_content(content, page, 2);
	else if (page % 100 < 80)
		make_content(content, page, 1);
	return memcmp(got, content, PAGE) == 0;
}

static struct cow_region *restore(struct cow_store *store, const char *name,
				  struct cow_restore_options *options)
{
	struct cow_region *region = NULL;
	int r;

	options->trap = TEST_TRAP;
	r = cow_store_restore(store, name, options, &region);
	if (r == -EOPNOTSUPP)
		skip("this trap is not to be had here");
	else
		is_errno(r, 0, "it is restored");
	return region;
}

TEST(pages_read_as_saved)
{
	const char *directory = scratch();
	char ids[3][COW_ID_LENGTH];
	struct cow_store *store = make_store(directory, ids, NULL);
	const char *names[] = { ids[0], "second", NULL };

	for (unsigned layer = 0; layer < 3; layer++) {
		struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
		struct cow_region *region = restore(store, names[layer], &options);

		if (!region)
			break;
		is_u64(cow_region_get_length(region), PAGES * PAGE, "its length");
		for (uint64_t i = 0; i < PAGES; i++) {
			uint64_t page = (i * 2089 + layer) % PAGES;

			if (!ok(page_is_right(page_of(region, page), page, layer + 1),
				"page %llu of layer %u", (unsigned long long)page, layer))
				break;
		}
		cow_region_free(region);
	}
	cow_store_close(store);
}

TEST(snapshots_read_what_nobody_touched)
{
	const char *directory = scratch();
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	char ids[3][COW_ID_LENGTH];
	struct cow_store *store = make_store(directory, ids, NULL);
	struct cow_region *region = restore(store, NULL, &options);
	struct cow_snapshot *snapshot;

	if (!region)
		return;
	snapshot = take(region);
	for (uint64_t page = 0; page < PAGES; page += 3)
		put(region, page, 9);
	for (uint64_t page = 0; page < PAGES; page++) {
		unsigned char content[PAGE];

		is_errno(cow_snapshot_read(snapshot, page * PAGE, content, PAGE), 0, "a read");
		if (!ok(page_is_right(content, page, 3), "page %llu", (unsigned long long)page))
			break;
	}
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	cow_store_close(store);
}

TEST(the_next_save_is_incremental)
{
	const char *directory = scratch();
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_layer_info info = COW_LAYER_INFO_INIT;
	char ids[3][COW_ID_LENGTH], id[COW_ID_LENGTH], raw[300];
	struct cow_store *store = make_store(directory, ids, NULL);
	struct cow_region *region = restore(store, "second", &options);

	if (!region)
		return;
	for (uint64_t page = 0; page < PAGES; page += 500)
		put(region, page, 9);
	for (uint64_t page = 0; page < PAGES; page += 10)
		(void)((const volatile unsigned char *)page_of(region, page))[0];
	is_errno(save(store, region, NULL, id), 0, "it is saved");
	is_errno(cow_store_get_info(store, id, &info), 0, "what it is");
	is_str(info.parent, ids[1], "its parent");
	is_u64(info.data_bytes, PAGES / 500 * PAGE, "ten pages");
	snprintf(raw, sizeof(raw), "%s/raw", directory);
	dump(region, raw);
	check_layers(directory);
	ok(reads_as(directory, id, raw), "qemu-img reads the same");
	cow_region_free(region);
	cow_store_close(store);
}

TEST(at_its_old_address)
{
	const char *directory = scratch();
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_region *region, *second = NULL;
	char ids[3][COW_ID_LENGTH];
	void *base;
	struct cow_store *store = make_store(directory, ids, &base);

	options.flags = COW_RESTORE_SAME_ADDRESS;
	region = restore(store, NULL, &options);
	if (!region)
		return;
	ok(cow_region_get_base(region) == base, "at %p, it was at %p", cow_region_get_base(region),
	   base);
	is_errno(cow_store_restore(store, NULL, &options, &second), -EEXIST, "it is taken");
	cow_region_free(region);
	cow_store_close(store);
}

TEST(two_regions_of_one_layer)
{
	const char *directory = scratch();
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	char ids[3][COW_ID_LENGTH];
	struct cow_store *store = make_store(directory, ids, NULL);
	struct cow_region *a = restore(store, NULL, &options), *b;
	struct cow_snapshot *before;

	if (!a)
		return;
	b = restore(store, NULL, &options);
	for (uint64_t page = 0; page < PAGES; page++)
		ok(page_is_right(page_of(a, page), page, 3), "a reads");
	/* Its pages are there already; a first write to one has to be noticed all the same. */
	before = take(b);
	put(b, 5, 9);
	ok(page_is_right(page_of(a, 5), 5, 3), "a does not see it");
	cow_store_close(store);
	for (uint64_t page = 0; page < PAGES; page++) {
		unsigned char content[PAGE];

		cow_snapshot_read(before, page * PAGE, content, PAGE);
		if (!ok(page_is_right(content, page, 3), "page %llu", (unsigned long long)page))
			break;
	}
	cow_snapshot_unref(before);
	cow_region_free(a);
	cow_region_free(b);
}

TEST(everything_at_once)
{
	const char *directory = scratch();
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	char ids[3][COW_ID_LENGTH];
	struct cow_store *store = make_store(directory, ids, NULL);
	struct cow_region *region;

	options.flags = COW_RESTORE_POPULATE;
	options.verify = COW_VERIFY_EAGER;
	region = restore(store, NULL, &options);
	if (!region)
		return;
	for (uint64_t page = 0; page < PAGES; page++)
		if (!ok(page_is_right(page_of(region, page), page, 3), "page %llu",
			(unsigned long long)page))
			break;
	cow_region_free(region);
	cow_store_close(store);
}

/* One of every other page: more runs than are mapped. */
TEST(more_runs_than_mappings)
{
	const char *directory = scratch();
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_store *store = open_store(directory, COW_STORE_CREATE);
	struct cow_region *region = new_region(40000);

	for (uint64_t page = 0; page < 40000; page += 2)
		put(region, page, 1);
	is_errno(save(store, region, NULL, NULL), 0, "it is saved");
	cow_region_free(region);
	region = restore(store, NULL, &options);
	for (uint64_t page = 0; region && page < 40000; page++) {
		unsigned char content[PAGE] = { 0 };

		if (page % 2 == 0)
			make_content(content, page, 1);
		if (!ok(memcmp(page_of(region, page), content, PAGE) == 0, "page %llu",
			(unsigned long long)page))
			break;
	}
	cow_region_free(region);
	cow_store_close(store);
}

TAP_MAIN(CASE(pages_read_as_saved), CASE(snapshots_read_what_nobody_touched),
	 CASE(the_next_save_is_incremental), CASE(at_its_old_address),
	 CASE(two_regions_of_one_layer), CASE(everything_at_once), CASE(more_runs_than_mappings))
