/* SPDX-License-Identifier: MIT */
/*
 * What a word of a scenario's program does (world.h has the words): a store, a cut, a rollback, as
 * the library makes them around the core, and the copies that are kept beside it.
 */
#ifndef TESTS_MODEL_ACTIONS_H
#define TESTS_MODEL_ACTIONS_H

#include "core/space.h"
#include "mmu/soft.h"
#include "mmu/trap.h"
#include "tests/model/world.h"

#define SHIFT 7u
#define PAGE  ((size_t)1 << SHIFT)
#define PAGES 3u
#define SNAPS 4u
#define SLOTS 4u

typedef unsigned char page_bytes[PAGE];

enum snap_state { NOT_TAKEN, TAKEN, RELEASED, NEVER };

struct side {
	struct space space;
	struct soft_mmu soft;
	struct trap trap; /* of a scenario with an open set */
	_Atomic uint64_t open_pages;
	unsigned char soft_memory[(MODEL_THREADS + 1) * PAGES];
	page_bytes window[PAGES];
	page_bytes shadow[PAGES];
};

struct world {
	struct lock cut_mutex;
	struct held_snap {
		struct snap snap;
		_Atomic uint32_t state; /* enum snap_state; readers sleep on it */
		uint8_t side;
		bool dropping, dropped;
		struct backing backing; /* reads the ghost */
		page_bytes ghost[PAGES];
	} snaps[SNAPS];
	unsigned char stored[MODEL_THREADS];      /* how often */
	unsigned char brackets[MODEL_THREADS][2]; /* open ones */
	bool slot_used[SLOTS];
	page_bytes slots[SLOTS];
	struct side sides[2];
};

static inline struct world *world(void)
{
	return model_shared();
}

/* Who the running program is: in the preparation the thread it acts as. */
unsigned self(void);

void reclaim(struct space *space);

/* The byte, at that place of the page; and into the shadow. */
void store(struct side *side, unsigned page, size_t offset, unsigned char byte);
bool inside_any(void);
void bracket_begin(struct side *side, unsigned first, unsigned last);
void bracket_end(struct side *side);

/* Of the spaces first to end - 1, as snapshot n and those after it. */
void cut(unsigned first, unsigned end, unsigned n, uint64_t deadline_ns);

/* NULL: it is gone, or was never taken. */
struct held_snap *wait_for_snap(unsigned n);
void read_snap(struct held_snap *held, unsigned page);
void release(struct held_snap *held);
void drop(struct held_snap *held);
void detach(struct held_snap *held);
void consume(struct held_snap *held);
void rollback(struct held_snap *held);

void discard(struct side *side, unsigned page);
void open_block(struct side *side, unsigned page);
void ahead(struct side *side, unsigned page);

extern const struct spill_ops spill_ops;
void evict(struct side *side);
void merge(struct side *side);

#endif
