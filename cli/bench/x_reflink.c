/* SPDX-License-Identifier: MIT */
/*
 * reflink: copy-on-write in file systems. What a clone costs by size and by fragments, what the
 * first write to shared data costs, what a btrfs snapshot costs by number of files, and what random
 * writes do to files that are never overwritten in place.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/btrfs.h>
#include <linux/fs.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/bench/bench.h"
#include "cli/bench/disk.h"
#include "cli/file/file.h"

#define MIB  ((uint64_t)1 << 20)
#define PAGE 4096u

#define TYPES    3
#define SIZES    4
#define SUBJECTS 64

struct place {
	const struct disk *disk;
	const char *path;
};

struct list {
	struct disk disks[TYPES]; /* mount NULL: there is none */
	struct place places[SUBJECTS];
	struct bench_subject subjects[SUBJECTS];
	size_t count;
};

static const char *const types[TYPES] = { "btrfs", "xfs", "ext4" };

static const struct bench_subject *add_subject(struct list *list,
					       const struct bench_subject *subject,
					       const struct disk *disk, const char *path)
{
	struct bench_subject *added = &list->subjects[list->count];

	if (list->count == SUBJECTS)
		return NULL;
	list->places[list->count] = (struct place){ disk, path };
	*added = *subject;
	added->context = &list->places[list->count++];
	return added;
}

static void take_turns(struct bench *bench, struct list *list)
{
	if (list->count && !bench_over(bench))
		bench_take_turns(bench, list->subjects, list->count);
	list->count = 0;
}

static void make_file(struct bench *bench, const char *path, uint64_t bytes)
{
	int error = disk_fill_file(path, bytes, bench->seed);

	if (error)
		bench_fail(bench, error, "cannot write %s", path);
}

/* --- random writes --- */

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Overwrites pages of a file at random; each reaches the file system on its own. */
static void write_pages(struct bench *bench, const char *path, uint64_t count, uint64_t seed)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	uint64_t state = seed | 1, pages, i;
	struct stat status = { 0 };
	char page[PAGE];

	if (fd < 0 || fstat(fd, &status) < 0) {
		bench_fail(bench, -errno, "cannot open %s", path);
		if (fd >= 0)
			close(fd);
		return;
	}
	pages = (uint64_t)status.st_size / PAGE;
	for (i = 0; i < count; i++) {
		memset(page, (int)(i + seed), sizeof(page));
		if (pwrite(fd, page, PAGE, (off_t)(next_random(&state) % pages * PAGE)) != PAGE) {
			bench_fail(bench, -errno, "cannot write to %s", path);
			break;
		}
	}
	if (fdatasync(fd) < 0)
		bench_fail(bench, -errno, "cannot write to %s", path);
	close(fd);
}

/* --- clones by size --- */

static double measure_clone(struct bench *bench, const struct bench_subject *subject)
{
	const struct place *place = subject->context;
	const char *to = bench_text(bench, "%s.clone", place->path);
	uint64_t start = bench_now(), ns;
	int error = disk_clone_file(place->path, to);

	ns = bench_lap(start);
	if (error)
		bench_fail(bench, error, "cannot clone %s", place->path);
	unlink(to);
	/* What removing it leaves to be done is not the next one's. */
	disk_sync(place->disk);
	return (double)ns;
}

static double measure_copy(struct bench *bench, const struct bench_subject *subject)
{
	const struct place *place = subject->context;
	const char *to = bench_text(bench, "%s.copy", place->path);
	uint64_t start = bench_now(), ns;
	int error = disk_copy_file(place->path, to);

	ns = bench_lap(start);
	if (error)
		bench_fail(bench, error, "cannot copy %s", place->path);
	unlink(to);
	disk_sync(place->disk);
	return (double)ns;
}

static size_t clone_sizes(const struct bench *bench, uint64_t sizes[SIZES])
{
	const uint64_t all[SIZES] = { MIB, 16 * MIB, BENCH_BY_SCALE(bench, 16, 64, 128, 256) * MIB,
				      1024 * MIB };

	memcpy(sizes, all, sizeof(all));
	return BENCH_BY_SCALE(bench, 1u, 3u, 3u, 4u);
}

