/* SPDX-License-Identifier: MIT */
/*
 * A process's areas (/proc/PID/maps), the words that /proc/PID/pagemap has for their pages, and
 * the frames that a machine has (/proc/zoneinfo).
 */
#ifndef PROC_AREAS_H
#define PROC_AREAS_H

#include "proc/text.h"

struct proc_area {
	uint64_t start, end; /* addresses; start < end, both multiples of 4096 */
	bool readable, writable, executable, shared;
	uint64_t offset; /* of start in the file */
	uint32_t device_major, device_minor;
	uint64_t inode;   /* 0: no file */
	struct text name; /* a path (newlines as \012), "[heap]", or empty; within the input */
};

/* Takes the next area: 1, 0 at the end, or -EINVAL. */
int proc_area_next(struct text *maps, struct proc_area *ret_area);

/*
 * The same from /proc/PID/smaps, with the lines that tell more of the area: "KernelPageSize: 4 kB"
 * and the like.
 */
int proc_smaps_area_next(struct text *smaps, struct proc_area *ret_area, struct text *ret_details);

/* A word of pagemap. Frames are 0 without CAP_SYS_ADMIN; "exclusive" is always told. */
#define PAGEMAP_FRAME     ((UINT64_C(1) << 55) - 1)
#define PAGEMAP_EXCLUSIVE (UINT64_C(1) << 56) /* mapped once */
#define PAGEMAP_FILE      (UINT64_C(1) << 61) /* of a file, or shared anonymous memory */
#define PAGEMAP_SWAPPED   (UINT64_C(1) << 62)
#define PAGEMAP_PRESENT   (UINT64_C(1) << 63)

/* The ioctl PAGEMAP_SCAN, as in <linux/fs.h> of Linux 6.7, which older headers lack. */
struct pagemap_scan_region {
	uint64_t start, end, categories;
};

struct pagemap_scan {
	uint64_t size, flags, start, end, walk_end;
	uint64_t regions, region_count, max_pages;
	uint64_t inverted, all_of, any_of, wanted;
};

#define PAGEMAP_SCAN_REQUEST _IOWR('f', 16, struct pagemap_scan)
#define PAGEMAP_SCAN_PRESENT (UINT64_C(1) << 3)
#define PAGEMAP_SCAN_ZERO    (UINT64_C(1) << 5) /* the zero page; no privilege needed */
#define PAGEMAP_SCAN_HUGE    (UINT64_C(1) << 6) /* one entry maps 2 MiB */

/* Words of kpageflags. */
#define KPAGE_HEAD     (UINT64_C(1) << 15) /* begins a page of several frames */
#define KPAGE_TAIL     (UINT64_C(1) << 16)
#define KPAGE_HUGE_TLB (UINT64_C(1) << 17)
#define KPAGE_KSM      (UINT64_C(1) << 21)
#define KPAGE_THP      (UINT64_C(1) << 22)
#define KPAGE_ZERO     (UINT64_C(1) << 24)

/* The frame after the last one of RAM, from /proc/zoneinfo; -EINVAL where it names no zone. */
int proc_zoneinfo_end(struct text text, uint64_t *ret_end);

#endif
