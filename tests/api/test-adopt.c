/* SPDX-License-Identifier: MIT */
/*
 * Memory that the program mapped itself, under each trap: that it cannot become two regions, whose
 * traps would fight over it; that what cannot be trapped is refused at once; that a child of fork()
 * may adopt what its parent had adopted.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/api/common.h"

#define PAGES 8

static unsigned char *map(void)
{
	unsigned char *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		bail("mmap: %s", strerror(errno));
	memset(memory, 1, PAGES * PAGE);
	return memory;
}

static int adopt_as(enum cow_trap trap, unsigned char *memory, size_t pages,
		    struct cow_region **ret_region)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;

	options.trap = trap;
	return cow_region_adopt(memory, pages * PAGE, &options, ret_region);
}

static int adopt(unsigned char *memory, size_t pages, struct cow_region **ret_region)
{
	return adopt_as(TEST_TRAP, memory, pages, ret_region);
}

/* As a program would under the trap. */
static void store(struct cow_region *region, unsigned char *at, unsigned char byte)
{
	bool bracket = TEST_TRAP == COW_TRAP_EXPLICIT;

	if (bracket && cow_region_write_begin(region, at, 1) < 0)
		bail("a bracket without a limit fails");
	*at = byte;
	if (bracket)
		cow_region_write_end(region, at, 1);
}

TEST(no_memory_is_two_regions)
{
	unsigned char *memory = map();
	struct cow_region *region = NULL, *other = NULL;
	struct cow_snapshot *snapshot;

	cow_log_set(note_message, NULL);
	is_errno(adopt(memory, PAGES / 2, &region), 0, "the first half");
	logged.count = 0;
	for (int trap = COW_TRAP_AUTO; trap <= COW_TRAP_EXPLICIT; trap++)
		is_errno(adopt_as((enum cow_trap)trap, memory, PAGES, &other), -EBUSY,
			 "all of it, trap %d", trap);
	is_errno(adopt(memory + PAGE, 1, &other), -EBUSY, "a page of it");
	ok(!other && strstr(logged.last, "is a region already"), "it says why: %s", logged.last);
	is_errno(adopt(memory + PAGES / 2 * PAGE, PAGES / 2, &other), 0, "the other half");
	snapshot = take(region);
	store(region, memory, 2);
	is_int(page_in(snapshot, 0), 1, "kept");
	is_errno(adopt(memory, 1, &other), -EBUSY, "after a snapshot");
	cow_region_free(region);
	is_errno(adopt(memory, 1, &region), -EBUSY, "freed, with a snapshot of it held");
	cow_snapshot_unref(snapshot);
	is_errno(adopt(memory, PAGES / 2, &region), 0, "the last one gone");
	cow_region_free(other);
	cow_region_free(region);
	cow_log_set(NULL, NULL);
	munmap(memory, PAGES * PAGE);
}

TEST(a_mapped_file)
{
	bool trapped = TEST_TRAP == COW_TRAP_SIGNAL || TEST_TRAP == COW_TRAP_THREAD;
	int file = open(getenv("BUILD_ROOT") ?: ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	struct cow_region *region = NULL;
	struct cow_snapshot *snapshot;
	unsigned char *memory;

	if (file < 0 || ftruncate(file, PAGES * PAGE) < 0) {
		skip("no file of its own without a name: %s", strerror(errno));
		return;
	}
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	cow_log_set(note_message, NULL);
	logged.count = 0;
	if (is_errno(adopt(memory, PAGES, &region), trapped ? -EINVAL : 0, "adopt") && trapped)
		ok(strstr(logged.last, "COW_TRAP_MPROTECT"), "what to do: %s", logged.last);
	cow_log_set(NULL, NULL);
	if (region) {
		snapshot = take(region);
		store(region, memory, 1);
		is_int(page_in(snapshot, 0), 0, "its past is kept");
		cow_snapshot_unref(snapshot);
	}
	cow_region_free(region);
	munmap(memory, PAGES * PAGE);
	close(file);
}

/* In a child; 0: all is well, else the line. */
static int try_in_child(unsigned char *memory)
{
	struct cow_region *region;
	struct cow_snapshot *snapshot;

	if (adopt(memory, PAGES, &region) < 0)
		return __LINE__;
	if (cow_region_snapshot(region, &snapshot) < 0)
		return __LINE__;
	for (size_t page = 0; page < PAGES; page++)
		store(region, memory + page * PAGE, 9);
	for (size_t page = 0; page < PAGES; page++)
		if (page_in(snapshot, page) < 0)
			return __LINE__;
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	return memory[PAGE] == 9 ? 0 : __LINE__;
}

TEST(a_child_adopts_what_it_inherited)
{
	unsigned char *memory = map();
	struct cow_region *region = NULL;
	struct cow_snapshot *snapshot;
	int status = 0;
	pid_t pid;

	is_errno(adopt(memory, PAGES, &region), 0, "adopt");
	snapshot = take(region);
	for (size_t i = 0; i < PAGE; i++)
		store(region, memory + i, 2);
	pid = fork();
	if (pid == 0) {
		alarm(patience(30));
		_exit(try_in_child(memory));
	}
	waitpid(pid, &status, 0);
	is_int(status, 0, "the child's status");
	store(region, memory + PAGE, 3);
	is_int(page_in(snapshot, 1), 1, "the parent's past is kept");
	is_int(page_in(snapshot, 0), 1, "all of it");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	munmap(memory, PAGES * PAGE);
}

/* It has the descriptors, too, until it ends or executes something else. */
TEST(a_child_that_lives_on)
{
	unsigned char *memory = map();
	struct cow_region *region = NULL;
	struct cow_snapshot *snapshot;
	int hold[2];
	pid_t pid;

	is_errno(adopt(memory, PAGES, &region), 0, "adopt");
	snapshot = take(region);
	if (pipe(hold) < 0)
		bail("pipe: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		unsigned char byte;

		close(hold[1]);
		_exit(read(hold[0], &byte, 1) == 0 ? 0 : 1);
	}
	close(hold[0]);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	alarm(patience(30));
	memset(memory, 4, PAGES * PAGE); /* waits for nobody, and is not killed */
	is_errno(adopt(memory, PAGES, &region), 0, "again");
	snapshot = take(region);
	store(region, memory, 5);
	is_int(page_in(snapshot, 0), 4, "kept");
	alarm(0);
	close(hold[1]);
	waitpid(pid, NULL, 0);
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	munmap(memory, PAGES * PAGE);
}

TAP_MAIN(CASE(no_memory_is_two_regions), CASE(a_mapped_file),
	 CASE(a_child_adopts_what_it_inherited), CASE(a_child_that_lives_on))
