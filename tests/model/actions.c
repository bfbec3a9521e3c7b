/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "core/copy.h"
#include "tests/model/actions.h"

/* --- stores --- */

void reclaim(struct space *space)
{
	lock_take(&space->lock);
	space_reclaim(space, 64);
	lock_drop(&space->lock);
}

static void trap_store(struct side *side, unsigned page, size_t offset, unsigned char byte)
{
	int r;

	while ((r = soft_store(&side->soft, self(), page * PAGE + offset, byte)) == -EAGAIN)
		reclaim(&side->space);
	if (r < 0)
		model_fail("a store failed: %d", r);
	side->shadow[page][offset] = byte;
}

static void bracket_store(struct side *side, unsigned page, size_t offset, unsigned char byte)
{
	STEP("write");
	side->window[page][offset] = byte;
	side->shadow[page][offset] = byte;
}

void store(struct side *side, unsigned page, size_t offset, unsigned char byte)
{
	if (world_scenario->trap)
		trap_store(side, page, offset, byte);
	else
		bracket_store(side, page, offset, byte);
}

bool inside_any(void)
{
	return world()->brackets[self()][0] + world()->brackets[self()][1] > 0;
}

static int open_pages(struct side *side, unsigned first, unsigned last)
{
	for (unsigned page = first; page <= last; page++) {
		int r = space_is_open(&side->space, page) ? 0 : fault(&side->space, page, 0);

		if (r < 0)
			return r;
	}
	return 0;
}

/* As lib/bracket.c: where there is no room it steps out before it waits. */
void bracket_begin(struct side *side, unsigned first, unsigned last)
{
	unsigned char *depth = &world()->brackets[self()][side - world()->sides];
	int r;

	for (;;) {
		gate_enter(&side->space.gate, host_shard(), inside_any());
		r = open_pages(side, first, last);
		if (r == 0)
			break;
		gate_leave(&side->space.gate, host_shard());
		if (r != -EAGAIN)
			model_fail("a bracket failed: %d", r);
		reclaim(&side->space);
	}
	++*depth;
}

void bracket_end(struct side *side)
{
	world()->brackets[self()][side - world()->sides]--;
	gate_leave(&side->space.gate, host_shard());
}

/* --- cuts, as lib/cut.c takes them --- */

static bool seal_all(unsigned first, unsigned end)
{
	bool sealed = true;

	for (unsigned i = first; i < end; i++)
		sealed &= gate_seal(&world()->sides[i].space.gate);
	for (unsigned i = first; !sealed && i < end; i++)
		gate_unseal(&world()->sides[i].space.gate);
	return sealed;
}

static bool drain_all(unsigned first, unsigned end, uint64_t deadline_ns)
{
	for (unsigned i = first; i < end; i++)
		if (!gate_drain(&world()->sides[i].space.gate, deadline_ns))
			return false;
	return true;
}

static void open_all(unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++)
		gate_open(&world()->sides[i].space.gate);
}

static void check_no_bracket(unsigned side)
{
	for (unsigned i = 0; i < MODEL_THREADS; i++)
		if (world()->brackets[i][side] > 0)
			model_fail("a cut of space %u fell inside a bracket of thread %u", side, i);
}

static void note_taken(struct held_snap *held, uint32_t state)
{
	atomic_store(&held->state, state);
	host_wake(&held->state);
}

static void cut_sealed(unsigned first, unsigned end, unsigned n)
{
	for (unsigned i = first; i < end; i++)
		(void)dup_space(&world()->sides[i].space, &world()->snaps[n + i - first].snap);
	for (unsigned i = first; i < end; i++) {
		struct held_snap *held = &world()->snaps[n + i - first];

		check_no_bracket(i);
		held->side = (uint8_t)i;
		memcpy(held->ghost, world()->sides[i].shadow, sizeof(held->ghost));
	}
}

