/* SPDX-License-Identifier: MIT */
/*
 * The kernel's own writes into a region: read(2) and its kin, sockets, O_DIRECT, io_uring, writes
 * from another address space.
 *
 * Model
 * - A way is one such call. Each is tried on pages that are armed with content, armed without, and
 *   open; within a page, across two, over several.
 * - Without a bracket: under the thread trap it works where the process may have the kernel's
 *   faults served; else it fails with EFAULT, or comes short, and what it has not written it has
 *   not lost: the same call in a bracket gets it. The explicit trap does not see it at all, so
 *   there only brackets are tried.
 * - Whatever happens, both snapshots, that before and that after, hold what was there then.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>

#include "tests/api/common.h"

#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

#define PAGES     8u
#define MOST      (4 * PAGE)
#define ALIGNMENT PAGE /* of O_DIRECT: enough for any disk */

/* --- the world --- */

static struct {
	struct cow_region *region;
	unsigned char *base;
	unsigned char source[MOST] __attribute__((aligned(4096)));
	int pipe[2], sockets[2], file, direct;
} w;

/* Whether a userfaultfd of ours serves the kernel's accesses, too. */
static bool kernel_is_served(void)
{
	long fd;

	if (TEST_TRAP != COW_TRAP_THREAD)
		return false;
	fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	close((int)fd);
	return true;
}

/* Before 6.10 io_uring pins what is registered without a way to wait for a page, so userfaultfd
 * refuses that, also where it serves everything else. */
static bool registering_is_served(void)
{
	unsigned major = 0, minor = 0;
	struct utsname name;

	if (!kernel_is_served() || uname(&name) < 0 ||
	    sscanf(name.release, "%u.%u", &major, &minor) != 2)
		return false;
	return major > 6 || (major == 6 && minor >= 10);
}

static int scratch_file(int flags)
{
	const char *directory = disk_directory();

	return directory ? open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600) : -1;
}

static void set_up(void)
{
	struct cow_region_options options = explicit_options();

	options.cut_timeout_ns = 60000000000u; /* a machine may be busy */
	w.region = new_region_with(PAGES, &options);
	w.base = cow_region_get_base(w.region);
	w.direct = scratch_file(O_DIRECT);
	w.file = memfd_create("source", MFD_CLOEXEC);
	if (pipe2(w.pipe, O_CLOEXEC | O_NONBLOCK) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, w.sockets) < 0 ||
	    w.file < 0)
		bail("files: %s", strerror(errno));
}

static void tear_down(void)
{
	cow_region_free(w.region);
	close(w.direct);
	close(w.file);
	for (unsigned i = 0; i < 2; i++) {
		close(w.pipe[i]);
		close(w.sockets[i]);
	}
}

/* --- the ways: each puts the first length bytes of the source at an address --- */

/* Returns how many bytes, or a negative errno. What is left of a stream is the caller's to
 * drain. */
typedef ssize_t (*way_fn)(unsigned char *to, size_t length);

static ssize_t result(ssize_t n)
{
	return n < 0 ? -errno : n;
}

static void supply(int fd, size_t length)
{
	if (write(fd, w.source, length) != (ssize_t)length)
		bail("supplying %zu bytes: %s", length, strerror(errno));
}

static void supply_file(int fd)
{
	if (pwrite(fd, w.source, MOST, 0) != (ssize_t)MOST)
		bail("writing the file: %s", strerror(errno));
}

static ssize_t read_pipe(unsigned char *to, size_t length)
{
	return result(read(w.pipe[0], to, length));
}

static ssize_t read_file(unsigned char *to, size_t length)
{
	supply_file(w.file);
	lseek(w.file, 0, SEEK_SET);
	return result(read(w.file, to, length));
}

static ssize_t pread_file(unsigned char *to, size_t length)
{
	supply_file(w.file);
	return result(pread(w.file, to, length, 0));
}

static ssize_t preadv_file(unsigned char *to, size_t length)
{
	struct iovec pieces[2] = { { to, length / 2 }, { to + length / 2, length - length / 2 } };

	supply_file(w.file);
	return result(preadv(w.file, pieces, 2, 0));
}

static ssize_t read_direct(unsigned char *to, size_t length)
{
	supply_file(w.direct);
	return result(pread(w.direct, to, length, 0));
}

static ssize_t recv_socket(unsigned char *to, size_t length)
{
	return result(recv(w.sockets[0], to, length, 0));
}

