/* SPDX-License-Identifier: MIT */
/*
 * Layers that are open for reading, and chains of them.
 *
 * A layer answers, for a cluster of the guest: nothing (ask the parent), zero, or where in its file
 * the content is. Tables are read as they are needed, 4 KiB at a time, each checked against its
 * checksum; a few are remembered. That is one L2 table, for a slice of 2 MiB of the guest; or a
 * piece of a compressed layer's, for 16 slices.
 *
 * An open layer is held (store_hold), and is not removed by anybody meanwhile. The store knows
 * its open layers, so that one file is open once.
 *
 * A chain is a layer and all below it, newest first, checked when it is put together: each file is
 * what its name says, each parent what its child says.
 *
 * Threads: any; what changes is under the layer's mutex.
 */
#ifndef COW_STORE_LAYER_H
#define COW_STORE_LAYER_H

#include "store/store.h"
#include "store/unpacker.h"

#define CACHED_SLICES     8u /* a layer */
#define UNPACKED_CLUSTERS 4u /* likewise, when it is compressed */

struct cached_slice {
	uint64_t piece; /* of the tables, plus one; 0: empty */
	uint64_t used;
	unsigned char *table;
};

struct layer {
	struct layer *next; /* in the store's list; guarded by its layers_mutex, as refs is */
	struct cow_store *store;
	uint32_t refs;
	int fd;
	bool held;
	struct layer_id id;
	struct footer footer;
	struct qcow2_header header;
	uint64_t file_bytes;
	char name[LAYER_NAME_LENGTH];
	unsigned char *l1;         /* as in the file */
	unsigned page_shift;       /* an entry of L2 is for 1 << page_shift clusters of 4 KiB */
	pthread_mutex_t unpacking; /* guards unpacker */
	struct unpacker *unpacker; /* made when it is needed */
	pthread_mutex_t mutex;     /* guards what follows */
	uint64_t clock;
	struct cached_slice cache[CACHED_SLICES];
	uint32_t loads;
	unsigned char *tables; /* all L2 tables, checked; from cluster first_table on */
	uint64_t first_table;
	struct image *image; /* of regions restored from it; guarded by the store's layers_mutex */
};

/* How long a layer that somebody removes is waited for. Tests want less. */
extern uint64_t layer_patience_ns;

/* Opens a layer, or takes one more reference. -ENOENT, -EUCLEAN, -EBUSY: somebody is removing it,
 * and does not end; and what the calls give. */
int layer_open(struct cow_store *store, const struct layer_id *id, struct layer **ret_layer);
/* Likewise, of what a name stands for just now (store_resolve). */
int layer_open_named(struct cow_store *store, const char *name, struct layer **ret_layer);
void layer_close(struct layer *layer); /* NULL-safe */
/* Whether its file has been replaced, or removed, since it was opened. */
bool layer_is_stale(const struct layer *layer);
/* Its file was replaced: who has it open keeps what was there, who opens it gets the new one. */
void layer_forget(struct cow_store *store, const struct layer_id *id);
/* Whether this store has it open. */
bool layer_is_open(struct cow_store *store, const struct layer_id *id);
/* Only the footer of the file, which need not be opened for that; or is, as fd. */
int layer_read_footer(struct cow_store *store, const struct layer_id *id, struct footer *ret_footer,
		      uint64_t *ret_file_bytes);
int layer_read_footer_of(struct cow_store *store, int fd, const struct layer_id *id,
			 struct footer *ret_footer, uint64_t *ret_file_bytes);
/* How many layers are below it, as far as they are there; each footer is read for that. */
uint32_t layer_count_below(struct cow_store *store, const struct footer *footer);

enum table_use {
	TABLE_REMEMBER, /* it may be asked for again */
	TABLE_IN_TRAP,  /* nothing may be allocated */
	TABLE_LOADED,   /* by the caller, with layer_load() */
};

