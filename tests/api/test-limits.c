/* SPDX-License-Identifier: MIT */
/*
 * What happens at preimage_limit under each policy: what gives way, what does not, what is refused,
 * and that the limit holds at every step, also as the kernel counts memory.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/api/common.h"

#define LIMIT  COW_PREIMAGE_LIMIT_MIN
#define FRAMES (LIMIT / PAGE)
#define PAGES  (4 * FRAMES)

static struct cow_region_options limited(enum cow_limit_policy policy)
{
	struct cow_region_options options = explicit_options();

	options.preimage_limit = LIMIT;
	options.limit_policy = policy;
	options.limit_timeout_ns = 1;
	return options;
}

static bool within_limit(struct cow_region *region)
{
	struct cow_region_stats stats = stats_of(region);

	return stats.preimage_bytes + stats.pool_bytes <= LIMIT;
}

/* Writes page after page until one is refused; how many were not. */
static size_t write_until_refused(struct cow_region *region, int byte)
{
	size_t page = 0;
	int r = 0;

	while (page < PAGES && (r = fill(region, page, byte)) == 0) {
		page++;
		ok(within_limit(region), "within the limit after %zu pages", page);
	}
	ok(r == 0 || r == -EAGAIN, "refused with -EAGAIN, not %d", r);
	return page;
}

static void check_pages(struct cow_snapshot *snapshot, size_t count, int byte)
{
	size_t wrong = 0;

	for (size_t page = 0; page < count; page++)
		wrong += page_in(snapshot, page) != byte;
	is_u64(wrong, 0, "pages of the snapshot that are not what they were");
}

TEST(block_refuses_and_changes_nothing)
{
	struct cow_region_options options = limited(COW_LIMIT_BLOCK);
	struct cow_region *region = new_region_with(PAGES, &options);
	struct cow_snapshot *snapshot;
	size_t done;

	fill_all(region, 1);
	snapshot = take(region);
	done = write_until_refused(region, 2);
	ok(done > FRAMES / 2 && done < FRAMES, "most of the limit is for contents: %zu of %zu",
	   done, FRAMES);
	is_int(live_page(region, done), 1, "the refused page is as it was");
	is_errno(cow_region_touch(region, page_of(region, 0), PAGES * PAGE), -EAGAIN,
		 "touch of all");
	is_errno(cow_region_discard(region, 0, PAGES * PAGE), -EAGAIN, "discard of all");
	is_int(live_page(region, 0), 2, "what was written is as it was");
	is_int(live_page(region, PAGES - 1), 1, "what was not is as it was");
	check_pages(snapshot, PAGES, 1);
	is_errno(fill(region, 0, 3), 0, "open pages can be written");
	cow_snapshot_unref(snapshot);
	is_u64(write_until_refused(region, 4), PAGES, "after the unref nothing is refused");
	cow_region_free(region);
}

static void *unref_later(void *context)
{
	usleep(20000);
	cow_snapshot_unref(context);
	return NULL;
}

TEST(block_wakes_when_another_thread_unrefs)
{
	struct cow_region_options options = limited(COW_LIMIT_BLOCK);
	struct cow_region *region;
	struct cow_snapshot *snapshot;
	pthread_t thread;
	size_t done;

	options.limit_timeout_ns = UINT64_MAX; /* only the unref can end it */
	region = new_region_with(PAGES, &options);
	fill_all(region, 1);
	snapshot = take(region);
	pthread_create(&thread, NULL, unref_later, snapshot);
	done = write_until_refused(region, 2);
	is_u64(done, PAGES, "the writer waited, and went on");
	pthread_join(thread, NULL);
	cow_region_free(region);
}

TEST(rollback_at_the_limit_is_all_or_nothing)
{
	struct cow_region_options options = limited(COW_LIMIT_BLOCK);
	struct cow_region *region = new_region_with(PAGES, &options);
	struct cow_snapshot *first, *second;
	size_t half = FRAMES / 2 + 4;

	fill_all(region, 1);
	first = take(region);
	for (size_t page = 0; page < half; page++)
		is_errno(fill(region, page, 2), 0, "write");
	second = take(region);
	is_errno(cow_region_rollback(region, first), -EAGAIN, "the second snapshot needs too much");
	for (size_t page = 0; page < PAGES; page++)
		is_int(live_page(region, page), page < half ? 2 : 1, "page %zu is as it was", page);
	check_pages(first, PAGES, 1);
	check_pages(second, half, 2);
	cow_snapshot_unref(second);
	is_errno(cow_region_rollback(region, first), 0, "without it");
	is_int(live_page(region, 0), 1, "put back");
	cow_snapshot_unref(first);
	cow_region_free(region);
}