static void add_clones(struct bench *bench, struct list *list, const struct disk *disk)
{
	uint64_t sizes[SIZES];
	size_t count = clone_sizes(bench, sizes), i;
	const char *path, *size;

	for (i = 0; i < count; i++) {
		path = bench_text(bench, "%s/size%zu", disk->mount, i);
		size = bench_figure(bench, BENCH_BYTES, (double)sizes[i]);
		make_file(bench, path, sizes[i]);
		add_subject(
			list,
			&(struct bench_subject){
				.row = { bench_text(bench, "clone/%s/%zu", disk->type, i),
					 bench_text(bench, "clone of %s on %s", size, disk->type),
					 BENCH_NS, NULL, "clone",
					 bench_text(bench, "clone, %s", disk->type),
					 (double)sizes[i] },
				.measure = measure_clone },
			disk, path);
		add_subject(
			list,
			&(struct bench_subject){
				.row = { bench_text(bench, "copy/%s/%zu", disk->type, i),
					 bench_text(bench, "copy of %s on %s", size, disk->type),
					 BENCH_NS, NULL, "clone",
					 bench_text(bench, "copy, %s", disk->type),
					 (double)sizes[i] },
				.measure = measure_copy },
			disk, path);
	}
}

static void run_clones(struct bench *bench, struct list *list)
{
	size_t i;

	for (i = 0; i < 2 && !bench_over(bench); i++)
		if (list->disks[i].mount)
			add_clones(bench, list, &list->disks[i]);
	take_turns(bench, list);
}

/* --- the first write --- */

enum { WRITE_SHARED, WRITE_OWN };

/* 4 KiB to where nothing was written since the clone, or to a file that was never cloned. */
static double measure_write(struct bench *bench, const struct bench_subject *subject)
{
	const struct place *place = subject->context;
	const char *clone = bench_text(bench, "%s.kept", place->path);
	char page[PAGE];
	uint64_t start, ns = 0, i;
	const uint64_t writes = BENCH_BY_SCALE(bench, 4, 16, 64, 64);
	int fd, error;

	if (subject->number == WRITE_SHARED) {
		error = disk_clone_file(place->path, clone);
		if (error)
			bench_fail(bench, error, "cannot clone %s", place->path);
		disk_sync(place->disk);
	}
	fd = open(place->path, O_WRONLY | O_CLOEXEC);
	for (i = 0; i < writes && fd >= 0; i++) {
		memset(page, (int)i, sizeof(page));
		start = bench_now();
		if (pwrite(fd, page, PAGE, (off_t)(i * 37 % 256 * PAGE)) != PAGE ||
		    fdatasync(fd) < 0)
			bench_fail(bench, -errno, "cannot write to %s", place->path);
		ns += bench_lap(start);
	}
	if (fd >= 0)
		close(fd);
	unlink(clone);
	disk_sync(place->disk);
	return (double)ns / (double)writes;
}

static void run_writes(struct bench *bench, struct list *list)
{
	const struct disk *disk;
	const char *path;
	size_t i, kind;

	for (i = 0; i < 2 && !bench_over(bench); i++) {
		disk = &list->disks[i];
		for (kind = 0; disk->mount && kind < 2; kind++) {
			path = bench_text(bench, "%s/write%zu", disk->mount, kind);
			make_file(bench, path, MIB);
			add_subject(
				list,
				&(struct bench_subject){
					.row = { bench_text(bench, "write/%s/%s", disk->type,
							    kind ? "own" : "shared"),
						 bench_text(bench,
							    "write and fdatasync of 4 KiB %s, %s",
							    kind ? "nobody shares" :
								   "shared with a clone",
							    disk->type),
						 BENCH_NS },
					.measure = measure_write,
					.number = kind },
				disk, path);
		}
	}
	take_turns(bench, list);
	for (i = 0; i < 2; i++)
		if (list->disks[i].mount)
			bench_add_ratio(
				bench,
				&(struct bench_row){
					bench_text(bench, "write/%s/ratio", types[i]),
					bench_text(bench,
						   "a write to shared data, of one to own, %s",
						   types[i]),
					BENCH_RATIO },
				bench_text(bench, "write/%s/shared", types[i]),
				bench_text(bench, "write/%s/own", types[i]));
}

