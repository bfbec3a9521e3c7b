/* SPDX-License-Identifier: MIT */
/* Which pages have content: /proc/self/pagemap. */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "sys/injected.h"

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