TEST(drop_gives_the_oldest_up)
{
	struct cow_region_options options = limited(COW_LIMIT_DROP);
	struct cow_region *region = new_region_with(PAGES, &options), *branch = NULL;
	struct cow_snapshot *snapshots[3], *none = NULL;
	unsigned char byte;
	const void *view = NULL;

	cow_log_set(note_message, NULL);
	logged.count = 0;
	for (int i = 0; i < 3; i++) {
		fill_all(region, i + 1);
		snapshots[i] = take(region);
		is_u64(write_until_refused(region, i + 1), PAGES, "no writer is refused");
	}
	is_u64(snapshot_stats_of(snapshots[0]).dropped, 1, "the oldest was given up");
	is_u64(snapshot_stats_of(snapshots[0]).private_bytes, 0, "it holds nothing");
	is_errno(cow_snapshot_read(snapshots[0], 0, &byte, 1), -ESTALE, "read");
	is_errno(cow_snapshot_map(snapshots[0], 0, &view), -ESTALE, "map");
	is_errno(cow_snapshot_branch(snapshots[0], &options, &branch), -ESTALE, "branch");
	is_errno(cow_region_rollback(region, snapshots[0]), -ESTALE, "rollback");
	ok(!view && !branch && !none, "no result was written");
	ok(stats_of(region).dropped_snapshots >= 1, "counted");
	ok(logged.count >= 1 && logged.count <= stats_of(region).dropped_snapshots,
	   "the log is told: %u times", logged.count);
	ok(logged.count && strstr(logged.last, "COW_LIMIT_SPILL"), "says what to do: %s",
	   logged.last);
	cow_log_set(NULL, NULL);
	for (int i = 0; i < 3; i++)
		cow_snapshot_unref(snapshots[i]);
	cow_region_free(region);
}

/* Each round rewrites everything, more than the limit has room for. */
static void drop_many(struct cow_region *region, unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++) {
		struct cow_snapshot *snapshot = take(region);

		if (TEST_TRAP == COW_TRAP_EXPLICIT)
			fill_all(region, (int)i + 1);
		else
			memset(page_of(region, 0), (int)i + 1, PAGES * PAGE);
		is_u64(snapshot_stats_of(snapshot).dropped, 1, "given up");
		cow_snapshot_unref(snapshot);
	}
}

TEST(the_log_hears_of_traps_and_is_not_flooded)
{
	enum { ROUNDS = 40 };
	struct cow_region_options options = limited(COW_LIMIT_DROP);
	struct cow_region *region = new_region_with(PAGES, &options);

	fill_all(region, 100);
	cow_log_set(note_message, NULL);
	logged.count = 0;
	drop_many(region, 1);
	is_u64(logged.count, TEST_TRAP == COW_TRAP_EXPLICIT, "no trap says anything");
	cow_snapshot_unref(take(region));
	is_u64(logged.count, 1, "the next snapshot does");
	ok(strstr(logged.last, "1 of the oldest"), "how many: %s", logged.last);
	drop_many(region, ROUNDS);
	is_u64(stats_of(region).dropped_snapshots, ROUNDS + 1, "all are counted");
	ok(logged.count > 1 && logged.count <= 7, "few are told: %u times", logged.count);
	cow_log_set(NULL, NULL);
	cow_region_free(region);
}

TEST(drop_never_takes_what_is_mapped_or_branched)
{
	struct cow_region_options options = limited(COW_LIMIT_DROP), any = explicit_options();
	struct cow_region *region = new_region_with(PAGES, &options), *branch = NULL;
	struct cow_snapshot *mapped, *branched, *plain;
	const void *view = NULL;

	fill_all(region, 1);
	mapped = take(region);
	is_errno(cow_snapshot_map(mapped, 0, &view), 0, "map");
	fill(region, 0, 2);
	branched = take(region);
	is_errno(cow_snapshot_branch(branched, &any, &branch), 0, "branch");
	fill(region, 0, 3);
	plain = take(region);
	ok(write_until_refused(region, 4) < PAGES, "in the end the writer is refused");
	is_u64(snapshot_stats_of(plain).dropped, 1, "the newest had to go");
	is_u64(snapshot_stats_of(mapped).dropped + snapshot_stats_of(branched).dropped, 0,
	       "the others not");
	is_int(uniform(view), 1, "the view");
	check_pages(mapped, PAGES, 1);
	is_int(live_page(branch, 0), 2, "the branch");
	is_errno(cow_region_touch(region, page_of(region, PAGES - 1), 1), -EAGAIN, "still refused");
	cow_region_free(branch);
	is_errno(cow_region_touch(region, page_of(region, PAGES - 1), 1), 0,
		 "a freed branch pins no longer");
	is_u64(snapshot_stats_of(branched).dropped, 1, "its snapshot went");
	cow_snapshot_unref(mapped);
	cow_snapshot_unref(branched);
	cow_snapshot_unref(plain);
	cow_region_free(region);
}

