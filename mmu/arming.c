/* SPDX-License-Identifier: MIT */
/*
 * Arming outside the cut: the first time, when the kernel is told of the window, and ahead of a cut
 * beside running writers, so that little is left to it.
 *
 *   open --claimed--> BUSY --the kernel protects it--> armed
 *                      |
 *                      +-- who writes it meanwhile waits for that
 *
 * A claimed page is nobody else's, so what the set of open pages says of it and what the kernel
 * does change together. Pages are claimed and armed in batches inside the gate, a few calls each:
 * a cut, or a writer of a claimed page, waits for no more than that.
 */
#include <errno.h>

#include "mmu/registry.h"
#include "mmu/runs.h"
#include "sys/sys.h"

int trap_start(struct trap *trap)
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

/* --- rounds --- */

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
 * they trap. One that arms more may be one in which this thread was not let run: the next tells.
 * Few pages are left to the cut. */
#define FEW_PAGES    64u
#define MOST_ROUNDS  16u
#define STUCK_ROUNDS 2u

int trap_arm_ahead(struct trap *trap)
{
	uint64_t armed = UINT64_MAX, before;
	unsigned stuck = 0;
	int r = trap_start(trap);

	for (unsigned round = 0; r == 0 && round < MOST_ROUNDS && armed > FEW_PAGES; round++) {
		before = armed;
		r = arm_round(trap, &armed);
		stuck = armed > before / 4 * 3 ? stuck + 1 : 0;
		if (stuck == STUCK_ROUNDS)
			break;
	}
	return r;
}

/* --- before a cut --- */

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
	int r = trap_start(trap);

	if (r == 0 && trap->rounds && others_write(trap, writers) && has_many_open(trap))
		r = trap_arm_ahead(trap);
	return r;
}
