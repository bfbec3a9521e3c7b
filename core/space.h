/* SPDX-License-Identifier: MIT */
/*
 * A space: a window of live memory, its page table, and the snapshots that read it (the kernel's
 * mm_struct, with its duplicates).
 *
 * The kernel's scheme, mirrored: the writer's address must not change, so the page in the window is
 * the live table's frame, and a kept copy goes to those who read the old content. Time is counted
 * in epochs: a cut ends one. A page opened in epoch w holds, until it is opened again, the content
 * that every snapshot with epoch >= w reads.
 *
 * Lock order: gate (as a cut) -> space.lock -> table.lock. fault() waits for a BUSY page with no
 * lock held. The lock is held for short, bounded stretches: also a release of a million pages takes
 * it for a few dozen versions at a time.
 */
#ifndef COW_CORE_SPACE_H
#define COW_CORE_SPACE_H

#include "core/gate.h"
#include "core/grace.h"
#include "core/version.h"
#include "mmu/mmu.h"

struct space;

/* What a page reads as that has no content of its own. */
enum base_kind {
	BASE_ZERO,
	BASE_WINDOW, /* the window held content before it became a space: nothing is without */
	BASE_SOURCE, /* a branch: what the source snapshot reads */
};

/* Where a snapshot is read from that no longer reads its space. */
struct backing {
	int (*read)(struct backing *backing, uint64_t page, size_t offset, void *buffer,
		    size_t length);
	void (*put)(struct backing *backing);
};

struct snap {
	struct space *space;
	uint64_t epoch;
	struct snap *older,
		*newer;            /* the living, in order of their epochs; guarded by space.lock */
	struct bucket *heap;       /* versions for which this is the newest reader; likewise */
	uint64_t present_pages;    /* when it was taken */
	_Atomic uint32_t dropped;  /* given up: what it read may be gone; SNAP_... */
	_Atomic uint64_t consumed; /* pages below it are not read any more */
	_Atomic(struct backing *) backing; /* set once: before what it read goes */
	bool linked;                       /* guarded by space.lock */
};

#define SNAP_DROPPED  0x1u
#define SNAP_CONSUMED 0x2u /* only who consumes it may read it */

/* Where spilled contents are. Called in a trap or with the space's lock held (free). */
struct spill_ops {
	int (*load)(void *context, uint64_t slot, size_t offset, void *buffer, size_t length);
	void (*free)(void *context, uint64_t slot); /* no system call, no lock */
};

struct space_counters {                       /* one set for each shard, summed when asked for */
	_Alignas(64) _Atomic uint64_t opened; /* first openings in an epoch: faults */
	_Atomic uint64_t copied, reused, filled;
	_Atomic int64_t present;
};

#define RECENT_BUCKETS 16u

struct space {
	unsigned page_shift;
	unsigned char *window;
	uint64_t pages;
	enum base_kind base;
	struct snap *source; /* BASE_SOURCE: kept alive by the owner of this space */
	struct mmu *mmu;
	const struct spill_ops *spill;
	void *spill_context;
	uint64_t block_pages; /* most pages that one trap opens; a power of two */
	bool huge;            /* the window has huge pages, to be opened whole */

	struct table table;
	_Atomic uint64_t epoch;     /* changes only while the gate is sealed */
	_Atomic uint64_t newest;    /* epoch of the newest living snapshot, 0: none */
	_Atomic uint32_t consuming; /* snapshots that are being consumed */
	struct { /* of one of them, for writers that shall not wait for the lock; 0: of none */
		_Atomic uint64_t epoch, floor, end;
	} consumed;
	struct gate gate;
	struct grace grace;
	struct space_counters counters[HOST_SHARDS];

	_Atomic uint32_t
		freed; /* changes when frames come free: a writer at the limit waits on it */
	_Atomic uint32_t freed_waiters;

	struct lock lock; /* guards what follows */
	struct pool pool;
	struct slab_cache versions, buckets;
	struct snap *oldest_snap, *newest_snap;
	uint64_t snap_count;
	uint64_t opened_at_cut;
	struct bucket *recent[RECENT_BUCKETS]; /* of the newest snapshot, by `from` */
	struct bucket *dying;       /* of snapshots given up, to be freed piece by piece */
	struct version *retired[3]; /* unlinked, by generation modulo 3 */
	uint64_t kept_frames;       /* versions that have a frame (merged ones counted singly) */
	uint64_t spilled_slots;
};

