/* SPDX-License-Identifier: MIT */
/* Opening and closing stores, and what every call on one does first. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>

#include "lib/internal.h"
#include "lib/process.h"
#include "store/io.h"
#include "store/store.h"

#define KNOWN_FLAGS (COW_STORE_CREATE | COW_STORE_READ_ONLY)

void store_complain(const struct cow_store *store, const char *name, const char *format, ...)
{
	char what[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(what, sizeof(what), format, arguments);
	va_end(arguments);
	log_message(LOG_ERR, "libcow: store: %s/%s: %s", store->path, name, what);
}

int store_check_tag(const char *tag)
{
	if (!tag || tag_is_valid(tag))
		return 0;
	return log_refusal("'%s' is no name for a tag: letters, digits and -_.+@, at most %d of "
			   "them, the first neither - nor .; not HEAD, and no identity",
			   tag, COW_TAG_LENGTH - 1);
}

struct cow_store *store_get(struct cow_store *store)
{
	atomic_fetch_add(&store->refs_held, 1);
	return store;
}

void store_put(struct cow_store *store)
{
	if (!store || atomic_fetch_sub(&store->refs_held, 1) != 1)
		return;
	refs_free(&store->refs);
	io_close(store->directory);
	io_close(store->lock);
	pthread_mutex_destroy(&store->mutex);
	pthread_mutex_destroy(&store->layers_mutex);
	pthread_mutex_destroy(&store->chains_mutex);
	sys_free(store->holds);
	sys_free(store->path);
	sys_free(store);
}

/* --- opening --- */

static bool has_suffix(const char *name, const char *suffix)
{
	size_t length = strlen(name), end = strlen(suffix);

	return length > end && strcmp(name + length - end, suffix) == 0;
}

struct sweep {
	struct cow_store *store;
	bool look_only;
	bool found_layer, found_head;
};

/* Only names that the store itself gives: somebody else's file stays. */
static int sweep_name(const char *name, void *context)
{
	struct sweep *sweep = context;
	char layer[LAYER_NAME_LENGTH];
	struct layer_id id;

	if (layer_name_parse(name, &id))
		sweep->found_layer = true;
	if (strcmp(name, NAME_HEAD) == 0)
		sweep->found_head = true;
	if (!has_suffix(name, NEW_SUFFIX) || sweep->look_only)
		return 0;
	snprintf(layer, sizeof(layer), "%s", name);
	if (strlen(name) - strlen(NEW_SUFFIX) < sizeof(layer))
		layer[strlen(name) - strlen(NEW_SUFFIX)] = '\0';
	if (strcmp(name, NAME_HEAD_NEW) != 0 && !layer_name_parse(layer, &id))
		return 0;
	return io_unlink(sweep->store->directory, name);
}

static int take_lock(struct cow_store *store)
{
	int r;

	r = store->lock = io_open(store->directory, NAME_LOCK, O_RDWR | O_CREAT);
	if (r < 0)
		return r;
	r = io_lock(store->lock, 0, F_WRLCK);
	if (r != -EBUSY)
		return r;
	store_complain(store, NAME_LOCK, "another process has the store open for writing");
	return -EBUSY;
}

/* A directory that cannot be written has none, and needs none. */
static int open_lock(struct cow_store *store)
{
	int r = store->lock = io_open(store->directory, NAME_LOCK, O_RDONLY);

	return r == -ENOENT || r >= 0 ? 0 : r;
}

/* Whether there is a store, or may be one. A directory that is none is left as it was. */
static int check_directory(struct cow_store *store, const struct sweep *sweep, uint32_t flags)
{
	if (sweep->found_head)
		return 0;
	if (sweep->found_layer) {
		store_complain(store, NAME_HEAD, "missing, though there are layers: " HEAD_ADVICE);
		return -EUCLEAN;
	}
	if (store->read_only || !(flags & COW_STORE_CREATE)) {
		store_complain(store, NAME_HEAD, "missing: this is no store");
		return -ENOENT;
	}
	return 0;
}

/* The directory's own name: what is saved in it would be lost with that. Done before there is a
 * HEAD, so that where one is found this was done. */
static int sync_parent(struct cow_store *store)
{
	int parent = sys_open_at(store->directory, "..", O_RDONLY | O_DIRECTORY, 0);
	int r;

	if (parent == -EACCES)
		return 0; /* may be passed through, but not read: then it cannot be synced */
	if (parent < 0)
		return parent;
	r = sys_sync(parent);
	sys_close(parent);
	return r == -EINVAL ? 0 : r; /* another file system, which does not know the call */
}

