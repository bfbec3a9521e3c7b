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

TEST(a_layer_says_what_lies_below)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	struct cow_region *region = new_region(10);
	char id[COW_ID_LENGTH], parent[COW_ID_LENGTH] = "";

	cow_log_set(note_message, NULL);
	logged.count = 0;
	for (unsigned i = 0; i < 5; i++) {
		struct cow_layer_info info = COW_LAYER_INFO_INIT;

		put(region, i, 1);
		is_errno(save(store, region, NULL, id), 0, "it is saved");
		is_errno(cow_store_get_info(store, id, &info), 0, "what it is");
		is_u64(info.depth, i, "layers below");
		is_str(info.parent, parent, "its parent");
		memcpy(parent, id, sizeof(parent));
	}
	is_u64(logged.count, 0, "messages: %s", logged.last);
	cow_log_set(NULL, NULL);
	cow_region_free(region);
	cow_store_close(store);
}

/* Opened is not written. */
TEST(pages_that_stayed_the_same_cost_nothing)
{
	const char *directory = scratch();
	struct cow_store *store = open_store(directory, COW_STORE_CREATE);
	struct cow_layer_info info = COW_LAYER_INFO_INIT;
	struct cow_region *region = new_region(4000);
	char id[COW_ID_LENGTH], raw[300];

	for (uint64_t page = 0; page < 3000; page++)
		put(region, page, 1);
	is_errno(save(store, region, NULL, id), 0, "it is saved");
	is_errno(cow_region_touch(region, page_of(region, 0), 3500 * PAGE), 0, "all is opened");
	put(region, 20, 2);
	put(region, 21, 1);
	fill(region, 22, 0);
	is_errno(save(store, region, NULL, id), 0, "it is saved");
	is_errno(cow_store_get_info(store, id, &info), 0, "what it is");
	is_u64(info.data_bytes, PAGE, "one page changed");
	/* Zeroes that were never saved before are not known. */
	is_u64(info.zero_bytes, 501 * PAGE, "one became zero, 500 were opened for the first time");
	snprintf(raw, sizeof(raw), "%s/raw", directory);
	dump(region, raw);
	if (have_qemu_img()) {
		check_layers(directory);
		ok(reads_as(directory, id, raw), "qemu-img reads the same");
	}
	put(region, 20, 1);
	put(region, 22, 1);
	is_errno(save(store, region, NULL, id), 0, "back to what was saved first");
	is_errno(cow_store_get_info(store, id, &info), 0, "what it is");
	is_u64(info.data_bytes, 2 * PAGE, "two pages changed");
	cow_region_free(region);
	cow_store_close(store);
}

static uint64_t damage_at, damage_length;

static int note_damage(const char *id, uint64_t offset, uint64_t length, const char *what,
		       void *context)
{
	damage_at = offset;
	damage_length = length;
	return 0;
}

TEST(damage_is_found)
{
	const char *directory = scratch();
	struct cow_store *store = open_store(directory, COW_STORE_CREATE);
	struct cow_region *region = new_region(300), *restored = NULL;
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_layer_info info = COW_LAYER_INFO_INIT;
	char id[COW_ID_LENGTH], path[300];
	uint64_t x = 88172645463325252ull;

	for (uint64_t page = 0; page < 300; page += 2)
		put(region, page, 1);
	is_errno(save(store, region, NULL, id), 0, "it is saved");
	is_errno(cow_store_get_info(store, id, &info), 0, "what it is");
	snprintf(path, sizeof(path), "%s/%s.qcow2", directory, id);
	cow_log_set(note_message, NULL);
	for (unsigned i = 0; i < 300; i++) {
		int fd = open(path, O_RDWR);
		unsigned char byte;
		uint64_t at;

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		at = i % 3 == 0 ? info.file_bytes - 1 - x % 8192 : x % info.file_bytes;
		pread(fd, &byte, 1, (off_t)at);
		byte ^= (unsigned char)(1 << x % 8);
		pwrite(fd, &byte, 1, (off_t)at);
		is_errno(cow_store_verify(store, NULL, note_damage, NULL, NULL), -EUCLEAN,
			 "a flipped bit in byte %llu is found", (unsigned long long)at);
		byte ^= (unsigned char)(1 << x % 8);
		pwrite(fd, &byte, 1, (off_t)at);
		close(fd);
	}
	is_errno(cow_store_verify(store, NULL, NULL, NULL, NULL), 0, "all is well again");
	is_int(truncate(path, (off_t)info.file_bytes - 4096), 0, "cut short");
	is_errno(cow_store_restore(store, id, &options, &restored), -EUCLEAN, "not restored");
	ok(strstr(logged.last, id) != NULL, "the log names the file: %s", logged.last);
	unlink(path);
	is_errno(cow_store_restore(store, id, &options, &restored), -ENOENT, "not restored");
	is_errno(cow_store_restore(store, NULL, &options, &restored), -EUCLEAN,
		 "not taken for a store that is new");
	ok(strstr(logged.last, "HEAD names it"), "the log says why: %s", logged.last);
	is_errno(cow_store_get_info(store, NULL, &info), -EUCLEAN, "nor when it is asked about");
	is_errno(cow_store_verify(store, NULL, NULL, NULL, NULL), -EUCLEAN, "HEAD names nothing");
	cow_log_set(NULL, NULL);
	cow_region_free(region);
	cow_store_close(store);
}

