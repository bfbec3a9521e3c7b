/* SPDX-License-Identifier: MIT */
/* The core's host.h on Linux: memory from mmap(), waiting by futex(). */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/host.h"
#include "sys/sys.h"

/* mmap() aligns to pages only: take more, and give back what is left on both sides. The memory is
 * not inherited by fork(): a child cannot use a region, so its page tables need not carry it.
 *
 * No huge pages unless asked for: where they are on for everybody, as in Debian's kernels, the
 * first touch of an aligned chunk would take 2 MiB, and a limit would bound what the pool counts
 * but not what the process has. */
void *host_map(size_t bytes, size_t align)
{
	size_t page = sys_page_size();
	size_t extra = align > page ? align - page : 0;
	uintptr_t start, aligned;
	void *mapped;

	if (sys_map(NULL, bytes + extra, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, &mapped) < 0)
		return NULL;
	start = (uintptr_t)mapped;
	aligned = (start + extra) & ~(uintptr_t)(align - 1);
	if (aligned > start)
		munmap(mapped, aligned - start);
	if (aligned + bytes < start + bytes + extra)
		munmap((void *)(aligned + bytes), start + extra - aligned);
	madvise((void *)aligned, bytes, MADV_DONTFORK);
	madvise((void *)aligned, bytes, MADV_NOHUGEPAGE);
	return (void *)aligned;
}

void host_unmap(void *memory, size_t bytes)
{
	munmap(memory, bytes);
}

void host_populate(void *memory, size_t bytes)
{
	madvise(memory, bytes, MADV_POPULATE_WRITE); /* unknown before 5.14: then each page traps */
}

void host_advise_huge(void *memory, size_t bytes)
{
	madvise(memory, bytes, MADV_HUGEPAGE);
}

bool host_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
	struct timespec until = {
		.tv_sec = (time_t)(deadline_ns / 1000000000),
		.tv_nsec = (long)(deadline_ns % 1000000000),
	};
	int saved = errno;
	long r;

	/* WAIT_BITSET takes an absolute time on the monotonic clock. */
	r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value, deadline_ns ? &until : NULL,
		    NULL, FUTEX_BITSET_MATCH_ANY);
	if (r < 0 && errno == ETIMEDOUT) {
		errno = saved;
		return false;
	}
	errno = saved;
	return deadline_ns == 0 || host_now() < deadline_ns;
}

void host_wake(_Atomic uint32_t *word)
{
	int saved = errno;

	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX);
	errno = saved;
}

void host_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

uint64_t host_now(void)
{
	return sys_monotonic_ns();
}

/* A thread keeps the number it gets at its first call. */
unsigned host_shard(void)
{
	static _Atomic unsigned threads;
	static _Thread_local unsigned mine __attribute__((tls_model("initial-exec")));

	if (mine == 0)
		mine = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) % HOST_SHARDS +
		       1;
	return mine - 1;
}