static int make_new(struct cow_store *store)
{
	int r = id_new(&store->refs.store);

	if (r == 0)
		r = sync_parent(store);
	return r < 0 ? r : refs_write(store, &store->refs);
}

static int open_directory(struct cow_store *store, uint32_t flags)
{
	int r;

	r = store->directory = sys_open_directory(store->path);
	if (r != -ENOENT || !(flags & COW_STORE_CREATE) || store->read_only)
		return r < 0 ? r : 0;
	r = sys_make_directory(store->path);
	if (r == 0)
		r = store->directory = sys_open_directory(store->path);
	return r < 0 ? r : 0;
}

static int set_up(struct cow_store *store, uint32_t flags)
{
	struct sweep look = { .store = store, .look_only = true };
	struct sweep sweep = { .store = store };
	int r;

	r = process_mark(&store->process);
	if (r == 0)
		r = open_directory(store, flags);
	if (r == 0)
		r = sys_list_directory(store->directory, sweep_name, &look);
	if (r == 0)
		r = check_directory(store, &look, flags);
	if (r == 0)
		r = store->read_only ? open_lock(store) : take_lock(store);
	if (r == 0 && !store->read_only)
		r = sys_list_directory(store->directory, sweep_name, &sweep);
	if (r < 0)
		return r;
	r = refs_read(store, &store->refs);
	if (r == -ENOENT && !store->read_only)
		return make_new(store);
	store->unswept = sweep.found_layer;
	return r;
}

/* One that knows whose it is: a call from within a callback gets an error, and does not hang. */
static void init_call_mutex(pthread_mutex_t *mutex)
{
	pthread_mutexattr_t attributes;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(mutex, &attributes);
	pthread_mutexattr_destroy(&attributes);
}

int cow_store_open(const char *directory, uint32_t flags, struct cow_store **ret_store)
{
	struct cow_store *store;
	size_t length;
	int r;

	if (!directory || !*directory || !ret_store || (flags & ~KNOWN_FLAGS))
		return -EINVAL;
	store = sys_alloc(sizeof(*store));
	if (!store)
		return -ENOMEM;
	atomic_init(&store->refs_held, 1);
	store->directory = store->lock = -1;
	store->read_only = flags & COW_STORE_READ_ONLY;
	init_call_mutex(&store->mutex);
	pthread_mutex_init(&store->layers_mutex, NULL);
	pthread_mutex_init(&store->chains_mutex, NULL);
	length = strlen(directory) + 1;
	store->path = sys_alloc(length);
	r = store->path ? 0 : -ENOMEM;
	if (r == 0) {
		memcpy(store->path, directory, length);
		r = set_up(store, flags);
	}
	if (r < 0) {
		store_put(store);
		return r;
	}
	*ret_store = store;
	return 0;
}

void cow_store_close(struct cow_store *store)
{
	if (!store || !process_is(store->process))
		return;
	/* Unlocked by hand: a fork()ed child has the same open file, and may live on. */
	if (store->lock >= 0)
		(void)io_lock(store->lock, 0, F_UNLCK);
	store->read_only = true; /* for those who are left */
	store_put(store);
}

/* --- calls --- */

/* 1: HEAD says something else than before. */
static int refresh(struct cow_store *store)
{
	struct refs refs;
	bool moved;
	int r = refs_read(store, &refs);

	if (r < 0)
		return r;
	moved = !refs_equal(&store->refs, &refs);
	refs_free(&store->refs);
	store->refs = refs;
	return moved;
}

bool store_has_moved(struct cow_store *store)
{
	return store->read_only && refresh(store) > 0;
}

int store_begin(struct cow_store *store, enum store_use use)
{
	int r = 0;

	if (!store)
		return -EINVAL;
	if (!process_is(store->process))
		return -ECHILD;
	if (use == STORE_WRITES && store->read_only)
		return -EROFS;
	if (pthread_mutex_lock(&store->mutex) == EDEADLK)
		return -EDEADLK;
	if (store->read_only)
		r = refresh(store);
	if (r < 0)
		pthread_mutex_unlock(&store->mutex);
	return r;
}

void store_end(struct cow_store *store)
{
	pthread_mutex_unlock(&store->mutex);
}