struct space_config {
	unsigned page_shift;
	void *window;
	uint64_t pages;
	enum base_kind base;
	struct snap *source;
	struct mmu *mmu;
	size_t limit, idle_limit;
	const struct spill_ops *spill;
	void *spill_context;
	uint64_t block_pages; /* 0: one */
	bool huge;
};

int space_init(struct space *space, const struct space_config *config);
void space_destroy(struct space *space); /* no snapshot is alive, no other thread inside */
void space_validate(struct space *space);

/* --- fault.c --- */

/* The caller will overwrite the whole page at once: what it held need not be brought in. */
#define FAULT_WHOLE 0x1u
/* Nobody waits for the page: near the limit nothing is kept for it. */
#define FAULT_SPARE 0x2u

/* Makes a page writable in the current epoch. Called by a thread that is inside the gate. 0 also
 * where it is open already; -EFAULT: outside the space; -EAGAIN: no frame to be had for the old
 * content; -ENOMEM: no node for the table; or what reading a branch's source gave. On failure the
 * page is as it was. */
int fault(struct space *space, uint64_t page, unsigned flags);

/* The same, and opens of the block around the page what nobody else has a hand on, in one call to
 * the MMU. The block's pages are of one leaf. */
struct block {
	uint64_t first, end;
};
int fault_around(struct space *space, uint64_t page, unsigned flags, struct block block);

/* block.c: the pages that a writer of this one is likely to write next. */
struct block block_around(struct space *space, uint64_t page);

/* Whether a write by this thread, which is inside the gate, needs no fault. */
bool space_is_open(struct space *space, uint64_t page);

/* Ends BUSY with a new state; readers see it before any write that follows. */
void settle(struct entry *entry, uint64_t state);

/* Keeps the content of an armed page, and of the block around it, before anybody writes it, as a
 * writer would. -EAGAIN: frames are scarce. */
int keep_ahead(struct space *space, uint64_t page, struct block block);

/* Whether an armed page still holds what was kept when it was opened last, so that nobody wrote it
 * since. false also where that cannot be said. */
bool space_is_unchanged(struct space *space, uint64_t page);
/* The same of an open page while the gate is sealed and no other thread can write. */
bool space_is_unwritten(struct space *space, uint64_t page);
/* Says that a page is open without keeping what it holds: nobody can be helped who reads that. */
void space_give_up(struct space *space, uint64_t page);

/* For a page that this thread opened: it reads as the base again, and its memory may be given back.
 * Not for BASE_WINDOW, which has no base below. */
void forget(struct space *space, uint64_t page);

/* --- arm.c: for back ends with a trap; inside the gate --- */

/* Makes an open page BUSY, so that its writers wait; false: it is not open, or somebody else's. */
bool space_claim_open(struct space *space, uint64_t page);
/* Makes an armed page BUSY, so that nobody opens it; 0: it is none, or somebody else's. Ended by
 * space_let_go() with what this returned. */
uint64_t space_claim_armed(struct space *space, uint64_t page);
void space_let_go(struct space *space, uint64_t page, uint64_t state);
/* Ends space_claim_open(): armed, or open as it was. */
void space_settle(struct space *space, uint64_t page, bool armed);
/* Says of a page that nothing is known of that it has content, written in this epoch. 1: it is
 * known now; 0: it was; or -ENOMEM. */
int space_discover(struct space *space, uint64_t page, bool armed);

/* --- dup.c --- */

/* Ends the epoch; snap becomes what the window holds now. The gate is sealed. An error of the back
 * end leaves everything as it was. */
int dup_space(struct space *space, struct snap *snap);

/* Ends the epoch likewise, and nobody reads it. */
int dup_nothing(struct space *space);

/* Ends a snapshot and frees what only it read. */
void dup_release(struct space *space, struct snap *snap);

/* Gives a snapshot up: its readers find out, its memory comes free as writers need it. */
void dup_drop(struct space *space, struct snap *snap);

