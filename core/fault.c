/* SPDX-License-Identifier: MIT */
/*
 * The one decision: what has to happen before a page may be written. The cases stand in the order
 * in which the kernel's fault handler takes them.
 *
 *   outside the space                        violation
 *   open in this epoch                       spurious: another thread was faster
 *   another thread is at it                  wait, look again
 *   no content of its own                    zero-fill, or fill from the source
 *   no snapshot reads the old content        reuse: open it, no copy
 *   else                                     keep a copy for those who do, then open it
 *
 * Order, for readers that take no lock: the copy is linked before the page's state says that it was
 * opened, and the state says so before anybody writes the page. A reader that saw the old state and
 * then copied the window looks at the state again; if it still is the old one, nothing was written.
 */
#include <errno.h>
#include <string.h>

#include "core/copy.h"
#include "core/space.h"

/* The page's state word is also what waiters sleep on: its low half, with the BUSY bit. */
static _Atomic uint32_t *wait_word(struct entry *entry)
{
	_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half comes first");
	return (_Atomic uint32_t *)&entry->state;
}

static void wait_while_busy(struct entry *entry, uint64_t state)
{
	for (unsigned spins = 0; spins < SPINS(200u); spins++) {
		host_pause();
		if (atomic_load_explicit(&entry->state, memory_order_relaxed) != state)
			return;
	}
	if (!(state & PAGE_WAITED) &&
	    !atomic_compare_exchange_strong_explicit(&entry->state, &state, state | PAGE_WAITED,
						     memory_order_relaxed, memory_order_relaxed))
		return;
	STEP("fault: wait");
	host_wait(wait_word(entry), (uint32_t)(state | PAGE_WAITED), 0);
}

/* Whether the limit is near: then nothing is kept that nobody asked for yet. Locked. */
static bool is_scarce(const struct pool *pool)
{
	return pool->limit != 0 && pool->used_frames << pool->page_shift > pool->limit / 8 * 7;
}

static void *alloc_frame(struct space *space, bool wanted)
{
	void *frame = NULL;

	lock_take(&space->lock);
	if (wanted || !is_scarce(&space->pool))
		frame = frame_alloc(&space->pool, NULL);
	if (!frame && wanted) {
		space_reclaim(space, 64);
		frame = frame_alloc(&space->pool, NULL);
	}
	lock_drop(&space->lock);
	return frame;
}

/* The bucket of the newest snapshot for versions that began at `from`; two of the same are no
 * harm. */
static struct bucket *find_bucket(struct space *space, uint64_t from)
{
	struct bucket **recent = &space->recent[from % RECENT_BUCKETS];
	struct bucket *bucket = *recent;

	if (bucket && bucket->from == from)
		return bucket;
	bucket = slab_alloc(&space->buckets);
	if (!bucket)
		return NULL;
	*bucket = (struct bucket){ .from = from };
	space->newest_snap->heap = heap_meld(space->newest_snap->heap, bucket);
	*recent = bucket;
	return bucket;
}

/* Locked. 0: the chain has it; 1: no snapshot needs it any more; -EAGAIN. */
static int add_version(struct space *space, struct entry *entry, uint64_t from, uintptr_t content)
{
	struct version *version;
	struct bucket *bucket;

	if (!space->newest_snap ||
	    (space->newest_snap->epoch < from && !MUTANT("newest-not-rechecked")))
		return 1;
	version = slab_alloc(&space->versions);
	if (!version)
		return -EAGAIN;
	bucket = find_bucket(space, from);
	if (!bucket) {
		slab_free(&space->versions, version);
		return -EAGAIN;
	}
	version->from = from;
	atomic_init(&version->content, content);
	version->sibling = bucket->versions;
	bucket->versions = version;
	if (content_kind(content) == CONTENT_FRAME) {
		frame_descriptor(&space->pool, content_frame(content))->version = version;
		bucket->frames++;
		space->kept_frames++;
	}
	version_link(entry, version);
	return 0;
}

