/* SPDX-License-Identifier: MIT */
/*
 * What a container, an administrator or the kernel's limits refuse: userfaultfd, /proc, mappings,
 * descriptors. AUTO finds another way and says so; a trap that was asked for by name is refused
 * with words that help; and nothing is lost half way.
 *
 * Each scene is a child of its own, which refuses itself what the scene is about.
 */
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/api/common.h"

#define CANNOT 77 /* a child's status: the scene is not to be had here */

static void scene(void (*run)(int), int argument, const char *what)
{
	int status = 0;
	pid_t pid = fork();

	if (pid < 0)
		bail("fork: %s", strerror(errno));
	if (pid == 0) {
		alarm(patience(60));
		cow_log_set(note_message, NULL);
		run(argument);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT)
		skip("%s: not to be had here", what);
	else
		is_int(status, 0, "%s", what);
}

static struct cow_region *try_trap(enum cow_trap trap, int expected)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_region *region = NULL;

	options.trap = trap;
	must(cow_region_new(16 * PAGE, &options, &region) == expected);
	must((region != NULL) == (expected == 0));
	return region;
}

static void store(struct cow_region *region, size_t page, unsigned char byte)
{
	*(volatile unsigned char *)page_of(region, page) = byte;
}

/* Stores trap, snapshots hold, views show. */
static void use(struct cow_region *region)
{
	struct cow_snapshot *snapshot;
	const void *view = NULL;

	fill_all(region, 1);
	snapshot = take(region);
	store(region, 3, 2);
	must(page_in(snapshot, 3) == 1 && page_of(region, 3)[0] == 2);
	must(cow_snapshot_map(snapshot, 0, &view) == 0);
	must(uniform((const unsigned char *)view + 3 * PAGE) == 1);
	must(cow_region_rollback(region, snapshot) == 0);
	must(page_of(region, 3)[0] == 1);
	cow_snapshot_unref(snapshot);
}

static enum cow_trap trap_of(struct cow_region *region)
{
	return stats_of(region).trap;
}

/* --- userfaultfd --- */

/* As a container's profile does. */
static void refuse_userfaultfd(int error)
{
	struct sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog filter = { sizeof(program) / sizeof(program[0]), program };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
		_exit(CANNOT);
	must(syscall(SYS_userfaultfd, O_CLOEXEC) == -1 && errno == error);
}

/* Its permissions are all that stands before /dev/userfaultfd. */
static bool device_is_open(void)
{
	int fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* /proc/self stays readable, unlike for a program that merely became somebody else. */
static void give_up_the_device(void)
{
	if (getuid() == 0 &&
	    (setgid(65534) < 0 || setuid(65534) < 0 || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0))
		_exit(CANNOT);
	if (device_is_open())
		_exit(CANNOT);
}

static void device_instead_of_the_call(int error)
{
	struct cow_region *region;

	if (!device_is_open())
		_exit(CANNOT);
	refuse_userfaultfd(error);
	region = try_trap(COW_TRAP_AUTO, 0);
	must(trap_of(region) == COW_TRAP_THREAD);
	use(region);
	cow_region_free(region);
	use(try_trap(COW_TRAP_SIGNAL, 0));
}

static void auto_without_userfaultfd(int error)
{
	struct cow_region *region;

	give_up_the_device();
	refuse_userfaultfd(error);
	region = try_trap(COW_TRAP_AUTO, 0);
	must(trap_of(region) == COW_TRAP_MPROTECT);
	must(strstr(logged.last, "mprotect") && strstr(logged.last, "userfaultfd"));
	use(region);
	cow_region_free(region);
}

static void others_without_userfaultfd(int error)
{
	const enum cow_trap named[] = { COW_TRAP_SIGNAL, COW_TRAP_THREAD };

	give_up_the_device();
	refuse_userfaultfd(error);
	for (unsigned i = 0; i < 2; i++) {
		logged.count = 0;
		try_trap(named[i], -EOPNOTSUPP);
		must(logged.count == 1 && strstr(logged.last, "userfaultfd"));
		must(strstr(logged.last, "COW_TRAP_MPROTECT") && strstr(logged.last, "seccomp"));
	}
	cow_region_free(try_trap(COW_TRAP_EXPLICIT, 0));
	use(try_trap(COW_TRAP_MPROTECT, 0));
}

TEST(userfaultfd_is_refused)
{
	const int errors[] = { EPERM, ENOSYS };

	for (unsigned i = 0; i < 2; i++) {
		scene(auto_without_userfaultfd, errors[i], "AUTO takes mprotect");
		scene(others_without_userfaultfd, errors[i], "what is asked for by name");
	}
}

TEST(the_device_stands_in_for_the_call)
{
	scene(device_instead_of_the_call, EPERM, "/dev/userfaultfd, with EPERM");
	scene(device_instead_of_the_call, ENOSYS, "/dev/userfaultfd, with ENOSYS");
}

/* --- a program that is no longer root --- */

static void become_nobody(void)
{
	if (getuid() != 0 || setgid(65534) < 0 || setuid(65534) < 0)
		_exit(CANNOT);
}

/* /proc/self then still belongs to root. */
static void nobody_without_proc(int unused)
{
	struct cow_region *region;

	(void)unused;
	become_nobody();
	if (open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC) >= 0)
		_exit(CANNOT);
	region = try_trap(COW_TRAP_AUTO, 0);
	must(trap_of(region) == COW_TRAP_MPROTECT && strstr(logged.last, "pagemap"));
	use(region);
	try_trap(COW_TRAP_SIGNAL, -EOPNOTSUPP);
	must(strstr(logged.last, "pagemap"));
}

