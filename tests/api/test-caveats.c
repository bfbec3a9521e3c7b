/* SPDX-License-Identifier: MIT */
/*
 * The caveats of libcow(7), shown: who writes past every trap, what that does to a snapshot, and
 * that COW_REGION_CHECK finds it. And the ways that look alike, but are seen.
 *
 * Model
 * - A region of pages full of ones, a snapshot, then somebody writes a nine. Where the trap sees it
 *   the snapshot still reads ones. Where it does not, the snapshot reads what the live region does:
 *   that is what the caveat warns of, and the test fails should it no longer be so, since then the
 *   manual is wrong.
 * - What is not noticed must be found by a check: when asked, at the next cut, or when the page is
 *   opened; told to the log with its offset, and counted once.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/api/common.h"

#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

#define PAGES  8u
#define TARGET 3u /* the page that is written */

static struct {
	struct cow_region *region;
	struct cow_snapshot *snapshot;
	unsigned char *target;
} w;

static bool by_uffd(void)
{
	return TEST_TRAP == COW_TRAP_SIGNAL || TEST_TRAP == COW_TRAP_THREAD;
}

static void set_up(uint32_t flags)
{
	struct cow_region_options options = explicit_options();

	options.flags = flags | COW_REGION_CHECK;
	options.block = PAGE;
	w.region = new_region_with(PAGES, &options);
	w.target = page_of(w.region, TARGET);
	fill_all(w.region, 1);
	logged.count = 0;
	cow_log_set(note_message, NULL);
}

static void cut(void)
{
	w.snapshot = take(w.region);
}

static void tear_down(void)
{
	cow_log_set(NULL, NULL);
	cow_snapshot_unref(w.snapshot);
	cow_region_free(w.region);
	w.snapshot = NULL;
}

static uint64_t found(void)
{
	return stats_of(w.region).bypassed_pages;
}

static void expect_seen(const char *what)
{
	uint64_t pages = 99;

	is_int(page_in(w.snapshot, TARGET), 1, "%s: the snapshot", what);
	ok(w.target[7] == 9, "%s: the live region", what);
	is_errno(cow_region_check(w.region, &pages), 0, "check");
	is_u64(pages + found(), 0, "%s: nothing to be found", what);
}

/* The snapshot reads the nine as well. */
static void expect_unseen(const char *what)
{
	char offset[32];
	uint64_t pages = 0;

	snprintf(offset, sizeof(offset), "%#zx", TARGET * PAGE);
	is_int(page_in(w.snapshot, TARGET), -1, "%s: the snapshot changes, as libcow(7) says",
	       what);
	is_errno(cow_region_check(w.region, &pages), 0, "check");
	is_u64(pages, 1, "%s: the check finds it", what);
	ok(logged.count == 1 && strstr(logged.last, offset), "%s: and tells the log where: %s",
	   what, logged.last);
	is_errno(cow_region_check(w.region, &pages), 0, "check again");
	is_u64(pages, 0, "%s: once", what);
	is_u64(found(), 1, "%s: counted", what);
}

/* --- what finds it --- */

/* A store that nothing notices, under any trap: through a second mapping. */
static unsigned char *alias;

static void set_up_alias(void)
{
	char path[64] = "";

	set_up(COW_REGION_SHARED);
	for (int fd = 0; fd < 64 && !alias; fd++) {
		char target[64] = "";

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (readlink(path, target, sizeof(target) - 1) > 0 &&
		    strstr(target, "memfd:cow-region"))
			alias = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	}
	if (!alias || alias == MAP_FAILED)
		bail("the region's memfd is not found");
	alias += TARGET * PAGE;
}

static void tear_down_alias(void)
{
	munmap(alias - TARGET * PAGE, PAGES * PAGE);
	alias = NULL;
	tear_down();
}

TEST(aliases_are_not_seen)
{
	set_up_alias();
	cut();
	alias[7] = 9;
	expect_unseen("a second mapping of the memfd");
	tear_down_alias();
}

TEST(a_cut_finds_it)
{
	set_up_alias();
	cut();
	alias[7] = 9;
	is_u64(found(), 0, "nobody has looked yet");
	cow_snapshot_unref(take(w.region));
	is_u64(found(), 1, "found by the next cut");
	ok(logged.count == 1, "and said");
	tear_down_alias();
}