/* The L2 entries of a slice, as in the file; the buffer of a cluster may be used for them. 1; 0:
 * the layer has nothing there; or an errno. */
int layer_read_slice(struct layer *layer, uint64_t slice, unsigned char buffer[CLUSTER],
		     enum table_use use, const unsigned char **ret_table);

/* The one of the slice's i-th cluster. */
static inline uint64_t layer_entry(const struct layer *layer, const unsigned char *table,
				   unsigned i)
{
	return get_be64(table + (i >> layer->page_shift) * 8);
}

/* Reads all tables at once, for somebody who will look at each; layer_unload() lets go of them.
 * They nest. Where there is no memory for it nothing happens. */
void layer_load(struct layer *layer);
void layer_unload(struct layer *layer);

/* What an entry of an L2 table says. */
enum place_kind {
	PLACE_NONE, /* ask the parent */
	PLACE_ZERO,
	PLACE_DATA,
	PLACE_PACKED, /* compressed, together with its neighbours in the same 64 KiB */
};
struct place {
	enum place_kind kind;
	uint64_t offset; /* in the file: of DATA; the entry without flags: of PACKED */
};
/* -EUCLEAN: the entry points where no data is. */
int layer_place(struct layer *layer, uint64_t entry, struct place *ret_place);

/* Checksums of clusters of the file, from the array; unchecked themselves. */
int layer_read_crcs(struct layer *layer, uint64_t cluster, uint64_t count, uint32_t crcs[]);

enum { CHECKED = true }; /* for verify, below: what is read is compared with its checksums */

/* Reads count clusters of the file at once. */
int layer_read_clusters(struct layer *layer, uint64_t offset, uint64_t count, void *buffer,
			bool verify);

/* The caller's state, checked; the caller's to free. *ret_state NULL: there is none. */
int layer_read_state(struct layer *layer, void **ret_state);

/* Pages [first, first + count) of a compressed cluster; a few clusters are remembered. */
int layer_read_packed(struct layer *layer, uint64_t packed, unsigned first, unsigned count,
		      unsigned char *buffer, bool verify);

struct chain {
	struct cow_store *store;
	unsigned depth;
	struct layer **layers; /* newest first */
	bool loaded;
};

/* For all of its layers. */
void chain_load(struct chain *chain);
void chain_unload(struct chain *chain);

int chain_open(struct cow_store *store, const struct layer_id *id, struct chain **ret_chain);
/* Likewise, of what a name stands for just now (store_resolve). */
int chain_open_named(struct cow_store *store, const char *name, struct chain **ret_chain);
/* Whether a layer in it is compressed. */
bool chain_is_packed(const struct chain *chain);
void chain_close(struct chain *chain); /* NULL-safe */

/* Where the clusters of a slice are. */
struct slice_map {
	uint64_t slice;
	bool in_trap;              /* set by the caller */
	struct unpacker *unpacker; /* set by the caller: for what is PACKED; NULL: the layers' */
	uint8_t kind[SLICE];
	uint16_t layer[SLICE];  /* of DATA and PACKED: index in the chain */
	uint64_t offset[SLICE]; /* as in struct place */
	unsigned char table[CLUSTER];
};
int chain_map_slice(struct chain *chain, uint64_t slice, struct slice_map *ret_map);

/* How many clusters from first on lie together: in one file, or one packed cluster, or nowhere. */
unsigned chain_run_length(const struct slice_map *map, unsigned first, unsigned count);

/* Reads clusters [first, first + count) of a slice into buffer. */
int chain_read_mapped(struct chain *chain, const struct slice_map *map, unsigned first,
		      unsigned count, unsigned char *buffer, bool verify);

/* Reads bytes of the guest; past the newest layer's region they are zero. */
int chain_read(struct chain *chain, uint64_t offset, void *buffer, size_t length, bool verify);

static inline uint64_t chain_length(const struct chain *chain)
{
	return chain->layers[0]->footer.length;
}

#endif
