/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "mmu/runs.h"
#include "sys/sys.h"

/* --- as an mmu of the core --- */

static void trap_unprotect(struct mmu *mmu, uint64_t first, uint64_t count)
{
	struct trap *trap = trap_of(mmu);

	if (atomic_load_explicit(&trap->armed, memory_order_relaxed) == TRAP_PLAIN)
		return; /* nothing is registered yet */
	openset_add_run(&trap->open, first, count);
	if (trap->ahead)
		ahead_note(trap->ahead, first, count);
	if (trap->ahead && trap->ahead->cutting)
		return;
	if (!trap_is_relieving() && trap->ops->unprotect(trap, first, count) < 0)
		atomic_store(&trap->refused, 1);
}

static int add_opened(uint64_t page, struct entry *entry, void *context)
{
	struct trap *trap = context;

	(void)entry;
	openset_add(&trap->open, page);
	return 0;
}

static void put_back_opened(struct trap *trap)
{
	table_walk(&trap->space->table, 0, trap->space->pages, atomic_load(&trap->space->epoch) - 1,
		   add_opened, trap);
	atomic_store(&trap->refused, 1);
}

/* The gate is sealed. Where the kernel refuses, whatever was opened in this epoch goes back to the
 * set: it may be armed all the same, which the next trap finds out. */
static int trap_protect_open(struct mmu *mmu)
{
	struct trap *trap = trap_of(mmu);
	struct runs runs = { .trap = trap, .exact = trap->exact };
	uint64_t taken[RUNS_WORDS], bits, word = 0, start = host_now();
	bool stays_open = trap->ahead && sys_is_alone();

	atomic_store(&trap->refused, 0); /* what is armed may be opened anew */
	while (openset_next(&trap->open, &word, &bits)) {
		word &= ~(uint64_t)(RUNS_WORDS - 1);
		openset_take(&trap->open, word, RUNS_WORDS, taken);
		if (stays_open) {
			uint64_t staying[RUNS_WORDS];

			ahead_choose(trap, word, RUNS_WORDS, taken, staying);
			for (unsigned i = 0; i < RUNS_WORDS; i++)
				taken[i] &= ~staying[i];
		}
		runs_add_words(&runs, word, taken);
		word += RUNS_WORDS;
	}
	runs_end(&runs);
	if (runs.error == 0)
		cost_learn(&trap->cost, runs.calls, runs.expected_ns, (double)(host_now() - start));
	else
		put_back_opened(trap);
	if (trap->ahead && runs.error)
		openset_clear(&trap->ahead->staying);
	if (trap->ahead)
		ahead_turn(trap->ahead);
	return runs.error;
}

static int trap_keep_open(struct mmu *mmu)
{
	struct trap *trap = trap_of(mmu);

	return trap->ahead ? ahead_keep_staying(trap) : 0;
}

static const struct mmu_ops trap_mmu_ops = {
	.name = "trap",
	.protect_open = trap_protect_open,
	.unprotect = trap_unprotect,
	.keep_open = trap_keep_open,
};

int trap_init(struct trap *trap, const struct trap_ops *ops, struct space *space,
	      const struct trap_policy *policy)
{
	*trap = (struct trap){
		.mmu = { .ops = &trap_mmu_ops },
		.ops = ops,
		.space = space,
		.policy = *policy,
		.base = space->window,
		.length = space->pages << space->page_shift,
		.cost = COST_INIT,
		.rounds = true,
		.uffd = -1,
	};
	return openset_init(&trap->open, space->pages);
}

/* --- the cost of arming --- */

static struct cost measured[TRAP_COSTS];
static struct lock measured_lock; /* guards measured */

void trap_measure_cost(struct trap *trap, enum trap_cost kind,
		       int (*prepare)(struct trap *trap, void *memory, size_t bytes),
		       cost_change_fn change)
{
	size_t page = space_page_size(trap->space), bytes = COST_PAGES * page;

	lock_take(&measured_lock);
	if (!(measured[kind].call > 0)) {
		void *memory = host_map(bytes, page);

		measured[kind] = trap->cost;
		if (memory) {
			host_populate(memory, bytes);
			if (!prepare || prepare(trap, memory, bytes) == 0)
				cost_measure(&measured[kind], memory, page, change, trap);
			host_unmap(memory, bytes);
		}
	}
	trap->cost = measured[kind];
	lock_drop(&measured_lock);
}

/* --- arming --- */

