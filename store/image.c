/* SPDX-License-Identifier: MIT */
#include "lib/internal.h"
#include "store/image.h"

static void image_free(struct image *image)
{
	sys_close(image->fd);
	chain_close(image->chain);
	unpacker_free(image->map.unpacker);
	sys_free(image->filled);
	sys_free(image->bytes);
	sys_free(image);
}

static int image_new(struct chain *chain, bool verify, struct image **ret_image)
{
	uint64_t slices = div_up(chain_length(chain), SLICE_BYTES);
	struct image *image = sys_alloc(sizeof(*image));
	int r = 0;

	if (!image) {
		chain_close(chain);
		return -ENOMEM;
	}
	*image = (struct image){ .refs = 1, .chain = chain, .fd = -1, .verify = verify };
	image->map.in_trap = true;
	image->filled = sys_alloc(slices);
	image->bytes = sys_alloc(SLICE_BYTES);
	if (!image->filled || !image->bytes)
		r = -ENOMEM;
	if (r == 0 && chain_is_packed(chain))
		r = unpacker_new(1, &image->map.unpacker);
	if (r == 0)
		r = image->fd = sys_memfd("cow-layer", chain_length(chain));
	if (r < 0) {
		image_free(image);
		return r;
	}
	*ret_image = image;
	return 0;
}

int image_of_chain(struct chain *chain, bool verify, struct image **ret_image)
{
	struct layer *layer = chain->layers[0];
	struct cow_store *store = chain->store;
	struct image *image;
	int r = 0;

	pthread_mutex_lock(&store->layers_mutex);
	image = layer->image;
	if (image && image->verify == verify)
		image->refs++;
	else
		image = NULL;
	pthread_mutex_unlock(&store->layers_mutex);
	if (image) {
		chain_close(chain);
		*ret_image = image;
		return 0;
	}
	r = image_new(chain, verify, &image);
	if (r < 0)
		return r;
	pthread_mutex_lock(&store->layers_mutex);
	if (!layer->image)
		layer->image = image;
	pthread_mutex_unlock(&store->layers_mutex);
	*ret_image = image;
	return 0;
}

void image_put(struct image *image)
{
	struct cow_store *store;
	bool last;

	if (!image)
		return;
	store = image->chain->store;
	pthread_mutex_lock(&store->layers_mutex);
	last = --image->refs == 0;
	if (last && image->chain->layers[0]->image == image)
		image->chain->layers[0]->image = NULL;
	pthread_mutex_unlock(&store->layers_mutex);
	if (last)
		image_free(image);
}

static int fill(struct image *image, uint64_t slice)
{
	uint64_t start = slice * SLICE_BYTES, left = chain_length(image->chain) - start;
	struct iovec piece = { image->bytes, left < SLICE_BYTES ? left : SLICE_BYTES };
	int r = chain_map_slice(image->chain, slice, &image->map);

	if (r == 0)
		r = chain_read_mapped(image->chain, &image->map, 0,
				      (unsigned)div_up(piece.iov_len, CLUSTER), image->bytes,
				      image->verify);
	return r < 0 ? r : sys_write_at(image->fd, &piece, 1, start);
}

int image_bring_in(struct image *image, uint64_t offset, uint64_t length)
{
	uint64_t end = div_up(offset + length, SLICE_BYTES);
	int r = 0;

	log_mute(true);
	lock_take(&image->lock);
	for (uint64_t slice = offset / SLICE_BYTES; r == 0 && slice < end; slice++) {
		if (image->filled[slice])
			continue;
		r = fill(image, slice);
		image->filled[slice] = r == 0;
	}
	lock_drop(&image->lock);
	log_mute(false);
	return r;
}
