/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/copy.h"
#include "core/space.h"
#include "mmu/soft.h"
#include "mmu/trap.h"
#include "sys/sys.h"
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

const struct scenario *world_scenario;

static struct world *world(void)
{
	return model_shared();
}

/* Who the running program is: in the preparation the thread it acts as. */
static unsigned preparing_as;

static unsigned self(void)
{
	return model_thread() < MODEL_THREADS ? model_thread() : preparing_as;
}

static unsigned sides(void)
{
	return world_scenario->branch || world_scenario->two ? 2 : 1;
}

static size_t place(unsigned half)
{
	return half * PAGE / 2 + 8 * self();
}

/* --- stores --- */

static void reclaim(struct space *space)
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

static void store(struct side *side, unsigned page, size_t offset, unsigned char byte)
{
	if (world_scenario->trap)
		trap_store(side, page, offset, byte);
	else
		bracket_store(side, page, offset, byte);
}

static bool inside_any(void)
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
static void bracket_begin(struct side *side, unsigned first, unsigned last)
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

static void bracket_end(struct side *side)
{
	world()->brackets[self()][side - world()->sides]--;
	gate_leave(&side->space.gate, host_shard());
}

/* --- an open set: the software MMU as a back end of mmu/trap.c --- */

static struct soft_mmu *soft_behind(struct trap *trap)
{
	struct side *side = (struct side *)(void *)((char *)trap - offsetof(struct side, trap));

	return &side->soft;
}

static int protect_run(struct trap *trap, uint64_t first, uint64_t count)
{
	struct mmu *mmu = &soft_behind(trap)->mmu;

	for (uint64_t page = first; page < first + count; page++) {
		STEP("mmu: protect");
		mmu->ops->protect(mmu, page);
	}
	mmu->ops->flush(mmu);
	return 0;
}

static int unprotect_run(struct trap *trap, uint64_t first, uint64_t count)
{
	struct mmu *mmu = &soft_behind(trap)->mmu;

	mmu->ops->unprotect(mmu, first, count);
	return 0;
}

static const struct trap_ops set_ops = { .protect = protect_run, .unprotect = unprotect_run };

/* Of at most 64 pages: its set is one word, which stands in the state. */
static void set_init(struct side *side)
{
	const struct trap_policy policy = { .is_nested = inside_any };

	if (trap_init(&side->trap, &set_ops, &side->space, &policy) < 0)
		model_fail("no trap");
	openset_destroy(&side->trap.open);
	side->trap.open = (struct openset){
		.levels = { &side->open_pages },
		.words = { 1 },
		.height = 1,
	};
	atomic_store(&side->trap.armed, TRAP_ARMED);
	side->space.mmu = &side->trap.mmu;
}

/* What registering a trap, and copying ahead, would need. */
void *sys_alloc(size_t bytes)
{
	return NULL;
}

int sys_map(void *address, size_t length, int protection, int flags, int fd, void **ret_address)
{
	return -ENOMEM;
}

void sys_free(void *memory)
{
}

bool sys_is_alone(void)
{
	return false;
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

static void cut(unsigned first, unsigned end, unsigned n, uint64_t deadline_ns)
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

static struct held_snap *wait_for_snap(unsigned n)
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

static void read_snap(struct held_snap *held, unsigned page)
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

static void release(struct held_snap *held)
{
	atomic_store(&held->state, RELEASED);
	dup_release(&world()->sides[held->side].space, &held->snap);
}

static void drop(struct held_snap *held)
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

static void detach(struct held_snap *held)
{
	held->backing.read = read_ghost;
	dup_detach(&world()->sides[held->side].space, &held->snap, &held->backing);
}

/* As store/pipe.c does it. Others that read it meanwhile are refused. */
static void consume(struct held_snap *held)
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

static void rollback(struct held_snap *held)
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

static void discard(struct side *side, unsigned page)
{
	bracket_begin(side, page, page);
	forget(&side->space, page);
	STEP("discard: give back");
	memset(side->window[page], 0, PAGE);
	memset(side->shadow[page], 0, PAGE);
	bracket_end(side);
}

/* A trap on the page that opens all there is to open. */
static void open_block(struct side *side, unsigned page)
{
	gate_enter(&side->space.gate, host_shard(), false);
	(void)fault_around(&side->space, page, 0, (struct block){ 0, side->space.pages });
	gate_leave(&side->space.gate, host_shard());
}

static void ahead(struct side *side, unsigned page)
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

static const struct spill_ops spill_ops = { .load = spill_load, .free = spill_free };

static uint64_t take_slot(void)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (!world()->slot_used[i]) {
			world()->slot_used[i] = true;
			return i;
		}
	model_fail("the scenario has too few slots");
}