TEST(opening_the_page_finds_it)
{
	set_up_alias();
	cut();
	alias[7] = 9;
	is_errno(fill(w.region, TARGET, 2), 0, "a write in the regular way");
	is_u64(found(), 1, "found when the page was opened");
	ok(logged.count == 0, "a trap says nothing");
	cow_snapshot_unref(take(w.region));
	ok(logged.count == 1, "the next call does");
	is_u64(found(), 1, "and it counts once");
	tear_down_alias();
}

static void write_as_usual(struct cow_region *region, unsigned round)
{
	for (size_t page = 0; page < PAGES; page++) {
		unsigned char *at = page_of(region, page);

		if (TEST_TRAP == COW_TRAP_EXPLICIT && cow_region_write_begin(region, at, PAGE) < 0)
			return;
		at[round % PAGE] = (unsigned char)round;
		if (TEST_TRAP == COW_TRAP_EXPLICIT)
			cow_region_write_end(region, at, PAGE);
	}
}

static _Atomic bool go;

static void *write_on(void *context)
{
	for (unsigned i = 0; go; i++)
		write_as_usual(context, i);
	return NULL;
}

/* Everything in order: nothing may be found, however writers, cuts and checks fall together. */
TEST(no_false_alarms)
{
	struct cow_snapshot *first;
	uint64_t pages = 0, sum = 0;
	pthread_t thread;

	set_up(0);
	first = take(w.region);
	go = true;
	pthread_create(&thread, NULL, write_on, w.region);
	for (unsigned i = 0; i < 300; i++) {
		cow_snapshot_unref(take(w.region));
		if (i % 3 == 0)
			is_errno(cow_region_arm(w.region), 0, "arm");
		is_errno(cow_region_check(w.region, &pages), 0, "check");
		sum += pages;
	}
	go = false;
	pthread_join(thread, NULL);
	is_errno(cow_region_rollback(w.region, first), 0, "rollback");
	is_errno(cow_region_discard(w.region, 0, 2 * PAGE), 0, "discard");
	cow_snapshot_unref(take(w.region));
	is_u64(sum + found() + logged.count, 0, "pages found");
	cow_snapshot_unref(first);
	tear_down();
}

/* Of which most was never opened: it is read from the snapshot. */
TEST(branches_are_looked_at_as_well)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *branch = NULL;
	uint64_t pages = 99;

	set_up(0);
	cut();
	options.flags = COW_REGION_CHECK;
	is_errno(cow_snapshot_branch(w.snapshot, &options, &branch), 0, "branch");
	is_int(live_page(branch, TARGET), 1, "the branch begins as the snapshot");
	is_int(fill(branch, TARGET + 1, 5), 0, "write");
	is_int(live_page(branch, TARGET + 1), 5, "what was written");
	is_int(live_page(branch, TARGET), 1, "the page beside it");
	is_errno(cow_region_check(branch, &pages), 0, "check");
	is_u64(pages, 0, "nothing to be found");
	cow_region_free(branch);
	tear_down();
}

TEST(only_where_it_was_asked_for)
{
	struct cow_region *region = new_region(1);

	is_errno(cow_region_check(region, NULL), getenv("COW_CHECK") ? 0 : -EOPNOTSUPP, "check");
	cow_region_free(region);
	setenv("COW_CHECK", "1", 1);
	region = new_region(1);
	is_errno(cow_region_check(region, NULL), 0, "by the environment");
	cow_region_free(region);
	unsetenv("COW_CHECK");
}

/* What was there before the first cut counts, too. */
TEST(adopted_memory)
{
	struct cow_region_options options = explicit_options();
	unsigned char *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int self = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	const unsigned char nine = 9;

	memset(memory, 1, PAGES * PAGE);
	options.flags = COW_REGION_CHECK;
	is_errno(cow_region_adopt(memory, PAGES * PAGE, &options, &w.region), 0, "adopt");
	cut();
	if (pwrite(self, &nine, 1, (off_t)(uintptr_t)(memory + TARGET * PAGE)) == 1) {
		bool seen = page_in(w.snapshot, TARGET) == 1;
		uint64_t pages = 99;

		is_errno(cow_region_check(w.region, &pages), 0, "check");
		is_u64(pages, seen ? 0 : 1, "found where it was not seen");
	} else {
		ok(by_uffd() && errno == EIO, "/proc/self/mem refuses: %s", strerror(errno));
	}
	close(self);
	cow_snapshot_unref(w.snapshot);
	cow_region_free(w.region);
	w.snapshot = NULL;
	munmap(memory, PAGES * PAGE);
}

