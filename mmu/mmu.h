/* SPDX-License-Identifier: MIT */
/*
 * What the core asks of a memory management unit. A back end protects and opens pages; it decides
 * nothing: whatever traps, the same fault() runs.
 *
 * A page that protect() returned for may still be written through a stale translation until flush()
 * returned. unprotect() takes effect at once. A NULL function has nothing to do. All of them may be
 * called in a trap.
 *
 * A back end that knows its open pages protects and flushes all of them in protect_open(), and
 * needs neither protect() nor flush(). It may fail; then pages may be protected all the same, which
 * costs a trap.
 */
#ifndef COW_MMU_MMU_H
#define COW_MMU_MMU_H

#include <stdbool.h>
#include <stdint.h>

struct mmu;

struct mmu_ops {
	const char *name;
	int (*protect_open)(struct mmu *mmu);
	void (*protect)(struct mmu *mmu, uint64_t page);
	void (*unprotect)(struct mmu *mmu, uint64_t first, uint64_t count);
	void (*flush)(struct mmu *mmu);
	/* After protect_open(), in the new epoch: takes care of the pages that it left open on
	 * purpose. Not 0: some of what they held is lost to the snapshot. */
	int (*keep_open)(struct mmu *mmu);
};

struct mmu {
	const struct mmu_ops *ops;
	bool traps; /* the kernel protects the pages: stores go to them unasked */
};

/* No trap: the epoch test in the caller's bracket is the protection, so a cut has nothing to do. */
extern struct mmu mmu_explicit;

#endif
