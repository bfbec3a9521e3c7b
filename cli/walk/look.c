/* SPDX-License-Identifier: MIT */
#include "cli/walk/look.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "proc/areas.h"

int lookout_open(struct lookout *lookout)
{
	struct lookout opened = { .scans = true, .page_bytes = (uint64_t)sysconf(_SC_PAGESIZE) };
	int error = proc_root_open(NULL, &opened.root);

	if (error)
		return error;
	opened.kpagecount = proc_root_open_file(&opened.root, "proc/kpagecount");
	opened.kpageflags = proc_root_open_file(&opened.root, "proc/kpageflags");
	*lookout = opened;
	return 0;
}

void lookout_close(struct lookout *lookout)
{
	if (lookout->kpagecount >= 0)
		close(lookout->kpagecount);
	if (lookout->kpageflags >= 0)
		close(lookout->kpageflags);
	proc_root_close(&lookout->root);
}

int lookout_open_process(const struct lookout *lookout, int pid)
{
	char path[40];

	snprintf(path, sizeof(path), "proc/%d/pagemap", pid);
	return proc_root_open_file(&lookout->root, path);
}

static int read_word(int fd, uint64_t index, uint64_t *ret_word)
{
	uint64_t word;
	ssize_t n;

	do
		n = pread(fd, &word, sizeof(word), (off_t)(index * sizeof(word)));
	while (n < 0 && errno == EINTR);
	if (n != sizeof(word))
		return n < 0 ? -errno : -ENODATA;
	*ret_word = word;
	return 0;
}

/* What PAGEMAP_SCAN tells of a page; 0 where there is no such thing. */
static uint64_t scan(struct lookout *lookout, int pagemap, uint64_t address)
{
	struct pagemap_scan_region region = { 0 };
	struct pagemap_scan scan = {
		.size = sizeof(scan),
		.start = address,
		.end = address + lookout->page_bytes,
		.regions = (uintptr_t)&region,
		.region_count = 1,
		.all_of = PAGEMAP_SCAN_PRESENT,
		.wanted = PAGEMAP_SCAN_PRESENT | PAGEMAP_SCAN_ZERO | PAGEMAP_SCAN_HUGE,
	};
	long found = ioctl(pagemap, PAGEMAP_SCAN_REQUEST, &scan);

	if (found < 0)
		lookout->scans = false;
	return found > 0 ? region.categories : 0;
}

/* A frame may be another's a moment later; here all who could change it are waiting. */
static void look_at_frame(const struct lookout *lookout, struct walk_entry *entry)
{
	uint64_t word = 0;

	if (entry->frame == WALK_UNKNOWN)
		return;
	if (lookout->kpagecount >= 0 && read_word(lookout->kpagecount, entry->frame, &word) == 0)
		entry->maps = word;
	if (lookout->kpageflags >= 0 && read_word(lookout->kpageflags, entry->frame, &word) == 0) {
		entry->flags = word;
		entry->zero = entry->zero || (word & KPAGE_ZERO);
	}
}

int lookout_see(struct lookout *lookout, int pagemap, const void *address,
		struct walk_entry *ret_entry)
{
	struct walk_entry entry = {
		.exists = true,
		.frame = WALK_UNKNOWN,
		.maps = WALK_UNKNOWN,
		.flags = WALK_UNKNOWN,
	};
	uint64_t word = 0, categories;
	int error = read_word(pagemap, (uintptr_t)address / lookout->page_bytes, &word);

	if (error)
		return error;
	entry.present = word & PAGEMAP_PRESENT;
	entry.swapped = word & PAGEMAP_SWAPPED;
	if (entry.present) {
		entry.exclusive = word & PAGEMAP_EXCLUSIVE;
		entry.file = word & PAGEMAP_FILE;
		if (word & PAGEMAP_FRAME)
			entry.frame = word & PAGEMAP_FRAME;
		categories = scan(lookout, pagemap, (uintptr_t)address);
		entry.zero = categories & PAGEMAP_SCAN_ZERO;
		entry.huge = categories & PAGEMAP_SCAN_HUGE;
		look_at_frame(lookout, &entry);
	}
	*ret_entry = entry;
	return 0;
}
