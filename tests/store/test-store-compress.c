/* SPDX-License-Identifier: MIT */
/*
 * Compressed layers: they read as before, to the library and to QEMU's tools; alone, below others,
 * above others; and every flipped bit is found.
 */
#include "tests/store/common.h"

#define PAGES  3001u /* the last cluster of 64 KiB is not whole */
#define LAYERS 6u

static char ids[LAYERS][COW_ID_LENGTH];
static unsigned char *contents[LAYERS];

/* Of four kinds: random, text, zero, and one byte over and over. */
static void put_mixed(struct cow_region *region, uint64_t page, uint64_t time)
{
	unsigned char content[PAGE] = { 0 };
	size_t used = 0;

	if (page / 3 % 4 == 0)
		make_content(content, page, time);
	while (page / 3 % 4 == 1 && used < PAGE - 40)
		used += (size_t)sprintf((char *)content + used, "page %llu at %llu, %zu; ",
					(unsigned long long)page, (unsigned long long)time, used);
	if (page / 3 % 4 == 2)
		memset(content, (int)(page + time), PAGE);
	if (cow_region_write(region, page * PAGE, content, PAGE) < 0)
		bail("a write");
}

static void forget_contents(void)
{
	for (unsigned i = 0; i < LAYERS; i++) {
		free(contents[i]);
		contents[i] = NULL;
	}
}

static void save_layer(struct cow_store *store, struct cow_region *region, unsigned i)
{
	is_errno(save(store, region, NULL, ids[i]), 0, "layer %u", i);
	free(contents[i]);
	contents[i] = malloc(PAGES * PAGE);
	if (!contents[i] || cow_region_read(region, 0, contents[i], PAGES * PAGE) < 0)
		bail("the content of layer %u", i);
}

/* 0 dense, 1 sparse, 2 dense, 3 half of what it touches and more, 4 with a tag, 5 HEAD. */
static struct cow_region *fill_store(struct cow_store *store)
{
	struct cow_region *region = new_region(PAGES);

	for (uint64_t page = 0; page < PAGES; page++)
		if (page % 1000 < 900)
			put_mixed(region, page, 1);
	save_layer(store, region, 0);
	for (uint64_t page = 5; page < PAGES; page += 97)
		put_mixed(region, page, 2);
	save_layer(store, region, 1);
	for (uint64_t page = 0; page < 1007; page++)
		put_mixed(region, page, 3);
	is_errno(cow_region_discard(region, 200 * PAGE, 300 * PAGE), 0, "a discard");
	save_layer(store, region, 2);
	for (uint64_t page = 900; page < 2500; page++)
		if (page % 4 != 1)
			put_mixed(region, page, 4);
	save_layer(store, region, 3);
	for (uint64_t page = 100; page < 800; page++)
		put_mixed(region, page, 5);
	save_layer(store, region, 4);
	is_errno(cow_store_tag(store, ids[4], "kept"), 0, "a tag");
	for (uint64_t page = 0; page < 700; page++)
		put_mixed(region, page, 6);
	save_layer(store, region, 5);
	return region;
}

static bool is_compressed(struct cow_store *store, unsigned i)
{
	struct cow_layer_info info = COW_LAYER_INFO_INIT;

	is_errno(cow_store_get_info(store, ids[i], &info), 0, "layer %u", i);
	return info.flags & COW_LAYER_COMPRESSED;
}

static void compact(struct cow_store *store, uint32_t flags, uint64_t compressed)
{
	struct cow_compact_options options = COW_COMPACT_OPTIONS_INIT;
	struct cow_compact_stats stats = COW_COMPACT_STATS_INIT;

	options.flags = flags;
	is_errno(cow_store_compact(store, &options, &stats), 0, "compacted");
	is_u64(stats.compressed, compressed, "layers were compressed");
	if (compressed)
		ok(stats.compressed_after > 0 && stats.compressed_after < stats.compressed_before,
		   "%llu bytes became %llu", (unsigned long long)stats.compressed_before,
		   (unsigned long long)stats.compressed_after);
}

/* What QEMU says does not depend on the trap. */
static bool asks_qemu(void)
{
	return TEST_TRAP == COW_TRAP_EXPLICIT && have_qemu_img();
}

static bool can_compress(void)
{
	struct cow_compact_options options = COW_COMPACT_OPTIONS_INIT;
	struct cow_store *store = open_store(quick_scratch(), COW_STORE_CREATE);
	int r;

	options.flags = COW_COMPACT_COMPRESS;
	r = cow_store_compact(store, &options, NULL);
	cow_store_close(store);
	if (r == -EOPNOTSUPP)
		skip("libcow was built without zstd");
	return r == 0;
}