static bool root_alone_is_served(void)
{
	char value = '1';
	int fd = open("/proc/sys/vm/unprivileged_userfaultfd", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, &value, 1) != 1)
		return false;
	close(fd);
	return value == '0';
}

static void nobody_with_proc(int unused)
{
	struct cow_region *region;

	(void)unused;
	if (!root_alone_is_served())
		_exit(CANNOT);
	become_nobody();
	must(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
	region = try_trap(COW_TRAP_AUTO, 0);
	must(trap_of(region) == COW_TRAP_SIGNAL);
	use(region);
}

/* Stores are served by threads all the same; the kernel's writes are not, but for brackets. */
static void thread_trap_of_nobody(int unused)
{
	struct cow_snapshot *snapshot;
	struct cow_region *region;
	int ends[2];

	(void)unused;
	if (!root_alone_is_served())
		_exit(CANNOT);
	become_nobody();
	must(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
	region = try_trap(COW_TRAP_THREAD, 0);
	use(region);
	fill_all(region, 1);
	snapshot = take(region);
	must(pipe2(ends, O_CLOEXEC) == 0 && write(ends[1], "abc", 3) == 3);
	must(read(ends[0], page_of(region, 5), 3) == -1 && errno == EFAULT);
	must(cow_region_write_begin(region, page_of(region, 5), 3) == 0);
	must(read(ends[0], page_of(region, 5), 3) == 3);
	cow_region_write_end(region, page_of(region, 5), 3);
	must(page_in(snapshot, 5) == 1 && memcmp(page_of(region, 5), "abc", 3) == 0);
}

TEST(a_program_that_gave_up_its_rights)
{
	scene(nobody_without_proc, 0, "AUTO where /proc is root's");
	scene(nobody_with_proc, 0, "AUTO where it is readable");
	scene(thread_trap_of_nobody, 0, "the thread trap without the kernel's faults");
}

/* --- descriptors --- */

static void no_descriptors(int trap)
{
	struct rlimit none = { 0, 0 };

	must(setrlimit(RLIMIT_NOFILE, &none) == 0);
	try_trap((enum cow_trap)trap, -EMFILE);
}

TEST(no_descriptors_are_left)
{
	scene(no_descriptors, COW_TRAP_SIGNAL, "the signal trap");
	scene(no_descriptors, COW_TRAP_THREAD, "the thread trap");
}

/* --- mappings --- */

static size_t mappings_at_most(void)
{
	char text[32] = "";
	int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (n <= 0 || strtoul(text, NULL, 10) > 300000)
		_exit(CANNOT);
	close(fd);
	return strtoul(text, NULL, 10);
}

/* Every second page is read-only, and so a mapping to the kernel: until but so many are left. */
static void use_up_mappings(size_t left)
{
	size_t most = mappings_at_most();
	unsigned char *memory;
	size_t at = 1;

	memory = mmap(NULL, (most + 100) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(memory != MAP_FAILED);
	while (at < most && mprotect(memory + at * PAGE, PAGE, PROT_READ) == 0)
		at += 2;
	must(at < most);
	for (; left >= 2; left -= 2)
		must(mprotect(memory + (at -= 2) * PAGE, PAGE, PROT_NONE) == 0);
}

#define CROWDED 1200u

/* Each page has a byte of its own, and a new one after the cut. */
static void check_crowded(struct cow_region *region, struct cow_snapshot *older,
			  struct cow_snapshot *newer)
{
	for (size_t page = 0; page < CROWDED; page++) {
		bool written = page % 3 == 1;

		must(page_in(older, page) == (int)(page % 100));
		must(page_of(region, page)[0] == (written ? 200 : page % 100));
		must(page_of(region, page)[1] == page % 100);
		if (newer)
			must(page_in(newer, page) == (written ? -1 : (int)(page % 100)));
	}
}

static void scattered_writes(int left)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *region;
	struct cow_snapshot *older, *newer;

	options.block = PAGE;
	region = new_region_with(CROWDED, &options);
	for (size_t page = 0; page < CROWDED; page++)
		must(fill(region, page, (int)(page % 100)) == 0);
	older = take(region);
	use_up_mappings((size_t)left);
	for (size_t i = 0, page = 1; i < CROWDED / 3; i++, page = (page + 3 * 7) % CROWDED)
		store(region, page, 200);
	check_crowded(region, older, NULL);
	newer = take(region);
	check_crowded(region, older, newer);
	store(region, 2, 201);
	must(page_in(newer, 2) == 2 && page_in(older, 2) == 2);
}

/* The kernel's write in a bracket cannot be told to come again. Where not even the copy finds a
 * mapping the bracket is refused. */
static void bracket_when_crowded(int left)
{
	struct cow_region *region = new_region(64);
	struct cow_snapshot *snapshot;
	int ends[2], r;

	fill_all(region, 1);
	snapshot = take(region);
	use_up_mappings((size_t)left);
	must(pipe2(ends, O_CLOEXEC) == 0 && write(ends[1], "abc", 3) == 3);
	r = cow_region_write_begin(region, page_of(region, 33), 3);
	must(r == 0 || (r == -ENOMEM && left == 0));
	if (r == 0) {
		must(read(ends[0], page_of(region, 33), 3) == 3);
		cow_region_write_end(region, page_of(region, 33), 3);
	}
	must(page_in(snapshot, 33) == 1 && page_of(region, 33)[0] == (r == 0 ? 'a' : 1));
}

static void regions_when_crowded(int left)
{
	struct cow_region *region = NULL;
	struct cow_region_options options = explicit_options();
	int r;

	use_up_mappings((size_t)left);
	r = cow_region_new(16 * PAGE, &options, &region);
	must(r == -ENOMEM || r == 0);
	must((r == 0) == (region != NULL));
	cow_region_free(region);
}

/* What libcow(7) warns of: more runs of pages than the kernel has mappings. */
static void more_runs_than_mappings(int unused)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *region;
	size_t runs = mappings_at_most() / 2 + 3000;
	struct cow_snapshot *snapshot, *newer;

	(void)unused;
	options.block = PAGE;
	region = new_region_with(2 * runs, &options);
	store(region, 0, 1);
	snapshot = take(region);
	for (size_t i = 0; i < runs; i++)
		store(region, 2 * i, 2);
	newer = take(region);
	for (size_t i = 0; i < runs; i += 100) {
		must(page_in(snapshot, 2 * i) == (i == 0 ? -1 : 0));
		must(page_in(snapshot, 2 * i + 1) == 0 && page_in(newer, 2 * i + 1) == 0);
		must(page_of(region, 2 * i)[0] == 2 && page_in(newer, 2 * i) == -1);
	}
}

TEST(no_mappings_are_left)
{
	if (TEST_TRAP == COW_TRAP_EXPLICIT) {
		skip("the explicit trap sees brackets only");
		return;
	}
	if (SANITIZED) {
		skip("a sanitizer needs mappings itself");
		return;
	}
	scene(scattered_writes, 200, "scattered writes, with 200 mappings left");
	scene(scattered_writes, 20, "scattered writes, with 20 left");
	scene(bracket_when_crowded, 20, "a bracket for the kernel's write");
	scene(bracket_when_crowded, 0, "a bracket where there is no room for a copy");
	for (int left = 0; left <= 24; left += 4)
		scene(regions_when_crowded, left, "making regions");
	scene(more_runs_than_mappings, 0, "more runs of written pages than mappings");
}

TAP_MAIN(CASE(userfaultfd_is_refused), CASE(the_device_stands_in_for_the_call),
	 CASE(a_program_that_gave_up_its_rights), CASE(no_descriptors_are_left),
	 CASE(no_mappings_are_left))
