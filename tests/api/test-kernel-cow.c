/* SPDX-License-Identifier: MIT */
/*
 * The cases of the kernel's own tests of copy-on-write (selftests/mm/cow.c), put to a region:
 * whatever a page was before, and by whichever way somebody still holds on to it, a snapshot never
 * sees later writes, and the live region never sees those of a child or a branch.
 *
 * Model
 * - Kinds of page: never touched; read, so that the kernel's zero page is there; written, by the
 *   program or in a system call; swapped out before the snapshot, or after it; part of a huge page,
 *   also swapped out. In private memory and in a memfd.
 * - Ways to hold on: a view; pages in a pipe (vmsplice), of the view, of a branch, of a child; a
 *   child of fork(); a branch; a pinned buffer of io_uring, which has to go on showing the live
 *   region, since the window's page is not replaced.
 *
 * Swapping needs a device: a zram of our own, or a file, where COW_TEST_ALLOW_TUNING is set.
 */
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "tests/api/common.h"

#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

#ifndef MADV_PAGEOUT /* 5.4 */
#define MADV_PAGEOUT 21
#endif

/* --- swap --- */

static struct {
	int zram;       /* its number, -1: none */
	char path[300]; /* of the device or file; empty: none */
} swap = { .zram = -1 };

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return written;
}

#define SWAP_BYTES ((size_t)64 << 20)

/* The header that the kernel looks for in the first page. */
static bool format_swap(const char *path)
{
	unsigned char header[PAGE] = { 0 };
	const uint32_t words[2] = { 1, SWAP_BYTES / PAGE - 1 };
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool written;

	memcpy(header + 1024, words, sizeof(words));
	memcpy(header + PAGE - 10, "SWAPSPACE2", 10);
	written = fd >= 0 && pwrite(fd, header, sizeof(header), 0) == (ssize_t)sizeof(header);
	if (fd >= 0)
		close(fd);
	return written;
}

static bool make_zram(void)
{
	char number[16] = "", path[80], size[32];
	int fd = open("/sys/class/zram-control/hot_add", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, number, sizeof(number) - 1);

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	swap.zram = atoi(number);
	snprintf(path, sizeof(path), "/sys/block/zram%d/disksize", swap.zram);
	snprintf(size, sizeof(size), "%zu", SWAP_BYTES);
	snprintf(swap.path, sizeof(swap.path), "/dev/zram%d", swap.zram);
	return write_text(path, size);
}

static bool make_swap_file(void)
{
	const char *directory = disk_directory();
	char zeroes[1 << 16] = { 0 };
	size_t done = 0;
	int fd;

	if (!directory)
		return false;
	snprintf(swap.path, sizeof(swap.path), "%s/test-kernel-cow.%d.swap", directory, getpid());
	fd = open(swap.path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	while (fd >= 0 && done < SWAP_BYTES && write(fd, zeroes, sizeof(zeroes)) > 0)
		done += sizeof(zeroes);
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	return done >= SWAP_BYTES;
}

static void remove_swap(void)
{
	char text[16], path[80];

	if (swap.path[0])
		swapoff(swap.path);
	if (swap.zram >= 0) {
		snprintf(path, sizeof(path), "/sys/block/zram%d/reset", swap.zram);
		write_text(path, "1");
		snprintf(text, sizeof(text), "%d", swap.zram);
		write_text("/sys/class/zram-control/hot_remove", text);
	} else if (swap.path[0]) {
		unlink(swap.path);
	}
	swap.zram = -1;
	swap.path[0] = '\0';
}

/* Why there is no swap, or NULL. */
static const char *set_up_swap(void)
{
	if (!getenv("COW_TEST_ALLOW_TUNING"))
		return "it adds a swap device: set COW_TEST_ALLOW_TUNING=1";
	atexit(remove_swap);
	if (make_zram() && format_swap(swap.path) && swapon(swap.path, 0) == 0)
		return NULL;
	remove_swap();
	if (make_swap_file() && format_swap(swap.path) && swapon(swap.path, 0) == 0)
		return NULL;
	remove_swap();
	return "neither a zram nor a file can be made a swap device here";
}

static uint64_t swapped_out; /* pages, seen by a look at the page map */

static void page_out(void *start, size_t length)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	is_int(madvise(start, length, MADV_PAGEOUT), 0, "MADV_PAGEOUT");
	for (size_t page = 0; page < length / PAGE; page++) {
		uint64_t entry = 0;
		off_t at = (off_t)(((uintptr_t)start / PAGE + page) * sizeof(entry));

		if (pread(pagemap, &entry, sizeof(entry), at) == sizeof(entry))
			swapped_out += entry >> 62 & 1;
	}
	if (pagemap >= 0)
		close(pagemap);
}

