/* SPDX-License-Identifier: MIT */
/*
 * A store as an object: its directory, who may write it, and what its HEAD file says.
 *
 *   DIR/HEAD          the references: the newest layer, the tags, the layers given up
 *   DIR/ID.qcow2      a layer
 *   DIR/lock          its first byte is locked by whoever writes the store, byte 1 + n by all who
 *                     use the layer with the sequence number n
 *   DIR/NAME.new      a file that is being written; left over only by a crash
 *
 * HEAD is the one file that changes, and it is replaced as a whole: that is the moment at which a
 * save, a new tag, or a deletion has happened. Whatever it names is on disk before.
 *
 * Threads: one mutex a store, held for a whole call, also while the caller's own functions run
 * (progress, lists): what these call on the store gets -EDEADLK. Lock order: it comes before
 * everything of the library's. Layers that are read outside of it (by restored regions, offloaded
 * snapshots) have locks of their own.
 */
#ifndef COW_STORE_STORE_H
#define COW_STORE_STORE_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "store/format.h"

#define NAME_HEAD     "HEAD"
#define NAME_HEAD_NEW "HEAD.new"
#define NAME_LOCK     "lock"
#define NEW_SUFFIX    ".new"

/* For messages: what to do where HEAD is lost. */
#define HEAD_ADVICE "put a copy back, or import the newest layer into a new store"

struct tag {
	char name[COW_TAG_LENGTH];
	struct layer_id id;
};

struct refs {
	struct layer_id store; /* the store's own identity */
	struct layer_id head;  /* none: nothing was saved yet */
	uint64_t sequence;     /* the last one that was given out */
	struct tag *tags;      /* in order of their names */
	size_t tag_count, tag_room;
	struct layer_id *deleted; /* given up, but their children need them */
	size_t deleted_count, deleted_room;
};

struct layer;
struct cached_chain;

/* A layer that is used here, and must not be removed by anybody. */
struct hold {
	uint64_t sequence;
	uint32_t count;
};

struct cow_store {
	_Atomic uint32_t refs_held; /* the caller's, one for each open layer */
	char *path;                 /* for messages */
	int directory, lock;
	bool read_only;
	bool unswept; /* what interrupted saves left was not looked for yet */
	uint64_t process;
	pthread_mutex_t mutex; /* a call at a time; guards refs */
	struct refs refs;
	pthread_mutex_t layers_mutex; /* guards layers and their counts, and holds */
	struct layer *layers;         /* the open ones */
	struct hold *holds;
	size_t hold_count, hold_room;
	pthread_mutex_t chains_mutex; /* guards what follows; before layers_mutex */
	struct cached_chain *chains;  /* that offloaded snapshots were read through of late */
};

/* --- refs.c --- */
int refs_read(struct cow_store *store, struct refs *ret_refs);
/* Makes it what the directory says, on disk when it returns. */
int refs_write(struct cow_store *store, const struct refs *refs);
int refs_copy(const struct refs *refs, struct refs *ret_copy);
void refs_free(struct refs *refs);
const struct tag *refs_find_tag(const struct refs *refs, const char *name);
int refs_set_tag(struct refs *refs, const char *name, const struct layer_id *id);
void refs_drop_tag(struct refs *refs, const char *name);
bool refs_equal(const struct refs *a, const struct refs *b);
bool refs_is_tagged(const struct refs *refs, const struct layer_id *id);
bool refs_is_deleted(const struct refs *refs, const struct layer_id *id);
int refs_add_deleted(struct refs *refs, const struct layer_id *id);
void refs_drop_deleted(struct refs *refs, const struct layer_id *id);

/* --- store.c --- */
/* Begins a call: checks the handle, locks it, and for a reader looks at HEAD anew. */
enum store_use { STORE_READS, STORE_WRITES };
int store_begin(struct cow_store *store, enum store_use use);
void store_end(struct cow_store *store);
struct cow_store *store_get(struct cow_store *store);
void store_put(struct cow_store *store);
/* Puts new references in place; refs is the store's afterwards, or freed. */
int store_commit(struct cow_store *store, struct refs *refs);
/* The layer's file stays from here on, whatever is compacted or deleted. -EBUSY: it is being
 * removed just now. */
int store_hold(struct cow_store *store, uint64_t sequence);
void store_release(struct cow_store *store, uint64_t sequence);
int store_hold_locked(struct cow_store *store, uint64_t sequence); /* with layers_mutex */
void store_release_locked(struct cow_store *store, uint64_t sequence);
/* Nobody uses it, nor can until store_unlock(): 0; or -EBUSY. */
int store_lock_unused(struct cow_store *store, uint64_t sequence);
void store_unlock(struct cow_store *store, uint64_t sequence);

/* A layer by identity, tag, or NULL. */
int store_resolve(const struct cow_store *store, const char *name, struct layer_id *ret_id);
/* The file of what a name stands for is not there: -ENOENT; or -EUCLEAN, and the log is told, where
 * HEAD or a tag says that it is. */
int store_explain_missing(const struct cow_store *store, const char *name);
/* For a reader, within a call, that did not find what it looked for: the writer may have gone on
 * since the call began. true: HEAD says something else now, look again. */
bool store_has_moved(struct cow_store *store);
/* "store PATH/NAME: ..." to the log. */
void store_complain(const struct cow_store *store, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* 0 for NULL, too; -EINVAL, and what is wrong to the log. */
int store_check_tag(const char *tag);

#endif
