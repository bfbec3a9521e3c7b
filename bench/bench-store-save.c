/* SPDX-License-Identifier: MIT */
/* Saves: full, incremental, how many bytes, along a chain, beside reflinks. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/bench-store.h"

static double save(struct cow_store *store, struct cow_region *region, uint32_t flags,
		   char id[COW_ID_LENGTH])
{
	struct cow_save_options how = COW_SAVE_OPTIONS_INIT;
	struct cow_snapshot *snapshot = take(region);
	double start = now_us();

	how.flags = flags;
	check_errno(cow_store_save(store, snapshot, &how, id), "cow_store_save");
	start = now_us() - start;
	cow_snapshot_unref(snapshot);
	return start;
}

/* --- everything --- */

static double full_ours(struct cow_region *region)
{
	struct cow_store *store = open_store("full", COW_STORE_CREATE);
	double us = save(store, region, COW_SAVE_FULL, NULL);

	cow_store_close(store);
	remove_tree(path_of("full"));
	return us;
}

static double full_plain(struct cow_region *region)
{
	double us = plain_write(path_of("plain"), cow_region_get_base(region),
				cow_region_get_length(region));

	unlink(path_of("plain"));
	return us;
}

static double full_qemu(const char *raw)
{
	double us = run_command(NULL,
				"qemu-img convert -t writeback -f raw -O qcow2 -o cluster_size=4k "
				"'%s' '%s'",
				raw, path_of("convert.qcow2"));
	int fd = open(path_of("convert.qcow2"), O_RDONLY | O_CLOEXEC);
	double start = now_us();

	check(fd >= 0 && fdatasync(fd) == 0, "fdatasync"); /* as ours: on disk */
	us += now_us() - start;
	close(fd);
	unlink(path_of("convert.qcow2"));
	return us;
}

void bench_full(void)
{
	struct cow_region *region = new_region(region_bytes());
	struct ratio plain = { 0 }, qemu = { 0 };
	struct samples control = { 0 };
	bool peer = has_qemu();

	bench_section("Full save of %zu MiB", region_bytes() / MIB);
	plain_write(path_of("raw"), cow_region_get_base(region), region_bytes());
	for (unsigned i = 0; i < options.runs + BENCH_WARM_UP; i++) {
		double ours, theirs, again, convert;

		theirs = full_plain(region);
		ours = full_ours(region);
		again = full_plain(region);
		convert = peer ? full_qemu(path_of("raw")) : 0;
		if (i < BENCH_WARM_UP)
			continue;
		/* What follows convert is slower than what follows a save: before and after. */
		ratio_add(&plain, ours, (theirs + again) / 2);
		samples_add(&control, again / theirs);
		if (peer)
			ratio_add(&qemu, ours, convert);
	}
	bench_result("save", "us", &plain.ours, BOUND_NONE, 0);
	bench_result("pwrite() of 1 MiB pieces, fdatasync()", "us", &plain.theirs, BOUND_NONE, 0);
	bench_result("  ratio", "", &plain.ratio, AT_MOST, 1.15);
	bench_result("  A/A control: plain / plain", "", &control, BOUND_NONE, 0);
	if (peer) {
		bench_result("qemu-img convert, 4 KiB clusters", "us", &qemu.theirs, BOUND_NONE, 0);
		bench_result("  ratio", "", &qemu.ratio, AT_MOST, 0.7);
	}
	unlink(path_of("raw"));
	ratio_free(&plain);
	ratio_free(&qemu);
	samples_free(&control);
	cow_region_free(region);
}

/* --- 10,000 pages --- */

static size_t dirty_count(size_t wanted)
{
	return options.quick ? wanted / 100 + 1 : wanted;
}

/* The same list of pages, written into an overlay by qemu-io, one request each, and flushed. */
static double incremental_qemu(const size_t *pages, size_t count)
{
	FILE *list = fopen(path_of("list"), "we");
	double us;

	check(list != NULL, "list");
	for (size_t i = 0; i < count; i++)
		fprintf(list, "write -q %zu %u\n", pages[i] * PAGE, PAGE);
	fprintf(list, "flush\n");
	fclose(list);
	run_command(NULL, "qemu-img create -q -f qcow2 -F raw -b '%s' -o cluster_size=4k '%s'",
		    path_of("base.raw"), path_of("overlay.qcow2"));
	us = run_command(path_of("list"), "qemu-io -t writeback -f qcow2 '%s'",
			 path_of("overlay.qcow2"));
	unlink(path_of("overlay.qcow2"));
	return us;
}

static double incremental_plain(const struct cow_region *region, size_t count)
{
	double us = plain_write(path_of("plain"), cow_region_get_base(region), count * PAGE);

	unlink(path_of("plain"));
	return us;
}

