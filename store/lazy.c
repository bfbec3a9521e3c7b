/* SPDX-License-Identifier: MIT */
#include "store/lazy.h"

static int fill(void *context, size_t start, size_t length, size_t touched)
{
	int r = image_bring_in(context, start, 1);

	(void)length;
	(void)touched;
	return r < 0 ? r : 1;
}

static int map_image(struct image *image, unsigned char *window, size_t length, struct pager *pager)
{
	void *ignored;
	int r;

	r = sys_map(window, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
		    image->fd, &ignored);
	if (r == 0)
		r = pager_watch(pager);
	/* A child would see zeroes where nothing was brought in yet. */
	if (r == 0)
		r = sys_advise(window, length, MADV_DONTFORK);
	if (r < 0)
		(void)sys_map(window, length, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
			      &ignored);
	return r;
}

int lazy_new(struct image *image, unsigned char *window, size_t length, struct pager **ret_pager)
{
	struct pager_config config = {
		.base = window,
		.length = length,
		.piece = SLICE_BYTES,
		.protection = PROT_READ | PROT_WRITE,
		.needs_kernel = true,
		.fill = fill,
		.context = image,
	};
	struct pager *pager;
	int r = pager_new(&config, &pager);

	if (r < 0)
		return r;
	r = map_image(image, window, length, pager);
	if (r < 0) {
		pager_free(pager);
		return r;
	}
	*ret_pager = pager;
	return 0;
}
