/* SPDX-License-Identifier: MIT */
/*
 * What the kernel says of single pages: /proc/PID/pagemap, the ioctl PAGEMAP_SCAN, /proc/kpagecount
 * and /proc/kpageflags.
 *
 * Without CAP_SYS_ADMIN frames are hidden; that a page is there, and whether it is mapped once, is
 * told to everybody. The page of zeroes is told by PAGEMAP_SCAN (Linux 6.7, no privilege) or by
 * kpageflags (privilege); where there is neither it is an anonymous page that is mapped more than
 * once though nobody shares it, and so the caller's to recognise.
 */
#ifndef CLI_WALK_LOOK_H
#define CLI_WALK_LOOK_H

#include "cli/walk/walk.h"
#include "proc/root.h"

struct lookout {
	struct proc_root root;
	int kpagecount, kpageflags; /* -1: may not be read */
	bool scans;                 /* PAGEMAP_SCAN is there, as far as is known */
	uint64_t page_bytes;
};

int lookout_open(struct lookout *lookout);
void lookout_close(struct lookout *lookout);

/* A descriptor for lookout_see(), or a negative errno. */
int lookout_open_process(const struct lookout *lookout, int pid);

/* Fills in all but `writable`. */
int lookout_see(struct lookout *lookout, int pagemap, const void *address,
		struct walk_entry *ret_entry);

#endif
