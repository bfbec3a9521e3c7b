/* SPDX-License-Identifier: MIT */
/*
 * Views: a whole snapshot as contiguous read-only memory.
 *
 * A view is an empty mapping whose missing pages userfaultfd reports. One service thread a view
 * reads them from the snapshot, a run around the missing one, and puts them in whole, so that
 * nobody ever sees a page half filled. Where there is no userfaultfd the view is filled at once.
 *
 * A page that cannot be had (the snapshot was given up, a spilled page cannot be read) is replaced
 * by one of an empty file, which answers every access with SIGBUS.
 */
#include <unistd.h>

#include "lib/internal.h"

#define RUN_PAGES 16u /* read at a time */

struct view {
	struct cow_snapshot *snapshot; /* owns the view: no reference */
	unsigned char *base;
	size_t length, page_size;
	int uffd; /* -1: filled at once, complete */
	int stop; /* eventfd */
	int epoll;
	int empty; /* a file of no length, for pages that cannot be had */
	bool kernel_faults;
	bool started;
	pthread_t thread;
	unsigned char *run; /* of the service thread */
};

/* Puts pages in, one by one where some of them are there already. */
static int put_pages(struct view *view, size_t offset, const unsigned char *pages, size_t length)
{
	int r = sys_uffd_copy(view->uffd, view->base + offset, pages, length);

	if (r != -EEXIST && r != -EAGAIN)
		return r;
	for (size_t at = 0; at < length; at += view->page_size) {
		do
			r = sys_uffd_copy(view->uffd, view->base + offset + at, pages + at,
					  view->page_size);
		while (r == -EAGAIN);
		if (r < 0 && r != -EEXIST)
			return r;
	}
	return sys_uffd_wake(view->uffd, view->base + offset, length);
}

static void poison(struct view *view, size_t offset)
{
	void *ignored;

	(void)sys_map(view->base + offset, view->page_size, PROT_READ, MAP_SHARED | MAP_FIXED,
		      view->empty, &ignored);
	(void)sys_uffd_wake(view->uffd, view->base + offset, view->page_size);
}

static void serve(struct view *view, size_t offset)
{
	size_t run = RUN_PAGES * view->page_size;
	size_t start = offset / run * run;
	size_t length = view->length - start < run ? view->length - start : run;

	if (cow_snapshot_read(view->snapshot, start, view->run, length) == 0 &&
	    put_pages(view, start, view->run, length) == 0)
		return;
	offset = offset / view->page_size * view->page_size;
	if (cow_snapshot_read(view->snapshot, offset, view->run, view->page_size) < 0 ||
	    put_pages(view, offset, view->run, view->page_size) < 0)
		poison(view, offset);
}

static void *serve_faults(void *context)
{
	struct view *view = context;
	uint64_t which, address;

	for (;;) {
		if (sys_epoll_wait(view->epoll, -1, &which) < 0 || which == (uint64_t)view->stop)
			return NULL;
		while (sys_uffd_read(view->uffd, &address) == 1)
			serve(view, address - (uintptr_t)view->base);
	}
}

void view_free(struct view *view)
{
	if (!view)
		return;
	if (view->started) {
		sys_eventfd_signal(view->stop);
		pthread_join(view->thread, NULL);
	}
	if (view->base) {
		atomic_fetch_sub(&view->snapshot->region->view_bytes, view->length);
		sys_unmap(view->base, view->length);
	}
	sys_close(view->uffd);
	sys_close(view->stop);
	sys_close(view->epoll);
	sys_close(view->empty);
	sys_free(view->run);
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

/* Negative: no userfaultfd to be had here. */
static int set_up_faults(struct view *view)
{
	int r;

	view->uffd = sys_userfaultfd(&view->kernel_faults);
	if (view->uffd < 0)
		return view->uffd;
	r = sys_uffd_register_missing(view->uffd, view->base, view->length);
	if (r < 0) {
		sys_close(view->uffd);
		view->uffd = -1;
	}
	return r;
}

static int start_service(struct view *view)
{
	int r;

	view->run = sys_alloc(RUN_PAGES * view->page_size);
	if (!view->run)
		return -ENOMEM;
	r = view->empty = sys_memfd("cow-empty", 0);
	if (r >= 0)
		r = view->stop = sys_eventfd();
	if (r >= 0)
		r = view->epoll = sys_epoll_new();
	if (r >= 0)
		r = sys_epoll_add(view->epoll, view->uffd, (uint64_t)view->uffd);
	if (r >= 0)
		r = sys_epoll_add(view->epoll, view->stop, (uint64_t)view->stop);
	if (r >= 0)
		r = sys_thread_start(&view->thread, serve_faults, view);
	if (r < 0)
		return r;
	view->started = true;
	return 0;
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
	size_t run = RUN_PAGES * view->page_size;
	unsigned char *pages;
	int r = 0;

	if (view->uffd < 0)
		return 0;
	pages = sys_alloc(run);
	if (!pages)
		return -ENOMEM;
	for (size_t offset = 0; r == 0 && offset < view->length; offset += run) {
		size_t length = view->length - offset < run ? view->length - offset : run;

		r = cow_snapshot_read(view->snapshot, offset, pages, length);
		if (r == 0)
			r = put_pages(view, offset, pages, length);
	}
	sys_free(pages);
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
		.page_size = space_page_size(&snapshot->region->space),
		.uffd = -1,
		.stop = -1,
		.epoll = -1,
		.empty = -1,
	};
	r = map_memory(view);
	if (r == 0 && set_up_faults(view) == 0)
		r = start_service(view);
	else if (r == 0)
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