static void free_frame(struct space *space, void *frame)
{
	lock_take(&space->lock);
	frame_put(&space->pool, frame);
	lock_drop(&space->lock);
}

/* Copies what the snapshots read out of the window. The frame is taken before the page is looked
 * at, so that the processor fetches both at once; where the page turns out to be zero it goes
 * back. */
static int keep_copy(struct space *space, uint64_t page, uint64_t state, bool wanted,
		     uintptr_t *ret_content)
{
	const unsigned char *window = space_page(space, page);
	void *frame;

	if (!space_present(space, state)) {
		*ret_content = content_make(CONTENT_BASE, 0);
		return 0;
	}
	frame = alloc_frame(space, wanted);
	if (frame)
		expect_write(frame);
	if (page_is_zero(window, space_page_size(space))) {
		if (frame)
			free_frame(space, frame);
		*ret_content = content_make(CONTENT_ZERO, 0);
		return 0;
	}
	if (!frame)
		return -EAGAIN;
	STEP("fault: copy");
	copy_page(frame, window, space_page_size(space));
	STEP("fault: copied");
	*ret_content = content_make(CONTENT_FRAME, (uintptr_t)frame);
	return 0;
}

/* 0: kept; 1: not needed after all; or an errno. wanted: somebody is about to write the page. */
static int keep(struct space *space, uint64_t page, struct entry *entry, uint64_t state,
		bool wanted)
{
	uintptr_t content;
	int r;

	r = keep_copy(space, page, state, wanted, &content);
	if (r < 0)
		return r;
	lock_take(&space->lock);
	r = add_version(space, entry, state_epoch(state), content);
	if (r == -EAGAIN) {
		space_reclaim(space, 64);
		r = add_version(space, entry, state_epoch(state), content);
	}
	if (r != 0 && content_kind(content) == CONTENT_FRAME)
		frame_put(&space->pool, content_frame(content));
	lock_drop(&space->lock);
	return r;
}

/* Does a snapshot read what the page holds now? Where the answer is out of date, it is that one was
 * freed meanwhile: a new one cannot come while we are inside the gate. */
static bool somebody_reads(struct space *space, uint64_t page, uint64_t state)
{
	STEP("fault: newest");
	if (MUTANT("always-reuse"))
		return false;
	if (atomic_load(&space->newest) < state_epoch(state))
		return false;
	/* The base needs no version where there was never anything else; else an older one would be
	 * found in its place, and nobody could tell since when the page has been empty. */
	return atomic_load(&space->newest) != 0 &&
	       (space_present(space, state) ||
		(!MUTANT("base-needs-no-version") && state_epoch(state) != 0)) &&
	       (atomic_load(&space->consuming) == 0 ||
		!space_is_consumed(space, page, state_epoch(state)));
}

static int bring_in(struct space *space, uint64_t page, uint64_t state, unsigned flags)
{
	if (space_present(space, state))
		return 0;
	if (space->base != BASE_SOURCE || (flags & FAULT_WHOLE) || MUTANT("no-fill"))
		return 0;
	return snap_read(space->source, page, 0, space_page(space, page), space_page_size(space));
}

/* Puts the page into its new state, for the readers before any write to the page. On arm64 neither
 * a release store nor an exchange keeps later plain stores behind it: that takes the fence. */
void settle(struct entry *entry, uint64_t state)
{
	uint64_t before;

	STEP("fault: settle");
	before = atomic_exchange_explicit(&entry->state, state, memory_order_acq_rel);
#ifndef COW_TSAN
	atomic_thread_fence(memory_order_release);
#endif
	if (!(before & PAGE_WAITED) || MUTANT("settle-no-wake"))
		return;
	STEP("fault: wake");
	host_wake(wait_word(entry));
}

/* The new state, for readers, before the page can be written. Where opening it takes a call to the
 * kernel it stays BUSY until that is done: another writer that traps meanwhile sleeps instead of
 * trapping on. */
