/* SPDX-License-Identifier: MIT */
/*
 * userfaultfd as an MMU: what the signal and the thread back end share.
 *
 * The window is registered at the first arming, in granules of 2 MiB:
 *
 *   empty     nothing in it has content: any first touch traps (MISSING), so that neither page
 *             tables nor time are spent on what is only reserved
 *   watched   its pages are write-protected one by one, also those without content
 *
 *   empty --first touch, or found with content at the start--> watched
 *
 * Making a granule watched lets go of its registration for a moment, in which other threads may
 * write it unseen. That is no harm: all of it reads as zero to older snapshots, and what turns out
 * to have content afterwards is opened in this epoch like any page. Whoever asks the table
 * meanwhile waits for that (uffd_await()).
 *
 * Of a window with a source all pages are protected from the start, and stay registered as missing;
 * a granule is watched when the source has filled it.
 *
 * Before Linux 6.4 a page of anonymous memory cannot be protected without content: its granule gets
 * the zero page everywhere, and so does what is given back (trap.needs_content). Who else empties
 * pages, with MADV_DONTNEED, is not noticed there.
 */
#ifndef COW_MMU_UFFD_H
#define COW_MMU_UFFD_H

#include "mmu/trap.h"

struct uffd {
	struct trap trap; /* first */
	bool kernel_faults;
	uint32_t features;
	int pagemap;
	int file; /* what the window maps, -1: nothing. Its data is content, mapped or not */
	struct trap_source source; /* or it has none of its own: see trap_set_source() */
	struct lock convert_lock;  /* guards granules */
	_Atomic uint8_t *watched;  /* a byte for each granule */
	size_t granules;
};

int uffd_init(struct uffd *uffd, const struct trap_ops *ops, bool deliver_signal,
	      struct space *space, const struct trap_policy *policy, int file);
void uffd_destroy(struct trap *trap);

int uffd_start(struct trap *trap);
int uffd_protect(struct trap *trap, uint64_t first, uint64_t count);
int uffd_unprotect(struct trap *trap, uint64_t first, uint64_t count);
void uffd_await(struct trap *trap);
bool uffd_covers(struct trap *trap, uint64_t first, uint64_t end);
int uffd_convert(struct trap *trap, uint64_t page);

#endif