/* --- kinds of page --- */

enum kind {
	UNTOUCHED,
	ZERO,
	WRITTEN,
	BY_SYSTEM_CALL,
	SWAPPED_BEFORE,
	SWAPPED_AFTER,
	HUGE,
	HUGE_SWAPPED_BEFORE,
	HUGE_SWAPPED_AFTER,
	KINDS
};

static const char *const kind_names[KINDS] = {
	"untouched",           "zero page",         "written",        "by a system call",
	"swapped out before",  "swapped out after", "in a huge page", "huge, swapped before",
	"huge, swapped after",
};

static bool is_huge(enum kind kind)
{
	return kind >= HUGE;
}

static bool is_swapped(enum kind kind)
{
	return kind == SWAPPED_BEFORE || kind == SWAPPED_AFTER || kind > HUGE;
}

#define HUGE_PAGES ((size_t)1024) /* 4 MiB: a huge page of 2 MiB is within, however it is aligned */

static struct {
	enum kind kind;
	bool shared;
	struct cow_region *region;
	struct cow_snapshot *snapshot;
	size_t pages;
	size_t page; /* the one that is looked at; its neighbours are of its kind */
	int content; /* what it held at the snapshot */
	int pipe[2];
} w;

static const char *what(void)
{
	static char text[80];

	snprintf(text, sizeof(text), "%s%s", kind_names[w.kind], w.shared ? ", memfd" : "");
	return text;
}

/* Under the explicit trap a store is a bracket's. */
static void put(struct cow_region *region, size_t page, int byte)
{
	if (TEST_TRAP == COW_TRAP_EXPLICIT)
		is_errno(fill(region, page, byte), 0, "write");
	else
		memset(page_of(region, page), byte, PAGE);
}

static void read_into(size_t page, int byte)
{
	unsigned char content[PAGE];

	memset(content, byte, sizeof(content));
	if (write(w.pipe[1], content, PAGE) != (ssize_t)PAGE)
		bail("a pipe: %s", strerror(errno));
	is_errno(cow_region_write_begin(w.region, page_of(w.region, page), PAGE), 0, "begin");
	is_int(read(w.pipe[0], page_of(w.region, page), PAGE), (int)PAGE, "read(2)");
	cow_region_write_end(w.region, page_of(w.region, page), PAGE);
}

static void make_content(void)
{
	volatile unsigned char seen = 0;

	w.content = w.kind == UNTOUCHED || w.kind == ZERO ? 0 : 1;
	for (size_t page = 0; page < w.pages; page++) {
		if (w.kind == ZERO)
			seen += *(volatile unsigned char *)page_of(w.region, page);
		else if (w.kind == BY_SYSTEM_CALL)
			read_into(page, 1);
		else if (w.kind != UNTOUCHED)
			put(w.region, page, 1);
	}
	is_int(seen, 0, "zeroes");
}