static void announce(struct space *space, struct entry *entry, uint64_t state)
{
	uint64_t before = atomic_load_explicit(&entry->state, memory_order_relaxed);

	if (!space->mmu->ops->unprotect) {
		settle(entry, state);
		return;
	}
	STEP("fault: announce");
	while (!atomic_compare_exchange_weak_explicit(&entry->state, &before,
						      state | PAGE_BUSY | (before & PAGE_WAITED),
						      memory_order_acq_rel, memory_order_relaxed))
		;
#ifndef COW_TSAN
	atomic_thread_fence(memory_order_release);
#endif
}

static void unprotect(struct space *space, struct block run)
{
	STEP("fault: unprotect");
	if (space->mmu->ops->unprotect && !MUTANT("no-unprotect"))
		space->mmu->ops->unprotect(space->mmu, run.first, run.end - run.first);
}

static void count_fault(struct space *space, bool first, bool present, bool kept)
{
	struct space_counters *counters = space_counters(space);

	if (first)
		count(&counters->opened);
	if (!present) {
		count(&counters->filled);
		atomic_fetch_add_explicit(&counters->present, 1, memory_order_relaxed);
	} else {
		count(kept ? &counters->copied : &counters->reused);
	}
}

/* A neighbour of the page that is being opened, if it can be had at once: nothing is waited for,
 * since pages are held already. One that is open is only held, so that nobody arms it while the
 * whole run is opened. */
static bool take_neighbour(struct space *space, uint64_t page, struct entry *entry, uint64_t epoch)
{
	uint64_t state = atomic_load_explicit(&entry->state, memory_order_acquire);
	bool first = state_epoch(state) < epoch;
	int r = 1;

	if ((state & PAGE_BUSY) || !space_present(space, state))
		return false;
	STEP("fault: neighbour");
	if (!MUTANT("neighbour-unclaimed") &&
	    !atomic_compare_exchange_strong_explicit(&entry->state, &state, state | PAGE_BUSY,
						     memory_order_acq_rel, memory_order_relaxed))
		return false;
	state &= ~(PAGE_WAITED | PAGE_ARMED);
	if (first && somebody_reads(space, page, state) && !MUTANT("neighbour-not-kept"))
		r = keep(space, page, entry, state, false);
	if (r < 0) {
		settle(entry, state);
		return false;
	}
	if (first)
		count_fault(space, true, true, r == 0);
	announce(space, entry, state_make(epoch, PAGE_PRESENT));
	return true;
}

/* Of the block around the page, what can be had without a gap. All of it is in one leaf. */
static struct block take_neighbours(struct space *space, uint64_t page, struct entry *entry,
				    uint64_t epoch, struct block block)
{
	struct block run = { page, page + 1 };

	while (run.end < block.end &&
	       take_neighbour(space, run.end, entry + (run.end - page), epoch))
		run.end++;
	while (run.first > block.first &&
	       take_neighbour(space, run.first - 1, entry - (page - run.first + 1), epoch))
		run.first--;
	return run;
}

static void settle_run(struct entry *entry, uint64_t page, struct block run, uint64_t state)
{
	for (uint64_t i = run.first; i < run.end; i++)
		settle(entry + ((int64_t)i - (int64_t)page), state);
}

/* The page is ours: BUSY. Opens it, and what can be had of the block around it; or leaves it as it
 * was. */
