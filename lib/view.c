/* SPDX-License-Identifier: MIT */
/*
 * Views: a whole snapshot as contiguous read-only memory.
 *
 * A view is an empty mapping that is brought in when it is touched, from the snapshot, a run
 * around the missing page at a time. Where there is no userfaultfd it is filled at once. A page
 * that cannot be had (the snapshot was given up, a spilled page cannot be read) answers every
 * access with SIGBUS.
 */
#include "lib/pager.h"

#define RUN_PAGES 16u /* read at a time */

struct view {
	struct cow_snapshot *snapshot; /* owns the view: no reference */
	unsigned char *base;
	size_t length;
	size_t run;           /* bytes read at a time */
	struct pager *pager;  /* NULL: filled at once, complete */
	unsigned char *bytes; /* a run, of the pager's thread */
};

static int bring_in(struct view *view, size_t offset, size_t length, unsigned char *bytes)
{
	int r = cow_snapshot_read(view->snapshot, offset, bytes, length);

	return r < 0 ? r : pager_put(view->pager, offset, bytes, length);
}

/* Where the run cannot be had, the page may. */
static int fill(void *context, size_t start, size_t length, size_t touched)
{
	struct view *view = context;

	if (bring_in(view, start, length, view->bytes) == 0)
		return 0;
	return bring_in(view, touched, sys_page_size(), view->bytes);
}

void view_free(struct view *view)
{
	if (!view)
		return;
	pager_free(view->pager);
	if (view->base) {
		atomic_fetch_sub(&view->snapshot->region->view_bytes, view->length);
		sys_unmap(view->base, view->length);
	}
	sys_free(view->bytes);
	sys_free(view);
}

static int map_memory(struct view *view)
{
	void *base;
	int r;

	r = sys_map(NULL, view->length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		    &base);
	if (r < 0)
		return r;
	view->base = base;
	atomic_fetch_add(&view->snapshot->region->view_bytes, view->length);
	return sys_advise(base, view->length, MADV_DONTFORK);
}

static int serve_faults(struct view *view)
{
	struct pager_config config = {
		.base = view->base,
		.length = view->length,
		.piece = view->run,
		.protection = PROT_READ,
		.fill = fill,
		.context = view,
	};
	int r = pager_new(&config, &view->pager);

	if (r == 0)
		r = pager_watch(view->pager);
	if (r < 0) {
		pager_free(view->pager);
		view->pager = NULL;
	}
	return r;
}

/* Nobody knows the mapping yet, so it may be written for a while. */
static int fill_at_once(struct view *view)
{
	void *ignored;
	int r;

	r = sys_map(view->base, view->length, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, &ignored);
	if (r == 0)
		r = sys_advise(view->base, view->length, MADV_DONTFORK);
	if (r == 0)
		r = cow_snapshot_read(view->snapshot, 0, view->base, view->length);
	if (r == 0)
		r = sys_protect(view->base, view->length, PROT_READ);
	return r;
}

static int populate(struct view *view)
{
	unsigned char *bytes;
	int r = 0;

	if (!view->pager)
		return 0;
	bytes = sys_alloc(view->run);
	if (!bytes)
		return -ENOMEM;
	for (size_t at = 0; r == 0 && at < view->length; at += view->run)
		r = bring_in(view, at,
			     view->length - at < view->run ? view->length - at : view->run, bytes);
	sys_free(bytes);
	return r;
}

static int view_new(struct cow_snapshot *snapshot, struct view **ret_view)
{
	struct view *view = sys_alloc(sizeof(*view));
	int r;

	if (!view)
		return -ENOMEM;
	*view = (struct view){
		.snapshot = snapshot,
		.length = snapshot->region->length,
		.run = RUN_PAGES * sys_page_size(),
	};
	view->bytes = sys_alloc(view->run);
	r = view->bytes ? map_memory(view) : -ENOMEM;
	if (r == 0 && serve_faults(view) < 0)
		r = fill_at_once(view);
	if (r < 0) {
		view_free(view);
		return r;
	}
	*ret_view = view;
	return 0;
}

int cow_snapshot_map(struct cow_snapshot *snapshot, uint32_t flags, const void **ret_base)
{
	bool made = false;
	int r;

	r = check_snapshot(snapshot);
	if (r < 0)
		return r;
	if (!ret_base || (flags & ~COW_MAP_POPULATE))
		return -EINVAL;
	pthread_mutex_lock(&snapshot->view_mutex);
	if (atomic_load(&snapshot->pins) & SNAPSHOT_DROPPED)
		r = -ESTALE; /* the last resort takes mapped ones, too */
	if (r == 0 && !snapshot->view) {
		r = snapshot_pin(snapshot); /* until the snapshot goes */
		if (r == 0) {
			r = view_new(snapshot, &snapshot->view);
			made = r == 0;
			if (r < 0)
				snapshot_unpin(snapshot);
		}
	}
	if (r == 0 && (flags & COW_MAP_POPULATE))
		r = populate(snapshot->view);
	if (r < 0 && made) {
		view_free(snapshot->view);
		snapshot->view = NULL;
		snapshot_unpin(snapshot);
	}
	if (r == 0)
		*ret_base = snapshot->view->base;
	pthread_mutex_unlock(&snapshot->view_mutex);
	return r;
}