/* --- does a write to data that nobody shares move it? --- */

static uint64_t place_of(const char *path)
{
	struct file_extents extents = { 0 };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t place = 0;

	if (fd < 0)
		return 0;
	if (file_read_extents(fd, true, &extents) == 0 && extents.count > 0)
		place = extents.list[0].physical;
	free(extents.list);
	close(fd);
	return place;
}

static void run_moves(struct bench *bench, struct list *list)
{
	const char *path, *clone;
	uint64_t before, own, shared;
	size_t i;

	for (i = 0; i < TYPES && !bench_over(bench); i++) {
		if (!list->disks[i].mount)
			continue;
		path = bench_text(bench, "%s/move", list->disks[i].mount);
		clone = bench_text(bench, "%s/move.clone", list->disks[i].mount);
		make_file(bench, path, MIB);
		before = place_of(path);
		write_pages(bench, path, 4 * MIB / PAGE, 1);
		own = place_of(path);
		bench_add_value(
			bench,
			&(struct bench_row){ bench_text(bench, "moved/own/%s", types[i]),
					     bench_text(bench,
							"data that nobody shares moves when it is "
							"overwritten, %s (1: yes)",
							types[i]),
					     BENCH_COUNT },
			before != own);
		if (disk_clone_file(path, clone) < 0)
			continue;
		write_pages(bench, path, 4 * MIB / PAGE, 2);
		shared = place_of(path);
		bench_add_value(
			bench,
			&(struct bench_row){ bench_text(bench, "moved/shared/%s", types[i]),
					     bench_text(bench,
							"data shared with a clone moves when it is "
							"overwritten, %s (1: yes)",
							types[i]),
					     BENCH_COUNT },
			own != shared);
		bench_check(bench, own != shared && place_of(clone) == own,
			    "%s: the clone keeps its place, the writer gets another one", types[i]);
		unlink(path);
		unlink(clone);
	}
}

/* --- fragmentation and write amplification --- */

/*
 * A file is overwritten at random, a page at a time, each brought to the disk or all at the end;
 * what the device was given, of what was written.
 */
static void measure_amplification(struct bench *bench, const struct disk *disk, bool each,
				  uint64_t bytes, uint64_t writes)
{
	const char *path = bench_text(bench, "%s/random", disk->mount);
	uint64_t before, after, extents, i;
	const char *how = each ? "each" : "all";

	make_file(bench, path, bytes);
	disk_sync(disk);
	extents = disk_extents(path);
	before = disk_written(disk);
	if (each)
		for (i = 0; i < writes && !bench_over(bench); i++)
			write_pages(bench, path, 1, bench->seed + 7919 * i);
	else
		write_pages(bench, path, writes, bench->seed);
	disk_sync(disk);
	after = disk_written(disk);
	bench_add_value(
		bench,
		&(struct bench_row){
			bench_text(bench, "amplification/%s/%s", disk->type, how),
			bench_text(bench, "bytes written to the device for each byte, %s, %s",
				   each ? "fdatasync after each page" :
					  "one fdatasync at the end (pages written twice go once)",
				   disk->type),
			BENCH_RATIO, NULL, "amplification", each ? "synced each" : "synced once" },
		(double)(after - before) / (double)(writes * PAGE));
	bench_add_value(
		bench,
		&(struct bench_row){
			bench_text(bench, "extents/%s/%s", disk->type, how),
			bench_text(bench, "extents of the file then (%" PRIu64 " before), %s, %s",
				   extents, each ? "synced each" : "synced once", disk->type),
			BENCH_COUNT },
		(double)disk_extents(path));
	unlink(path);
	disk_sync(disk);
}