TEST(state_and_tags_go_with_a_save)
{
	const char *directory = scratch();
	struct cow_store *store = open_store(directory, COW_STORE_CREATE), *second = NULL;
	struct cow_save_options options = COW_SAVE_OPTIONS_INIT;
	struct cow_region *region = new_region(10);
	struct cow_snapshot *snapshot;
	char state[10000], got[10000] = "", id[COW_ID_LENGTH], again[COW_ID_LENGTH];

	memset(state, 's', sizeof(state));
	put(region, 1, 1);
	snapshot = take(region);
	options.tag = "here";
	options.state = state;
	options.state_length = sizeof(state);
	is_errno(cow_store_save(store, snapshot, &options, id), 0, "saved");
	is_int(cow_store_get_state(store, "here", got, sizeof(got)), sizeof(state), "the state");
	ok(memcmp(got, state, sizeof(state)) == 0, "is what it was");
	is_int(cow_store_get_state(store, NULL, got, 3), sizeof(state), "a piece of it");
	options.tag = "there";
	is_errno(cow_store_save(store, snapshot, &options, again), 0, "saved again");
	is_str(again, id, "it is the same layer");
	is_errno(cow_store_open(directory, 0, &second), -EBUSY, "there is one writer");
	is_errno(cow_store_open(directory, COW_STORE_READ_ONLY, &second), 0, "and readers");
	is_int(cow_store_get_state(second, "there", NULL, 0), sizeof(state), "which see it");
	is_errno(cow_store_save(second, snapshot, NULL, NULL), -EROFS, "and do not write");
	options.tag = "no/tag";
	is_errno(cow_store_save(store, snapshot, &options, NULL), -EINVAL, "a bad tag");
	if (have_qemu_img())
		check_layers(directory);
	cow_store_close(second);
	cow_store_close(store);
	is_errno(cow_store_open(directory, 0, &second), 0, "the next writer");
	cow_store_close(second);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

static int call_from_within(const struct cow_layer_info *layer, void *context)
{
	struct cow_layer_info info = COW_LAYER_INFO_INIT;

	is_errno(cow_store_get_info(context, layer->id, &info), -EDEADLK, "a call from within");
	return 0;
}

TEST(a_call_from_within_a_call_is_refused)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	struct cow_layer_info info = COW_LAYER_INFO_INIT;
	struct cow_region *region = new_region(10);

	put(region, 1, 1);
	is_errno(save(store, region, NULL, NULL), 0, "a layer");
	is_errno(cow_store_list(store, call_from_within, store), 0, "the list");
	is_errno(cow_store_get_info(store, NULL, &info), 0, "a call afterwards");
	cow_region_free(region);
	cow_store_close(store);
}

TEST(a_directory_that_is_no_store_is_left_alone)
{
	const char *directory = scratch();
	struct cow_store *store = NULL;

	is_errno(cow_store_open(directory, 0, &store), -ENOENT, "opened to be written");
	is_errno(cow_store_open(directory, COW_STORE_READ_ONLY, &store), -ENOENT, "to be read");
	is_int(run("rmdir '%s'", directory), 0, "nothing is in it");
	is_errno(cow_store_open(directory, 0, &store), -ENOENT, "none");
	is_errno(cow_store_open(directory, COW_STORE_CREATE | COW_STORE_READ_ONLY, &store), -ENOENT,
		 "a reader makes none");
	is_errno(cow_store_open(directory, COW_STORE_CREATE, &store), 0, "a writer does");
	cow_store_close(store);
	is_errno(cow_store_open("", 0, &store), -EINVAL, "no name");
	is_errno(cow_store_open(directory, 64, &store), -EINVAL, "an unknown flag");
	is_errno(cow_store_save(NULL, NULL, NULL, NULL), -EINVAL, "nothing");
}

TAP_MAIN(CASE(a_full_save_reads_as_the_region), CASE(an_incremental_save_writes_what_changed),
	 CASE(a_layer_says_what_lies_below), CASE(pages_that_stayed_the_same_cost_nothing),
	 CASE(damage_is_found), CASE(state_and_tags_go_with_a_save),
	 CASE(a_call_from_within_a_call_is_refused),
	 CASE(a_directory_that_is_no_store_is_left_alone))