/* --- pinned pages --- */

#ifdef HAVE_LIBURING
static void read_into_pinned(struct io_uring *ring, int file)
{
	struct io_uring_sqe *entry = io_uring_get_sqe(ring);
	struct io_uring_cqe *completion;

	io_uring_prep_read_fixed(entry, file, w.target, PAGE, 0, 0);
	is_int(io_uring_submit_and_wait(ring, 1), 1, "submit");
	is_errno(io_uring_wait_cqe(ring, &completion), 0, "wait");
	is_int(completion->res, (int)PAGE, "a page is read");
	io_uring_cqe_seen(ring, completion);
}

static int file_of_nines(void)
{
	unsigned char nines[PAGE];
	int file = memfd_create("nines", MFD_CLOEXEC);

	memset(nines, 9, sizeof(nines));
	nines[0] = 8; /* not uniform */
	if (pwrite(file, nines, sizeof(nines), 0) != (ssize_t)sizeof(nines))
		bail("a file: %s", strerror(errno));
	return file;
}

/* A buffer that is pinned before the cut, then the kernel reads a file into it. */
static void read_by_ring(void (*read)(struct io_uring *ring, int file))
{
	struct io_uring ring;
	int r = io_uring_queue_init(4, &ring, 0), file;
	struct iovec buffer;

	if (r < 0) {
		skip("io_uring: %s", strerror(-r));
		return;
	}
	file = file_of_nines();
	set_up(0);
	buffer = (struct iovec){ w.target, PAGE };
	is_errno(io_uring_register_buffers(&ring, &buffer, 1), 0, "pinned before the cut");
	cut();
	read(&ring, file);
	io_uring_unregister_buffers(&ring);
	tear_down();
	close(file);
	io_uring_queue_exit(&ring);
}

static void read_bare(struct io_uring *ring, int file)
{
	read_into_pinned(ring, file);
	expect_unseen("a registered buffer");
}

static void read_in_bracket(struct io_uring *ring, int file)
{
	is_errno(cow_region_write_begin(w.region, w.target, PAGE), 0, "begin");
	read_into_pinned(ring, file);
	cow_region_write_end(w.region, w.target, PAGE);
	expect_seen("a registered buffer in a bracket");
}
#endif

TEST(pinned_pages_are_not_seen)
{
#ifdef HAVE_LIBURING
	read_by_ring(read_bare);
#else
	skip("built without liburing");
#endif
}

/* The way out: open the page before the kernel writes it. A bracket around the read does. */
TEST(pinned_pages_in_a_bracket)
{
#ifdef HAVE_LIBURING
	read_by_ring(read_in_bracket);
#else
	skip("built without liburing");
#endif
}

/* --- memory that is replaced --- */

/* The contents go, and with them what the snapshots read: use cow_region_discard(). */
TEST(madvise_dontneed_is_not_seen)
{
	uint64_t pages = 0;

	set_up(0);
	cut();
	is_int(madvise(w.target, PAGE, MADV_DONTNEED), 0, "madvise");
	is_int(page_in(w.snapshot, TARGET), 0, "the snapshot has lost the page, as libcow(7) says");
	is_errno(cow_region_check(w.region, &pages), 0, "check");
	is_u64(pages, 1, "the check finds it");
	tear_down();
}

TEST(discard_is_what_to_use)
{
	uint64_t pages = 99;

	set_up(0);
	cut();
	is_errno(cow_region_discard(w.region, TARGET * PAGE, PAGE), 0, "discard");
	is_int(page_in(w.snapshot, TARGET), 1, "the snapshot");
	is_int(live_page(w.region, TARGET), 0, "the live region");
	is_errno(cow_region_check(w.region, &pages), 0, "check");
	is_u64(pages, 0, "nothing to be found");
	tear_down();
}