static void set_up(enum kind kind, bool shared)
{
	struct cow_region_options options = explicit_options();
	void *base;

	memset(&w, 0, sizeof(w));
	w.kind = kind;
	w.shared = shared;
	w.pages = is_huge(kind) ? HUGE_PAGES : 8;
	w.page = w.pages / 2 + 1;
	options.flags = (shared ? COW_REGION_SHARED : 0) |
			(is_huge(kind) ? COW_REGION_HUGE_PAGES : 0);
	w.region = new_region_with(w.pages, &options);
	base = cow_region_get_base(w.region);
	if (pipe2(w.pipe, O_CLOEXEC) < 0)
		bail("a pipe: %s", strerror(errno));
	make_content();
	if (kind == SWAPPED_BEFORE || kind == HUGE_SWAPPED_BEFORE)
		page_out(base, w.pages * PAGE);
	w.snapshot = take(w.region);
	if (kind == SWAPPED_AFTER || kind == HUGE_SWAPPED_AFTER)
		page_out(base, w.pages * PAGE);
}

static void tear_down(void)
{
	cow_snapshot_unref(w.snapshot);
	cow_region_free(w.region);
	close(w.pipe[0]);
	close(w.pipe[1]);
}

static void expect(int snapshot, int live, const char *when)
{
	is_int(page_in(w.snapshot, w.page), snapshot, "%s, %s: the snapshot", what(), when);
	is_int(page_in(w.snapshot, w.page + 1), w.content, "%s, %s: its neighbour", what(), when);
	is_int(live_page(w.region, w.page), live, "%s, %s: the live page", what(), when);
}

/* --- pages that are held in a pipe --- */

static void splice_in(const void *page)
{
	const struct iovec piece = { (void *)(uintptr_t)page, PAGE };

	is_int(vmsplice(w.pipe[1], &piece, 1, 0), (int)PAGE, "%s: vmsplice", what());
}

static int splice_out(void)
{
	unsigned char content[PAGE];

	return read(w.pipe[0], content, PAGE) == (ssize_t)PAGE ? uniform(content) : -2;
}

static void live_writes_and_a_view_in_a_pipe(void)
{
	const void *view = NULL;

	is_errno(cow_snapshot_map(w.snapshot, 0, &view), 0, "map");
	splice_in((const unsigned char *)view + w.page * PAGE);
	put(w.region, w.page, 2);
	is_int(splice_out(), w.content, "%s: the view's page in a pipe", what());
	is_int(uniform((const unsigned char *)view + w.page * PAGE), w.content, "%s: the view",
	       what());
	expect(w.content, 2, "a view");
}

static void branch_writes_and_pages_in_a_pipe(void)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *branch = NULL, *other = NULL;

	is_errno(cow_snapshot_branch(w.snapshot, &options, &branch), 0, "branch");
	is_errno(cow_snapshot_branch(w.snapshot, &options, &other), 0, "another");
	/* Before it was opened, an explicit branch's window is not its content. */
	if (TEST_TRAP == COW_TRAP_EXPLICIT)
		is_errno(cow_region_touch(branch, page_of(branch, w.page), PAGE), 0, "touch");
	splice_in(page_of(branch, w.page));
	is_int(splice_out(), w.content, "%s: the branch's page in a pipe", what());
	put(branch, w.page, 4);
	is_int(live_page(branch, w.page), 4, "%s: the branch", what());
	is_int(live_page(branch, w.page + 1), w.content, "%s: its next page", what());
	is_int(live_page(other, w.page), w.content, "%s: another branch", what());
	expect(w.content, w.content, "a branch");
	put(w.region, w.page, 5);
	is_int(live_page(branch, w.page), 4, "%s: the branch after a live write", what());
	is_int(live_page(other, w.page), w.content, "%s: the other one", what());
	expect(w.content, 5, "a branch and a live write");
	cow_region_free(branch);
	cow_region_free(other);
}

/* --- children --- */