/* What a clone costs whose source is in pieces. */
static void run_fragmented(struct bench *bench, struct list *list)
{
	const uint64_t bytes = BENCH_BY_SCALE(bench, 4, 64, 64, 256) * MIB;
	const uint64_t writes = BENCH_BY_SCALE(bench, 100, 2000, 10000, 10000);
	const char *path;
	size_t i;

	for (i = 0; i < 2 && !bench_over(bench); i++) {
		if (!list->disks[i].mount)
			continue;
		path = bench_text(bench, "%s/pieces", list->disks[i].mount);
		make_file(bench, path, bytes);
		/* XFS writes in place unless somebody shares. */
		disk_clone_file(path, bench_text(bench, "%s.base", path));
		write_pages(bench, path, writes, bench->seed);
		bench_add_value(bench,
				&(struct bench_row){
					bench_text(bench, "pieces/%s", types[i]),
					bench_text(bench,
						   "extents of a file of %s after %" PRIu64
						   " random writes, %s",
						   bench_figure(bench, BENCH_BYTES, (double)bytes),
						   writes, types[i]),
					BENCH_COUNT },
				(double)disk_extents(path));
		add_subject(list,
			    &(struct bench_subject){
				    .row = { bench_text(bench, "clone/%s/pieces", types[i]),
					     bench_text(bench, "clone of that file, %s", types[i]),
					     BENCH_NS },
				    .measure = measure_clone },
			    &list->disks[i], path);
	}
	take_turns(bench, list);
}

static void run_amplification(struct bench *bench, struct list *list)
{
	const uint64_t bytes = BENCH_BY_SCALE(bench, 4, 32, 64, 256) * MIB;
	const uint64_t each = BENCH_BY_SCALE(bench, 20, 200, 1000, 5000);
	const uint64_t all = BENCH_BY_SCALE(bench, 100, 2000, 10000, 50000);
	size_t i;

	for (i = 0; i < TYPES && !bench_over(bench); i++) {
		if (!list->disks[i].mount)
			continue;
		measure_amplification(bench, &list->disks[i], true, bytes, each);
		measure_amplification(bench, &list->disks[i], false, bytes, all);
	}
}

/* --- snapshots --- */

static int subvolume(const char *parent, const char *name, unsigned long request)
{
	struct btrfs_ioctl_vol_args arguments = { 0 };
	int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0;

	if (fd < 0)
		return -errno;
	strncpy(arguments.name, name, sizeof(arguments.name) - 1);
	if (ioctl(fd, request, &arguments) < 0)
		error = -errno;
	close(fd);
	return error;
}

static int make_snapshot(const char *source, const char *parent, const char *name)
{
	struct btrfs_ioctl_vol_args_v2 arguments = { .flags = BTRFS_SUBVOL_RDONLY };
	int from = open(source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int to = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0;

	arguments.fd = from;
	strncpy(arguments.name, name, sizeof(arguments.name) - 1);
	if (from < 0 || to < 0 || ioctl(to, BTRFS_IOC_SNAP_CREATE_V2, &arguments) < 0)
		error = -errno;
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	return error;
}

static double measure_snapshot(struct bench *bench, const struct bench_subject *subject)
{
	const struct place *place = subject->context;
	uint64_t start, ns;
	int error;

	disk_sync(place->disk);
	start = bench_now();
	error = make_snapshot(place->path, place->disk->mount, "snapshot");
	ns = bench_lap(start);
	if (error)
		bench_fail(bench, error, "cannot take a snapshot");
	subvolume(place->disk->mount, "snapshot", BTRFS_IOC_SNAP_DESTROY);
	return (double)ns;
}

static void make_files(struct bench *bench, const char *directory, uint64_t count)
{
	char content[600];
	uint64_t i;
	int fd;

	memset(content, 'c', sizeof(content));
	for (i = 0; i < count && !bench_over(bench); i++) {
		char path[4200];

		if (snprintf(path, sizeof(path), "%s/%" PRIu64, directory, i) >= (int)sizeof(path))
			return;
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0 || write(fd, content, sizeof(content)) != (ssize_t)sizeof(content))
			bench_fail(bench, -errno, "cannot write %s", path);
		if (fd >= 0)
			close(fd);
		if (i % 1000 == 0)
			bench_progress(bench, i, count);
	}
}

