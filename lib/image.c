/* SPDX-License-Identifier: MIT */
/*
 * Images: a snapshot's content as a file in memory, which the windows of its branches under a trap
 * map privately: reading a branch costs nothing but the one image, writing it a page.
 *
 * Filled at once, on the first branch; pages of zeroes stay holes. Sealed, so that nothing can
 * change it under the branches.
 */
#include "core/copy.h"
#include "lib/internal.h"

struct filling {
	struct cow_snapshot *snapshot;
	int fd;
	unsigned char *page;
};

static int fill_page(struct filling *filling, uint64_t page)
{
	size_t bytes = space_page_size(&filling->snapshot->region->space);
	struct iovec piece = { filling->page, bytes };
	int r;

	r = snap_read(&filling->snapshot->snap, page, 0, filling->page, bytes);
	if (r < 0 || page_is_zero(filling->page, bytes))
		return r;
	return sys_write_at(filling->fd, &piece, 1, page * bytes);
}

static int fill_known_page(uint64_t page, struct entry *entry, void *context)
{
	(void)entry;
	return fill_page(context, page);
}

int image_fill(struct cow_snapshot *snapshot, int fd)
{
	struct space *space = &snapshot->region->space;
	struct filling filling = { .snapshot = snapshot, .fd = fd };
	int r = 0;

	filling.page = sys_alloc_page(space_page_size(space));
	if (!filling.page)
		return -ENOMEM;
	/* Where the base is zero, what the table does not know is zero, too. */
	if (space->base == BASE_ZERO)
		r = table_walk(&space->table, 0, space->pages, 0, fill_known_page, &filling);
	for (uint64_t page = 0; space->base != BASE_ZERO && r == 0 && page < space->pages; page++)
		r = fill_page(&filling, page);
	sys_free(filling.page);
	return r;
}

static int image_new(struct cow_snapshot *snapshot, int *ret_fd)
{
	int fd = sys_memfd("cow-image", snapshot->region->length);
	int r;

	if (fd < 0)
		return fd;
	r = image_fill(snapshot, fd);
	if (r == 0)
		r = sys_seal(fd);
	if (r < 0) {
		sys_close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

int image_get(struct cow_snapshot *snapshot, int *ret_fd)
{
	int r = 0;

	pthread_mutex_lock(&snapshot->view_mutex);
	if (snapshot->image < 0)
		r = image_new(snapshot, &snapshot->image);
	if (r == 0)
		*ret_fd = snapshot->image;
	pthread_mutex_unlock(&snapshot->view_mutex);
	return r;
}