static int open_page(struct space *space, uint64_t page, struct entry *entry, uint64_t state,
		     unsigned flags, struct block block)
{
	uint64_t epoch = atomic_load_explicit(&space->epoch, memory_order_relaxed);
	bool first = state_epoch(state) < epoch;
	bool needed = first && somebody_reads(space, page, state);
	struct block run;
	int kept = 1;
	int r;

	r = bring_in(space, page, state, flags);
	if (MUTANT("unprotect-before-keep"))
		unprotect(space, (struct block){ page, page + 1 });
	if (r == 0 && needed && !MUTANT("open-before-keep") && !MUTANT("version-after-state"))
		r = kept = keep(space, page, entry, state, !(flags & FAULT_SPARE));
	if (r < 0) {
		if (!MUTANT("failure-keeps-busy"))
			settle(entry, state);
		return r;
	}
	if (first || !space_present(space, state))
		count_fault(space, first, space_present(space, state), kept == 0);
	if (MUTANT("unprotect-before-settle"))
		unprotect(space, (struct block){ page, page + 1 });
	announce(space, entry, state_make(epoch, PAGE_PRESENT));
	if (needed && MUTANT("version-after-state"))
		keep(space, page, entry, state, true);
	if (space->mmu->ops->unprotect) {
		run = take_neighbours(space, page, entry, epoch, block);
		unprotect(space, run);
		settle_run(entry, page, run, state_make(epoch, PAGE_PRESENT));
	}
	if (needed && MUTANT("open-before-keep"))
		keep(space, page, entry, state, true);
	return 0;
}

static bool is_open(uint64_t state, uint64_t epoch)
{
	uint64_t not_yet = PAGE_BUSY | (MUTANT("armed-is-open") ? 0 : PAGE_ARMED);

	return state_epoch(state) == epoch && (state & (PAGE_PRESENT | not_yet)) == PAGE_PRESENT;
}

bool space_is_open(struct space *space, uint64_t page)
{
	struct entry *entry = table_find(&space->table, page);

	return entry && is_open(atomic_load_explicit(&entry->state, memory_order_acquire),
				atomic_load_explicit(&space->epoch, memory_order_acquire));
}

int fault_around(struct space *space, uint64_t page, unsigned flags, struct block block)
{
	uint64_t epoch = atomic_load_explicit(&space->epoch, memory_order_acquire);
	struct entry *entry;
	uint64_t state;

	if (page >= space->pages)
		return -EFAULT;
	expect_read(space_page(space, page));
	entry = table_touch(&space->table, page, epoch);
	if (!entry)
		return -ENOMEM;
	for (;;) {
		STEP("fault: look");
		state = atomic_load_explicit(&entry->state, memory_order_acquire);
		if (is_open(state, epoch))
			return 0;
		if ((state & PAGE_BUSY) && !MUTANT("no-wait-for-busy")) {
			wait_while_busy(entry, state);
			continue;
		}
		if (atomic_compare_exchange_weak_explicit(&entry->state, &state, state | PAGE_BUSY,
							  memory_order_acq_rel,
							  memory_order_relaxed))
			break;
	}
	return open_page(space, page, entry, state & ~(PAGE_BUSY | PAGE_WAITED | PAGE_ARMED), flags,
			 block);
}

int fault(struct space *space, uint64_t page, unsigned flags)
{
	return fault_around(space, page, flags, (struct block){ page, page + 1 });
}

int keep_ahead(struct space *space, uint64_t page, struct block block)
{
	return fault_around(space, page, FAULT_SPARE, block);
}

void forget(struct space *space, uint64_t page)
{
	struct entry *entry = table_find(&space->table, page);
	uint64_t epoch = atomic_load_explicit(&space->epoch, memory_order_relaxed);
	uint64_t state;

	if (!entry)
		return;
	/* Another thread may have forgotten it too, and a third be filling it: then its BUSY, and
	 * who waits for that to end, must not be overwritten. */
	for (;;) {
		STEP("forget");
		state = atomic_load_explicit(&entry->state, memory_order_acquire);
		if ((state & PAGE_BUSY) && !MUTANT("forget-ignores-busy"))
			wait_while_busy(entry, state);
		else if (atomic_compare_exchange_weak_explicit(
				 &entry->state, &state, state_make(epoch, 0), memory_order_acq_rel,
				 memory_order_relaxed))
			break;
	}
	if (state & PAGE_PRESENT)
		atomic_fetch_sub_explicit(&space_counters(space)->present, 1, memory_order_relaxed);
}