static void run_snapshots(struct bench *bench, struct list *list)
{
	const uint64_t counts[] = { 10, BENCH_BY_SCALE(bench, 100, 1000, 1000, 1000),
				    BENCH_BY_SCALE(bench, 100, 10000, 10000, 100000) };
	const size_t last = bench->scale == BENCH_TINY ? 1 : 2;
	const struct disk *disk = &list->disks[0];
	const char *name, *path;
	size_t i;

	if (!disk->mount)
		return;
	for (i = 0; i <= last && !bench_over(bench); i++) {
		name = bench_text(bench, "files%zu", i);
		path = bench_text(bench, "%s/%s", disk->mount, name);
		if (subvolume(disk->mount, name, BTRFS_IOC_SUBVOL_CREATE) < 0)
			bench_fail(bench, -errno, "cannot make a subvolume");
		make_files(bench, path, counts[i]);
		add_subject(
			list,
			&(struct bench_subject){
				.row = { bench_text(bench, "snapshot/%zu", i),
					 bench_text(bench, "btrfs snapshot of %" PRIu64 " files",
						    counts[i]),
					 BENCH_NS, "O(1)", "snapshot", "snapshot",
					 (double)counts[i] },
				.measure = measure_snapshot },
			disk, path);
	}
	take_turns(bench, list);
	bench_add_value(bench,
			&(struct bench_row){ "snapshot/growth", "files, the most of the fewest",
					     BENCH_RATIO },
			(double)counts[last] / (double)counts[0]);
}

/* --- tunables --- */

/* Files that can be written and whose names speak of sharing. */
static double count_tunables(struct bench *bench, const char *directory)
{
	const char *argv[] = { "find", directory, "-type",  "f",  "-perm",  "/222",
			       "(",    "-iname",  "*cow*",  "-o", "-iname", "*reflink*",
			       "-o",   "-iname",  "*shar*", ")",  NULL };
	char *output = NULL, *at;
	double count = 0;

	if (bench_run(bench, argv, &output) == 0)
		for (at = output; at && (at = strchr(at, '\n')); at++)
			count++;
	free(output);
	return count;
}

static void run_tunables(struct bench *bench)
{
	static const char *const directories[][2] = { { "btrfs", "/sys/fs/btrfs" },
						      { "xfs", "/proc/fs/xfs" } };
	size_t i;

	for (i = 0; i < 2; i++)
		bench_add_value(
			bench,
			&(struct bench_row){ bench_text(bench, "tunables/%s", directories[i][0]),
					     bench_text(bench, "settings about sharing under %s",
							directories[i][1]),
					     BENCH_COUNT },
			count_tunables(bench, directories[i][1]));
}

static void run(struct bench *bench)
{
	const uint64_t bytes = BENCH_BY_SCALE(bench, 512, 1024, 3072, 6144) * MIB;
	static struct list list;
	const char *reason;
	size_t i;

	for (i = 0; i < TYPES; i++) {
		reason = disk_make(bench, types[i], types[i], bytes, &list.disks[i]);
		if (reason)
			bench_add_skipped(bench,
					  &(struct bench_row){ bench_text(bench, "fs/%s", types[i]),
							       types[i], BENCH_COUNT },
					  "%s", reason);
	}
	bench_add_skipped(bench, &(struct bench_row){ "fs/zfs", "snapshots of ZFS", BENCH_NS },
			  "not tried: ZFS is no part of Linux, and Debian has it in contrib alone, "
			  "as a module to compile");
	if (!list.disks[0].mount && !list.disks[1].mount) {
		bench_skip(bench, "neither btrfs nor XFS is to be had here");
		return;
	}
	run_moves(bench, &list);
	run_clones(bench, &list);
	run_fragmented(bench, &list);
	run_writes(bench, &list);
	run_snapshots(bench, &list);
	run_amplification(bench, &list);
	run_tunables(bench);
	for (i = 0; i < TYPES; i++)
		if (list.disks[i].mount)
			disk_unmake(&list.disks[i]);
}