static void evict(struct side *side)
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

static void merge(struct side *side)
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

/* --- programs --- */

static bool was_stored(struct side *side, unsigned thread, unsigned page, unsigned half)
{
	unsigned char byte;

	soft_load(&side->soft, self(), page * PAGE + half * PAGE / 2 + 8 * (size_t)thread, &byte);
	return byte != 0;
}

static unsigned digit(const char *word, unsigned at)
{
	return (unsigned)(word[at] - '0');
}

static bool do_snap_word(const char *word)
{
	struct held_snap *held;

	if (!strchr("rxygku", word[0]))
		return false;
	held = wait_for_snap(digit(word, 1));
	if (!held)
		return true;
	switch (word[0]) {
	case 'r':
		read_snap(held, digit(word, 2));
		break;
	case 'x':
		release(held);
		break;
	case 'y':
		drop(held);
		break;
	case 'g':
		detach(held);
		break;
	case 'u':
		consume(held);
		break;
	default:
		rollback(held);
		break;
	}
	return true;
}

/* false: the program ends here. */
static bool do_word(const char *word)
{
	bool capital = word[0] >= 'A' && word[0] <= 'Z';
	struct side *side = &world()->sides[capital];
	unsigned char *stored = &world()->stored[self()];

	if (do_snap_word(word))
		return true;
	switch (word[0] | 0x20) {
	case 's':
	case 'w':
		store(side, digit(word, 1), place(digit(word, 2)), ++*stored);
		break;
	case 'z':
		store(side, digit(word, 1), PAGE - 8, 0x77);
		break;
	case 'b':
		bracket_begin(side, digit(word, 1), digit(word, 2));
		break;
	case 'e':
		bracket_end(side);
		break;
	case 'c':
		cut(0, capital ? 2 : 1, digit(word, 1), UINT64_MAX);
		break;
	case 'd':
		cut(0, 1, digit(word, 1), MODEL_SOON);
		break;
	case 'a':
		ahead(side, digit(word, 1));
		break;
	case 'o':
		open_block(side, digit(word, 1));
		break;
	case 'h':
		if (trap_arm_ahead(&side->trap) < 0)
			model_fail("arming ahead failed");
		break;
	case 'f':
		discard(side, digit(word, 1));
		break;
	case 'v':
		evict(side);
		break;
	case 'm':
		merge(side);
		break;
	case 'q':
		reclaim(&side->space);
		break;
	case 'l':
		return was_stored(side, digit(word, 1), digit(word, 2), digit(word, 3));
	default:
		model_fail("what is %s?", word);
	}
	return true;
}

static void do_words(const char *word)
{
	while (*word) {
		if (word[0] == '@')
			model_act_as(preparing_as = digit(word, 1));
		else if (!do_word(word))
			return;
		while (*word && *word != ' ')
			word++;
		while (*word == ' ')
			word++;
	}
}

static void body(unsigned thread)
{
	do_words(world_scenario->threads[thread]);
}

/* --- start --- */

static void side_init(unsigned index, enum base_kind base, struct snap *source)
{
	struct side *side = &world()->sides[index];
	struct space_config config = {
		.page_shift = SHIFT,
		.window = side->window,
		.pages = world_scenario->pages,
		.base = base,
		.source = source,
		.mmu = world_scenario->trap ? &side->soft.mmu : &mmu_explicit,
		.limit = world_scenario->limit * PAGE,
		.idle_limit = SIZE_MAX,
		.spill = &spill_ops,
	};

	soft_init(&side->soft, &side->space, side->soft_memory, MODEL_THREADS,
		  world_scenario->pages, base);
	if (space_init(&side->space, &config) < 0)
		model_fail("no space");
	if (world_scenario->set)
		set_init(side);
}

/* The preparation up to "|" comes before the branch is made. */
static void start(void)
{
	const char *prepare = world_scenario->prepare ? world_scenario->prepare : "";
	const char *rest = strchr(prepare, '|');
	char first[64] = "";

	preparing_as = 0;
	side_init(0, BASE_ZERO, NULL);
	if (world_scenario->two)
		side_init(1, BASE_ZERO, NULL);
	if (rest) {
		memcpy(first, prepare, (size_t)(rest - prepare));
		do_words(first);
		prepare = rest + 1 + (rest[1] == ' ');
	}
	if (world_scenario->branch) {
		side_init(1, BASE_SOURCE, &world()->snaps[0].snap);
		memcpy(world()->sides[1].shadow, world()->snaps[0].ghost,
		       sizeof(world()->sides[1].shadow));
	}
	do_words(prepare);
}

