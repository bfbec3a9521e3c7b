/* SPDX-License-Identifier: MIT */
/*
 * fork(): the child has the region as plain memory and is refused everything else; the parent does
 * not notice. Children say by their exit status which line found something wrong.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/api/common.h"

/* In a child: the first thing that is not as it should be ends it. Status 0: all is well. */
#define must(condition)                                                                  \
	do {                                                                             \
		if (!(condition)) {                                                      \
			fprintf(stderr, "# child, line %d: %s\n", __LINE__, #condition); \
			_exit(1);                                                        \
		}                                                                        \
	} while (0)

static void in_child(void (*run)(void *), void *context)
{
	int status = 0;
	pid_t pid = fork();

	if (pid < 0)
		bail("fork: %s", strerror(errno));
	if (pid == 0) {
		alarm(patience(60));
		run(context);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	is_int(status, 0, "the child is content");
}

struct world {
	struct cow_region *region, *branch;
	struct cow_snapshot *snapshot;
	const unsigned char *view;
};

static struct world make_world(void)
{
	struct cow_region_options options = explicit_options();
	struct world world = { .region = new_region(8) };
	const void *view = NULL;

	fill_all(world.region, 1);
	world.snapshot = take(world.region);
	fill(world.region, 0, 2);
	is_errno(cow_snapshot_branch(world.snapshot, &options, &world.branch), 0, "branch");
	is_errno(cow_snapshot_map(world.snapshot, COW_MAP_POPULATE, &view), 0, "map");
	world.view = view;
	return world;
}

static void free_world(struct world *world)
{
	cow_region_free(world->branch);
	cow_snapshot_unref(world->snapshot);
	cow_region_free(world->region);
}

static int no_range(size_t offset, size_t length, void *context)
{
	(void)offset;
	(void)length;
	(void)context;
	return 0;
}

static void refuse_the_region(struct world *world)
{
	struct cow_region *region = world->region, *many[] = { region };
	struct cow_region_stats stats = COW_REGION_STATS_INIT;
	struct cow_snapshot *snapshot = NULL;
	unsigned char byte = 0;

	must(cow_region_write_begin(region, page_of(region, 0), 1) == -ECHILD);
	cow_region_write_end(region, page_of(region, 0), 1);
	must(cow_region_touch(region, page_of(region, 0), 1) == -ECHILD);
	must(cow_region_write(region, 0, &byte, 1) == -ECHILD);
	must(cow_region_read(region, 0, &byte, 1) == -ECHILD);
	must(cow_region_discard(region, 0, 1) == -ECHILD);
	must(cow_region_arm(region) == -ECHILD);
	must(cow_region_snapshot(region, &snapshot) == -ECHILD);
	must(cow_region_snapshot_many(many, 1, &snapshot) == -ECHILD);
	must(cow_region_rollback(region, world->snapshot) == -ECHILD);
	must(cow_region_merge(region, NULL) == -ECHILD);
	must(cow_region_get_stats(region, &stats) == -ECHILD);
	must(snapshot == NULL);
}

static void refuse_the_snapshot(struct world *world)
{
	struct cow_snapshot_stats stats = COW_SNAPSHOT_STATS_INIT;
	struct cow_region_options options = explicit_options();
	struct cow_region *branch = NULL;
	unsigned char byte = 0;
	const void *view = NULL;

	must(cow_snapshot_read(world->snapshot, 0, &byte, 1) == -ECHILD);
	must(cow_snapshot_map(world->snapshot, 0, &view) == -ECHILD);
	must(cow_snapshot_branch(world->snapshot, &options, &branch) == -ECHILD);
	must(cow_snapshot_diff(world->snapshot, NULL, no_range, NULL) == -ECHILD);
	must(cow_snapshot_get_stats(world->snapshot, &stats) == -ECHILD);
	must(!view && !branch);
	cow_snapshot_unref(world->snapshot);
	cow_region_free(world->branch);
	cow_region_free(world->region);
}

static void use_plain_memory(struct world *world)
{
	must(uniform(page_of(world->region, 0)) == 2 && uniform(page_of(world->region, 7)) == 1);
	memset(page_of(world->region, 0), 77, 8 * PAGE);
	must(uniform(page_of(world->region, 7)) == 77);
}

static void make_its_own(void)
{
	struct cow_region *region = new_region(4);
	struct cow_snapshot *snapshot;

	fill_all(region, 5);
	snapshot = take(region);
	must(fill(region, 1, 6) == 0);
	must(page_in(snapshot, 1) == 5 && live_page(region, 1) == 6);
	must(cow_region_rollback(region, snapshot) == 0);
	must(live_page(region, 1) == 5);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

static bool is_mapped(const void *address)
{
	unsigned char residency;

	return mincore((void *)(uintptr_t)address, PAGE, &residency) == 0;
}

static void everything(void *context)
{
	struct world *world = context;

	use_plain_memory(world);
	refuse_the_region(world);
	refuse_the_snapshot(world);
	must(!is_mapped(world->view));
	make_its_own();
}

TEST(a_child_has_plain_memory_and_nothing_else)
{
	struct world world = make_world();

	in_child(everything, &world);
	is_int(live_page(world.region, 0), 2, "the child's writes are its own");
	is_int(page_in(world.snapshot, 0), 1, "the parent's snapshot");
	is_int(uniform(world.view), 1, "the parent's view");
	is_errno(fill(world.branch, 3, 3), 0, "the parent's branch");
	is_errno(cow_region_rollback(world.region, world.snapshot), 0, "the parent goes on");
	is_int(live_page(world.region, 0), 1, "as before");
	free_world(&world);
}

static void grandchild(void *context)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		everything(context);
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid && status == 0);
}

TEST(a_grandchild_is_a_child)
{
	struct world world = make_world();

	in_child(grandchild, &world);
	free_world(&world);
}

static struct cow_region *of_the_child;

static void childs_region_in_grandchild(void *context)
{
	int status = 0;
	pid_t pid;

	(void)context;
	of_the_child = new_region(1);
	must(fill(of_the_child, 0, 9) == 0);
	pid = fork();
	if (pid == 0) {
		must(fill(of_the_child, 0, 8) == -ECHILD);
		must(uniform(page_of(of_the_child, 0)) == 9);
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid && status == 0);
	must(fill(of_the_child, 0, 7) == 0);
	cow_region_free(of_the_child);
}

TEST(a_childs_region_is_the_childs)
{
	in_child(childs_region_in_grandchild, NULL);
}

static void shared_is_absent(void *context)
{
	struct world *world = context;

	must(!is_mapped(cow_region_get_base(world->region)));
	must(cow_region_touch(world->region, cow_region_get_base(world->region), 1) == -ECHILD);
	make_its_own();
}

TEST(shared_regions_are_absent)
{
	struct cow_region_options options = explicit_options();
	struct world world = { 0 };

	options.flags = COW_REGION_SHARED;
	world.region = new_region_with(2, &options);
	fill_all(world.region, 1);
	in_child(shared_is_absent, &world);
	is_int(uniform(page_of(world.region, 1)), 1, "and here as before");
	cow_region_free(world.region);
}

/* The thread that forks is inside brackets itself: what it holds is not the child's. */
TEST(fork_inside_a_bracket)
{
	struct world world = make_world();

	is_errno(cow_region_write_begin(world.region, page_of(world.region, 1), 1), 0, "a bracket");
	in_child(everything, &world);
	page_of(world.region, 1)[0] = 3;
	cow_region_write_end(world.region, page_of(world.region, 1), 1);
	is_int(page_in(world.snapshot, 1), 1, "the parent's snapshot");
	cow_snapshot_unref(take(world.region));
	free_world(&world);
}

/* --- while other threads are anywhere --- */

static struct {
	struct cow_region *region;
	_Atomic bool go;
	_Atomic unsigned failures;
} busy;

static void *write_on(void *context)
{
	for (unsigned i = 0; busy.go; i++)
		busy.failures += fill(busy.region, (size_t)(uintptr_t)context * 4 + i % 4,
				      (int)i & 127) != 0;
	return NULL;
}

static void *cut_on(void *context)
{
	(void)context;
	while (busy.go) {
		struct cow_snapshot *snapshot = take(busy.region);
		const void *view = NULL;

		busy.failures += cow_snapshot_map(snapshot, 0, &view) != 0;
		busy.failures += uniform(view) < 0;
		busy.failures += page_in(snapshot, 7) < 0;
		cow_snapshot_unref(snapshot);
	}
	return NULL;
}

static void look_around(void *context)
{
	(void)context;
	must(cow_region_touch(busy.region, page_of(busy.region, 0), 1) == -ECHILD);
	memset(page_of(busy.region, 0), 1, 8 * PAGE);
	/* The sanitizer's own allocator is not fit for a child of threads that makes threads. */
#ifdef __SANITIZE_ADDRESS__
	if (TEST_TRAP == COW_TRAP_THREAD)
		return;
#endif
	make_its_own();
}

TEST(fork_while_others_write_cut_and_look)
{
	enum { FORKS = 60 };
	pthread_t threads[3];

	busy.region = new_region(8);
	busy.go = true;
	pthread_create(&threads[0], NULL, write_on, (void *)0);
	pthread_create(&threads[1], NULL, write_on, (void *)1);
	pthread_create(&threads[2], NULL, cut_on, NULL);
	for (unsigned i = 0; i < FORKS; i++)
		in_child(look_around, NULL);
	busy.go = false;
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	is_u64(busy.failures, 0, "the parent's threads");
	cow_region_free(busy.region);
}

TAP_MAIN(CASE(a_child_has_plain_memory_and_nothing_else), CASE(a_grandchild_is_a_child),
	 CASE(a_childs_region_is_the_childs), CASE(shared_regions_are_absent),
	 CASE(fork_inside_a_bracket), CASE(fork_while_others_write_cut_and_look))