TEST(spill_loses_nothing_and_refuses_nobody)
{
	struct cow_region_options options = limited(COW_LIMIT_SPILL);
	struct cow_region *region, *branch = NULL;
	struct cow_snapshot *snapshots[3];
	const void *view = NULL;

	options.spill_directory = disk_directory();
	if (!options.spill_directory) {
		skip("no directory on a disk");
		return;
	}
	region = new_region_with(PAGES, &options);
	for (int i = 0; i < 3; i++) {
		fill_all(region, i + 1);
		snapshots[i] = take(region);
	}
	is_u64(write_until_refused(region, 9), PAGES, "no writer is refused");
	ok(stats_of(region).spilled_pages > 2 * FRAMES, "pages were spilled");
	ok(stats_of(region).spilled_bytes > 2 * LIMIT, "and are in the file");
	for (int i = 0; i < 3; i++)
		check_pages(snapshots[i], PAGES, i + 1);
	is_errno(cow_snapshot_map(snapshots[1], 0, &view), 0, "map");
	is_int(uniform((const unsigned char *)view + PAGE), 2, "through the view");
	is_errno(cow_snapshot_branch(snapshots[0], &options, &branch), 0, "branch");
	is_errno(cow_region_touch(branch, page_of(branch, 5), 1), 0, "a page of the branch");
	is_int(uniform(page_of(branch, 5)), 1, "comes out of the file");
	is_errno(cow_region_rollback(region, snapshots[0]), 0, "rollback");
	is_int(live_page(region, PAGES - 1), 1, "out of the file");
	ok(within_limit(region), "within the limit");
	cow_region_free(branch);
	for (int i = 0; i < 3; i++)
		cow_snapshot_unref(snapshots[i]);
	is_u64(stats_of(region).spilled_bytes, 0, "nothing is left in the file");
	cow_region_free(region);
}

TEST(spill_directories_that_do_not_do)
{
	struct cow_region_options options = limited(COW_LIMIT_SPILL);
	struct cow_region *region = NULL;

	cow_log_set(note_message, NULL);
	options.spill_directory = "/nonexistent/directory";
	logged.count = 0;
	is_errno(cow_region_new(PAGE, &options, &region), -ENOENT, "missing");
	ok(logged.count == 1 && strstr(logged.last, "/nonexistent/directory"), "named: %s",
	   logged.last);
	options.spill_directory = "/proc/self/status";
	ok(cow_region_new(PAGE, &options, &region) < 0, "not a directory");
	options.spill_directory = "/dev/shm";
	logged.count = 0;
	if (access("/dev/shm", W_OK) == 0) {
		is_errno(cow_region_new(PAGE, &options, &region), -EINVAL, "tmpfs is memory");
		ok(logged.count == 1 && strstr(logged.last, "tmpfs"), "said so: %s", logged.last);
	}
	options.limit_policy = COW_LIMIT_BLOCK;
	is_errno(cow_region_new(PAGE, &options, &region), 0, "other policies do not look at it");
	cow_region_free(region);
	cow_log_set(NULL, NULL);
}

TEST(spill_without_a_directory_blocks)
{
	struct cow_region_options options = limited(COW_LIMIT_SPILL);
	struct cow_region *region = new_region_with(PAGES, &options);
	struct cow_snapshot *snapshot;

	cow_log_set(note_message, NULL);
	logged.count = 0;
	fill_all(region, 1);
	snapshot = take(region);
	ok(write_until_refused(region, 2) < FRAMES, "refused");
	is_u64(logged.count, 1, "the log is told once");
	check_pages(snapshot, PAGES, 1);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	cow_log_set(NULL, NULL);
}

/* An ext4 of a few megabytes in a file, mounted in a namespace of the child's own. directory is
 * this test's: it runs under each trap, beside itself. */
static const char *mount_small_disk(const char *directory)
{
	static char image[300], command[1600], mounted[300];

	snprintf(image, sizeof(image), "%s/image", directory);
	snprintf(mounted, sizeof(mounted), "%s/mounted", directory);
	mkdir(mounted, 0700);
	snprintf(command, sizeof(command),
		 "truncate -s 2M '%s' && "
		 "mkfs.ext4 -q -F -m 0 -O ^has_journal '%s' >/dev/null 2>&1 && "
		 "mount -o loop '%s' '%s' 2>/dev/null",
		 image, image, image, mounted);
	/* NOLINTNEXTLINE(cert-env33-c): of a test, on its own files */
	return system(command) == 0 ? mounted : NULL;
}

