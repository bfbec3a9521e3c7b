/* SPDX-License-Identifier: MIT */
/*
 * A program that saves every second and never compacts: the chain of its layers ends where it could
 * no longer be opened, and a new one begins.
 */
#include "tests/store/common.h"

#define PAGES 64

static struct cow_layer_info info_of(struct cow_store *store, const char *id)
{
	struct cow_layer_info info = COW_LAYER_INFO_INIT;

	if (cow_store_get_info(store, id, &info) < 0)
		bail("a layer cannot be asked for");
	return info;
}

/* Its identity stays in id. */
static int save_one(struct cow_store *store, struct cow_region *region, int byte, char *id)
{
	struct cow_snapshot *snapshot;
	int r;

	fill(region, (size_t)byte % PAGES, byte % 255 + 1);
	snapshot = take(region);
	r = cow_store_save(store, snapshot, NULL, id);
	cow_snapshot_unref(snapshot);
	return r;
}

static void check_equal(struct cow_region *a, struct cow_region *b, const char *what)
{
	ok(memcmp(cow_region_get_base(a), cow_region_get_base(b), PAGES * PAGE) == 0, "%s", what);
}

TEST(the_deepest_chain)
{
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	struct cow_region *region = new_region(PAGES), *deep = NULL, *again = NULL;
	char id[COW_ID_LENGTH], next[COW_ID_LENGTH];
	int r = 0;

	for (int i = 0; r == 0 && i < COW_STORE_DEPTH_MAX; i++)
		r = save_one(store, region, i, id);
	if (!is_errno(r, 0, "saved"))
		return;
	is_u64(info_of(store, id).depth, COW_STORE_DEPTH_MAX - 1, "as deep as can be");
	is_errno(cow_store_restore(store, id, NULL, &deep), 0, "it can be restored");
	check_equal(region, deep, "and is what was saved");

	cow_log_set(note_message, NULL);
	logged.count = 0;
	is_errno(save_one(store, region, 1, next), 0, "the next one");
	cow_log_set(NULL, NULL);
	is_u64(info_of(store, next).depth, 0, "begins anew");
	is_u64(info_of(store, next).data_bytes, PAGES * PAGE, "with everything");
	ok(logged.count == 1 && strstr(logged.last, "compact"), "says why: %s", logged.last);
	is_errno(cow_store_restore(store, NULL, NULL, &again), 0, "restored");
	check_equal(region, again, "what was saved");
	cow_region_free(again);

	is_errno(save_one(store, region, 2, next), 0, "one more");
	is_u64(info_of(store, next).depth, 1, "goes on from that");
	is_errno(cow_store_compact(store, NULL, NULL), 0, "compacted");
	is_errno(save_one(store, deep, 3, next), 0, "on what was the deepest layer");
	ok(info_of(store, next).depth > 0 && info_of(store, next).data_bytes == PAGE,
	   "only what changed is saved: the chain is short now");
	cow_region_free(deep);
	cow_region_free(region);
	cow_store_close(store);
}

TAP_MAIN(CASE(the_deepest_chain))
