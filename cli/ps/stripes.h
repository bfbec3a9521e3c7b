/* SPDX-License-Identifier: MIT */
/*
 * The order in which page tables are read: by addresses, and within a stripe of them by processes.
 *
 * Relatives have their pages at the same addresses. Read one after the other, the frames of a
 * stripe (their struct pages in the kernel, their entries here) are still in the processor's caches
 * when the next relative refers to them. That is worth a quarter of the kernel's time, and makes
 * leaves comparable with the one read just before.
 */
#ifndef CLI_PS_STRIPES_H
#define CLI_PS_STRIPES_H

#include "cli/ps/pages.h"

struct stripe_part {
	uint32_t source, range; /* by number */
	uint32_t next;          /* of the same stripe, in the order of the sources; 0: none, else
				   number + 1 */
	uint64_t page, count;
};

struct stripes;

/*
 * Stripes of so many pages, of which the first begins `shift` pages before page 0. NULL without
 * memory. Sources that are not open have no part.
 */
struct stripes *stripes_new(const struct page_source *sources, size_t count, uint64_t stripe_pages,
			    uint64_t shift);
void stripes_free(struct stripes *stripes);

size_t stripes_count(const struct stripes *stripes);
/* NULL for `after`: the first of a stripe. NULL: there are no more. */
const struct stripe_part *stripes_next(const struct stripes *stripes, size_t stripe,
				       const struct stripe_part *after);

#endif
