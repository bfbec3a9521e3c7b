/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "sys/sys.h"

int (*sys_injector)(enum sys_call call);

static int injected(enum sys_call call)
{
	return sys_injector ? sys_injector(call) : 0;
}

const char *sys_call_name(enum sys_call call)
{
	static const char *const names[SYS_CALLS] = {
		[SYS_CALL_ALLOC] = "alloc",
		[SYS_CALL_MAP] = "mmap",
		[SYS_CALL_UNMAP] = "munmap",
		[SYS_CALL_PROTECT] = "mprotect",
		[SYS_CALL_ADVISE] = "madvise",
		[SYS_CALL_MEMFD] = "memfd_create",
		[SYS_CALL_TRUNCATE] = "ftruncate",
		[SYS_CALL_OPEN] = "open",
		[SYS_CALL_STATFS] = "fstatfs",
		[SYS_CALL_READ_AT] = "pread",
		[SYS_CALL_WRITE_AT] = "pwritev",
		[SYS_CALL_EVENTFD] = "eventfd",
		[SYS_CALL_EPOLL] = "epoll",
		[SYS_CALL_USERFAULTFD] = "userfaultfd",
		[SYS_CALL_UFFD_IOCTL] = "ioctl(userfaultfd)",
		[SYS_CALL_PAGEMAP] = "pagemap",
		[SYS_CALL_SIGACTION] = "sigaction",
		[SYS_CALL_THREAD] = "pthread_create",
		[SYS_CALL_SYNC] = "fsync",
		[SYS_CALL_RENAME] = "rename",
		[SYS_CALL_UNLINK] = "unlink",
		[SYS_CALL_LOCK] = "flock",
		[SYS_CALL_CLONE_RANGE] = "ioctl(FICLONERANGE)",
		[SYS_CALL_RANDOM] = "getrandom",
	};

	return names[call];
}

void *sys_alloc(size_t bytes)
{
	return injected(SYS_CALL_ALLOC) < 0 ? NULL : calloc(1, bytes);
}

void *sys_alloc_array(size_t count, size_t bytes)
{
	return injected(SYS_CALL_ALLOC) < 0 ? NULL : calloc(count, bytes);
}

void *sys_alloc_page(size_t page_size)
{
	return injected(SYS_CALL_ALLOC) < 0 ? NULL : aligned_alloc(page_size, page_size);
}

void sys_free(void *memory)
{
	free(memory);
}

int sys_map(void *address, size_t length, int protection, int flags, int fd, void **ret_address)
{
	int r = injected(SYS_CALL_MAP);
	void *mapped;

	if (r < 0)
		return r;
	mapped = mmap(address, length, protection, flags, fd, 0);
	if (mapped == MAP_FAILED)
		return -errno;
	*ret_address = mapped;
	return 0;
}

int sys_unmap(void *address, size_t length)
{
	int r = injected(SYS_CALL_UNMAP);

	if (r < 0)
		return r;
	return munmap(address, length) < 0 ? -errno : 0;
}

int sys_protect(void *address, size_t length, int protection)
{
	int r = injected(SYS_CALL_PROTECT);

	if (r < 0)
		return r;
	return mprotect(address, length, protection) < 0 ? -errno : 0;
}

int sys_advise(void *address, size_t length, int advice)
{
	int r = injected(SYS_CALL_ADVISE);

	if (r < 0)
		return r;
	return madvise(address, length, advice) < 0 ? -errno : 0;
}

/* mincore() answers ENOMEM for a range with a hole, whatever else it says about residency. */
bool sys_is_mapped(const void *address, size_t length)
{
	size_t page = sys_page_size();
	unsigned char residency[512];
	size_t step = sizeof(residency) * page;

	for (size_t at = 0; at < length; at += step) {
		size_t piece = length - at < step ? length - at : step;

		if (mincore((char *)(uintptr_t)address + at, piece, residency) < 0)
			return false;
	}
	return true;
}

