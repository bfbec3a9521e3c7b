/* SPDX-License-Identifier: MIT */
/* Opens a process for reading: its pagemap, and the ranges of addresses that are worth a look. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/ps/pages.h"
#include "proc/areas.h"
#include "proc/keyed.h"

#define KERNEL_HALF (UINT64_C(1) << 63) /* [vsyscall] stands there, and has no page tables */

/*
 * A process that reserves much more than it uses (heaps of Java and Go, AddressSanitizer's
 * shadow) has areas whose pagemap would be gigabytes of zeroes. There the kernel is asked first
 * where something is; this needs PAGEMAP_SCAN (Linux 6.7). Older ones are read in full.
 */
#define SPARSE_RATIO      4
#define SPARSE_AREA_BYTES (UINT64_C(64) << 20)

struct opening {
	const struct page_world *world;
	struct page_source source;
	bool sparse;
};

static int add_range(struct opening *opening, const struct proc_area *area, uint64_t start,
		     uint64_t end)
{
	uint64_t page_bytes = opening->world->page_bytes, page = start / page_bytes;
	struct page_source *source = &opening->source;
	struct page_range *range, *grown;

	if (source->count == source->room) {
		source->room = source->room ? 2 * source->room : 32;
		grown = realloc(source->ranges, source->room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		source->ranges = grown;
	}
	range = &source->ranges[source->count++];
	*range =
		(struct page_range){ .page = page, .count = end / page_bytes - page, .from = page };
	if (!area->inode)
		return 0;
	range->kind = AREA_FILE;
	range->object = UINT64_C(1) << 63 | (uint64_t)area->device_major << 32 | area->device_minor;
	range->inode = area->inode;
	range->from = (area->offset + (start - area->start)) / page_bytes;
	return 0;
}

/* The ranges in which something is, rounded to leaves: 0, or -ENOTTY where that cannot be asked. */
static int add_populated(struct opening *opening, const struct proc_area *area)
{
	uint64_t leaf = LEAF_ENTRIES * opening->world->page_bytes, at = area->start, start, end;
	struct pagemap_scan_region regions[64];
	struct pagemap_scan scan;
	long found, i;
	int error = 0;

	while (at < area->end) {
		scan = (struct pagemap_scan){
			.size = sizeof(scan),
			.start = at,
			.end = area->end,
			.regions = (uintptr_t)regions,
			.region_count = sizeof(regions) / sizeof(regions[0]),
			.all_of = PAGEMAP_SCAN_PRESENT,
			.wanted = PAGEMAP_SCAN_PRESENT,
		};
		found = ioctl(opening->source.pagemap, PAGEMAP_SCAN_REQUEST, &scan);
		if (found < 0)
			return errno == EINTR ? -EAGAIN : -errno;
		if (!found)
			break;
		for (i = 0; i < found && !error; i++) {
			start = regions[i].start / leaf * leaf;
			end = (regions[i].end + leaf - 1) / leaf * leaf;
			start = start > at ? start : at;
			end = end < area->end ? end : area->end;
			if (start < end)
				error = add_range(opening, area, start, end);
			at = end > at ? end : at;
		}
		if (error)
			return error;
		/* The walk may have stopped within what was just rounded up and taken. */
		at = scan.walk_end > at ? scan.walk_end : at;
	}
	return 0;
}

static int add_area(struct opening *opening, const struct proc_area *area)
{
	int error;

	if (area->start >= KERNEL_HALF)
		return 0;
	if (opening->sparse && area->end - area->start >= SPARSE_AREA_BYTES) {
		error = add_populated(opening, area);
		if (error != -ENOTTY)
			return error;
	}
	return add_range(opening, area, area->start, area->end);
}

/* hugetlb pages are no part of RSS or PSS; smaps tells which areas have them, maps does not. */
static bool has_huge_tlb(struct text details)
{
	static const struct keyed_field field = { "KernelPageSize", 0 };
	uint64_t page_bytes = KEYED_ABSENT;

	return keyed_parse(details, &field, 1, KEYED_FIRST, &page_bytes) == 1 &&
	       page_bytes != (uint64_t)sysconf(_SC_PAGESIZE);
}

static int add_areas(struct opening *opening, struct text text, bool is_smaps)
{
	struct proc_area area;
	struct text details;
	int found, error;

	for (;;) {
		found = is_smaps ? proc_smaps_area_next(&text, &area, &details) :
				   proc_area_next(&text, &area);
		if (found <= 0)
			return found;
		if (is_smaps && has_huge_tlb(details))
			continue;
		error = add_area(opening, &area);
		if (error)
			return error;
	}
}

/* Kernels before 5.19 do not tell, nor does one that does not let us look: then it may be. */
static bool may_have_merged(const struct page_world *world, struct page_reader *reader, int process)
{
	uint64_t merged = 1;
	struct text text;

	if (!world->merging)
		return false;
	if (proc_read_at(world->root, process, "ksm_merging_pages", &reader->text, &text) < 0 ||
	    text_only_u64(text, &merged) < 0)
		return true;
	return merged > 0;
}

int pages_open(const struct page_world *world, struct page_reader *reader, int process,
	       const struct proc_status *status, uint32_t number, struct page_source *ret_source)
{
	bool by_smaps = status->huge_tlb_bytes && status->huge_tlb_bytes != KEYED_ABSENT;
	struct opening opening = {
		.world = world,
		.sparse = status->virtual_bytes / SPARSE_RATIO > status->resident_bytes,
		.source = { .number = number },
	};
	struct text text;
	int error;

	opening.source.merging = may_have_merged(world, reader, process);
	/* First: what is opened is this address space, also when exec gives it another. */
	opening.source.pagemap = openat(process, "pagemap", O_RDONLY | O_CLOEXEC);
	if (opening.source.pagemap < 0)
		return -errno; /* cppcheck-suppress memleak ; of nothing yet */
	error = proc_read_at(world->root, process, by_smaps ? "smaps" : "maps", &reader->text,
			     &text);
	if (!error)
		error = add_areas(&opening, text, by_smaps);
	if (error)
		pages_close(&opening.source);
	else
		*ret_source = opening.source;
	return error;
}

void pages_close(struct page_source *source)
{
	if (source->pagemap >= 0)
		close(source->pagemap);
	free(source->ranges);
	source->pagemap = -1;
	source->ranges = NULL;
	source->count = source->room = 0;
}
