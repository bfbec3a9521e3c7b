/* SPDX-License-Identifier: MIT */
/*
 * Which pages differ between two states. The table says which pages were opened in between; opened
 * is not written, so those are compared.
 */
#include "lib/internal.h"

struct diff {
	struct cow_snapshot *older, *newer; /* newer NULL: the live region */
	struct space *space;
	unsigned char *pages; /* two */
	cow_range_fn range;
	void *context;
	uint64_t run_first, run_end;
};

static int report_run(struct diff *diff)
{
	uint64_t first = diff->run_first, end = diff->run_end;
	unsigned shift = diff->space->page_shift;

	diff->run_first = diff->run_end = 0;
	if (first == end)
		return 0;
	return diff->range((size_t)(first << shift), (size_t)((end - first) << shift),
			   diff->context);
}

static int read_newer(struct diff *diff, uint64_t page, unsigned char *content)
{
	size_t size = space_page_size(diff->space);

	if (diff->newer)
		return snap_read(&diff->newer->snap, page, 0, content, size);
	return space_read(diff->space, page, 0, content, size);
}

/* 1: the bytes differ. */
static int compare(struct diff *diff, uint64_t page)
{
	size_t size = space_page_size(diff->space);
	int r;

	if (diff->newer &&
	    snap_content_epoch(&diff->newer->snap, page) <= diff->older->snap.epoch &&
	    !atomic_load(&diff->newer->snap.dropped))
		return 0;
	r = snap_read(&diff->older->snap, page, 0, diff->pages, size);
	if (r == 0)
		r = read_newer(diff, page, diff->pages + size);
	if (r < 0)
		return r;
	return memcmp(diff->pages, diff->pages + size, size) != 0;
}

static int visit(uint64_t page, struct entry *entry, void *context)
{
	struct diff *diff = context;
	int r = compare(diff, page);

	(void)entry;
	if (r <= 0)
		return r;
	if (page != diff->run_end) {
		r = report_run(diff);
		if (r != 0)
			return r;
		diff->run_first = page;
	}
	diff->run_end = page + 1;
	return 0;
}

static int check_pair(struct cow_snapshot *older, struct cow_snapshot *newer)
{
	int r = check_snapshot(older);

	if (r == 0 && newer)
		r = check_snapshot(newer);
	if (r < 0)
		return r;
	if (newer && newer->region != older->region)
		return -EINVAL;
	return 0;
}

int cow_snapshot_diff(struct cow_snapshot *older, struct cow_snapshot *newer, cow_range_fn range,
		      void *context)
{
	struct diff diff = { .range = range, .context = context };
	int r;

	r = check_pair(older, newer);
	if (r < 0)
		return r;
	if (!range)
		return -EINVAL;
	/* The difference is the same both ways, the walk begins at the older one. */
	if (newer && newer->snap.epoch < older->snap.epoch) {
		diff.older = newer;
		diff.newer = older;
	} else {
		diff.older = older;
		diff.newer = newer;
	}
	if (atomic_load(&older->snap.dropped) || (newer && atomic_load(&newer->snap.dropped)))
		return -ESTALE;
	diff.space = &older->region->space;
	diff.pages = sys_alloc_array(2, space_page_size(diff.space));
	if (!diff.pages)
		return -ENOMEM;
	trap_await(newer ? NULL : older->region->trap);
	r = table_walk(&diff.space->table, 0, diff.space->pages, diff.older->snap.epoch, visit,
		       &diff);
	if (r == 0)
		r = report_run(&diff);
	sys_free(diff.pages);
	return r;
}
