/* SPDX-License-Identifier: MIT */
/*
 * Memory that is brought in when it is touched: a thread waits for the missing pages of one mapping
 * through userfaultfd, and has them filled in pieces of one size.
 *
 * A page that cannot be had becomes one of an empty file: whoever touches it gets SIGBUS. Nobody is
 * left waiting, and nobody sees a page half filled.
 *
 * The threads of mmu/workers.c would not do: filling may itself touch a region, whose trap they
 * would have to serve meanwhile.
 */
#ifndef COW_LIB_PAGER_H
#define COW_LIB_PAGER_H

#include "lib/internal.h"

struct pager;

struct pager_config {
	unsigned char *base; /* mapped by the caller, who unmaps it after pager_free() */
	size_t length;
	size_t piece;      /* bytes filled at a time: a power of two of pages */
	int protection;    /* of the mapping */
	bool needs_kernel; /* of no use where system calls on missing pages fail */
	/* In the pager's thread. Brings in [start, start + length), the page at `touched` of it at
	 * least. 0: with pager_put(), which wakes who waits; 1: what is mapped has it now; an
	 * errno: that page cannot be had. */
	int (*fill)(void *context, size_t start, size_t length, size_t touched);
	void *context;
};

/* An errno: not to be had here. The mapping is not touched, and may be replaced until
 * pager_watch(). */
int pager_new(const struct pager_config *config, struct pager **ret_pager);
/* From here on missing pages wait for the thread. After an errno the pager is of no use. */
int pager_watch(struct pager *pager);
/* Puts pages in, whole, and wakes who waits; those that are there already stay. Any thread. */
int pager_put(struct pager *pager, size_t offset, const void *bytes, size_t length);
void pager_free(struct pager *pager); /* NULL-safe. Nobody touches the mapping any more */

#endif
