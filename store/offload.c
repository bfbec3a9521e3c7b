/* SPDX-License-Identifier: MIT */
#include "store/layer.h"
#include "store/offload.h"
#include "sys/sys.h"

struct cached_chain {
	struct cached_chain *next; /* in the store's list, the last used one first */
	struct layer_id id;
	struct chain *chain;
	unsigned users; /* guarded by the store's chains_mutex */
};

struct offload {
	struct backing backing; /* first */
	struct cow_store *store;
	struct layer_id id;
	uint64_t sequence;
	unsigned page_shift;
};

/* Under chains_mutex. Takes it out of the list; NULL: there is none. */
static struct cached_chain *take_chain(struct cow_store *store, const struct layer_id *id)
{
	for (struct cached_chain **link = &store->chains; *link; link = &(*link)->next) {
		struct cached_chain *cached = *link;

		if (!id_equal(&cached->id, id))
			continue;
		*link = cached->next;
		return cached;
	}
	return NULL;
}

/* Under chains_mutex. Those that were not used for longest go, but not the first, which was used
 * just now. */
static void trim(struct cow_store *store)
{
	struct cached_chain **link = &store->chains;
	unsigned layers = 0;

	while (*link) {
		struct cached_chain *cached = *link;

		layers += cached->chain->depth;
		if (layers <= CACHED_LAYERS || cached->users > 0 || link == &store->chains) {
			link = &cached->next;
			continue;
		}
		*link = cached->next;
		layers -= cached->chain->depth;
		chain_close(cached->chain);
		sys_free(cached);
	}
}

static int open_chain(struct cow_store *store, const struct layer_id *id,
		      struct cached_chain **ret_cached)
{
	struct cached_chain *cached = sys_alloc(sizeof(*cached));
	int r;

	if (!cached)
		return -ENOMEM;
	cached->id = *id;
	r = chain_open(store, id, &cached->chain);
	if (r < 0) {
		sys_free(cached);
		return r;
	}
	*ret_cached = cached;
	return 0;
}

static int use_chain(struct cow_store *store, const struct layer_id *id,
		     struct cached_chain **ret_cached)
{
	struct cached_chain *cached;
	int r = 0;

	pthread_mutex_lock(&store->chains_mutex);
	cached = take_chain(store, id);
	if (!cached)
		r = open_chain(store, id, &cached);
	if (r == 0) {
		cached->users++;
		cached->next = store->chains;
		store->chains = cached;
		trim(store);
		*ret_cached = cached;
	}
	pthread_mutex_unlock(&store->chains_mutex);
	return r;
}

static void leave_chain(struct cow_store *store, struct cached_chain *cached)
{
	pthread_mutex_lock(&store->chains_mutex);
	cached->users--;
	pthread_mutex_unlock(&store->chains_mutex);
}

static int offload_read(struct backing *backing, uint64_t page, size_t offset, void *buffer,
			size_t length)
{
	struct offload *offload = (struct offload *)(void *)backing;
	struct cached_chain *cached;
	int r;

	r = use_chain(offload->store, &offload->id, &cached);
	if (r < 0)
		return -EIO;
	r = chain_read(cached->chain, (page << offload->page_shift) + offset, buffer, length,
		       CHECKED);
	leave_chain(offload->store, cached);
	return r < 0 && r != -ENOMEM ? -EIO : r;
}

/* The chains in the list have layers open, and those keep the store: it is the last snapshot, or
 * the last one of this layer, that lets go of them. */
static void offload_put(struct backing *backing)
{
	struct offload *offload = (struct offload *)(void *)backing;
	struct cow_store *store = offload->store;
	struct cached_chain *cached;

	pthread_mutex_lock(&store->chains_mutex);
	cached = take_chain(store, &offload->id);
	if (cached && cached->users > 0) {
		cached->next = store->chains;
		store->chains = cached;
		cached = NULL;
	}
	pthread_mutex_unlock(&store->chains_mutex);
	if (cached)
		chain_close(cached->chain);
	sys_free(cached);
	store_release(store, offload->sequence);
	sys_free(offload);
	store_put(store);
}

int offload_new(struct cow_store *store, const struct layer_id *id, uint64_t sequence,
		struct backing **ret_backing)
{
	struct offload *offload = sys_alloc(sizeof(*offload));
	int r;

	if (!offload)
		return -ENOMEM;
	r = store_hold(store, sequence);
	if (r < 0) {
		sys_free(offload);
		return r;
	}
	offload->backing.read = offload_read;
	offload->backing.put = offload_put;
	offload->store = store_get(store);
	offload->id = *id;
	offload->sequence = sequence;
	offload->page_shift = (unsigned)__builtin_ctzl(sys_page_size());
	*ret_backing = &offload->backing;
	return 0;
}
