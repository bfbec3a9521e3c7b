/* SPDX-License-Identifier: MIT */
/*
 * Frames: page-sized pieces of memory with a reference count, and the pool they come from.
 *
 * A chunk is a naturally aligned span of FRAMES_PER_CHUNK frames, whose first frames hold its
 * header: a descriptor for each frame (the kernel's struct page) with the reference count and the
 * one version that the frame belongs to (the reverse map, by which a frame is found its version
 * when it is to be spilled). A frame's chunk is found by masking its address.
 *
 *   fresh ---first allocation, counts from here---> used <---refs 0 / allocation---> idle
 *   all frames of a chunk idle, and more idle than idle_limit: the chunk goes back to the system
 *
 * Invariants (pool_validate checks them): committed = used + idle + headers, in bytes; never above
 * limit (a spare chunk, not counted yet, is taken only where it would fit); a chunk is on exactly
 * one list: partial (has idle or fresh frames, and used ones), empty (no used ones), or full.
 *
 * Everything here is called with the space's lock held, and may run in a trap: it allocates from
 * host_map() alone. The pool knows no policy: at the limit frame_alloc() gives NULL.
 */
#ifndef COW_CORE_FRAME_H
#define COW_CORE_FRAME_H

#include "core/host.h"

#ifdef COW_MODEL
#define FRAMES_PER_CHUNK 32u
#else
#define FRAMES_PER_CHUNK 512u
#endif

struct version;

struct frame {                   /* the descriptor */
	struct version *version; /* whose content it is, while refs is 1; NULL for metadata */
	uint32_t refs;
	uint16_t next_idle; /* in the chunk's list of idle frames, 0 ends it (frame 0 is the header)
			      */
	uint16_t flags;
};

#define FRAME_HELD 0x1u /* being written out, or looked at for merging: not to be chosen again */

struct chunk {
	struct pool *pool;
	struct chunk *next, *prev; /* on its list */
	struct chunk *all_next, *all_prev;
	uint32_t used, idle;
	uint32_t fresh; /* index of the first frame never given out */
	uint32_t ready; /* frames below this index are faulted in */
	uint16_t idle_head;
	struct frame frames[FRAMES_PER_CHUNK];
};

struct pool {
	unsigned page_shift;
	size_t limit;      /* most bytes committed, 0: none */
	size_t idle_limit; /* most bytes of idle frames kept */
	size_t committed;  /* bytes of memory that the frames given out so far, and headers, occupy
			     */
	size_t used_frames, idle_frames;
	struct chunk *partial, *empty; /* lists; full chunks are on neither */
	struct chunk *all;             /* every chunk, oldest first, circular through all_next */
	struct chunk *spare;           /* faulted in ahead, on no list; NULL: none */
	_Atomic bool wants_spare;      /* whoever may take time is welcome to bring one */
	struct chunk *hand;            /* where the search for frames to spill goes on */
	uint32_t hand_index;
};

void pool_init(struct pool *pool, unsigned page_shift, size_t limit, size_t idle_limit);
void pool_destroy(struct pool *pool);
void pool_validate(const struct pool *pool);

/* A frame with one reference, contents undefined; NULL at the limit or without memory. */
void *frame_alloc(struct pool *pool, struct version *version);
void frame_get(struct pool *pool, void *memory);
void frame_put(struct pool *pool, void *memory);
struct frame *frame_descriptor(const struct pool *pool, const void *frame);

/* The next frames, in order of the memory, that hold the content of exactly one version and are not
 * held; marks them held and takes a reference. */
unsigned pool_select(struct pool *pool, void *frames[], unsigned most);

/* Faulting a chunk in takes as long as hundreds of traps, so a helper brings the next one. Make and
 * discard need no lock. false: it is not wanted any more, and stays the caller's. */
struct chunk *pool_make_spare(const struct pool *pool);
void pool_discard_spare(const struct pool *pool, struct chunk *chunk);
bool pool_give_spare(struct pool *pool, struct chunk *chunk);

/* Gives idle memory above the idle limit back. */
void pool_trim(struct pool *pool, size_t idle_limit);

static inline size_t pool_page_size(const struct pool *pool)
{
	return (size_t)1 << pool->page_shift;
}

static inline struct chunk *frame_chunk(const struct pool *pool, const void *frame)
{
	uintptr_t span = ((uintptr_t)FRAMES_PER_CHUNK << pool->page_shift);

	return (struct chunk *)((uintptr_t)frame & ~(span - 1));
}

#endif