static int start(struct trap *trap)
{
	int r = 0;

	if (atomic_load(&trap->armed) == TRAP_ARMED)
		return 0;
	lock_take(&trap->start_lock);
	if (atomic_load(&trap->armed) == TRAP_PLAIN) {
		r = registry_add(trap);
		if (r == 0) {
			atomic_store(&trap->armed, TRAP_STARTING);
			r = trap->ops->start(trap);
			atomic_store(&trap->armed, r < 0 ? TRAP_PLAIN : TRAP_ARMED);
			host_wake(&trap->armed);
		}
	}
	lock_drop(&trap->start_lock);
	return r;
}

/* --- arming ahead --- */

#ifdef COW_MODEL
#define ARM_BATCH 128u /* on a stack that is part of each state */
#else
#define ARM_BATCH 512u
#endif

/* Pages that this thread holds BUSY while the kernel arms them: who writes one meanwhile waits for
 * it. Only those: any other page may be opened by its writer just now. */
struct arming {
	struct {
		uint64_t page;
		uint64_t gap; /* what it was, of one that was armed already; 0: it was open */
	} pages[ARM_BATCH];
	unsigned count, runs;
};

/* So many calls are over while a writer that waits for one of the pages still spins, more or
 * less. */
#define ARM_RUNS 8u

static void settle_claimed(struct trap *trap, const struct arming *arming, int error)
{
	for (unsigned i = 0; i < arming->count; i++) {
		uint64_t page = arming->pages[i].page;

		if (arming->pages[i].gap) {
			space_let_go(trap->space, page, arming->pages[i].gap);
			continue;
		}
		if (error)
			openset_add(&trap->open, page);
		space_settle(trap->space, page, error == 0);
	}
}

static int arm_claimed(struct trap *trap, struct arming *arming)
{
	struct runs runs = { .trap = trap, .exact = true };

	lock_take(&trap->arm_lock);
	if (MUTANT("armed-before-protect"))
		settle_claimed(trap, arming, 0);
	for (unsigned i = 0; i < arming->count; i++) {
		STEP("arm: remove");
		if (!MUTANT("arm-removes-late"))
			openset_remove(&trap->open, arming->pages[i].page);
		runs_add(&runs, arming->pages[i].page);
	}
	STEP("arm: protect");
	runs_end(&runs);
	if (!MUTANT("armed-before-protect"))
		settle_claimed(trap, arming, runs.error);
	for (unsigned i = 0; i < arming->count && MUTANT("arm-removes-late"); i++) {
		STEP("arm: remove late");
		openset_remove(&trap->open, arming->pages[i].page);
	}
	if (runs.error)
		atomic_store(&trap->refused, 1);
	lock_drop(&trap->arm_lock);
	arming->count = arming->runs = 0;
	return runs.error;
}

/* From so many open pages in a word on, what is between them is armed with them. */
#define DENSE 3

static void claim(struct trap *trap, struct arming *arming, uint64_t page, bool open)
{
	uint64_t gap = open ? 0 : space_claim_armed(trap->space, page);

	if (open ? space_claim_open(trap->space, page) : gap != 0) {
		arming->pages[arming->count].page = page;
		arming->pages[arming->count++].gap = gap;
	}
}

static int arm_word(struct trap *trap, struct arming *arming, uint64_t word, uint64_t bits)
{
	bool gaps = __builtin_popcountll(bits) >= DENSE && !trap->exact;
	unsigned first = (unsigned)__builtin_ctzll(bits),
		 last = 63 - (unsigned)__builtin_clzll(bits);
	int r = 0;

	for (unsigned i = first; i <= last; i++)
		if (gaps || (bits >> i & 1))
			claim(trap, arming, word * 64 + i, bits >> i & 1);
	if (!gaps)
		arming->runs += (unsigned)__builtin_popcountll(bits & ~(bits << 1));
	if (arming->count > ARM_BATCH - 64 || arming->runs > ARM_RUNS)
		r = arm_claimed(trap, arming);
	return r;
}

/* One round over all open pages. Inside the gate for a batch at a time, so that a cut need not wait
 * long. */
static int arm_round(struct trap *trap, uint64_t *ret_armed)
{
	struct arming arming = { .count = 0 };
	uint64_t word = 0, bits, armed = 0;
	bool more = true;
	int r = 0;

	while (more && r == 0) {
		unsigned words = 0;

		if (!MUTANT("arm-outside-gate"))
			gate_enter(&trap->space->gate, host_shard(), trap->policy.is_nested());
		while (r == 0 && words++ < ARM_BATCH / 64 &&
		       (more = openset_next(&trap->open, &word, &bits))) {
			armed += (uint64_t)__builtin_popcountll(bits);
			r = arm_word(trap, &arming, word++, bits);
		}
		if (r == 0)
			r = arm_claimed(trap, &arming);
		if (!MUTANT("arm-outside-gate"))
			gate_leave(&trap->space->gate, host_shard());
	}
	*ret_armed = armed;
	return r;
}