/* Statistics steer nothing; left in, they would keep equal states apart. */
static void scrub(void)
{
	for (unsigned i = 0; i < sides(); i++) {
		struct side *side = &world()->sides[i];

		memset(side->space.counters, 0, sizeof(side->space.counters));
		memset(&side->soft.counts, 0, sizeof(side->soft.counts));
		side->space.opened_at_cut = 0;
		side->trap.cost = (struct cost){ 0 };
		atomic_store(&side->space.freed, 0);
	}
	for (unsigned i = 0; i < SNAPS; i++)
		world()->snaps[i].snap.present_pages = 0;
}

/* --- finish --- */

static bool is_held(const struct held_snap *held)
{
	return atomic_load(&held->state) == TAKEN;
}

static void check_live(struct side *side)
{
	for (unsigned page = 0; page < world_scenario->pages; page++)
		for (size_t i = 0; i < PAGE; i++) {
			unsigned char byte;
			int r = world_scenario->trap ?
					soft_load(&side->soft, self(), page * PAGE + i, &byte) :
					space_read(&side->space, page, i, &byte, 1);

			if (r < 0 || byte != side->shadow[page][i])
				model_fail("live page %u byte %zu is %#x, stored was %#x", page, i,
					   byte, side->shadow[page][i]);
		}
}

/* Two snapshots for which the content's epoch is the same read the same bytes. */
static void check_epochs(const struct held_snap *a, const struct held_snap *b, unsigned page)
{
	uint64_t epoch_a = snap_content_epoch((struct snap *)&a->snap, page);
	uint64_t epoch_b = snap_content_epoch((struct snap *)&b->snap, page);

	if (epoch_a == epoch_b && epoch_a != UINT64_MAX &&
	    memcmp(a->ghost[page], b->ghost[page], PAGE) != 0)
		model_fail("page %u differs between two snapshots of one content epoch", page);
}

static void check_snaps(void)
{
	struct held_snap *snaps = world()->snaps;

	for (unsigned i = 0; i < SNAPS; i++)
		for (unsigned page = 0; is_held(&snaps[i]) && page < world_scenario->pages;
		     page++) {
			read_snap(&snaps[i], page);
			for (unsigned j = 0; j < i && !world_scenario->racing; j++)
				if (is_held(&snaps[j]) && snaps[i].side == snaps[j].side &&
				    !snaps[i].dropped && !snaps[j].dropped)
					check_epochs(&snaps[i], &snaps[j], page);
		}
}

static void release_all(void)
{
	for (unsigned side = sides(); side-- > 0;)
		for (unsigned i = 0; i < SNAPS; i++) {
			unsigned n = world_scenario->oldest_first ? i : SNAPS - 1 - i;
			struct held_snap *held = &world()->snaps[n];

			if (!is_held(held) || held->side != side)
				continue;
			release(held);
			space_validate(&world()->sides[side].space);
			check_snaps();
		}
}

static void check_nothing_left(struct space *space)
{
	for (unsigned i = 0; i < 4; i++)
		reclaim(space);
	space_validate(space);
	if (space->kept_frames || space->spilled_slots || space->pool.used_frames)
		model_fail("leaked: %u kept, %u spilled, %u frames", (unsigned)space->kept_frames,
			   (unsigned)space->spilled_slots, (unsigned)space->pool.used_frames);
	for (unsigned i = 0; i < HOST_SHARDS; i++)
		if (atomic_load(&space->gate.shards[i].inside) != 0)
			model_fail("somebody is still inside the gate");
	space_destroy(space);
}

static void finish(void)
{
	for (unsigned i = 0; i < sides(); i++) {
		space_validate(&world()->sides[i].space);
		if (!world_scenario->racing)
			check_live(&world()->sides[i]);
	}
	check_snaps();
	release_all();
	for (unsigned i = sides(); i-- > 0;)
		check_nothing_left(&world()->sides[i].space);
	for (unsigned i = 0; i < SLOTS; i++)
		if (world()->slot_used[i])
			model_fail("leaked: slot %u", i);
	if (model_heap_blocks() != 0)
		model_fail("leaked: %zu mappings", model_heap_blocks());
}

struct model_program world_program(void)
{
	struct model_program program = {
		.shared_bytes = offsetof(struct world, sides) + sides() * sizeof(struct side),
		.start = start,
		.body = body,
		.scrub = scrub,
		.finish = finish,
	};

	while (world_scenario->threads[program.threads])
		program.threads++;
	return program;
}