/* The child takes its page into the pipe, unmaps it, and waits: the parent writes meanwhile. */
static void child_with_pages_in_a_pipe(void)
{
	int ready[2], status = 0;
	char token = 0;
	pid_t pid;

	put(w.region, w.page, 2);
	if (pipe2(ready, O_CLOEXEC) < 0)
		bail("a pipe: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		struct iovec piece = { page_of(w.region, w.page), PAGE };

		alarm(30);
		must(uniform(piece.iov_base) == 2);
		must(vmsplice(w.pipe[1], &piece, 1, 0) == (ssize_t)PAGE);
		must(munmap(piece.iov_base, PAGE) == 0);
		memset(page_of(w.region, w.page + 1), 7, PAGE); /* its own */
		must(write(ready[1], "", 1) == 1);
		_exit(0);
	}
	is_int(read(ready[0], &token, 1), 1, "the child is ready");
	put(w.region, w.page, 3);
	is_int(splice_out(), 2, "%s: the child's page in a pipe", what());
	waitpid(pid, &status, 0);
	is_int(status, 0, "%s: the child is content", what());
	is_int(live_page(w.region, w.page + 1), w.content, "%s: the child's write is its own",
	       what());
	expect(w.content, 3, "a child");
	close(ready[0]);
	close(ready[1]);
}

/* The child looks after the parent has written, and the other way round. */
static void child_and_parent_write(void)
{
	int to_child[2], to_parent[2], status = 0;
	char token = 0;
	pid_t pid;

	if (pipe2(to_child, O_CLOEXEC) < 0 || pipe2(to_parent, O_CLOEXEC) < 0)
		bail("a pipe: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		unsigned char *page = page_of(w.region, w.page);

		alarm(30);
		must(read(to_child[0], &token, 1) == 1);
		must(uniform(page) == w.content);
		memset(page, 8, PAGE);
		must(write(to_parent[1], "", 1) == 1);
		must(read(to_child[0], &token, 1) == 1);
		must(uniform(page) == 8);
		_exit(0);
	}
	put(w.region, w.page, 2);
	is_int(write(to_child[1], "", 1), 1, "go");
	is_int(read(to_parent[0], &token, 1), 1, "the child has written");
	is_int(live_page(w.region, w.page), 2, "%s: not here", what());
	put(w.region, w.page, 3);
	is_int(write(to_child[1], "", 1), 1, "go on");
	waitpid(pid, &status, 0);
	is_int(status, 0, "%s: the child is content", what());
	expect(w.content, 3, "both write");
	for (unsigned i = 0; i < 2; i++) {
		close(to_child[i]);
		close(to_parent[i]);
	}
}

/* --- the kernel's hands --- */

/* As libcow(7) says: where nothing was touched yet within 2 MiB, the signal trap lets the program
 * in, and not the kernel. */
static void look_first(const unsigned char *page)
{
	ssize_t n;

	if (TEST_TRAP != COW_TRAP_SIGNAL || w.kind != UNTOUCHED)
		return;
	n = write(w.pipe[1], page, PAGE);
	ok(n == -1 && errno == EFAULT, "%s: write(2) gives %zd, %s", what(), n, strerror(errno));
	is_int(*(const volatile unsigned char *)page, 0, "%s: a look at it", what());
}

/* Other ways to read an armed page. */
static void the_kernel_reads(void)
{
	unsigned char content[PAGE];
	struct iovec local = { content, PAGE }, remote = { page_of(w.region, w.page), PAGE };

	look_first(remote.iov_base);
	if (write(w.pipe[1], remote.iov_base, PAGE) != (ssize_t)PAGE)
		bail("write(2) of an armed page: %s", strerror(errno));
	is_int(splice_out(), w.content, "%s: write(2)", what());
	is_int(process_vm_readv(getpid(), &local, 1, &remote, 1, 0), (int)PAGE, "process_vm_readv");
	is_int(uniform(content), w.content, "%s: process_vm_readv", what());
	put(w.region, w.page, 2);
	expect(w.content, 2, "read by the kernel");
}