/* Restored, whole and page by page; and what is saved of it then. */
static void check_restored(struct cow_store *store, unsigned i, enum cow_verify verify)
{
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_region *region = NULL;
	int r;

	options.trap = TEST_TRAP;
	options.verify = verify;
	r = cow_store_restore(store, ids[i], &options, &region);
	if (r == -EOPNOTSUPP) {
		skip("this trap is not to be had here");
		return;
	}
	is_errno(r, 0, "layer %u is restored", i);
	ok(memcmp((char *)cow_region_get_base(region) + 1234 * PAGE, contents[i] + 1234 * PAGE,
		  PAGE) == 0,
	   "a page of it");
	ok(memcmp(cow_region_get_base(region), contents[i], PAGES * PAGE) == 0, "all of it");
	cow_region_free(region);
}

static bool file_is(const char *path, const unsigned char *content)
{
	unsigned char *got = malloc(PAGES * PAGE);
	FILE *file = fopen(path, "rb");
	bool same = got && file && fread(got, 1, PAGES * PAGE, file) == PAGES * PAGE &&
		    fgetc(file) == EOF && memcmp(got, content, PAGES * PAGE) == 0;

	if (file)
		fclose(file);
	free(got);
	return same;
}

static void check_exported(struct cow_store *store, unsigned i)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/exported", scratch_path);
	is_errno(cow_store_export(store, ids[i], path, NULL, NULL), 0, "layer %u is exported", i);
	ok(file_is(path, contents[i]), "it is what was saved");
	if (asks_qemu())
		ok(reads_as(scratch_path, ids[i], path), "layer %u to qemu-img", i);
	unlink(path);
}

static void check_all(struct cow_store *store)
{
	for (unsigned i = 0; i < LAYERS; i++) {
		if (!ids[i][0])
			continue;
		check_restored(store, i, COW_VERIFY_FAULT);
		check_restored(store, i, COW_VERIFY_EAGER);
		check_exported(store, i);
	}
	is_errno(cow_store_verify(store, NULL, NULL, NULL, NULL), 0, "all checksums");
	if (asks_qemu())
		check_layers(scratch_path);
}

static void is_in_memory(struct cow_region *region, unsigned i)
{
	unsigned char *got = malloc(PAGES * PAGE);

	is_errno(cow_region_read(region, 0, got, PAGES * PAGE), 0, "a read");
	ok(memcmp(got, contents[i], PAGES * PAGE) == 0, "it is layer %u", i);
	free(got);
}

static struct cow_region *fill_compressed(struct cow_store **ret_store)
{
	struct cow_region *region;

	*ret_store = open_store(quick_scratch(), COW_STORE_CREATE);
	region = fill_store(*ret_store);
	compact(*ret_store, COW_COMPACT_COMPRESS, 3);
	return region;
}

static void finish(struct cow_store *store, struct cow_region *region)
{
	cow_region_free(region);
	cow_store_close(store);
	forget_contents();
}

TEST(cold_layers_are_compressed)
{
	struct cow_store *store;
	struct cow_region *region;

	if (!can_compress())
		return;
	region = fill_compressed(&store);
	ok(is_compressed(store, 0), "the base");
	ok(!is_compressed(store, 1), "not what is sparse");
	ok(is_compressed(store, 2), "what is dense");
	ok(is_compressed(store, 3), "what is dense enough");
	ok(!is_compressed(store, 4), "not what has a tag");
	ok(!is_compressed(store, 5), "not HEAD");
	check_all(store);
	compact(store, COW_COMPACT_COMPRESS, 0);
	put_mixed(region, 1, 9);
	save_layer(store, region, 5);
	check_all(store);
	finish(store, region);
}

TEST(they_are_merged)
{
	struct cow_store *store;
	struct cow_region *region;

	if (!can_compress())
		return;
	region = fill_compressed(&store);
	is_errno(cow_store_delete(store, ids[0]), 0, "the base is deleted");
	ids[0][0] = '\0';
	compact(store, 0, 1);
	ok(is_compressed(store, 1), "what it is merged into stays compressed");
	check_all(store);
	is_errno(cow_store_delete(store, ids[2]), 0, "a layer is deleted");
	is_errno(cow_store_delete(store, ids[3]), 0, "and the next");
	ids[2][0] = ids[3][0] = '\0';
	compact(store, 0, 0);
	ok(!is_compressed(store, 4), "what has a tag is written as it is");
	check_all(store);
	is_in_memory(region, 5);
	finish(store, region);
}

TEST(deep_ones_become_bases)
{
	struct cow_compact_options options = COW_COMPACT_OPTIONS_INIT;
	struct cow_compact_stats stats = COW_COMPACT_STATS_INIT;
	struct cow_store *store;
	struct cow_region *region;

	if (!can_compress())
		return;
	store = open_store(quick_scratch(), COW_STORE_CREATE);
	region = fill_store(store);
	options.flags = COW_COMPACT_COMPRESS;
	options.depth_max = 1;
	is_errno(cow_store_compact(store, &options, &stats), 0, "compacted");
	is_u64(stats.depth, 1, "depth");
	check_all(store);
	finish(store, region);
}