size_t sys_page_size(void)
{
	static _Atomic size_t size;
	size_t known = atomic_load_explicit(&size, memory_order_relaxed);

	if (known == 0) {
		known = (size_t)sysconf(_SC_PAGESIZE);
		atomic_store_explicit(&size, known, memory_order_relaxed);
	}
	return known;
}

int sys_memfd(const char *name, size_t length)
{
	int r = injected(SYS_CALL_MEMFD);
	int fd;

	if (r < 0)
		return r;
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	r = sys_truncate(fd, length);
	if (r < 0) {
		sys_close(fd);
		return r;
	}
	return fd;
}

int sys_seal(int fd)
{
	int r = injected(SYS_CALL_MEMFD);

	if (r < 0)
		return r;
	return fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) < 0 ? -errno : 0;
}

int sys_truncate(int fd, uint64_t length)
{
	int r = injected(SYS_CALL_TRUNCATE);

	if (r < 0)
		return r;
	return ftruncate(fd, (off_t)length) < 0 ? -errno : 0;
}

/* Where the file system knows no nameless files, one with a name that is gone at once. */
static int open_and_unlink(const char *directory, int flags)
{
	char path[PATH_MAX];
	int fd;

	if (snprintf(path, sizeof(path), "%s/.cow-XXXXXX", directory) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	unlink(path);
	/* Not at once: an open that refuses the flag may have made the file already. */
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | flags) < 0) {
		int r = -errno;

		sys_close(fd);
		return r;
	}
	return fd;
}

int sys_open_unlinked(const char *directory, int flags)
{
	int r = injected(SYS_CALL_OPEN);
	int fd;

	if (r < 0)
		return r;
	fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);
	if (fd >= 0)
		return fd;
	if (errno == EOPNOTSUPP || errno == EISDIR)
		return open_and_unlink(directory, flags);
	return -errno;
}

int sys_is_tmpfs(int fd)
{
	int r = injected(SYS_CALL_STATFS);
	struct statfs fs;

	if (r < 0)
		return r;
	if (fstatfs(fd, &fs) < 0)
		return -errno;
	return fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
}

