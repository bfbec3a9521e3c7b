/* SPDX-License-Identifier: MIT */
/* Allocations and mappings. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sys/injected.h"

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

int sys_map_at(void *address, size_t length, int protection, int flags, int fd, uint64_t offset,
	       void **ret_address)
{
	int r = injected(SYS_CALL_MAP);
	void *mapped;

	if (r < 0)
		return r;
	mapped = mmap(address, length, protection, flags, fd, (off_t)offset);
	if (mapped == MAP_FAILED)
		return -errno;
	*ret_address = mapped;
	return 0;
}

int sys_map(void *address, size_t length, int protection, int flags, int fd, void **ret_address)
{
	return sys_map_at(address, length, protection, flags, fd, 0, ret_address);
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