/* NOLINTNEXTLINE(readability-non-const-parameter): all ways have one signature */
static ssize_t recvmsg_socket(unsigned char *to, size_t length)
{
	struct iovec piece = { to, length };
	struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };

	return result(recvmsg(w.sockets[0], &message, 0));
}

/* NOLINTNEXTLINE(readability-non-const-parameter): all ways have one signature */
static ssize_t from_outside(unsigned char *to, size_t length)
{
	struct iovec local = { w.source, length }, remote = { to, length };

	return result(process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
}

/* Whose bytes nobody knows beforehand: they become the source. */
static ssize_t random_bytes(unsigned char *to, size_t length)
{
	ssize_t n = result(getrandom(to, length, 0));

	if (n > 0)
		memcpy(w.source, to, (size_t)n);
	return n;
}

/* The C library asks the vDSO, which writes as the program does. */
static ssize_t kernel_time(unsigned char *to, size_t length)
{
	struct timespec *now = (struct timespec *)(void *)to;

	if (syscall(SYS_clock_gettime, CLOCK_MONOTONIC, now) < 0)
		return -errno;
	memcpy(w.source, to, sizeof(*now));
	(void)length;
	return sizeof(*now);
}

#ifdef HAVE_LIBURING
static struct io_uring ring;

static ssize_t submit_and_wait(void)
{
	struct io_uring_cqe *completion;
	ssize_t n;
	int r;

	r = io_uring_submit_and_wait(&ring, 1);
	if (r < 0)
		return r;
	r = io_uring_wait_cqe(&ring, &completion);
	if (r < 0)
		return r;
	n = completion->res;
	io_uring_cqe_seen(&ring, completion);
	return n;
}

static ssize_t uring_read(int fd, unsigned char *to, size_t length, unsigned flags)
{
	struct io_uring_sqe *entry = io_uring_get_sqe(&ring);

	io_uring_prep_read(entry, fd, to, (unsigned)length, fd == w.pipe[0] ? (uint64_t)-1 : 0);
	io_uring_sqe_set_flags(entry, flags);
	return submit_and_wait();
}

static ssize_t uring_pipe(unsigned char *to, size_t length)
{
	return uring_read(w.pipe[0], to, length, 0);
}

/* By a worker of the kernel's, not by this thread. */
static ssize_t uring_worker(unsigned char *to, size_t length)
{
	supply_file(w.file);
	return uring_read(w.file, to, length, IOSQE_ASYNC);
}

static ssize_t uring_direct(unsigned char *to, size_t length)
{
	supply_file(w.direct);
	return uring_read(w.direct, to, length, 0);
}

static ssize_t uring_recv(unsigned char *to, size_t length)
{
	struct io_uring_sqe *entry = io_uring_get_sqe(&ring);

	io_uring_prep_recv(entry, w.sockets[0], to, length, 0);
	return submit_and_wait();
}

/* Registered when it is armed: registering pins the pages for writing, which is a write. */
static ssize_t uring_fixed(unsigned char *to, size_t length)
{
	struct iovec buffer = { to, length };
	struct io_uring_sqe *entry;
	ssize_t n;

	supply_file(w.file);
	n = io_uring_register_buffers(&ring, &buffer, 1);
	if (n < 0)
		return n;
	entry = io_uring_get_sqe(&ring);
	io_uring_prep_read_fixed(entry, w.file, to, (unsigned)length, 0, 0);
	n = submit_and_wait();
	io_uring_unregister_buffers(&ring);
	return n;
}
#endif

static const struct way {
	const char *name;
	way_fn write;
	int *stream; /* which is to be filled before, and drained after */
	bool aligned;
	bool need_disk, need_ring, registers;
	size_t most; /* 0: any length */
} ways[] = {
	{ "read(2) of a pipe", read_pipe, &w.pipe[1] },
	{ "read(2) of a file", read_file },
	{ "pread(2)", pread_file },
	{ "preadv(2)", preadv_file },
	{ "pread(2), O_DIRECT", read_direct, .aligned = true, .need_disk = true },
	{ "recv(2)", recv_socket, &w.sockets[1] },
	{ "recvmsg(2)", recvmsg_socket, &w.sockets[1] },
	{ "process_vm_writev(2)", from_outside },
	{ "getrandom(2)", random_bytes },
	{ "clock_gettime(2)", kernel_time, .most = sizeof(struct timespec) },
#ifdef HAVE_LIBURING
	{ "io_uring, pipe", uring_pipe, &w.pipe[1], .need_ring = true },
	{ "io_uring, worker", uring_worker, .need_ring = true },
	{ "io_uring, O_DIRECT", uring_direct, .aligned = true, .need_disk = true,
	  .need_ring = true },
	{ "io_uring, recv", uring_recv, &w.sockets[1], .need_ring = true },
	{ "io_uring, fixed buffer", uring_fixed, .need_ring = true, .registers = true },
#endif
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

/* --- one call --- */

enum before { ARMED, ARMED_WITHOUT_CONTENT, OPEN };
static const char *const before_names[] = { "armed", "armed, without content", "open" };

static struct place {
	size_t offset, length;
} places[] = {
	{ 2 * PAGE + 100, 200 },        /* within a page */
	{ 3 * PAGE - 8, 16 },           /* across two */
	{ 2 * PAGE, PAGE },             /* a whole one */
	{ 2 * PAGE, MOST },             /* several */
	{ 2 * PAGE + 1000, MOST - 999 } /* several, not from their start */
};
#define PLACES (sizeof(places) / sizeof(places[0]))

static void drain(const struct way *way)
{
	unsigned char rest[MOST];

	if (way->stream == &w.pipe[1])
		(void)!read(w.pipe[0], rest, sizeof(rest));
	else if (way->stream == &w.sockets[1])
		(void)!recv(w.sockets[0], rest, sizeof(rest), 0);
}

/* The region's contents as they have to be. */
static unsigned char expected[PAGES * PAGE];

static void note_written(const struct place *place, ssize_t n)
{
	if (n > 0)
		memcpy(expected + place->offset, w.source, (size_t)n);
}

static bool live_holds(void)
{
	return memcmp(w.base, expected, sizeof(expected)) == 0;
}

static bool snapshot_holds(struct cow_snapshot *snapshot, const unsigned char *content)
{
	static unsigned char read[PAGES * PAGE];

	return cow_snapshot_read(snapshot, 0, read, sizeof(read)) == 0 &&
	       memcmp(read, content, sizeof(read)) == 0;
}

/* A snapshot, and pages in the state that is asked for. */
static struct cow_snapshot *prepare(enum before before, const struct place *place)
{
	struct cow_snapshot *snapshot;

	if (before == ARMED_WITHOUT_CONTENT) {
		is_errno(cow_region_discard(w.region, 0, PAGES * PAGE), 0, "discard");
		memset(expected, 0, sizeof(expected));
	} else {
		for (unsigned i = 0; i < PAGES; i++)
			fill(w.region, i, 10 + (int)i);
		for (unsigned i = 0; i < PAGES; i++)
			memset(expected + i * PAGE, 10 + (int)i, PAGE);
	}
	snapshot = take(w.region);
	if (before == OPEN)
		is_errno(cow_region_touch(w.region, w.base + place->offset, place->length), 0,
			 "touch");
	return snapshot;
}

static ssize_t bracketed(const struct way *way, const struct place *place)
{
	ssize_t n;
	int r = cow_region_write_begin(w.region, w.base + place->offset, place->length);

	if (r < 0)
		return r;
	n = way->write(w.base + place->offset, place->length);
	cow_region_write_end(w.region, w.base + place->offset, place->length);
	return n;
}

static void expect_success(const struct way *way, const struct place *place, ssize_t n,
			   const char *how, enum before before)
{
	ssize_t whole = (ssize_t)(way->most ?: place->length);

	is_int(n, whole, "%s of %zu bytes at %#zx, %s, %s", way->name, place->length, place->offset,
	       before_names[before], how);
	note_written(place, n);
	ok(live_holds(), "%s, %s, %s: the live region", way->name, before_names[before], how);
}

/* What was written before it ran into an armed page counts; nothing else has changed. A stream that
 * failed has kept its bytes. */
static void expect_refusal(const struct way *way, const struct place *place, ssize_t n,
			   enum before before)
{
	ok(n == -EFAULT || (n > 0 && (size_t)n < (way->most ?: place->length)),
	   "%s of %zu bytes at %#zx, %s, gives %zd", way->name, place->length, place->offset,
	   before_names[before], n);
	note_written(place, n);
	ok(live_holds(), "%s, %s: the live region after a refusal", way->name,
	   before_names[before]);
}

static void call(const struct way *way, const struct place *place, enum before before,
		 bool with_bracket)
{
	static unsigned char first[PAGES * PAGE], second[PAGES * PAGE];
	struct cow_snapshot *older = prepare(before, place), *newer;
	bool served = way->registers ? registering_is_served() : kernel_is_served();
	bool through = with_bracket || before == OPEN || served;
	ssize_t n;

	memcpy(first, expected, sizeof(first));
	for (size_t i = 0; i < MOST; i++)
		w.source[i] = (unsigned char)(i * 7 + 100);
	if (way->stream)
		supply(*way->stream, place->length);
	n = with_bracket ? bracketed(way, place) :
			   way->write(w.base + place->offset, place->length);
	if (through) {
		expect_success(way, place, n, with_bracket ? "bracketed" : "as it is", before);
	} else {
		expect_refusal(way, place, n, before);
		if (n == -EFAULT)
			expect_success(way, place, bracketed(way, place),
				       "bracketed after a refusal", before);
	}
	memcpy(second, expected, sizeof(second));
	newer = take(w.region);
	is_errno(cow_region_write(w.region, 0, first, sizeof(first)), 0, "all is written");
	ok(snapshot_holds(older, first), "%s, %s: the snapshot before", way->name,
	   before_names[before]);
	ok(snapshot_holds(newer, second), "%s, %s: the snapshot after", way->name,
	   before_names[before]);
	cow_snapshot_unref(older);
	cow_snapshot_unref(newer);
	drain(way);
}

static bool fits(const struct way *way, const struct place *place)
{
	return !way->aligned || (place->offset % ALIGNMENT == 0 && place->length % ALIGNMENT == 0);
}

static unsigned tried;

static void try_way(const struct way *way, bool with_bracket)
{
	for (unsigned i = 0; i < PLACES; i++)
		for (enum before before = ARMED; before <= OPEN; before++)
			if (fits(way, &places[i])) {
				call(way, &places[i], before, with_bracket);
				tried++;
			}
}

static void try_ways(bool ring_ways, bool with_bracket)
{
	set_up();
	tried = 0;
	for (unsigned i = 0; i < WAYS && tap.failed < 20; i++) {
		if (ways[i].need_ring != ring_ways)
			continue;
		if (ways[i].need_disk && w.direct < 0)
			diag("%s: no disk here", ways[i].name);
		else
			try_way(&ways[i], with_bracket);
	}
	diag("%u calls%s", tried,
	     with_bracket       ? ", in brackets" :
	     kernel_is_served() ? ", served" :
				  ", refused");
	tear_down();
}

TEST(bracketed_system_calls)
{
	try_ways(false, true);
}

static bool is_seen(void)
{
	if (TEST_TRAP != COW_TRAP_EXPLICIT)
		return true;
	skip("the explicit trap sees brackets only");
	return false;
}

TEST(system_calls_as_they_are)
{
	if (is_seen())
		try_ways(false, false);
}

static bool have_ring(void)
{
#ifdef HAVE_LIBURING
	int r = io_uring_queue_init(8, &ring, 0);

	if (r == 0)
		return true;
	skip("io_uring: %s", strerror(-r));
#else
	skip("built without liburing");
#endif
	return false;
}

static void try_ring(bool with_bracket)
{
	if (!have_ring())
		return;
	try_ways(true, with_bracket);
#ifdef HAVE_LIBURING
	io_uring_queue_exit(&ring);
#endif
}

TEST(bracketed_io_uring)
{
	try_ring(true);
}

TEST(io_uring_as_it_is)
{
	if (is_seen())
		try_ring(false);
}

/* --- while snapshots are taken --- */

static struct {
	_Atomic bool go;
	_Atomic uint64_t wrong, refused, written;
	uint64_t split, split_in_a_word; /* pages of snapshots */
} beside;

/* The n-th read puts the low byte of n on all of page n % PAGES. */
static void *read_on(void *context)
{
	unsigned char content[PAGE];

	(void)context;
	for (uint64_t n = 1; beside.go; n++) {
		unsigned char *to = w.base + n % PAGES * PAGE;
		ssize_t got;

		memset(content, (unsigned char)n, PAGE);
		beside.wrong += write(w.pipe[1], content, PAGE) != (ssize_t)PAGE;
		got = TEST_TRAP == COW_TRAP_EXPLICIT ? -1 : read(w.pipe[0], to, PAGE);
		if (got < 0) {
			beside.refused++;
			beside.wrong += TEST_TRAP != COW_TRAP_EXPLICIT && errno != EFAULT;
			beside.wrong += cow_region_write_begin(w.region, to, PAGE) != 0;
			got = read(w.pipe[0], to, PAGE);
			cow_region_write_end(w.region, to, PAGE);
		}
		beside.wrong += got != (ssize_t)PAGE;
		beside.written++;
	}
	return NULL;
}

static size_t run_length(const unsigned char *bytes, size_t at)
{
	size_t end = at;

	while (end < PAGE && bytes[end] == bytes[at])
		end++;
	return end - at;
}

/* A cut may fall into the middle of a read, between any two bytes of it, as into the middle of any
 * loop of stores: then a page begins with what the read puts there and ends with what the read
 * before it did. Inside a bracket it may not. */
static bool page_is_right(const unsigned char *bytes, unsigned page)
{
	size_t split = run_length(bytes, 0);
	unsigned char new = bytes[0], old = bytes[PAGE - 1];
	unsigned char next = old == 0 && page != 0 ? (unsigned char)page :
						     (unsigned char)(old + PAGES);

	if (split == PAGE)
		return new == 0 || new % PAGES == page;
	beside.split++;
	beside.split_in_a_word += split % 8 != 0;
	return TEST_TRAP != COW_TRAP_EXPLICIT && split + run_length(bytes, split) == PAGE &&
	       new == next;
}

static void print_page(const unsigned char *bytes, unsigned page)
{
	enum { RUNS = 12 };
	char text[RUNS * 24] = "";
	size_t used = 0, at = 0, length;

	for (unsigned i = 0; i < RUNS && at < PAGE; i++, at += length) {
		length = run_length(bytes, at);
		used += (size_t)snprintf(text + used, sizeof(text) - used, " %zu*%02x", length,
					 bytes[at]);
	}
	diag("page %u:%s%s", page, text, at < PAGE ? " ..." : "");
}

static bool snapshot_is_right(struct cow_snapshot *snapshot, unsigned char content[PAGES][PAGE])
{
	int r = cow_snapshot_read(snapshot, 0, content, (size_t)PAGES * PAGE);
	bool right = true;

	if (!is_errno(r, 0, "reading a snapshot"))
		return false;
	for (unsigned page = 0; page < PAGES; page++) {
		if (page_is_right(content[page], page))
			continue;
		print_page(content[page], page);
		right = false;
	}
	return right;
}

static bool snapshot_still_holds(struct cow_snapshot *snapshot, unsigned char content[PAGES][PAGE])
{
	static unsigned char again[PAGES][PAGE];
	int r = cow_snapshot_read(snapshot, 0, again, sizeof(again));
	bool same = true;

	if (!is_errno(r, 0, "reading a snapshot again"))
		return false;
	for (unsigned page = 0; page < PAGES; page++) {
		if (memcmp(content[page], again[page], PAGE) == 0)
			continue;
		diag("at first, and then:");
		print_page(content[page], page);
		print_page(again[page], page);
		same = false;
	}
	return same;
}

TEST(reads_while_snapshots_are_taken)
{
	enum { CUTS = 300 };
	static unsigned char content[PAGES][PAGE];
	uint64_t torn = 0, changed = 0;
	pthread_t thread;

	set_up();
	beside.go = true;
	pthread_create(&thread, NULL, read_on, NULL);
	for (unsigned i = 0; i < CUTS; i++) {
		uint64_t before = beside.written;
		struct cow_snapshot *snapshot = take(w.region);

		torn += !snapshot_is_right(snapshot, content);
		while (beside.written < before + 3)
			usleep(10);
		changed += !snapshot_still_holds(snapshot, content);
		cow_snapshot_unref(snapshot);
	}
	beside.go = false;
	pthread_join(thread, NULL);
	diag("%d cuts, %" PRIu64 " reads, %" PRIu64 " of them refused at first", CUTS,
	     beside.written, beside.refused);
	diag("%" PRIu64 " pages of snapshots hold a part of a read, %" PRIu64
	     " of them a part of a word",
	     beside.split, beside.split_in_a_word);
	is_u64(beside.wrong, 0, "reads that went wrong");
	is_u64(torn, 0, "snapshots with something that was never there");
	is_u64(changed, 0, "snapshots that changed");
	if (kernel_is_served())
		is_u64(beside.refused, 0, "refusals");
	tear_down();
}

TAP_MAIN(CASE(bracketed_system_calls), CASE(system_calls_as_they_are), CASE(bracketed_io_uring),
	 CASE(io_uring_as_it_is), CASE(reads_while_snapshots_are_taken))