/* In the child: an exit status, 77 where there is no such disk to be had. */
static int spill_on_a_full_disk(const char *directory)
{
	struct cow_region_options options = limited(COW_LIMIT_SPILL);
	struct cow_region *region = NULL;
	struct cow_snapshot *snapshot;
	size_t page = 0;
	int r = 0;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 77;
	options.spill_directory = mount_small_disk(directory);
	if (!options.spill_directory)
		return 77;
	if (cow_region_new(16 * PAGES * PAGE, &options, &region) < 0)
		return 1;
	fill_all(region, 1);
	snapshot = take(region);
	while (page < 16 * PAGES && (r = fill(region, page, 2)) == 0)
		page++;
	if (r != -EAGAIN || page < PAGES || live_page(region, page) != 1)
		return 2;
	for (size_t i = 0; i < 16 * PAGES; i++)
		if (page_in(snapshot, i) != 1)
			return 3;
	cow_snapshot_unref(snapshot);
	if (fill(region, page, 2) < 0)
		return 4;
	cow_region_free(region);
	return 0;
}

TEST(a_full_disk_blocks)
{
	char directory[200], image[300], mounted[300];
	int status = 0;
	pid_t pid;

	if (!disk_directory() || geteuid() != 0) {
		skip("needs root and a directory on a disk");
		return;
	}
	snprintf(directory, sizeof(directory), "%s/small-disk-XXXXXX", disk_directory());
	if (!mkdtemp(directory))
		bail("no directory: %s", strerror(errno));
	pid = fork();
	if (pid == 0)
		_exit(spill_on_a_full_disk(directory));
	waitpid(pid, &status, 0);
	snprintf(image, sizeof(image), "%s/image", directory);
	snprintf(mounted, sizeof(mounted), "%s/mounted", directory);
	unlink(image);
	rmdir(mounted);
	rmdir(directory);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip("no small disk to be had here (mount namespace, loop device, mkfs.ext4)");
	else
		is_int(status, 0, "writers are refused, nothing is lost, an unref helps");
}

/* What the kernel says that this process occupies, beyond the window: frames, headers and
 * tables. */
static size_t resident_bytes(void)
{
	unsigned long size, resident = 0;
	FILE *statm = fopen("/proc/self/statm", "re");

	if (!statm || fscanf(statm, "%lu %lu", &size, &resident) != 2)
		resident = 0;
	if (statm)
		fclose(statm);
	return resident * PAGE;
}

TEST(memory_as_the_kernel_counts_it)
{
	enum { BIG = 8192 }; /* 32 MiB */
	struct cow_region_options options = limited(COW_LIMIT_DROP);
	size_t before, most = 0;
	struct cow_region *region;

	if (SANITIZED) {
		skip("a sanitizer's shadow is memory, too");
		return;
	}
	options.preimage_limit = BIG * PAGE / 10;
	region = new_region_with(BIG, &options);
	fill_all(region, 1);
	before = resident_bytes();
	for (int round = 2; round < 5; round++) {
		struct cow_snapshot *snapshot = take(region);

		for (size_t page = 0; page < BIG; page++) {
			size_t now;

			if (!ok(fill(region, page, round) == 0, "write"))
				return;
			now = page % 64 == 0 ? resident_bytes() : 0;
			most = now > before + most ? now - before : most;
		}
		cow_snapshot_unref(snapshot);
	}
	diag("limit %zu KiB, most %zu KiB", options.preimage_limit >> 10, most >> 10);
	ok(most <= options.preimage_limit + BIG * PAGE / 100,
	   "never above limit + 1 %% of the region");
	cow_region_free(region);
}

TAP_MAIN(CASE(block_refuses_and_changes_nothing), CASE(block_wakes_when_another_thread_unrefs),
	 CASE(rollback_at_the_limit_is_all_or_nothing), CASE(drop_gives_the_oldest_up),
	 CASE(the_log_hears_of_traps_and_is_not_flooded),
	 CASE(drop_never_takes_what_is_mapped_or_branched),
	 CASE(spill_loses_nothing_and_refuses_nobody), CASE(spill_directories_that_do_not_do),
	 CASE(spill_without_a_directory_blocks), CASE(a_full_disk_blocks),
	 CASE(memory_as_the_kernel_counts_it))