/* --- judging --- */

/* Of rows "prefix/0", "prefix/1" and so on, the last one. */
static const char *last_row(struct bench *bench, const char *prefix)
{
	const char *last = bench_text(bench, "%s/0", prefix), *next = last;
	int i;

	for (i = 1; !isnan(bench_median(bench, next)); i++) {
		last = next;
		next = bench_text(bench, "%s/%d", prefix, i);
	}
	return last;
}

static void judge_snapshots(struct bench *bench)
{
	const char *last = last_row(bench, "snapshot");
	double few = bench_median(bench, "snapshot/0"), many = bench_median(bench, last);
	double growth = bench_median(bench, "snapshot/growth");

	if (isnan(few) || isnan(many)) {
		bench_judge(bench, "a btrfs snapshot is O(1)", BENCH_NOT_JUDGED, "no btrfs here");
		return;
	}
	bench_judge(bench, "a btrfs snapshot is O(1)",
		    many < 3 * few            ? BENCH_HOLDS :
		    many < sqrt(growth) * few ? BENCH_HOLDS_IN_PART :
						BENCH_DOES_NOT_HOLD,
		    "%s for the fewest files, %s for %.0f times as many",
		    bench_figure(bench, BENCH_NS, few), bench_figure(bench, BENCH_NS, many),
		    growth);
}

static void judge_clones(struct bench *bench, const char *type)
{
	double small = bench_median(bench, bench_text(bench, "clone/%s/0", type));
	double large = bench_median(bench, last_row(bench, bench_text(bench, "clone/%s", type)));
	double copy = bench_median(bench, last_row(bench, bench_text(bench, "copy/%s", type)));
	double pieces = bench_median(bench, bench_text(bench, "clone/%s/pieces", type));
	const char *part = bench_text(bench, "no data is copied by a clone, only metadata (%s)",
				      type);

	if (isnan(large)) {
		bench_judge(bench, part, BENCH_NOT_JUDGED, "no %s here", type);
		return;
	}
	bench_judge(bench, part, large < copy / 2 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%s for the smallest file, %s for the largest (a copy of it: %s); after random "
		    "writes %s: a clone costs its extents, not its bytes",
		    bench_figure(bench, BENCH_NS, small), bench_figure(bench, BENCH_NS, large),
		    bench_figure(bench, BENCH_NS, copy), bench_figure(bench, BENCH_NS, pieces));
}

static void judge_moves(struct bench *bench)
{
	double btrfs = bench_median(bench, "moved/own/btrfs");
	double xfs = bench_median(bench, "moved/own/xfs");

	if (isnan(btrfs))
		bench_judge(bench, "btrfs copies only if the block is shared", BENCH_NOT_JUDGED,
			    "no btrfs here");
	else
		bench_judge(bench, "btrfs copies only if the block is shared",
			    btrfs > 0 ? BENCH_DOES_NOT_HOLD : BENCH_HOLDS,
			    btrfs > 0 ?
				    "data that nobody shares gets a new place, too: btrfs never "
				    "overwrites" :
				    "data that nobody shares stays where it is");
	if (!isnan(xfs))
		bench_judge(
			bench, "XFS writes elsewhere only what is shared",
			xfs > 0 ? BENCH_DOES_NOT_HOLD : BENCH_HOLDS,
			xfs > 0 ? "data that nobody shares gets a new place" :
				  "data that nobody shares stays where it is, what a clone shares "
				  "moves");
}