static int count_range(size_t offset, size_t length, void *context)
{
	unsigned char *differs = context;

	memset(differs + offset / PAGE, 1, length / PAGE);
	return 0;
}

TEST(differences_and_imports)
{
	static unsigned char differs[PAGES];
	struct cow_snapshot *snapshot;
	struct cow_save_options options = COW_SAVE_OPTIONS_INIT;
	struct cow_store *store, *other;
	struct cow_region *region;
	unsigned char page[PAGE];
	bool right = true;
	char path[300];

	if (!can_compress())
		return;
	store = open_store(quick_scratch(), COW_STORE_CREATE);
	region = fill_store(store);
	snapshot = take(region);
	options.flags = COW_SAVE_OFFLOAD;
	is_errno(cow_store_save(store, snapshot, &options, NULL), 0, "offloaded");
	compact(store, COW_COMPACT_COMPRESS, 4); /* and what was HEAD before */
	memset(differs, 0, sizeof(differs));
	is_errno(cow_store_diff(store, ids[0], ids[3], count_range, differs), 0, "differences");
	for (uint64_t i = 0; i < PAGES; i++)
		right &= differs[i] ==
			 (memcmp(contents[0] + i * PAGE, contents[3] + i * PAGE, PAGE) != 0);
	ok(right, "are those that there are");
	for (uint64_t i = 0; i < PAGES; i += 7)
		right &= cow_snapshot_read(snapshot, i * PAGE, page, PAGE) == 0 &&
			 memcmp(page, contents[5] + i * PAGE, PAGE) == 0;
	ok(right, "an offloaded snapshot reads through them");
	snprintf(path, sizeof(path), "%s/other", scratch_path);
	other = open_store(path, COW_STORE_CREATE);
	for (unsigned i = 0; i < LAYERS; i += 3) {
		char from[600];

		snprintf(from, sizeof(from), "%s/%s.qcow2", scratch_path, ids[i]);
		is_errno(cow_store_import(other, from, NULL, NULL), 0, "layer %u is imported", i);
		memcpy(page, ids[i], COW_ID_LENGTH);
		if (!asks_qemu())
			continue;
		is_int(run("qemu-img convert -O raw '%s' '%s/a' && "
			   "build=$(ls -t '%s'/*.qcow2 | head -1) && "
			   "qemu-img convert -O raw \"$build\" '%s/b' && "
			   "cmp -n %zu '%s/a' '%s/b'",
			   from, path, path, path, PAGES * PAGE, path, path),
		       0, "and reads the same");
	}
	cow_snapshot_unref(snapshot);
	cow_store_close(other);
	finish(store, region);
}

/* One bit of a byte of the base's file. */
static void flip(off_t at)
{
	char path[300], byte;
	int fd;

	snprintf(path, sizeof(path), "%s/%s.qcow2", scratch_path, ids[0]);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || pread(fd, &byte, 1, at) != 1)
		bail("%s: %s", path, strerror(errno));
	byte ^= (char)(1 << (at % 8));
	if (pwrite(fd, &byte, 1, at) != 1)
		bail("%s: %s", path, strerror(errno));
	close(fd);
}

TEST(every_flip_is_found)
{
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_store *store;
	struct cow_region *region;
	struct cow_layer_info info = COW_LAYER_INFO_INIT;
	uint64_t x = 5;

	if (!can_compress())
		return;
	region = fill_compressed(&store);
	cow_region_free(region);
	is_errno(cow_store_get_info(store, ids[0], &info), 0, "the base");
	options.trap = TEST_TRAP;
	for (unsigned i = 0; i < 60; i++) {
		off_t at;
		int r;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		at = (off_t)((x >> 16) % info.file_bytes);
		flip(at);
		is_errno(cow_store_verify(store, NULL, NULL, NULL, NULL), -EUCLEAN,
			 "a flipped bit in byte %lld is found", (long long)at);
		/* What describes the layer is always looked at, the rest when it is asked for. */
		options.verify = i % 2 ? COW_VERIFY_EAGER : COW_VERIFY_NONE;
		region = NULL;
		r = cow_store_restore(store, ids[0], &options, &region);
		ok(r == 0 || r == -EUCLEAN || r == -EOPNOTSUPP, "restored, or not: %d", r);
		if (r == 0 && i % 2)
			ok(memcmp(cow_region_get_base(region), contents[0], PAGES * PAGE) == 0,
			   "what reads is right");
		cow_region_free(region);
		flip(at);
	}
	is_errno(cow_store_verify(store, NULL, NULL, NULL, NULL), 0, "all is well again");
	cow_store_close(store);
	forget_contents();
}

TAP_MAIN(CASE(cold_layers_are_compressed), CASE(they_are_merged), CASE(deep_ones_become_bases),
	 CASE(differences_and_imports), CASE(every_flip_is_found))
