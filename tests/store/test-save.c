/* SPDX-License-Identifier: MIT */
/* What a save writes, and what others read in it. */
#include "tests/store/common.h"

TEST(a_full_save_reads_as_the_region)
{
	const char *directory = scratch();
	struct cow_store *store = open_store(directory, COW_STORE_CREATE);
	struct cow_region *region = new_region(3000);
	char id[COW_ID_LENGTH] = "", raw[300];

	for (uint64_t page = 0; page < 3000; page += 1 + page % 5)
		put(region, page, 1);
	fill(region, 7, 0);
	is_errno(save(store, region, NULL, id), 0, "it is saved");
	is_u64(strlen(id), COW_ID_LENGTH - 1, "an identity");
	snprintf(raw, sizeof(raw), "%s/raw", directory);
	dump(region, raw);
	if (!have_qemu_img())
		skip("qemu-img is not here");
	check_layers(directory);
	ok(reads_as(directory, id, raw), "qemu-img reads the same");
	cow_region_free(region);
	cow_store_close(store);
}

TEST(an_incremental_save_writes_what_changed)
{
	const char *directory = scratch();
	struct cow_store *store = open_store(directory, COW_STORE_CREATE);
	struct cow_region *region = new_region(20000);
	char ids[5][COW_ID_LENGTH], raw[5][300];

	for (uint64_t page = 0; page < 20000; page += 2)
		put(region, page, 1);
	for (unsigned i = 0; i < 5; i++) {
		for (uint64_t n = 0; i > 0 && n < 100; n++)
			put(region, (n * 7919 + i * 31) % 20000, 1 + i);
		is_errno(save(store, region, NULL, ids[i]), 0, "it is saved");
		snprintf(raw[i], sizeof(raw[i]), "%s/raw%u", directory, i);
		dump(region, raw[i]);
		if (i > 0)
			ok(file_bytes(directory, ids[i]) < 200 * 4096, "100 pages, %lld bytes",
			   (long long)file_bytes(directory, ids[i]));
	}
	check_layers(directory);
	for (unsigned i = 0; i < 5; i++)
		ok(reads_as(directory, ids[i], raw[i]), "layer %u reads the same", i);
	cow_region_free(region);
	cow_store_close(store);
}

TAP_MAIN(CASE(a_full_save_reads_as_the_region), CASE(an_incremental_save_writes_what_changed))