static void judge_amplification(struct bench *bench)
{
	double btrfs = bench_median(bench, "amplification/btrfs/each");
	double ext4 = bench_median(bench, "amplification/ext4/each");
	double pieces = bench_median(bench, "extents/btrfs/all");
	double ext4_pieces = bench_median(bench, "extents/ext4/all");

	if (isnan(btrfs) || isnan(ext4)) {
		bench_judge(bench, "random writes are amplified and fragment files",
			    BENCH_NOT_JUDGED, "no btrfs, or no ext4 beside it, here");
		return;
	}
	bench_judge(
		bench, "writes become new blocks plus metadata: amplified",
		btrfs > 1.5 * ext4 ? BENCH_HOLDS :
		btrfs > 1.5        ? BENCH_HOLDS_IN_PART :
				     BENCH_DOES_NOT_HOLD,
		"a byte, of 4 KiB brought to the disk at a time, takes %.1f on btrfs, %.1f on ext4 "
		"(its journal), %.1f on XFS; with one fdatasync at the end %.1f, %.1f and %.1f",
		btrfs, ext4, bench_median(bench, "amplification/xfs/each"),
		bench_median(bench, "amplification/btrfs/all"),
		bench_median(bench, "amplification/ext4/all"),
		bench_median(bench, "amplification/xfs/all"));
	bench_judge(bench, "random writes fragment files",
		    pieces > 10 * ext4_pieces ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%.0f extents on btrfs, %.0f on ext4", pieces, ext4_pieces);
}

static void judge_tunables(struct bench *bench)
{
	double xfs = bench_median(bench, "tunables/xfs");
	double btrfs = bench_median(bench, "tunables/btrfs");

	bench_judge(bench, "tunables in /sys/fs/btrfs and /proc/fs/xfs control sharing",
		    xfs > 0 && btrfs > 0 ? BENCH_HOLDS :
		    xfs > 0 || btrfs > 0 ? BENCH_HOLDS_IN_PART :
					   BENCH_DOES_NOT_HOLD,
		    "%.0f files under /sys/fs/btrfs and %.0f under /proc/fs/xfs are about sharing; "
		    "that follows from clones, snapshots, 'chattr +C' and an inode's cowextsize",
		    btrfs, xfs);
}

static void judge(struct bench *bench)
{
	judge_snapshots(bench);
	judge_clones(bench, "btrfs");
	judge_clones(bench, "xfs");
	judge_moves(bench);
	judge_amplification(bench);
	judge_tunables(bench);
}

static const struct bench_plot plots[] = {
	{ "clone", "Cloning and copying a file", "size of the file", "ns", true, true, true },
	{ "snapshot", "A btrfs snapshot by number of files", "files", "ns", true, true },
	{ "amplification", "Bytes written to the device for each byte", NULL, "bytes" },
	{ 0 },
};

const struct bench_experiment experiment_reflink = {
	.name = "reflink",
	.title = "Copy-on-write in file systems: clones, snapshots, and their price",
	.source = BENCH_SOURCE_PRODUCTION "; " BENCH_SOURCE_ATLAS,
	.claim =
		"Snapshots of btrfs and ZFS are O(1) and free: no data is copied, only metadata of "
		"the tree is updated. btrfs allocates a new extent on a write and copies data only "
		"if the block is shared; XFS uses write-behind COW for reflink. Tunables under "
		"/sys/fs/btrfs and /proc/fs/xfs control how aggressively blocks are shared. The "
		"price: every write becomes new-block writes plus metadata updates, which "
		"fragments files and inflates I/O for random writes.",
	.method =
		"btrfs, XFS and ext4 in images of their own: FICLONE by size of file beside a copy "
		"with fsync, and of a file that random writes broke into pieces; a write of 4 KiB "
		"with fdatasync to data that a clone shares and to data that nobody shares; the "
		"place of data before and after (FIEMAP); a btrfs snapshot by number of files; "
		"bytes that the device received for random writes, and extents afterwards.",
	.needs = BENCH_NEEDS_ROOT | BENCH_NEEDS_LOOP,
	.plots = plots,
	.seconds = 60,
	.run = run,
	.judge = judge,
};