/* A buffer that is pinned for io_uring shows what the live region holds, before and after a cut. */
static void a_pinned_buffer(void)
{
#ifdef HAVE_LIBURING
	struct iovec buffer = { page_of(w.region, w.page), PAGE };
	struct io_uring_cqe *completion;
	struct io_uring ring;
	unsigned char content[PAGE];
	struct cow_snapshot *later;
	int file = memfd_create("out", MFD_CLOEXEC);

	if (io_uring_queue_init(4, &ring, 0) < 0) {
		close(file);
		return;
	}
	put(w.region, w.page, 2);
	/* Below 6.10 an armed page cannot be pinned; this one may be, for a moment, where the store
	 * before was the first touch of its 2 MiB. */
	is_errno(cow_region_write_begin(w.region, buffer.iov_base, PAGE), 0, "a bracket");
	is_errno(io_uring_register_buffers(&ring, &buffer, 1), 0, "%s: pinned", what());
	cow_region_write_end(w.region, buffer.iov_base, PAGE);
	later = take(w.region);
	put(w.region, w.page, 3);
	io_uring_prep_write_fixed(io_uring_get_sqe(&ring), file, buffer.iov_base, PAGE, 0, 0);
	is_int(io_uring_submit_and_wait(&ring, 1), 1, "submit");
	is_errno(io_uring_wait_cqe(&ring, &completion), 0, "wait");
	is_int(completion->res, (int)PAGE, "written");
	is_int(pread(file, content, PAGE, 0), (int)PAGE, "read back");
	is_int(uniform(content), 3, "%s: the pinned page is the live one", what());
	is_int(page_in(later, w.page), 2, "%s: the snapshot of a pinned page", what());
	expect(w.content, 3, "pinned");
	io_uring_unregister_buffers(&ring);
	io_uring_queue_exit(&ring);
	close(file);
	cow_snapshot_unref(later);
#endif
}

static void rolled_back(void)
{
	put(w.region, w.page, 2);
	if (is_swapped(w.kind))
		page_out(cow_region_get_base(w.region), w.pages * PAGE);
	is_errno(cow_region_rollback(w.region, w.snapshot), 0, "rollback");
	expect(w.content, w.content, "rolled back");
	put(w.region, w.page, 3);
	expect(w.content, 3, "rolled back, written");
}

static const struct {
	void (*run)(void);
	bool forks; /* where a memfd's region is absent */
} ways[] = {
	{ live_writes_and_a_view_in_a_pipe },
	{ branch_writes_and_pages_in_a_pipe },
	{ child_with_pages_in_a_pipe, true },
	{ child_and_parent_write, true },
	{ the_kernel_reads },
	{ a_pinned_buffer },
	{ rolled_back },
};

static void try_kind(enum kind kind)
{
	for (unsigned shared = 0; shared < 2; shared++)
		for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]) && tap.failed < 20; i++) {
			if (shared && ways[i].forks)
				continue;
			set_up(kind, shared);
			ways[i].run();
			tear_down();
		}
}

TEST(ordinary_pages)
{
	for (enum kind kind = UNTOUCHED; kind <= BY_SYSTEM_CALL; kind++)
		try_kind(kind);
}

static bool huge_pages_are_to_be_had(void)
{
	char text[80] = "";
	int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	return n > 0 && !strstr(text, "[never]");
}

TEST(huge_pages)
{
	if (huge_pages_are_to_be_had())
		try_kind(HUGE);
	else
		skip("transparent huge pages are switched off");
}

TEST(swapped_pages)
{
	const char *why = set_up_swap();

	if (why) {
		skip("%s", why);
		return;
	}
	swapped_out = 0;
	try_kind(SWAPPED_BEFORE);
	try_kind(SWAPPED_AFTER);
	if (huge_pages_are_to_be_had()) {
		try_kind(HUGE_SWAPPED_BEFORE);
		try_kind(HUGE_SWAPPED_AFTER);
	}
	diag("%" PRIu64 " pages were swapped out to %s", swapped_out, swap.path);
	ok(swapped_out > 100, "pages were swapped out");
	remove_swap();
}

TAP_MAIN(CASE(ordinary_pages), CASE(huge_pages), CASE(swapped_pages))
