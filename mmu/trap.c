/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "mmu/registry.h"
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
	if (trap->ahead)
		openset_clear(&trap->ahead->staying);
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
	if (runs.error) {
		put_back_opened(trap);
		return runs.error;
	}
	cost_learn(&trap->cost, runs.calls, runs.expected_ns, (double)(host_now() - start));
	if (trap->ahead)
		ahead_turn(trap->ahead);
	return 0;
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
		.mmu = { .ops = &trap_mmu_ops, .traps = true },
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

void trap_costs_after_fork(void)
{
	measured_lock = (struct lock){ 0 };
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
