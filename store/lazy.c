/* SPDX-License-Identifier: MIT */
#include "lib/internal.h"
#include "store/lazy.h"

struct lazy {
	struct image *image;
	unsigned char *window;
	size_t length;
	int uffd, epoll;
	int stop;  /* eventfd */
	int empty; /* a file of no length, for pages that cannot be had */
	bool started;
	pthread_t thread;
};

/* Whoever touches it gets SIGBUS. */
static void poison(struct lazy *lazy, size_t offset)
{
	void *ignored;

	(void)sys_map(lazy->window + offset, sys_page_size(), PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_FIXED, lazy->empty, &ignored);
}

static void serve_page(struct lazy *lazy, size_t offset)
{
	size_t start = offset / SLICE_BYTES * SLICE_BYTES, left = lazy->length - start;
	size_t page = sys_page_size();

	if (image_bring_in(lazy->image, start, 1) < 0)
		poison(lazy, offset / page * page);
	(void)sys_uffd_wake(lazy->uffd, lazy->window + start,
			    left < SLICE_BYTES ? left : SLICE_BYTES);
}

static void *serve(void *context)
{
	struct lazy *lazy = context;
	uint64_t which, address;

	for (;;) {
		if (sys_epoll_wait(lazy->epoll, -1, &which) < 0 || which == (uint64_t)lazy->stop)
			return NULL;
		while (sys_uffd_read(lazy->uffd, &address) == 1)
			serve_page(lazy, address - (uintptr_t)lazy->window);
	}
}

void lazy_free(struct lazy *lazy)
{
	if (!lazy)
		return;
	if (lazy->started) {
		sys_eventfd_signal(lazy->stop);
		pthread_join(lazy->thread, NULL);
	}
	sys_close(lazy->uffd);
	sys_close(lazy->epoll);
	sys_close(lazy->stop);
	sys_close(lazy->empty);
	sys_free(lazy);
}

/* What does not touch the window. */
static int set_up(struct lazy *lazy)
{
	bool kernel_faults = false;
	int r;

	r = lazy->uffd = sys_userfaultfd(&kernel_faults);
	if (r >= 0 && !kernel_faults)
		r = -EPERM;
	if (r >= 0)
		r = lazy->empty = sys_memfd("cow-empty", 0);
	if (r >= 0)
		r = lazy->stop = sys_eventfd();
	if (r >= 0)
		r = lazy->epoll = sys_epoll_new();
	if (r >= 0)
		r = sys_epoll_add(lazy->epoll, lazy->uffd, (uint64_t)lazy->uffd);
	if (r >= 0)
		r = sys_epoll_add(lazy->epoll, lazy->stop, (uint64_t)lazy->stop);
	if (r >= 0)
		r = sys_thread_start(&lazy->thread, serve, lazy);
	if (r < 0)
		return r;
	lazy->started = true;
	return 0;
}

static int map_image(struct lazy *lazy)
{
	void *ignored;
	int r;

	r = sys_map(lazy->window, lazy->length, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, lazy->image->fd, &ignored);
	if (r == 0)
		r = sys_uffd_register_missing(lazy->uffd, lazy->window, lazy->length);
	/* A child would see zeroes where nothing was brought in yet. */
	return r < 0 ? r : sys_advise(lazy->window, lazy->length, MADV_DONTFORK);
}

int lazy_new(struct image *image, unsigned char *window, size_t length, struct lazy **ret_lazy)
{
	struct lazy *lazy = sys_alloc(sizeof(*lazy));
	void *ignored;
	int r;

	if (!lazy)
		return -ENOMEM;
	*lazy = (struct lazy){
		.image = image,
		.window = window,
		.length = length,
		.uffd = -1,
		.epoll = -1,
		.stop = -1,
		.empty = -1,
	};
	r = set_up(lazy);
	if (r == 0) {
		r = map_image(lazy);
		if (r < 0)
			(void)sys_map(window, length, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
				      &ignored);
	}
	if (r < 0) {
		lazy_free(lazy);
		return r;
	}
	*ret_lazy = lazy;
	return 0;
}