/* Rounds help while each arms much less than the one before: writers dirty pages only as fast as
 * they trap. Few pages are left to the cut. */
#define FEW_PAGES   64u
#define MOST_ROUNDS 8u

int trap_arm_ahead(struct trap *trap)
{
	uint64_t armed = UINT64_MAX, before;
	int r = start(trap);

	for (unsigned round = 0; r == 0 && round < MOST_ROUNDS && armed > FEW_PAGES; round++) {
		before = armed;
		r = arm_round(trap, &armed);
		if (armed > before / 4 * 3)
			break;
	}
	return r;
}

/* A cut over so many pages takes as long as a few traps. */
#define SHORT_CUT_PAGES 256u

static bool has_many_open(struct trap *trap)
{
	uint64_t bits, open = 0;

	for (uint64_t word = 0; openset_next(&trap->open, &word, &bits); word++) {
		open += (uint64_t)__builtin_popcountll(bits);
		if (open > SHORT_CUT_PAGES)
			return true;
	}
	return false;
}

/* Under the thread trap writers are served by others, so it is not known who they are. */
static bool others_write(const struct trap *trap, uint32_t writers)
{
	return writers == UINT32_MAX ? !sys_is_alone() : (writers & ~(1u << host_shard())) != 0;
}

/* Where only this thread writes, arming first would take it longer, and stall nobody less. */
int trap_prepare_cut(struct trap *trap)
{
	uint32_t writers = atomic_exchange_explicit(&trap->writers, 0, memory_order_relaxed);
	int r = start(trap);

	if (r == 0 && trap->rounds && others_write(trap, writers) && has_many_open(trap))
		r = trap_arm_ahead(trap);
	return r;
}

int trap_start(struct trap *trap)
{
	return start(trap);
}

/* --- the trap itself --- */

/* A page that is open and in the set, and traps again and again, is armed for a reason that nobody
 * knows of: a cut that failed half way, or somebody else's mprotect(). */
#define TRAPS_IN_A_ROW 4u

static _Thread_local struct {
	uintptr_t address;
	unsigned times;
} last __attribute__((tls_model("initial-exec")));

static bool keeps_trapping(uintptr_t address)
{
	if (last.address != address)
		last.times = 0;
	last.address = address;
	return ++last.times >= TRAPS_IN_A_ROW;
}

static int touch_page(struct trap *trap, uint64_t page, uintptr_t address)
{
	int r = trap->ops->convert ? trap->ops->convert(trap, page) : 0;

	if (r != 0)
		return r < 0 ? r : 0; /* 1: the instruction begins anew, and may trap again */
	r = fault_around(trap->space, page, 0, block_around(trap->space, page));
	if (r == 0 && (keeps_trapping(address) || atomic_load(&trap->refused))) {
		r = trap_relieve(trap, page);
		last.times = 0;
	}
	return r;
}

bool trap_has_started(struct trap *trap)
{
	while (atomic_load(&trap->armed) == TRAP_STARTING)
		host_wait(&trap->armed, TRAP_STARTING, 0);
	return atomic_load(&trap->armed) == TRAP_ARMED;
}

int trap_assure(struct trap *trap, uint64_t page)
{
	return atomic_load(&trap->refused) ? trap_relieve(trap, page) : 0;
}

int trap_prepare(struct trap *trap, uint64_t page)
{
	int r = trap->ops->convert ? trap->ops->convert(trap, page) : 0;

	return r < 0 ? r : 0;
}

static void note_writer(struct trap *trap, bool is_this)
{
	uint32_t bit = is_this ? 1u << host_shard() : UINT32_MAX;

	if ((atomic_load_explicit(&trap->writers, memory_order_relaxed) & bit) != bit)
		atomic_fetch_or_explicit(&trap->writers, bit, memory_order_relaxed);
}

static void wait_a_moment(struct space *space)
{
	host_wait(&space->freed, atomic_load(&space->freed), host_now() + 1000000);
}

/* What fails may go well in a moment, and a store cannot be told that it did not. */
#define FAILURES_IN_A_ROW 5u

/* 0: the store may be tried again; 1: this may; -EBUSY: this may, in a moment (only without
 * may_wait); or the store cannot be helped. */
