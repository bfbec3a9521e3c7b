/* SPDX-License-Identifier: MIT */
/* Memory of the caller's that became a region: see adopt.c. */
#ifndef COW_LIB_ADOPT_H
#define COW_LIB_ADOPT_H

#include "lib/internal.h"

/* Makes the memory the region's window, whose length is set. -EBUSY: some of it is a region's
 * already. */
int adopted_add(struct cow_region *region, void *address);
/* Before the trap is freed, and after it. Both do nothing for a region that was not adopted. */
void adopted_release(struct cow_region *region);
void adopted_remove(struct cow_region *region);
void adopted_after_fork(void);

/* Whether the region's trap can work on what is mapped there. -EINVAL: no; -EBUSY: somebody else
 * has the faults. Either was said to the log. */
int adopted_try(const struct cow_region *region);

#endif