ssize_t sys_read_at(int fd, void *buffer, size_t length, uint64_t offset)
{
	int r = injected(SYS_CALL_READ_AT);
	ssize_t n;

	if (r < 0)
		return r;
	do
		n = pread(fd, buffer, length, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* A short write ends in the error that cut it short, or -ENOSPC. */
int sys_write_at(int fd, const struct iovec *pieces, int count, uint64_t offset)
{
	int r = injected(SYS_CALL_WRITE_AT);
	size_t length = 0;
	ssize_t n;

	if (r < 0)
		return r;
	for (int i = 0; i < count; i++)
		length += pieces[i].iov_len;
	do
		n = pwritev(fd, pieces, count, (off_t)offset);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == length ? 0 : -ENOSPC;
}

void sys_drop_cache(int fd, uint64_t offset, size_t length)
{
	if (sync_file_range(fd, (off_t)offset, (off_t)length,
			    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				    SYNC_FILE_RANGE_WAIT_AFTER) == 0)
		posix_fadvise(fd, (off_t)offset, (off_t)length, POSIX_FADV_DONTNEED);
}

void sys_close(int fd)
{
	if (fd >= 0)
		close(fd);
}

int sys_eventfd(void)
{
	int r = injected(SYS_CALL_EVENTFD);
	int fd;

	if (r < 0)
		return r;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

int sys_epoll_new(void)
{
	int r = injected(SYS_CALL_EPOLL);
	int fd;

	if (r < 0)
		return r;
	fd = epoll_create1(EPOLL_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int sys_epoll_add(int epoll, int fd, uint64_t data)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = data };
	int r = injected(SYS_CALL_EPOLL);

	if (r < 0)
		return r;
	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void sys_epoll_remove(int epoll, int fd)
{
	epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
}

int sys_epoll_wait(int epoll, int timeout_ms, uint64_t *ret_data)
{
	struct epoll_event event;
	int n;

	do
		n = epoll_wait(epoll, &event, 1, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n > 0)
		*ret_data = event.data.u64;
	return n;
}

int sys_uffd_open(enum sys_uffd_way way)
{
	int flags = O_CLOEXEC | O_NONBLOCK | (way == SYS_UFFD_CALL_USER ? UFFD_USER_MODE_ONLY : 0);
	int r = injected(SYS_CALL_USERFAULTFD);
	int device, fd;

	if (r < 0)
		return r;
	if (way != SYS_UFFD_DEVICE) {
		fd = (int)syscall(SYS_userfaultfd, flags);
		return fd < 0 ? -errno : fd;
	}
	device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return -errno;
	fd = ioctl(device, USERFAULTFD_IOC_NEW, flags);
	r = fd < 0 ? -errno : fd;
	close(device);
	return r;
}

static bool is_refusal(int error)
{
	return error == -EPERM || error == -EACCES || error == -ENOSYS || error == -ENOENT;
}

/* The device stands behind the call: it has permissions of its own, and filters of system calls do
 * not know it. What only serves user accesses comes last, unless nobody needs more. */
static int uffd_open(bool kernel_faults, bool *ret_kernel_faults)
{
	static const enum sys_uffd_way full[] = { SYS_UFFD_CALL, SYS_UFFD_DEVICE,
						  SYS_UFFD_CALL_USER };
	static const enum sys_uffd_way user[] = { SYS_UFFD_CALL_USER, SYS_UFFD_DEVICE };
	const enum sys_uffd_way *ways = kernel_faults ? full : user;
	unsigned count = kernel_faults ? 3 : 2;
	int first = 0;

	for (unsigned i = 0; i < count; i++) {
		int fd = sys_uffd_open(ways[i]);

		if (fd >= 0)
			*ret_kernel_faults = kernel_faults && ways[i] != SYS_UFFD_CALL_USER;
		if (fd >= 0 || !is_refusal(fd))
			return fd;
		first = first ?: fd;
	}
	return first;
}

static int uffd_new(bool kernel_faults, uint64_t features, bool *ret_kernel_faults)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = uffd_open(kernel_faults, ret_kernel_faults);
	int r;

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

int sys_userfaultfd(bool *ret_kernel_faults)
{
	return uffd_new(true, 0, ret_kernel_faults);
}

int sys_uffd_features(int fd, uint64_t *ret_features)
{
	struct uffdio_api api = { .api = UFFD_API };

	if (ioctl(fd, UFFDIO_API, &api) < 0)
		return -errno;
	*ret_features = api.features;
	return 0;
}

static int uffd_ioctl(int fd, unsigned long request, void *argument)
{
	int r = injected(SYS_CALL_UFFD_IOCTL);

	if (r < 0)
		return r;
	return ioctl(fd, request, argument) < 0 ? -errno : 0;
}

int sys_uffd_register_missing(int fd, void *address, size_t length)
{
	struct uffdio_register range = {
		.range = { .start = (uintptr_t)address, .len = length },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return uffd_ioctl(fd, UFFDIO_REGISTER, &range);
}

int sys_uffd_write_protect_new(bool deliver_signal, bool *ret_kernel_faults, uint32_t *ret_features)
{
	uint64_t wanted = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
			  (deliver_signal ? UFFD_FEATURE_SIGBUS : 0);
	uint32_t features = SYS_UFFD_UNPOPULATED;
	int fd;

	/* An unknown feature fails the call, and takes the descriptor with it. */
	fd = uffd_new(!deliver_signal, wanted | UFFD_FEATURE_WP_UNPOPULATED, ret_kernel_faults);
	if (fd == -EINVAL) {
		features = 0;
		fd = uffd_new(!deliver_signal, wanted, ret_kernel_faults);
	}
	*ret_features = features;
	return fd;
}

int sys_uffd_register(int fd, void *address, size_t length, bool missing)
{
	struct uffdio_register range = {
		.range = { .start = (uintptr_t)address, .len = length },
		.mode = UFFDIO_REGISTER_MODE_WP | (missing ? UFFDIO_REGISTER_MODE_MISSING : 0),
	};

	return uffd_ioctl(fd, UFFDIO_REGISTER, &range);
}

int sys_uffd_unregister(int fd, void *address, size_t length)
{
	struct uffdio_range range = { .start = (uintptr_t)address, .len = length };

	return uffd_ioctl(fd, UFFDIO_UNREGISTER, &range);
}

int sys_uffd_protect(int fd, void *address, size_t length, bool protect, bool wake)
{
	struct uffdio_writeprotect range = {
		.range = { .start = (uintptr_t)address, .len = length },
		.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP :
				  (wake ? 0 : UFFDIO_WRITEPROTECT_MODE_DONTWAKE),
	};
	int r;

	do
		r = uffd_ioctl(fd, UFFDIO_WRITEPROTECT, &range);
	while (r == -EAGAIN); /* the address space is being changed, by fork() say */
	return r;
}

int sys_pagemap_open(void)
{
	int r = injected(SYS_CALL_PAGEMAP);
	int fd;

	if (r < 0)
		return r;
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

#define PAGEMAP_CONTENT (3ull << 62) /* present, or swapped */

int sys_pagemap_read(int pagemap, const void *address, size_t pages, unsigned char *ret_present)
{
	uint64_t entries[512];
	int r = injected(SYS_CALL_PAGEMAP);

	for (size_t done = 0; r == 0 && done < pages;) {
		size_t piece = pages - done < 512 ? pages - done : 512;
		off_t at =
			(off_t)(((uintptr_t)address / sys_page_size() + done) * sizeof(entries[0]));
		ssize_t n = pread(pagemap, entries, piece * sizeof(entries[0]), at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		for (size_t i = 0; i < (size_t)n / sizeof(entries[0]); i++)
			ret_present[done++] = (entries[i] & PAGEMAP_CONTENT) != 0;
	}
	return r;
}

/* Kernels before 6.7 have to be asked for each page: a region that is mostly reserved takes them
 * long. */
static int find_page_by_page(int pagemap, const char *address, const char *end,
			     const void **ret_found)
{
	size_t page = sys_page_size();
	unsigned char content[512] = { 0 };

	for (; address < end; address += sizeof(content) * page) {
		size_t left = (size_t)(end - address) / page;
		size_t count = left < sizeof(content) ? left : sizeof(content);
		int r = sys_pagemap_read(pagemap, address, count, content);

		if (r < 0)
			return r;
		for (size_t i = 0; i < count; i++)
			if (content[i]) {
				*ret_found = address + i * page;
				return 0;
			}
	}
	*ret_found = end;
	return 0;
}

int sys_pagemap_scans(int pagemap)
{
	static const char here;
	size_t page = sys_page_size();
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = (uintptr_t)&here & ~(page - 1),
		.category_anyof_mask = PAGE_IS_PRESENT,
		.return_mask = PAGE_IS_PRESENT,
	};

	scan.end = scan.start + page;
	return ioctl(pagemap, PAGEMAP_SCAN, &scan) < 0 ? -errno : 0;
}

int sys_pagemap_find(int pagemap, const void *address, const void *end, const void **ret_found)
{
	struct page_region found = { 0 };
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = (uintptr_t)address,
		.end = (uintptr_t)end,
		.vec = (uintptr_t)&found,
		.vec_len = 1,
		.max_pages = 1,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
	};
	int r = injected(SYS_CALL_PAGEMAP);

	if (r < 0)
		return r;
	r = ioctl(pagemap, PAGEMAP_SCAN, &scan);
	if (r < 0)
		return find_page_by_page(pagemap, address, end, ret_found);
	*ret_found = r == 0 ? end : (const void *)(uintptr_t)found.start;
	return 0;
}

int sys_file_data(int fd, uint64_t offset, uint64_t end, uint64_t *ret_data, uint64_t *ret_hole)
{
	int r = injected(SYS_CALL_PAGEMAP);
	off_t data, hole;

	if (r < 0)
		return r;
	*ret_data = *ret_hole = end;
	data = lseek(fd, (off_t)offset, SEEK_DATA);
	if (data < 0)
		return errno == ENXIO ? 0 : -errno;
	if ((uint64_t)data >= end)
		return 0;
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	*ret_data = (uint64_t)data;
	*ret_hole = (uint64_t)hole < end ? (uint64_t)hole : end;
	return 0;
}

int sys_signal_handler(int signal, void (*handler)(int, siginfo_t *, void *),
		       struct sigaction *ret_before)
{
	struct sigaction action = {
		.sa_sigaction = handler,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	int r = injected(SYS_CALL_SIGACTION);

	if (r < 0)
		return r;
	sigfillset(&action.sa_mask);
	return sigaction(signal, &action, ret_before) < 0 ? -errno : 0;
}

int sys_uffd_read(int fd, uint64_t *ret_address)
{
	struct uffd_msg message;
	ssize_t n;

	do
		n = read(fd, &message, sizeof(message));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (n != sizeof(message) || message.event != UFFD_EVENT_PAGEFAULT)
		return 0;
	*ret_address = message.arg.pagefault.address;
	return 1;
}

int sys_uffd_copy(int fd, void *to, const void *from, size_t length)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)to,
		.src = (uintptr_t)from,
		.len = length,
	};

	return uffd_ioctl(fd, UFFDIO_COPY, &copy);
}

int sys_uffd_wake(int fd, void *address, size_t length)
{
	struct uffdio_range range = { .start = (uintptr_t)address, .len = length };

	return uffd_ioctl(fd, UFFDIO_WAKE, &range);
}

int sys_eventfd_signal(int fd)
{
	return eventfd_write(fd, 1) < 0 ? -errno : 0;
}

int sys_at_fork_child(void (*function)(void))
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards known */
	static void (*known)(void);
	int r = 0;

	pthread_mutex_lock(&mutex);
	if (known != function)
		r = -pthread_atfork(NULL, NULL, function);
	if (r == 0)
		known = function;
	pthread_mutex_unlock(&mutex);
	return r;
}

void sys_signals_block(sigset_t *ret_before)
{
	sigset_t any;

	sigfillset(&any);
	sigdelset(&any, SIGSEGV);
	sigdelset(&any, SIGBUS);
	sigdelset(&any, SIGFPE);
	sigdelset(&any, SIGILL);
	sigdelset(&any, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &any, ret_before);
}

void sys_signals_restore(const sigset_t *before)
{
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* The library's own, counted so that the program's can be told. */
static _Atomic unsigned own_threads;

struct thread_start {
	void *(*run)(void *);
	void *context;
};

static void *run_thread(void *context)
{
	struct thread_start start = *(struct thread_start *)context;
	void *result;

	sys_free(context);
	result = start.run(start.context);
	own_threads--;
	return result;
}

/* The directory has a link from each of its own. */
bool sys_is_alone(void)
{
	struct stat tasks;

	return stat("/proc/self/task", &tasks) == 0 && tasks.st_nlink == 3 + own_threads;
}

int sys_thread_start(pthread_t *ret_thread, void *(*run)(void *), void *context)
{
	int r = injected(SYS_CALL_THREAD);
	struct thread_start *start;
	sigset_t all, before;

	if (r < 0)
		return r;
	start = sys_alloc(sizeof(*start));
	if (!start)
		return -ENOMEM;
	*start = (struct thread_start){ run, context };
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	own_threads++;
	r = -pthread_create(ret_thread, NULL, run_thread, start);
	if (r < 0) {
		own_threads--;
		sys_free(start);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int64_t sys_process_id(void)
{
	return getpid();
}

uint64_t sys_monotonic_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t sys_realtime_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}