static int attempt(struct trap *trap, uintptr_t address, bool nested, bool may_wait,
		   uint64_t *deadline_ns)
{
	uint64_t page = (address - (uintptr_t)trap->base) >> trap->space->page_shift;
	uint32_t freed = atomic_load(&trap->space->freed);
	int r;

	gate_enter(&trap->space->gate, host_shard(), nested);
	r = touch_page(trap, page, address);
	gate_leave(&trap->space->gate, host_shard());
	if (atomic_load_explicit(&trap->space->pool.wants_spare, memory_order_relaxed))
		trap->policy.want_frames(trap->policy.context);
	if (r != -EAGAIN)
		return r;
	r = trap->policy.make_room(trap->policy.context, freed, may_wait, deadline_ns);
	return r == 0 ? 1 : r;
}

static int try_until_done(struct trap *trap, uintptr_t address, bool nested, bool may_wait,
			  uint64_t *deadline_ns)
{
	unsigned failures = 0;
	int r;

	if (!trap_has_started(trap))
		return 0; /* it came to nothing: plain memory again */
	note_writer(trap, may_wait);
	for (;;) {
		r = attempt(trap, address, nested, may_wait, deadline_ns);
		if (r == 1)
			continue;
		if (r == 0 || r == -EBUSY || r == -EFAULT || ++failures == FAILURES_IN_A_ROW)
			return r;
		wait_a_moment(trap->space);
	}
}

int trap_handle(struct trap *trap, uintptr_t address, bool nested)
{
	uint64_t deadline_ns = 0;

	return try_until_done(trap, address, nested, true, &deadline_ns);
}

int trap_try(struct trap *trap, uintptr_t address, uint64_t *deadline_ns)
{
	return try_until_done(trap, address, true, false, deadline_ns);
}

/* --- which trap an address belongs to --- */

/* Places are never given back to the system, so a handler may walk them at any time. A place is
 * free when its trap is NULL. */
struct place {
	struct place *next; /* set before it is published */
	_Atomic(struct trap *) trap;
	_Atomic uintptr_t start, end;
};

static _Atomic(struct place *) places;
static struct lock places_lock; /* guards changes */

#define PLACES_BYTES 4096u

static struct place *free_place(void)
{
	struct place *place;
	void *memory;

	for (place = atomic_load(&places); place; place = place->next)
		if (!atomic_load(&place->trap))
			return place;
	/* Unlike host_map()'s, this memory goes to children, too: their handlers and after_fork()
	 * walk it. */
	if (sys_map(NULL, PLACES_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    &memory) < 0)
		return NULL;
	place = memory;
	for (size_t i = 0; i < PLACES_BYTES / sizeof(*place); i++) {
		place[i].next = atomic_load(&places);
		atomic_store(&places, &place[i]);
	}
	return atomic_load(&places);
}

static struct place *place_of(const struct trap *trap)
{
	struct place *place = atomic_load(&places);

	while (place && atomic_load(&place->trap) != trap)
		place = place->next;
	return place;
}

/* Once it is in it stays, also when its start fails: a trap may be on its way to the handler. */
int registry_add(struct trap *trap)
{
	struct place *place;

	lock_take(&places_lock);
	place = place_of(trap);
	if (!place)
		place = free_place();
	if (place) {
		atomic_store(&place->start, (uintptr_t)trap->base);
		atomic_store(&place->end, (uintptr_t)trap->base + trap->length);
		atomic_store(&place->trap, trap);
	}
	lock_drop(&places_lock);
	return place ? 0 : -ENOMEM;
}

void registry_remove(struct trap *trap)
{
	lock_take(&places_lock);
	for (struct place *place = atomic_load(&places); place; place = place->next)
		if (atomic_load(&place->trap) == trap)
			atomic_store(&place->trap, NULL);
	lock_drop(&places_lock);
}

/* The address is one that the caller just used, so its region is not being freed, and its place not
 * taken over; another place's may be, hence the trap is read first and last. */
struct trap *registry_find(uintptr_t address)
{
	for (struct place *place = atomic_load(&places); place; place = place->next) {
		struct trap *trap = atomic_load(&place->trap);

		if (trap && address >= atomic_load(&place->start) &&
		    address < atomic_load(&place->end) && atomic_load(&place->trap) == trap)
			return trap;
	}
	return NULL;
}

bool trap_exists(void)
{
	return atomic_load_explicit(&places, memory_order_relaxed) != NULL;
}

void registry_each(void (*visit)(struct trap *trap))
{
	for (struct place *place = atomic_load(&places); place; place = place->next) {
		struct trap *trap = atomic_load(&place->trap);

		if (trap)
			visit(trap);
	}
}

void trap_free(struct trap *trap)
{
	if (!trap)
		return;
	registry_remove(trap);
	if (trap->ops && trap->ops->stop)
		trap->ops->stop(trap);
	openset_destroy(&trap->open);
	ahead_free(trap->ahead);
	sys_free(trap);
}