/* The page moves away, protection and all; another one comes in its place. In a child: the region
 * is beyond help afterwards. */
static int move_a_page(void)
{
	unsigned char *elsewhere, *fresh;
	uint64_t pages = 0;

	cut();
	elsewhere = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mremap(w.target, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere) != elsewhere)
		return 2;
	fresh = mmap(w.target, PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (fresh != w.target || elsewhere[0] != 1)
		return 3;
	*(volatile unsigned char *)(w.target + 7) = 9;
	if (page_in(w.snapshot, TARGET) == 1)
		return 4; /* it is seen: libcow(7) is wrong */
	return cow_region_check(w.region, &pages) == 0 && pages == 1 ? 0 : 5;
}

TEST(mremap_is_not_seen)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		set_up(0);
		_exit(move_a_page());
	}
	waitpid(pid, &status, 0);
	is_int(status, 0, "what is put in the page's place is written unseen, and found");
}

/* --- by other ways in --- */

/* The kernel writes as it does for a debugger: past the page's protection against writing, and not
 * past userfaultfd's, which then refuses, or is served. */
TEST(writes_through_proc_self_mem)
{
	int self = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	const unsigned char nine = 9;
	ssize_t n;

	set_up(0);
	cut();
	n = pwrite(self, &nine, 1, (off_t)(uintptr_t)(w.target + 7));
	if (n == 1 && by_uffd())
		expect_seen("served by the trap");
	else if (n == 1)
		expect_unseen("/proc/self/mem");
	else
		ok(errno == EIO && by_uffd() && w.target[7] == 1, "refused: %s", strerror(errno));
	close(self);
	tear_down();
}

/* A debugger's write: by a process that traces this one. */
static int poke(pid_t pid, unsigned char *address)
{
	long word;
	int status;

	if (ptrace(PTRACE_ATTACH, pid, NULL, NULL) < 0 || waitpid(pid, &status, __WALL) != pid)
		return 77;
	errno = 0;
	word = ptrace(PTRACE_PEEKDATA, pid, address, NULL);
	if (errno != 0)
		return 3;
	word = (word & ~255l) | 9;
	if (ptrace(PTRACE_POKEDATA, pid, address, word) < 0)
		return errno == EIO ? 4 : 5;
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
	return 0;
}

/* It stops all threads of ours that it attaches to: only this one, so that the handlers go on. */
TEST(writes_by_a_debugger)
{
	int status = 0;
	pid_t parent = getpid(), pid;

	set_up(0);
	cut();
	pid = fork();
	if (pid == 0) {
		alarm(20);
		_exit(poke(parent, w.target + 7));
	}
	/* Attaching interrupts the wait. */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip("ptrace is forbidden");
	else if (WIFEXITED(status) && WEXITSTATUS(status) == 4)
		ok(by_uffd() && w.target[7] == 1, "refused");
	else if (is_int(status, 0, "the debugger is content") && by_uffd())
		expect_seen("served by the trap");
	else
		expect_unseen("ptrace");
	tear_down();
}

/* --- the explicit trap: a store without its bracket --- */

TEST(stores_without_a_bracket)
{
	set_up(0);
	cut();
	*(volatile unsigned char *)(w.target + 7) = 9;
	if (TEST_TRAP == COW_TRAP_EXPLICIT)
		expect_unseen("no bracket");
	else
		expect_seen("a trap needs none");
	tear_down();
}

TAP_MAIN(CASE(aliases_are_not_seen), CASE(a_cut_finds_it), CASE(opening_the_page_finds_it),
	 CASE(no_false_alarms), CASE(branches_are_looked_at_as_well),
	 CASE(only_where_it_was_asked_for), CASE(adopted_memory), CASE(pinned_pages_are_not_seen),
	 CASE(pinned_pages_in_a_bracket), CASE(madvise_dontneed_is_not_seen),
	 CASE(discard_is_what_to_use), CASE(mremap_is_not_seen), CASE(writes_through_proc_self_mem),
	 CASE(writes_by_a_debugger), CASE(stores_without_a_bracket))
