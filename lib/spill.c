/* SPDX-License-Identifier: MIT */
#include <fcntl.h>

#include "lib/internal.h"
#include "lib/spill.h"

#define BLOCK_EXTENTS 4096u
#define BLOCKS        4096u /* 4 TiB of 4 KiB pages */

/* Live slots of some extents; 0: free. Blocks are made as the file grows, and stay. */
struct extent_block {
	_Atomic uint8_t live[BLOCK_EXTENTS];
};

struct spill {
	int fd;
	bool direct;
	size_t page_size;
	_Atomic uint64_t written;
	_Atomic uint64_t free_extents; /* among those below extents */
	_Atomic(struct extent_block *) blocks[BLOCKS];
	pthread_mutex_t mutex; /* guards what follows: one thread spills at a time */
	uint64_t extents;
	uint64_t search;
};

static _Atomic uint8_t *live_slots(struct spill *spill, uint64_t extent)
{
	struct extent_block *block = atomic_load(&spill->blocks[extent / BLOCK_EXTENTS]);

	return &block->live[extent % BLOCK_EXTENTS];
}

int spill_new(const char *directory, size_t page_size, struct spill **ret_spill)
{
	struct spill *spill;
	int fd, r;
	bool direct = true;

	fd = sys_open_unlinked(directory, O_DIRECT);
	if (fd == -EINVAL) { /* the file system has no direct I/O */
		direct = false;
		fd = sys_open_unlinked(directory, 0);
	}
	if (fd < 0) {
		log_message(LOG_ERR, "libcow: no spill file can be made in %s: %s", directory,
			    strerror(-fd));
		return fd;
	}
	r = sys_is_tmpfs(fd);
	if (r > 0) {
		log_message(LOG_ERR,
			    "libcow: %s is on tmpfs, which is memory: "
			    "choose a spill_directory on a disk",
			    directory);
		r = -EINVAL;
	}
	spill = r == 0 ? sys_alloc(sizeof(*spill)) : NULL;
	if (!spill) {
		sys_close(fd);
		return r < 0 ? r : -ENOMEM;
	}
	spill->fd = fd;
	spill->direct = direct;
	spill->page_size = page_size;
	pthread_mutex_init(&spill->mutex, NULL);
	*ret_spill = spill;
	return 0;
}

void spill_free(struct spill *spill)
{
	if (!spill)
		return;
	sys_close(spill->fd);
	for (unsigned i = 0; i < BLOCKS; i++)
		if (atomic_load(&spill->blocks[i]))
			host_unmap(atomic_load(&spill->blocks[i]), sizeof(struct extent_block));
	pthread_mutex_destroy(&spill->mutex);
	sys_free(spill);
}

uint64_t spill_count(struct spill *spill)
{
	return atomic_load(&spill->written);
}

/* Under the mutex. */
static int take_extent(struct spill *spill, uint64_t *ret_extent)
{
	uint64_t block = spill->extents / BLOCK_EXTENTS;

	if (atomic_load(&spill->free_extents) > 0) {
		for (uint64_t i = 0; i < spill->extents; i++) {
			uint64_t extent = (spill->search + i) % spill->extents;

			if (atomic_load(live_slots(spill, extent)) != 0)
				continue;
			spill->search = extent + 1;
			atomic_fetch_sub(&spill->free_extents, 1);
			*ret_extent = extent;
			return 0;
		}
	}
	if (block == BLOCKS)
		return -ENOSPC;
	if (!atomic_load(&spill->blocks[block])) {
		struct extent_block *made = host_map(sizeof(*made), 4096); /* this may be a trap */

		if (!made)
			return -ENOMEM;
		atomic_store(&spill->blocks[block], made);
	}
	*ret_extent = spill->extents++;
	return 0;
}

static int write_extent(struct spill *spill, uint64_t extent, const struct eviction evictions[],
			unsigned count)
{
	uint64_t offset = extent * SPILL_EXTENT * spill->page_size;
	struct iovec pieces[SPILL_EXTENT];
	int r;

	for (unsigned i = 0; i < count; i++)
		pieces[i] = (struct iovec){ evictions[i].frame, spill->page_size };
	r = sys_write_at(spill->fd, pieces, (int)count, offset);
	if (r == 0 && !spill->direct)
		sys_drop_cache(spill->fd, offset, count * spill->page_size);
	return r;
}

static int spill_locked(struct spill *spill, struct space *space)
{
	struct eviction evictions[SPILL_EXTENT];
	uint64_t slots[SPILL_EXTENT];
	uint64_t extent;
	unsigned count;
	int r;

	count = evict_begin(space, evictions, SPILL_EXTENT);
	if (count == 0)
		return 0;
	r = take_extent(spill, &extent);
	if (r == 0) {
		atomic_store(live_slots(spill, extent), (uint8_t)count);
		r = write_extent(spill, extent, evictions, count);
		if (r < 0) {
			atomic_store(live_slots(spill, extent), 0);
			atomic_fetch_add(&spill->free_extents, 1);
		}
	}
	if (r < 0) {
		evict_end(space, evictions, NULL, count);
		return r;
	}
	for (unsigned i = 0; i < count; i++)
		slots[i] = extent * SPILL_EXTENT + i;
	atomic_fetch_add(&spill->written, count);
	return (int)evict_end(space, evictions, slots, count);
}

int spill_some(struct spill *spill, struct space *space)
{
	int r;

	pthread_mutex_lock(&spill->mutex);
	r = spill_locked(spill, space);
	pthread_mutex_unlock(&spill->mutex);
	return r;
}

/* Direct reads need an aligned page of their own; so do pieces of a page. */
static int load_slot(void *context, uint64_t slot, size_t offset, void *buffer, size_t length)
{
	struct spill *spill = context;
	bool straight = length == spill->page_size && (uintptr_t)buffer % 4096 == 0;
	void *page = buffer;
	ssize_t n;

	if (!straight)
		page = sys_alloc_page(spill->page_size);
	if (!page)
		return -ENOMEM;
	n = sys_read_at(spill->fd, page, spill->page_size, slot * spill->page_size);
	if (n >= 0 && (size_t)n != spill->page_size)
		n = -EIO;
	if (n >= 0 && !straight)
		memcpy(buffer, (unsigned char *)page + offset, length);
	if (!straight)
		sys_free(page);
	return n < 0 ? (n == -ENOMEM ? -ENOMEM : -EIO) : 0;
}

static void free_slot(void *context, uint64_t slot)
{
	struct spill *spill = context;

	if (atomic_fetch_sub(live_slots(spill, slot / SPILL_EXTENT), 1) == 1)
		atomic_fetch_add(&spill->free_extents, 1);
}

const struct spill_ops spill_file_ops = { .load = load_slot, .free = free_slot };
