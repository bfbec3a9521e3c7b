/* SPDX-License-Identifier: MIT */
/*
 * fork(): the child has the region as plain memory and is refused everything else; the parent does
 * not notice. Children say by their exit status which line found something wrong.
 */
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/api/common.h"

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

/* All that the library shares between regions is in use somewhere. */
static void *make_and_free(void *context)
{
	(void)context;
	while (busy.go) {
		struct cow_region *region = new_region(2);
		struct cow_snapshot *snapshot;

		busy.failures += fill(region, 0, 1) != 0;
		snapshot = take(region);
		busy.failures += fill(region, 0, 2) != 0;
		cow_snapshot_unref(snapshot);
		cow_region_free(region);
	}
	return NULL;
}

static void make_one(void *context)
{
	(void)context;
#ifdef __SANITIZE_ADDRESS__
	if (TEST_TRAP == COW_TRAP_THREAD)
		return;
#endif
	make_its_own();
}

TEST(fork_while_others_make_and_free_regions)
{
	enum { FORKS = 1000, THREADS = 3 };
	pthread_t threads[THREADS];

	busy.go = true;
	for (unsigned i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, make_and_free, NULL);
	for (unsigned i = 0; i < FORKS && tap.failed == 0; i++)
		in_child(make_one, NULL);
	busy.go = false;
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	is_u64(busy.failures, 0, "the parent's threads");
}

/* --- other ways to start a program --- */

static int spawn(char *const arguments[])
{
	pid_t pid = 0;
	int status = -1, r = posix_spawn(&pid, arguments[0], NULL, NULL, arguments, environ);

	if (r == 0)
		waitpid(pid, &status, 0);
	return r ? -r : status;
}

static int run_true(void)
{
	static char program[] = "/bin/true";
	char *const arguments[] = { program, NULL };

	return spawn(arguments);
}

/* A child that borrows the memory: what it stores is the parent's, and traps like it. */
static int vfork_and_store(unsigned char *to)
{
	static char program[] = "/bin/true";
	char *const arguments[] = { program, NULL };
	int status = -1;
	pid_t pid;

	/* NOLINTNEXTLINE(clang-analyzer-security.insecureAPI.vfork): that is what is tested */
	pid = vfork();
	if (pid == 0) {
		*(volatile unsigned char *)to = 9;
		execv(arguments[0], arguments);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	return status;
}

TEST(vfork_posix_spawn_and_system)
{
	struct world world = make_world();
	struct cow_snapshot *snapshot;
	FILE *pipe;
	char line[16] = "";

	is_int(run_true(), 0, "posix_spawn");
	is_int(system("true"), 0, "system");
	pipe = popen("echo heard", "re");
	ok(pipe && fgets(line, sizeof(line), pipe), "popen");
	is_str(line, "heard\n", "what it says");
	pclose(pipe);
	fill(world.region, 5, 4);
	snapshot = take(world.region);
	if (TEST_TRAP == COW_TRAP_EXPLICIT)
		is_errno(cow_region_touch(world.region, page_of(world.region, 5), 1), 0, "touch");
	is_int(vfork_and_store(page_of(world.region, 5)), 0, "vfork");
	is_int(page_of(world.region, 5)[0], 9, "its store is the parent's");
	is_int(page_in(snapshot, 5), 4, "and not the snapshot's");
	is_int(page_in(world.snapshot, 5), 1, "nor the older one's");
	cow_snapshot_unref(snapshot);
	free_world(&world);
}

static void *spawn_on(void *context)
{
	_Atomic unsigned *started = context;

	while (busy.go) {
		busy.failures += run_true() != 0;
		++*started;
	}
	return NULL;
}

/* Programs are started from threads, with snapshots alive, while others write and cut. */
TEST(spawn_while_others_write_cut_and_look)
{
	enum { SPAWNS = 40, THREADS = 5 };
	_Atomic unsigned started = 0;
	pthread_t threads[THREADS];
	struct cow_snapshot *held;

	memset(&busy, 0, sizeof(busy));
	busy.region = new_region(8);
	fill_all(busy.region, 3);
	held = take(busy.region);
	busy.go = true;
	pthread_create(&threads[0], NULL, write_on, (void *)0);
	pthread_create(&threads[1], NULL, write_on, (void *)1);
	pthread_create(&threads[2], NULL, cut_on, NULL);
	pthread_create(&threads[3], NULL, spawn_on, &started);
	pthread_create(&threads[4], NULL, spawn_on, &started);
	while (started < SPAWNS)
		usleep(1000);
	busy.go = false;
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	is_u64(busy.failures, 0, "what failed");
	for (size_t page = 0; page < 8; page++)
		is_int(page_in(held, page), 3, "the snapshot from before, page %zu", page);
	cow_snapshot_unref(held);
	cow_region_free(busy.region);
}

/* Children that are forked by threads while snapshots live: each finds plain memory, whole pages in
 * it, and leaves the parent's alone. */
static void *fork_on(void *context)
{
	_Atomic unsigned *started = context;

	while (busy.go) {
		int status = -1;
		pid_t pid = fork();

		if (pid == 0) {
			must(uniform(page_of(busy.region, 7)) == 3);
			memset(page_of(busy.region, 0), 77, 8 * PAGE);
			must(cow_region_arm(busy.region) == -ECHILD);
			_exit(0);
		}
		busy.failures += pid < 0 || waitpid(pid, &status, 0) != pid || status != 0;
		++*started;
	}
	return NULL;
}

/* Stores without brackets, but under the explicit trap: pages 0 to 3 are this thread's. */
static void *store_on(void *context)
{
	(void)context;
	for (unsigned i = 0; busy.go; i++)
		if (TEST_TRAP == COW_TRAP_EXPLICIT)
			busy.failures += fill(busy.region, i % 4, (int)i & 127) != 0;
		else
			memset(page_of(busy.region, i % 4), (int)i & 127, PAGE);
	return NULL;
}

TEST(threads_that_fork_with_snapshots_alive)
{
	enum { FORKS = 60, THREADS = 3 };
	_Atomic unsigned started = 0;
	struct cow_snapshot *held[8] = { NULL };
	pthread_t threads[THREADS];

	memset(&busy, 0, sizeof(busy));
	busy.region = new_region(8);
	fill_all(busy.region, 3);
	busy.go = true;
	pthread_create(&threads[0], NULL, store_on, NULL);
	pthread_create(&threads[1], NULL, fork_on, &started);
	pthread_create(&threads[2], NULL, fork_on, &started);
	for (unsigned i = 0; started < FORKS; i++) {
		cow_snapshot_unref(held[i % 8]);
		held[i % 8] = take(busy.region);
		for (size_t page = 4; page < 8; page++)
			busy.failures += page_in(held[i % 8], page) != 3;
		usleep(200);
	}
	busy.go = false;
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	is_u64(busy.failures, 0, "what failed");
	for (unsigned i = 0; i < 8; i++)
		cow_snapshot_unref(held[i]);
	cow_region_free(busy.region);
}

TAP_MAIN(CASE(a_child_has_plain_memory_and_nothing_else), CASE(a_grandchild_is_a_child),
	 CASE(a_childs_region_is_the_childs), CASE(shared_regions_are_absent),
	 CASE(fork_inside_a_bracket), CASE(fork_while_others_write_cut_and_look),
	 CASE(fork_while_others_make_and_free_regions), CASE(vfork_posix_spawn_and_system),
	 CASE(spawn_while_others_write_cut_and_look), CASE(threads_that_fork_with_snapshots_alive))
