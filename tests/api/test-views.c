/* SPDX-License-Identifier: MIT */
/*
 * Views: a snapshot as memory, for the program and for system calls, from many threads, beside a
 * writer.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "tests/api/common.h"

enum { PAGES = 100 };

static struct cow_region *numbered_region(void)
{
	struct cow_region *region = new_region(PAGES);

	for (size_t page = 0; page < PAGES; page++)
		fill(region, page, (int)page + 1);
	return region;
}

static size_t wrong_pages(const unsigned char *view)
{
	size_t wrong = 0;

	for (size_t page = 0; page < PAGES; page++)
		wrong += uniform(view + page * PAGE) != (int)page + 1;
	return wrong;
}

TEST(a_view_shows_the_snapshot)
{
	struct cow_region *region = numbered_region();
	struct cow_snapshot *snapshot = take(region);
	const void *view = NULL, *again = NULL;

	is_errno(cow_snapshot_map(snapshot, 0, &view), 0, "map");
	is_u64(stats_of(region).view_bytes, PAGES * PAGE, "counted");
	is_u64(snapshot_stats_of(snapshot).view_bytes, PAGES * PAGE, "counted");
	is_int(uniform((const unsigned char *)view + 50 * PAGE), 51, "a page that is still shared");
	fill_all(region, 255);
	is_u64(wrong_pages(view), 0, "all of it, after everything was written");
	is_errno(cow_snapshot_map(snapshot, COW_MAP_POPULATE, &again), 0, "map again");
	ok(view == again, "the same at every call");
	cow_region_free(region);
	is_u64(wrong_pages(view), 0, "after the region was freed");
	cow_snapshot_unref(snapshot);
}

TEST(a_populated_view_for_system_calls)
{
	struct cow_region *region = numbered_region();
	struct cow_snapshot *snapshot = take(region);
	unsigned char *back = malloc(PAGES * PAGE);
	int fd = memfd_create("test", MFD_CLOEXEC);
	const void *view = NULL;

	fill_all(region, 255);
	is_errno(cow_snapshot_map(snapshot, COW_MAP_POPULATE, &view), 0, "map");
	is_int(write(fd, view, PAGES * PAGE), PAGES * PAGE, "write(2) takes all of it");
	is_int(pread(fd, back, PAGES * PAGE, 0), PAGES * PAGE, "read back");
	is_u64(wrong_pages(back), 0, "what the snapshot has");
	close(fd);
	free(back);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

TEST(a_view_partly_filled_is_populated)
{
	struct cow_region *region = numbered_region();
	struct cow_snapshot *snapshot = take(region);
	const unsigned char *bytes;
	const void *view = NULL;

	is_errno(cow_snapshot_map(snapshot, 0, &view), 0, "map");
	bytes = view;
	ok(bytes[0] == 1 && bytes[37 * PAGE] == 38, "two pages on demand");
	fill_all(region, 255);
	is_errno(cow_snapshot_map(snapshot, COW_MAP_POPULATE, &view), 0, "the rest");
	is_u64(wrong_pages(view), 0, "all of it");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

static sigjmp_buf out;

static void jump(int signal)
{
	siglongjmp(out, signal);
}

static int signal_of_a_store(unsigned char *address)
{
	struct sigaction act = { .sa_handler = jump }, before[2];
	volatile int caught = 0;

	sigaction(SIGSEGV, &act, &before[0]);
	sigaction(SIGBUS, &act, &before[1]);
	caught = sigsetjmp(out, 1);
	if (caught == 0)
		*(volatile unsigned char *)address = 1;
	sigaction(SIGSEGV, &before[0], NULL);
	sigaction(SIGBUS, &before[1], NULL);
	return caught;
}

TEST(a_view_is_read_only)
{
	struct cow_region *region = numbered_region();
	struct cow_snapshot *snapshot = take(region);
	const void *view = NULL;

	is_errno(cow_snapshot_map(snapshot, COW_MAP_POPULATE, &view), 0, "map");
	is_int(signal_of_a_store((unsigned char *)(uintptr_t)view), SIGSEGV, "a store");
	is_u64(wrong_pages(view), 0, "changes nothing");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

/* A view as the source of a write, inside whose bracket its pages are filled. */
TEST(a_view_is_written_into_a_region)
{
	struct cow_region *region = numbered_region();
	struct cow_snapshot *snapshot = take(region);
	const void *view = NULL;

	fill_all(region, 255);
	is_errno(cow_snapshot_map(snapshot, 0, &view), 0, "map");
	is_errno(cow_region_write(region, 0, view, PAGES * PAGE), 0, "write");
	is_int(live_page(region, 99), 100, "arrived");
	is_int(live_page(region, 0), 1, "arrived");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

static struct {
	const unsigned char *view;
	struct cow_snapshot *snapshot;
	pthread_barrier_t barrier;
	_Atomic size_t wrong;
} shared;

static void *look(void *context)
{
	size_t first = (size_t)(uintptr_t)context * 7;

	pthread_barrier_wait(&shared.barrier);
	for (size_t i = 0; i < PAGES; i++) {
		size_t page = (first + i * 31) % PAGES;

		shared.wrong += uniform(shared.view + page * PAGE) != (int)page + 1;
	}
	return NULL;
}

static void *populate(void *context)
{
	const void *view = NULL;

	(void)context;
	pthread_barrier_wait(&shared.barrier);
	shared.wrong += cow_snapshot_map(shared.snapshot, COW_MAP_POPULATE, &view) != 0;
	shared.wrong += view != shared.view;
	return NULL;
}

TEST(many_threads_look_while_one_writes)
{
	enum { READERS = 3, ROUNDS = 20 };

	for (int round = 0; round < ROUNDS; round++) {
		struct cow_region *region = numbered_region();
		pthread_t threads[READERS + 1];
		const void *view = NULL;

		shared.snapshot = take(region);
		is_errno(cow_snapshot_map(shared.snapshot, 0, &view), 0, "map");
		shared.view = view;
		pthread_barrier_init(&shared.barrier, NULL, READERS + 2);
		for (uintptr_t i = 0; i < READERS; i++)
			pthread_create(&threads[i], NULL, look, (void *)i);
		pthread_create(&threads[READERS], NULL, populate, NULL);
		pthread_barrier_wait(&shared.barrier);
		fill_all(region, 255);
		for (size_t i = 0; i <= READERS; i++)
			pthread_join(threads[i], NULL);
		pthread_barrier_destroy(&shared.barrier);
		cow_snapshot_unref(shared.snapshot);
		cow_region_free(region);
	}
	is_u64(shared.wrong, 0, "pages that were not what they should be");
}

TEST(a_large_sparse_view)
{
	size_t pages = ((size_t)8 << 30) / PAGE;
	struct cow_region *region = new_region(pages);
	struct cow_snapshot *snapshot;
	const void *view = NULL;

	fill(region, pages - 1, 3);
	snapshot = take(region);
	is_errno(cow_snapshot_map(snapshot, 0, &view), 0, "map 8 GiB");
	is_int(uniform((const unsigned char *)view + (pages - 1) * PAGE), 3, "its last page");
	is_int(uniform((const unsigned char *)view + pages / 2 * PAGE), 0, "one in the middle");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

TAP_MAIN(CASE(a_view_shows_the_snapshot), CASE(a_populated_view_for_system_calls),
	 CASE(a_view_partly_filled_is_populated), CASE(a_view_is_read_only),
	 CASE(a_view_is_written_into_a_region), CASE(many_threads_look_while_one_writes),
	 CASE(a_large_sparse_view))