void cut(unsigned first, unsigned end, unsigned n, uint64_t deadline_ns)
{
	bool given_up = false;

	if (!MUTANT("cuts-together"))
		lock_take(&world()->cut_mutex);
	while (!given_up && !seal_all(first, end))
		given_up = !drain_all(first, end, deadline_ns);
	if (MUTANT("open-before-dup"))
		open_all(first, end);
	if (!given_up)
		cut_sealed(first, end, n);
	open_all(first, end);
	if (!MUTANT("cuts-together"))
		lock_drop(&world()->cut_mutex);
	for (unsigned i = first; i < end; i++)
		note_taken(&world()->snaps[n + i - first], given_up ? NEVER : TAKEN);
}

/* --- snapshots --- */

struct held_snap *wait_for_snap(unsigned n)
{
	struct held_snap *held = &world()->snaps[n];

	while (atomic_load(&held->state) == NOT_TAKEN)
		host_wait(&held->state, NOT_TAKEN, 0);
	return atomic_load(&held->state) == TAKEN ? held : NULL;
}

static void check_read(struct held_snap *held, unsigned page, const unsigned char *bytes)
{
	for (size_t i = 0; i < PAGE; i++)
		if (bytes[i] != held->ghost[page][i])
			model_fail("snapshot %u page %u changed: byte %zu is %#x, "
				   "at the cut it was %#x",
				   (unsigned)(held - world()->snaps), page, i, bytes[i],
				   held->ghost[page][i]);
}

void read_snap(struct held_snap *held, unsigned page)
{
	bool dropped = held->dropped;
	page_bytes bytes = { 0 };
	int r;

	r = snap_read(&held->snap, page, 0, bytes, PAGE);
	if (r == -ESTALE && held->dropping)
		return;
	if (r < 0)
		model_fail("snapshot %u page %u cannot be read: %d",
			   (unsigned)(held - world()->snaps), page, r);
	if (dropped)
		model_fail("snapshot %u was dropped and is still read",
			   (unsigned)(held - world()->snaps));
	if (!world_scenario->racing)
		check_read(held, page, bytes);
}

void release(struct held_snap *held)
{
	atomic_store(&held->state, RELEASED);
	dup_release(&world()->sides[held->side].space, &held->snap);
}

void drop(struct held_snap *held)
{
	held->dropping = true;
	dup_drop(&world()->sides[held->side].space, &held->snap);
	held->dropped = true;
}

/* --- what lives elsewhere --- */

static int read_ghost(struct backing *backing, uint64_t page, size_t offset, void *buffer,
		      size_t length)
{
	const struct held_snap *held =
		(const void *)((const char *)backing - offsetof(struct held_snap, backing));

	memcpy(buffer, held->ghost[page] + offset, length);
	return 0;
}

void detach(struct held_snap *held)
{
	held->backing.read = read_ghost;
	dup_detach(&world()->sides[held->side].space, &held->snap, &held->backing);
}

/* As store/pipe.c does it. Others that read it meanwhile are refused. */
void consume(struct held_snap *held)
{
	struct space *space = &world()->sides[held->side].space;

	held->dropping = true;
	consume_begin(space, &held->snap);
	for (unsigned page = 0; page < world_scenario->pages; page++) {
		page_bytes bytes = { 0 };

		if (model_mutant("consume-says-early"))
			consume_advance(space, &held->snap, page + 1);
		if (consume_read(&held->snap, page, bytes) < 0)
			model_fail("page %u cannot be consumed", page);
		check_read(held, page, bytes);
		consume_advance(space, &held->snap, page + 1);
	}
	held->backing.read = read_ghost;
	consume_end(space, &held->snap, &held->backing);
}

/* --- rollback, as lib/rollback.c does it, and discard --- */

static int rollback_open(uint64_t page, struct entry *entry, void *context)
{
	(void)entry;
	return open_pages(context, (unsigned)page, (unsigned)page);
}