void bench_incremental(void)
{
	size_t count = dirty_count(10000);
	struct cow_region *region = new_region(region_bytes());
	struct cow_store *store = open_store("incremental", COW_STORE_CREATE);
	struct ratio plain = { 0 }, qemu = { 0 };
	uint64_t random = options.seed + 1;
	struct samples control = { 0 };
	bool peer = has_qemu();

	bench_section("Incremental save of %zu random pages of %zu MiB", count,
		      region_bytes() / MIB);
	save(store, region, 0, NULL);
	if (peer)
		run_command(NULL, "truncate -s %zu '%s'", region_bytes(), path_of("base.raw"));
	for (unsigned i = 0; i < 2 * options.runs + BENCH_WARM_UP; i++) {
		size_t *pages = dirty_pages(region, count, &random);
		double theirs = incremental_plain(region, count), again;
		double ours = save(store, region, 0, NULL);

		again = incremental_plain(region, count);
		if (i >= BENCH_WARM_UP) {
			ratio_add(&plain, ours, theirs);
			samples_add(&control, again / theirs);
			if (peer && i % 2 == 0)
				ratio_add(&qemu, ours, incremental_qemu(pages, count));
		}
		free(pages);
	}
	bench_result("save", "us", &plain.ours, BOUND_NONE, 0);
	bench_result("one contiguous write, fdatasync()", "us", &plain.theirs, BOUND_NONE, 0);
	bench_result("  ratio", "", &plain.ratio, AT_MOST, 1.8);
	bench_result("  A/A control: plain / plain", "", &control, BOUND_NONE, 0);
	if (peer) {
		bench_result("qemu-io on an overlay, 4 KiB clusters", "us", &qemu.theirs,
			     BOUND_NONE, 0);
		bench_result("  ratio", "", &qemu.ratio, AT_MOST, 0.1);
	}
	cow_store_close(store);
	remove_tree(path_of("incremental"));
	unlink(path_of("base.raw"));
	ratio_free(&plain);
	ratio_free(&qemu);
	samples_free(&control);
	cow_region_free(region);
}

/* --- bytes --- */

/* On disk, HEAD included: what a save adds. */
static double bytes_of(struct cow_store *store, struct cow_region *region, const char *name)
{
	char id[COW_ID_LENGTH], path[200];
	struct cow_layer_info info = COW_LAYER_INFO_INIT;

	save(store, region, 0, id);
	snprintf(path, sizeof(path), "%s/%s.qcow2", name, id);
	check_errno(cow_store_get_info(store, id, &info), "cow_store_get_info");
	return (double)(file_blocks(path_of(path)) + 4096);
}

void bench_bytes(void)
{
	static const struct {
		size_t pages;
		double bound;
	} cases[] = { { 10000, 1.06 }, { 1000, 1.5 }, { 100, 2.1 } };
	struct cow_region *region = new_region(region_bytes());
	struct cow_store *store = open_store("bytes", COW_STORE_CREATE);
	uint64_t random = options.seed + 2;
	char name[80];

	bench_section("Bytes on disk of an incremental save, over those of the pages (HEAD "
		      "included)");
	save(store, region, 0, NULL);
	for (unsigned c = 0; c < 3; c++) {
		struct samples ratio = { 0 };
		size_t count = dirty_count(cases[c].pages);

		for (unsigned i = 0; i < (options.quick ? 5u : 100u); i++) {
			free(dirty_pages(region, count, &random));
			samples_add(&ratio,
				    bytes_of(store, region, "bytes") / (double)(count * PAGE));
		}
		snprintf(name, sizeof(name), "%zu random pages", count);
		bench_result(name, "", &ratio, options.quick ? BOUND_NONE : AT_MOST,
			     cases[c].bound);
		samples_free(&ratio);
	}
	cow_store_close(store);
	remove_tree(path_of("bytes"));
	cow_region_free(region);
}

/* --- a chain --- */

enum { CHAIN = 100, NEAR = 5 };

struct chain {
	struct samples first, last, ratio, compaction;
};

/* The first and the last few saves stand for the first and the hundredth: single ones are noise. */
static void grow_chain(struct cow_region *region, struct chain *chain, uint64_t *random)
{
	struct cow_store *store = open_store("chain", COW_STORE_CREATE);
	struct samples first = { 0 }, last = { 0 };
	double start;
	int r;

	save(store, region, COW_SAVE_FULL, NULL);
	for (unsigned i = 0; i < CHAIN; i++) {
		double us;

		free(dirty_pages(region, 100, random));
		us = save(store, region, 0, NULL);
		if (i < NEAR)
			samples_add(&first, us);
		if (i >= CHAIN - NEAR)
			samples_add(&last, us);
	}
	samples_add(&chain->first, samples_quantile(&first, 0.5));
	samples_add(&chain->last, samples_quantile(&last, 0.5));
	samples_add(&chain->ratio, samples_quantile(&last, 0.5) / samples_quantile(&first, 0.5));
	start = now_us();
	r = cow_store_compact(store, NULL, NULL);
	if (r == 0)
		samples_add(&chain->compaction, now_us() - start);
	cow_store_close(store);
	remove_tree(path_of("chain"));
	samples_free(&first);
	samples_free(&last);
}

