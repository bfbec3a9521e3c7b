/* SPDX-License-Identifier: MIT */
#include "lib/pager.h"

struct pager {
	struct pager_config config;
	int uffd, epoll;
	int stop;  /* eventfd */
	int empty; /* a file of no length, for pages that cannot be had */
	bool started;
	pthread_t thread;
};

static void poison(struct pager *pager, size_t offset)
{
	void *ignored;

	(void)sys_map(pager->config.base + offset, sys_page_size(), pager->config.protection,
		      MAP_PRIVATE | MAP_FIXED, pager->empty, &ignored);
}

static void serve(struct pager *pager, size_t touched)
{
	const struct pager_config *config = &pager->config;
	size_t start = touched & ~(config->piece - 1), left = config->length - start;
	size_t length = left < config->piece ? left : config->piece;

	int r;

	touched &= ~(sys_page_size() - 1);
	r = config->fill(config->context, start, length, touched);
	if (r < 0)
		poison(pager, touched);
	if (r != 0)
		(void)sys_uffd_wake(pager->uffd, config->base + start, length);
}

static void *run(void *context)
{
	struct pager *pager = context;
	uint64_t which, address;

	for (;;) {
		if (sys_epoll_wait(pager->epoll, -1, &which) < 0 || which == (uint64_t)pager->stop)
			return NULL;
		while (sys_uffd_read(pager->uffd, &address) == 1)
			serve(pager, address - (uintptr_t)pager->config.base);
	}
}

int pager_put(struct pager *pager, size_t offset, const void *bytes, size_t length)
{
	unsigned char *to = pager->config.base + offset;
	size_t page = sys_page_size();
	int r = sys_uffd_copy(pager->uffd, to, bytes, length);

	if (r != -EEXIST && r != -EAGAIN)
		return r;
	/* One by one where some are there. */
	for (size_t at = 0; at < length; at += page) {
		do
			r = sys_uffd_copy(pager->uffd, to + at, (const char *)bytes + at, page);
		while (r == -EAGAIN);
		if (r < 0 && r != -EEXIST)
			return r;
	}
	return 0;
}

int pager_watch(struct pager *pager)
{
	int r = sys_uffd_register_missing(pager->uffd, pager->config.base, pager->config.length);

	if (r == 0)
		r = sys_thread_start(&pager->thread, run, pager);
	pager->started = r == 0;
	return r;
}

void pager_free(struct pager *pager)
{
	if (!pager)
		return;
	if (pager->started) {
		sys_eventfd_signal(pager->stop);
		pthread_join(pager->thread, NULL);
	}
	sys_close(pager->uffd);
	sys_close(pager->epoll);
	sys_close(pager->stop);
	sys_close(pager->empty);
	sys_free(pager);
}

static int set_up(struct pager *pager)
{
	bool kernel_faults = false;
	int r;

	r = pager->uffd = sys_userfaultfd(&kernel_faults);
	if (r >= 0 && pager->config.needs_kernel && !kernel_faults)
		r = -EPERM;
	if (r >= 0)
		r = pager->empty = sys_memfd("cow-empty", 0);
	if (r >= 0)
		r = pager->stop = sys_eventfd();
	if (r >= 0)
		r = pager->epoll = sys_epoll_new();
	if (r >= 0)
		r = sys_epoll_add(pager->epoll, pager->uffd, (uint64_t)pager->uffd);
	if (r >= 0)
		r = sys_epoll_add(pager->epoll, pager->stop, (uint64_t)pager->stop);
	return r;
}

int pager_new(const struct pager_config *config, struct pager **ret_pager)
{
	struct pager *pager = sys_alloc(sizeof(*pager));
	int r;

	if (!pager)
		return -ENOMEM;
	*pager = (struct pager){
		.config = *config,
		.uffd = -1,
		.epoll = -1,
		.stop = -1,
		.empty = -1,
	};
	r = set_up(pager);
	if (r < 0) {
		pager_free(pager);
		return r;
	}
	*ret_pager = pager;
	return 0;
}