/* Tells writers that wait at the limit. */
void note_freed(struct space *space);

/* Frees up to most versions of dropped snapshots, and what is past its grace period. Locked. */
void space_reclaim(struct space *space, unsigned most);

/* Pages that only this snapshot holds in memory or in the spill file. */
uint64_t snap_private_pages(struct snap *snap);

/* --- lookup.c --- */

/* Copies a piece of a page as the snapshot has it. -ESTALE, or what loading a spilled page gave. */
int snap_read(struct snap *snap, uint64_t page, size_t offset, void *buffer, size_t length);

/* Likewise as the live space has it; not ordered against writers of the same page. */
int space_read(struct space *space, uint64_t page, size_t offset, void *buffer, size_t length);

/* In place, racing with writers: where the snapshot's content of a page is now, NULL where it has
 * to be copied. What was read there counts only if it is intact afterwards. */
const void *snap_borrow(struct snap *snap, uint64_t page, uint64_t *ret_state);
bool snap_is_intact(struct snap *snap, uint64_t page, uint64_t state);

/* Since which epoch the content that the snapshot reads is there: 0 for what was never written. Two
 * snapshots for which it is the same read the same bytes. UINT64_MAX: it is read from elsewhere,
 * and nobody knows. */
uint64_t snap_content_epoch(struct snap *snap, uint64_t page);

uint64_t space_count_opened(const struct space *space);
int64_t space_count_present(const struct space *space);

/* --- consume.c: snapshots whose content goes elsewhere --- */

/* From here on the snapshot is read from its backing, and what only it held is freed. */
void dup_detach(struct space *space, struct snap *snap, struct backing *backing);

/* Reads a snapshot for the last time, page by page: only the caller does from here on. */
void consume_begin(struct space *space, struct snap *snap);
int consume_read(struct snap *snap, uint64_t page, void *buffer);
/* Pages below end were read: nothing is kept for them any more, and what was is freed. */
void consume_advance(struct space *space, struct snap *snap, uint64_t end);
/* backing NULL: the snapshot is given up. */
void consume_end(struct space *space, struct snap *snap, struct backing *backing);

/* Whether all snapshots that read a page's content of this epoch have consumed it. */
bool space_is_consumed(struct space *space, uint64_t page, uint64_t from);

/* --- evict.c --- */

/* Locked on entry and on return: until no reader can still see what was unlinked before. */
void wait_for_readers(struct space *space);

struct eviction {
	void *frame;
	struct version *version;
};

/* Chooses kept frames, oldest first, and holds them. */
unsigned evict_begin(struct space *space, struct eviction evictions[], unsigned most);

/* What was written to slots[i] is read there from now on. Slots of versions that were freed
 * meanwhile are given back. Returns how many versions were moved. NULL slots: nothing was written,
 * let go. */
unsigned evict_end(struct space *space, struct eviction evictions[], const uint64_t *slots,
		   unsigned count);

/* Lets the version read from an equal frame, which is kept in memory from then on. false: the
 * version was freed meanwhile. The eviction still has to be ended, with slots NULL. */
bool evict_share(struct space *space, const struct eviction *eviction,
		 const struct eviction *equal);

static inline size_t space_page_size(const struct space *space)
{
	return (size_t)1 << space->page_shift;
}

static inline unsigned char *space_page(const struct space *space, uint64_t page)
{
	return space->window + (page << space->page_shift);
}

/* Whether the kernel protects the window: then writes go to it unasked, and it always holds the
 * live state. */
static inline bool space_traps(const struct space *space)
{
	return space->mmu->traps;
}

/* Whether pages may lose their content to the base again; where they can be written unasked they
 * may not. */
static inline bool space_forgets(const struct space *space)
{
	return space->base != BASE_WINDOW && !space->mmu->ops->unprotect;
}

static inline bool space_present(const struct space *space, uint64_t state)
{
	return (state & PAGE_PRESENT) || (space->base == BASE_WINDOW && state_epoch(state) == 0);
}

static inline struct space_counters *space_counters(struct space *space)
{
	return &space->counters[host_shard()];
}

static inline void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

#endif