/* Where the new HEAD was put in place and only the directory could not be synced, the old one may
 * be back after a crash; so the store goes on with what the directory says now. */
int store_commit(struct cow_store *store, struct refs *refs)
{
	struct refs now;
	int r = refs_write(store, refs);

	if (r == 0) {
		refs_free(&store->refs);
		store->refs = *refs;
		return 0;
	}
	refs_free(refs);
	if (refs_read(store, &now) == 0) {
		refs_free(&store->refs);
		store->refs = now;
	}
	return r;
}

int store_resolve(const struct cow_store *store, const char *name, struct layer_id *ret_id)
{
	const struct tag *tag;
	struct layer_id id;

	if (!name) {
		if (id_is_none(&store->refs.head))
			return -ENOENT;
		*ret_id = store->refs.head;
		return 0;
	}
	tag = refs_find_tag(&store->refs, name);
	if (tag)
		id = tag->id;
	else if (!id_parse(name, &id) || refs_is_deleted(&store->refs, &id))
		return -ENOENT;
	*ret_id = id;
	return 0;
}

int store_explain_missing(const struct cow_store *store, const char *name)
{
	char file[LAYER_NAME_LENGTH];
	struct layer_id id;

	if (store_resolve(store, name, &id) < 0 || (name && !refs_find_tag(&store->refs, name)))
		return -ENOENT;
	layer_name(&id, file);
	store_complain(store, file, "missing, though %s%s names it", name ? "the tag " : "HEAD",
		       name ?: "");
	return -EUCLEAN;
}

/* --- layers in use --- */

static uint64_t lock_byte(uint64_t sequence)
{
	return 1 + sequence;
}

/* Under layers_mutex. */
static struct hold *find_hold(struct cow_store *store, uint64_t sequence)
{
	for (size_t i = 0; i < store->hold_count; i++)
		if (store->holds[i].sequence == sequence)
			return &store->holds[i];
	return NULL;
}

static int add_hold(struct cow_store *store, uint64_t sequence)
{
	int r;

	if (store->hold_count == store->hold_room) {
		size_t room = store->hold_room * 2 + 16;
		struct hold *more = sys_alloc_array(room, sizeof(more[0]));

		if (!more)
			return -ENOMEM;
		if (store->hold_count > 0)
			memcpy(more, store->holds, store->hold_count * sizeof(more[0]));
		sys_free(store->holds);
		store->holds = more;
		store->hold_room = room;
	}
	r = store->lock < 0 ? 0 : io_lock(store->lock, lock_byte(sequence), F_RDLCK);
	if (r == 0)
		store->holds[store->hold_count++] = (struct hold){ sequence, 1 };
	return r;
}

int store_hold_locked(struct cow_store *store, uint64_t sequence)
{
	struct hold *hold = find_hold(store, sequence);

	if (!hold)
		return add_hold(store, sequence);
	hold->count++;
	return 0;
}

void store_release_locked(struct cow_store *store, uint64_t sequence)
{
	struct hold *hold = find_hold(store, sequence);

	if (!hold || --hold->count > 0)
		return;
	*hold = store->holds[--store->hold_count];
	if (store->lock >= 0)
		(void)io_lock(store->lock, lock_byte(sequence), F_UNLCK);
}

int store_hold(struct cow_store *store, uint64_t sequence)
{
	int r;

	pthread_mutex_lock(&store->layers_mutex);
	r = store_hold_locked(store, sequence);
	pthread_mutex_unlock(&store->layers_mutex);
	return r;
}

void store_release(struct cow_store *store, uint64_t sequence)
{
	pthread_mutex_lock(&store->layers_mutex);
	store_release_locked(store, sequence);
	pthread_mutex_unlock(&store->layers_mutex);
}

/* One's own locks do not stand in one's way, hence the look at the holds. */
int store_lock_unused(struct cow_store *store, uint64_t sequence)
{
	int r = -EBUSY;

	pthread_mutex_lock(&store->layers_mutex);
	if (!find_hold(store, sequence))
		r = io_lock(store->lock, lock_byte(sequence), F_WRLCK);
	pthread_mutex_unlock(&store->layers_mutex);
	return r;
}

void store_unlock(struct cow_store *store, uint64_t sequence)
{
	(void)io_lock(store->lock, lock_byte(sequence), F_UNLCK);
}
