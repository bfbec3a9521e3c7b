/* SPDX-License-Identifier: MIT */
/* The seam itself, and small things asked of the system. */
#include <errno.h>
#include <sched.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "sys/injected.h"

/* --- the seam --- */

int (*sys_injector)(enum sys_call call);

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

/* --- the rest --- */

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

int sys_random(void *buffer, size_t length)
{
	int r = injected(SYS_CALL_RANDOM);
	ssize_t n;

	if (r < 0)
		return r;
	do
		n = getrandom(buffer, length, 0);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (size_t)n == length ? 0 : -EIO;
}

unsigned sys_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}
