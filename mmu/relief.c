/* SPDX-License-Identifier: MIT */
/*
 * The way out where the kernel refuses to open a page, or has armed one that is open for the core.
 *
 * Under mprotect each run of open pages is a mapping of its own, of which a process may have
 * vm.max_map_count. A page that would be one too many is opened together with all that lies between
 * it and the nearest open ones on both sides: that joins three runs into one, which gives two
 * mappings back. Each page in between is opened by the core like one that was written, so it costs
 * a kept copy, and nothing is lost.
 *
 * What the open set holds may be armed all the same, since that is how we came here: then the
 * kernel refuses again, and the range grows to the next open page, at worst to the whole region,
 * which is one mapping.
 *
 * A range is opened for the kernel while all of it is open for the core, and stays so: no cut falls
 * here, inside the gate, and arming ahead takes arm_lock.
 */
#include <errno.h>

#include "mmu/trap.h"

static _Thread_local bool under_way __attribute__((tls_model("initial-exec")));

bool trap_is_relieving(void)
{
	return under_way;
}

static bool is_all_open(struct trap *trap, struct block range)
{
	for (uint64_t page = range.first; page < range.end; page++)
		if (!space_is_open(trap->space, page))
			return false;
	return true;
}

/* For the core only: the kernel is asked once for all of it. */
static int open_for_core(struct trap *trap, struct block range)
{
	int r = 0;

	under_way = true;
	for (uint64_t page = range.first; r == 0 && page < range.end; page++)
		r = fault(trap->space, page, 0);
	under_way = false;
	return r;
}

static int open_range(struct trap *trap, struct block range)
{
	uint64_t count = range.end - range.first;
	bool open = false;
	int r = 0;

	while (r == 0 && !open) {
		r = open_for_core(trap, range);
		if (r < 0)
			return r;
		lock_take(&trap->arm_lock);
		open = is_all_open(trap, range);
		if (open) {
			openset_add_run(&trap->open, range.first, count);
			r = trap->ops->unprotect(trap, range.first, count);
		}
		lock_drop(&trap->arm_lock);
	}
	return r;
}

#define FAR_PAGES 64u /* what is farther is not worth its copies */

/* Up to and with the next open page on both sides, or the nearer one; all there is where nothing is
 * open. */
static struct block widen(struct trap *trap, struct block range)
{
	struct block wide = { 0, trap->space->pages };
	uint64_t before, after;
	bool below = openset_before(&trap->open, range.first, &before);
	bool above = openset_after(&trap->open, range.end, &after);

	if (below)
		wide.first = before;
	if (above)
		wide.end = after + 1;
	if (below &&
	    (!above || (after - range.end > FAR_PAGES && after - range.end > range.first - before)))
		wide.end = range.end;
	else if (above && (!below || range.first - before > FAR_PAGES))
		wide.first = range.first;
	return wide;
}

int trap_relieve(struct trap *trap, uint64_t page)
{
	struct block range = { page, page + 1 };
	int r;

	while ((r = open_range(trap, range)) == -ENOMEM &&
	       range.end - range.first < trap->space->pages)
		range = widen(trap, range);
	return r;
}