static int rollback_put(uint64_t page, struct entry *entry, void *context)
{
	struct held_snap *held = context;
	struct side *side = &world()->sides[held->side];

	(void)entry;
	if (!world_scenario->trap && snap_content_epoch(&held->snap, page) == 0 &&
	    side->space.base != BASE_WINDOW) {
		forget(&side->space, page);
		STEP("rollback: give back");
		memset(side->window[page], 0, PAGE);
		return 0;
	}
	return snap_read(&held->snap, page, 0, side->window[page], PAGE);
}

void rollback(struct held_snap *held)
{
	struct side *side = &world()->sides[held->side];
	uint64_t since = held->snap.epoch;
	int r;

	lock_take(&world()->cut_mutex);
	gate_enter(&side->space.gate, host_shard(), false);
	r = table_walk(&side->space.table, 0, side->space.pages, since, rollback_open, side);
	if (r == 0)
		r = table_walk(&side->space.table, 0, side->space.pages, since, rollback_put, held);
	if (r < 0)
		model_fail("a rollback failed: %d", r);
	memcpy(side->shadow, held->ghost, sizeof(side->shadow));
	gate_leave(&side->space.gate, host_shard());
	lock_drop(&world()->cut_mutex);
}

void discard(struct side *side, unsigned page)
{
	bracket_begin(side, page, page);
	forget(&side->space, page);
	STEP("discard: give back");
	memset(side->window[page], 0, PAGE);
	memset(side->shadow[page], 0, PAGE);
	bracket_end(side);
}

/* A trap on the page that opens all there is to open. */
void open_block(struct side *side, unsigned page)
{
	gate_enter(&side->space.gate, host_shard(), false);
	(void)fault_around(&side->space, page, 0, (struct block){ 0, side->space.pages });
	gate_leave(&side->space.gate, host_shard());
}

void ahead(struct side *side, unsigned page)
{
	bool gate = !MUTANT("ahead-outside-gate");

	if (gate)
		gate_enter(&side->space.gate, host_shard(), false);
	(void)keep_ahead(&side->space, page, (struct block){ page, page + 1 });
	if (gate)
		gate_leave(&side->space.gate, host_shard());
}

/* --- spilling and merging, as lib/spill.c and lib/merge.c do them --- */

static int spill_load(void *context, uint64_t slot, size_t offset, void *buffer, size_t length)
{
	(void)context;
	STEP("spill: load");
	copy_page(buffer, world()->slots[slot] + offset, length);
	return 0;
}

static void spill_free(void *context, uint64_t slot)
{
	(void)context;
	if (!world()->slot_used[slot])
		model_fail("slot %u was freed twice", (unsigned)slot);
	world()->slot_used[slot] = false;
	POISON(world()->slots[slot], PAGE);
}

const struct spill_ops spill_ops = { .load = spill_load, .free = spill_free };

static uint64_t take_slot(void)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (!world()->slot_used[i]) {
			world()->slot_used[i] = true;
			return i;
		}
	model_fail("the scenario has too few slots");
}

void evict(struct side *side)
{
	struct eviction evictions[2];
	uint64_t slots[2];
	unsigned count = evict_begin(&side->space, evictions, 2);

	for (unsigned i = 0; i < count; i++) {
		slots[i] = take_slot();
		copy_page(world()->slots[slots[i]], evictions[i].frame, PAGE);
	}
	if (count > 0)
		evict_end(&side->space, evictions, slots, count);
}

void merge(struct side *side)
{
	struct eviction evictions[4];
	unsigned count = evict_begin(&side->space, evictions, 4);

	STEP("merge: compare");
	for (unsigned i = 1; i < count; i++)
		if (memcmp(evictions[0].frame, evictions[i].frame, PAGE) == 0)
			evict_share(&side->space, &evictions[i], &evictions[0]);
	for (unsigned i = count; i-- > 0;)
		evict_end(&side->space, &evictions[i], NULL, 1);
}