void bench_chain(void)
{
	/* The base is rewritten for each chain, and says nothing: a smaller one will do. */
	struct cow_region *region = new_region(region_bytes() / 4);
	struct chain chain = { 0 };
	uint64_t random = options.seed + 3;

	bench_section("A hundred saves of 100 random pages each (of %zu MiB)",
		      region_bytes() / 4 / MIB);
	for (unsigned i = 0; i < options.runs; i++)
		grow_chain(region, &chain, &random);
	bench_result("save 1 (median of 1 to 5)", "us", &chain.first, BOUND_NONE, 0);
	bench_result("save 100 (median of 96 to 100)", "us", &chain.last, BOUND_NONE, 0);
	bench_result("  ratio", "", &chain.ratio, AT_MOST, 1.2);
	if (chain.compaction.count)
		bench_result("compaction of all afterwards, not counted", "us", &chain.compaction,
			     BOUND_NONE, 0);
	samples_free(&chain.first);
	samples_free(&chain.last);
	samples_free(&chain.ratio);
	samples_free(&chain.compaction);
	cow_region_free(region);
}

/* --- reflinks --- */

/* A file system with reflinks, in a file; false where there is none to be had. */
static bool mount_xfs(const char *point)
{
	char command[9000];

	if (geteuid() != 0) {
		bench_note("mounting an XFS image needs root: no reflinks to compare with");
		return false;
	}
	mkdir(point, 0700);
	snprintf(command, sizeof(command),
		 "truncate -s 6G '%s' && mkfs.xfs -q -m reflink=1 '%s' && mount -o loop '%s' '%s'",
		 path_of("xfs.image"), path_of("xfs.image"), path_of("xfs.image"), point);
	if (system(command) == 0)
		return true;
	bench_note("no XFS image: no reflinks to compare with");
	return false;
}

static void write_random_pages(int fd, size_t bytes, size_t count, uint64_t *random)
{
	unsigned char page[PAGE];

	for (size_t i = 0; i < count; i++) {
		size_t at = random_next(random) % (bytes / PAGE) * PAGE;

		memset(page, (int)i, sizeof(page));
		check(pwrite(fd, page, PAGE, (off_t)at) == PAGE, "pwrite");
	}
}

static int clone_to(int from, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	check(fd >= 0, path);
	check(ioctl(fd, FICLONE, from) == 0, "FICLONE");
	return fd;
}

/* A snapshot of the file by a reflink, the changes, on disk. */
static double reflink_turn(int fd, size_t bytes, uint64_t *random)
{
	double start = now_us();
	int copy = clone_to(fd, path_of("mnt/clone"));

	write_random_pages(fd, bytes, 100, random);
	check(fsync(fd) == 0, "fsync");
	start = now_us() - start;
	close(copy);
	unlink(path_of("mnt/clone"));
	return start;
}

/* Each page written into a shared extent makes an extent of its own. */
static int fragmented_file(struct cow_region *region, uint64_t *random)
{
	size_t bytes = cow_region_get_length(region);
	int fd, copy;

	plain_write(path_of("mnt/file"), cow_region_get_base(region), bytes);
	fd = open(path_of("mnt/file"), O_RDWR | O_CLOEXEC);
	check(fd >= 0, "mnt/file");
	copy = clone_to(fd, path_of("mnt/first"));
	write_random_pages(fd, bytes, dirty_count(10000), random);
	check(fsync(fd) == 0, "fsync");
	close(copy);
	return fd;
}

static void bench_reflink_mounted(void)
{
	struct cow_region *region = new_region(region_bytes());
	struct cow_store *store = open_store("mnt/store", COW_STORE_CREATE);
	struct ratio ratio = { 0 };
	uint64_t random = options.seed + 4;
	int fd = fragmented_file(region, &random);

	save(store, region, 0, NULL);
	for (unsigned i = 0; i < options.runs + BENCH_WARM_UP; i++) {
		double theirs = reflink_turn(fd, region_bytes(), &random), ours;

		free(dirty_pages(region, 100, &random));
		ours = save(store, region, 0, NULL);
		if (i >= BENCH_WARM_UP)
			ratio_add(&ratio, ours, theirs);
	}
	bench_result("save of 100 pages, on XFS", "us", &ratio.ours, BOUND_NONE, 0);
	bench_result("FICLONE, pwrite() of 100 pages, fsync()", "us", &ratio.theirs, BOUND_NONE, 0);
	bench_result("  ratio", "", &ratio.ratio, AT_MOST, 0.05);
	close(fd);
	ratio_free(&ratio);
	cow_store_close(store);
	cow_region_free(region);
}

void bench_reflink(void)
{
	bench_section("Beside a reflink of a file of %zu MiB, fragmented by %zu random pages",
		      region_bytes() / MIB, dirty_count(10000));
	if (!mount_xfs(path_of("mnt")))
		return;
	bench_reflink_mounted();
	check(umount(path_of("mnt")) == 0, "umount");
	unlink(path_of("xfs.image"));
}
