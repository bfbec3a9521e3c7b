/* SPDX-License-Identifier: MIT */
/* What the tests of the public interface share: regions, snapshots and pages with less to write. */
#ifndef TESTS_API_COMMON_H
#define TESTS_API_COMMON_H

#include <sys/resource.h>

#include "cow.h"
#include "tests/tap.h"

/* Tests that hold under every trap are built once for each. */
#ifndef TEST_TRAP
#define TEST_TRAP COW_TRAP_EXPLICIT
#endif

#define PAGE ((size_t)4096)

/* Some tests have a thousand regions, each with a few descriptors; shells begin with a soft limit
 * of 1,024. */
__attribute__((constructor)) TAP_MAYBE_UNUSED static void allow_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

TAP_MAYBE_UNUSED static struct cow_region_options explicit_options(void)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;

	options.trap = TEST_TRAP;
	return options;
}

TAP_MAYBE_UNUSED static struct cow_region *new_region_with(size_t pages,
							   const struct cow_region_options *options)
{
	struct cow_region *region = NULL;
	int r = cow_region_new(pages * PAGE, options, &region);

	if (r < 0)
		bail("a region of %zu pages: %s", pages, strerror(-r));
	return region;
}

TAP_MAYBE_UNUSED static struct cow_region *new_region(size_t pages)
{
	struct cow_region_options options = explicit_options();

	return new_region_with(pages, &options);
}

TAP_MAYBE_UNUSED static struct cow_snapshot *take(struct cow_region *region)
{
	struct cow_snapshot *snapshot = NULL;
	int r = cow_region_snapshot(region, &snapshot);

	if (r < 0)
		bail("a snapshot: %s", strerror(-r));
	return snapshot;
}

TAP_MAYBE_UNUSED static unsigned char *page_of(struct cow_region *region, size_t page)
{
	return (unsigned char *)cow_region_get_base(region) + page * PAGE;
}

/* Every byte of a page, and of a run of pages. */
TAP_MAYBE_UNUSED static int fill(struct cow_region *region, size_t page, int byte)
{
	unsigned char content[PAGE];

	memset(content, byte, sizeof(content));
	return cow_region_write(region, page * PAGE, content, sizeof(content));
}

TAP_MAYBE_UNUSED static void fill_all(struct cow_region *region, int byte)
{
	for (size_t page = 0; page < cow_region_get_length(region) / PAGE; page++)
		if (fill(region, page, byte) < 0)
			bail("a write without a limit fails");
}

/* The byte that a whole page consists of, or -1 where it is mixed; or a smaller errno. */
TAP_MAYBE_UNUSED static int uniform(const unsigned char *content)
{
	for (size_t i = 1; i < PAGE; i++)
		if (content[i] != content[0])
			return -1;
	return content[0];
}

TAP_MAYBE_UNUSED static int page_in(struct cow_snapshot *snapshot, size_t page)
{
	unsigned char content[PAGE];
	int r = cow_snapshot_read(snapshot, page * PAGE, content, sizeof(content));

	return r < 0 ? r : uniform(content);
}

TAP_MAYBE_UNUSED static int live_page(struct cow_region *region, size_t page)
{
	unsigned char content[PAGE];
	int r = cow_region_read(region, page * PAGE, content, sizeof(content));

	return r < 0 ? r : uniform(content);
}

TAP_MAYBE_UNUSED static struct cow_region_stats stats_of(struct cow_region *region)
{
	struct cow_region_stats stats = COW_REGION_STATS_INIT;

	if (cow_region_get_stats(region, &stats) < 0)
		bail("statistics cannot be had");
	return stats;
}

TAP_MAYBE_UNUSED static struct cow_snapshot_stats snapshot_stats_of(struct cow_snapshot *snapshot)
{
	struct cow_snapshot_stats stats = COW_SNAPSHOT_STATS_INIT;

	if (cow_snapshot_get_stats(snapshot, &stats) < 0)
		bail("statistics cannot be had");
	return stats;
}

/* --- the library's messages --- */

static struct {
	_Atomic unsigned count;
	int priority;
	char last[512];
} logged;

TAP_MAYBE_UNUSED static void note_message(int priority, const char *message, void *context)
{
	(void)context;
	logged.priority = priority;
	snprintf(logged.last, sizeof(logged.last), "%s", message);
	logged.count++;
}

/* In a child: the first thing that is not as it should be ends it, with the library's last word.
 * The parent looks at its status. */
#define must(condition)                                                                    \
	do {                                                                               \
		if (!(condition)) {                                                        \
			fprintf(stderr, "# child, line %d: %s %s\n", __LINE__, #condition, \
				logged.last);                                              \
			_exit(1);                                                          \
		}                                                                          \
	} while (0)

/* A directory on a disk, or NULL: where the build is, unless that is memory. */
TAP_MAYBE_UNUSED static const char *disk_directory(void)
{
	const char *directory = getenv("BUILD_ROOT") ?: ".";
	struct cow_region_options options = explicit_options();
	struct cow_region *region = NULL;

	options.spill_directory = directory;
	if (cow_region_new(PAGE, &options, &region) < 0)
		return NULL;
	cow_region_free(region);
	return directory;
}

#endif
