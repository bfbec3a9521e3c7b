/* SPDX-License-Identifier: MIT */
/*
 * A thousand snapshots of a region that is full and changes between each two of them, all kept and
 * all readable, in little memory: each is saved, and then read from its layer.
 *
 * Memory is counted twice: what the region says of itself, against its limit; and what the process
 * has (PSS) beyond the region's own pages, which takes in everything that the store remembers, too.
 * Reading goes through all snapshots from the oldest to the newest, beside a model that moves on
 * with them: pages that were written just before the snapshot, and any others.
 */
#include "tests/store/common.h"

#define SNAPSHOTS 1000u
#ifdef THOUSAND_LONG
enum { PAGES = 262144, CHANGES = 512, LIMIT_MIB = 64, READS = 48, DEPTH = 200, COMPACT_EVERY = 50 };
#else
enum { PAGES = 4096, CHANGES = 20, LIMIT_MIB = 1, READS = 12, DEPTH = 100, COMPACT_EVERY = 100 };
#endif
#define LIMIT ((size_t)LIMIT_MIB << 20)

static struct cow_snapshot *snapshots[SNAPSHOTS];

/* The n-th page that is written before a snapshot. */
static uint64_t changed_page(uint64_t snapshot, uint64_t n)
{
	uint64_t x = (snapshot * CHANGES + n + 1) * 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 31) * 0xbf58476d1ce4e5b9ull;
	return (x >> 17) % PAGES;
}

/* Of the process, without the region's own pages; bytes. */
static size_t extra_bytes(void)
{
	FILE *file = fopen("/proc/self/smaps_rollup", "r");
	unsigned long long kib = 0;
	char line[200];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Pss: %llu kB", &kib) == 1)
			break;
	if (!file || kib == 0)
		bail("smaps_rollup: %s", strerror(errno));
	fclose(file);
	return kib * 1024 > PAGES * PAGE ? kib * 1024 - PAGES * PAGE : 0;
}

static void note_extra(size_t *most)
{
	size_t now = extra_bytes();

	if (now > *most)
		*most = now;
}

static int save_snapshot(struct cow_store *store, struct cow_snapshot *snapshot)
{
	struct cow_save_options options = COW_SAVE_OPTIONS_INIT;

	options.flags = COW_SAVE_OFFLOAD;
	return cow_store_save(store, snapshot, &options, NULL);
}

static int compact(struct cow_store *store)
{
	struct cow_compact_options options = COW_COMPACT_OPTIONS_INIT;

	options.depth_max = DEPTH;
	return cow_store_compact(store, &options, NULL);
}

static bool take_all(struct cow_store *store, struct cow_region *region, size_t *most)
{
	for (uint64_t i = 0; i < SNAPSHOTS; i++) {
		for (uint64_t n = 0; n < CHANGES; n++)
			put(region, changed_page(i, n), i + 1);
		snapshots[i] = take(region);
		if (!is_errno(save_snapshot(store, snapshots[i]), 0, "save %llu",
			      (unsigned long long)i))
			return false;
		if (i % COMPACT_EVERY == COMPACT_EVERY - 1 &&
		    !is_errno(compact(store), 0, "compacted"))
			return false;
		if (i % 10 == 9)
			note_extra(most);
	}
	return true;
}

static bool reads_as_model(uint64_t i, uint64_t page, const uint16_t *times)
{
	unsigned char got[PAGE], content[PAGE];

	make_content(content, page, times[page]);
	return cow_snapshot_read(snapshots[i], page * PAGE, got, PAGE) == 0 &&
	       memcmp(got, content, PAGE) == 0;
}

/* Half of the pages are those that changed last. */
static void read_all(size_t *most)
{
	uint16_t *times = calloc(PAGES, sizeof(times[0]));

	for (uint64_t i = 0; times && i < SNAPSHOTS; i++) {
		bool right = true;

		for (uint64_t n = 0; n < CHANGES; n++)
			times[changed_page(i, n)] = (uint16_t)(i + 1);
		for (uint64_t n = 0; n < READS; n++)
			right &= reads_as_model(i, changed_page(n % 2 ? i : i * 7919 + n, n),
						times);
		if (!ok(right, "snapshot %llu reads as it was", (unsigned long long)i))
			break;
		if (i % 10 == 9)
			note_extra(most);
	}
	free(times);
}

static struct cow_region *make_region(void)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *region;

	options.preimage_limit = LIMIT;
	region = new_region_with(PAGES, &options);
	for (uint64_t page = 0; page < PAGES; page++)
		put(region, page, 0);
	return region;
}

TEST(a_thousand_snapshots)
{
	size_t before, saving = 0, reading = 0;
	struct cow_region_stats stats;
	struct cow_region *region;
	struct cow_store *store;

	/* Where gigabytes are written memory would not do for a disk. */
	store = open_store(PAGES > 65536 ? scratch() : quick_scratch(), COW_STORE_CREATE);
	region = make_region();
	before = extra_bytes();
	if (take_all(store, region, &saving)) {
		stats = stats_of(region);
		ok(stats.preimage_bytes + stats.pool_bytes <= LIMIT, "the limit holds");
		is_u64(stats.dropped_snapshots, 0, "given up");
		read_all(&reading);
		diag("%u snapshots of %zu MiB, %u MiB written between them: %.1f MiB beyond the "
		     "region before, at most %.1f MiB while saving, %.1f MiB while reading",
		     SNAPSHOTS, PAGES * PAGE >> 20,
		     (unsigned)((uint64_t)SNAPSHOTS * CHANGES * PAGE >> 20),
		     (double)before / (1 << 20), (double)saving / (1 << 20),
		     (double)reading / (1 << 20));
#ifdef THOUSAND_LONG
		/* Far less than this would be lost in what a process has anyway. */
		ok(saving <= LIMIT && reading <= LIMIT, "all of it is below the limit");
#endif
	}
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		cow_snapshot_unref(snapshots[i]);
	cow_region_free(region);
	cow_store_close(store);
}

TAP_MAIN(CASE(a_thousand_snapshots))
