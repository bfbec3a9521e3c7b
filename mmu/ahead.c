/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "mmu/ahead.h"
#include "mmu/trap.h"
#include "sys/sys.h"

int ahead_new(uint64_t pages, struct ahead **ret_ahead)
{
	struct ahead *ahead = sys_alloc(sizeof(*ahead));
	int r;

	if (!ahead)
		return -ENOMEM;
	r = openset_init(&ahead->written[0], pages);
	if (r == 0)
		r = openset_init(&ahead->written[1], pages);
	if (r == 0)
		r = openset_init(&ahead->guessed, pages);
	if (r == 0)
		r = openset_init(&ahead->staying, pages);
	if (r < 0)
		ahead_free(ahead);
	else
		*ret_ahead = ahead;
	return r;
}

void ahead_free(struct ahead *ahead)
{
	if (!ahead)
		return;
	openset_destroy(&ahead->written[0]);
	openset_destroy(&ahead->written[1]);
	openset_destroy(&ahead->guessed);
	openset_destroy(&ahead->staying);
	sys_free(ahead);
}

void ahead_note(struct ahead *ahead, uint64_t first, uint64_t count)
{
	openset_add_run(&ahead->written[ahead->current], first, count);
}

void ahead_turn(struct ahead *ahead)
{
	ahead->current ^= 1;
	ahead->turns++;
	openset_clear(&ahead->written[ahead->current]);
}

#define PROBATION 8u

/* Of pages that we opened in the last interval, only those that differ from what was kept then. */
static uint64_t drop_unwritten(struct trap *trap, uint64_t word, uint64_t bits)
{
	struct openset *guessed = &trap->ahead->guessed;
	bool probation = (word + trap->ahead->turns) % PROBATION == 0;

	for (uint64_t left = bits; left; left &= left - 1) {
		uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(left);

		if (space_is_open(trap->space, page)) {
			bits &= ~(left & -left); /* its writer was faster, or the cut kept it */
		} else if (openset_has(guessed, page) &&
			   (probation || space_is_unchanged(trap->space, page))) {
			openset_remove(guessed, page);
			bits &= ~(left & -left);
		}
	}
	return bits;
}

/* --- in the cut --- */

#define SHORT_RUN 3u /* longer ones cost less to arm than to copy */

/* The bits that are part of runs of at most SHORT_RUN within the word. */
static uint64_t short_runs(uint64_t bits)
{
	uint64_t longer = bits;

	for (unsigned i = 0; i < SHORT_RUN; i++)
		longer &= longer >> 1; /* where a run of one more begins */
	for (unsigned i = 0; i < SHORT_RUN; i++)
		longer |= longer << 1;
	/* Grown to all of each run. */
	for (uint64_t more = longer; more;) {
		more = ((longer << 1) | (longer >> 1)) & bits & ~longer;
		longer |= more;
	}
	return bits & ~longer;
}

/* One that we left open before, and that nobody wrote, is armed after all. */
static bool may_stay(struct trap *trap, uint64_t page)
{
	struct ahead *ahead = trap->ahead;

	if (!openset_has(&ahead->guessed, page))
		return true;
	if ((page / 64 + ahead->turns) % PROBATION != 0 && !space_is_unwritten(trap->space, page))
		return true;
	openset_remove(&ahead->guessed, page);
	openset_remove(&ahead->written[ahead->current], page);
	return false;
}

void ahead_choose(struct trap *trap, uint64_t word, unsigned words, const uint64_t open[],
		  uint64_t ret_staying[])
{
	for (unsigned i = 0; i < words; i++) {
		uint64_t left = short_runs(open[i]);

		ret_staying[i] = 0;
		for (; left; left &= left - 1) {
			uint64_t page = (word + i) * 64 + (uint64_t)__builtin_ctzll(left);

			if (!may_stay(trap, page))
				continue;
			openset_add(&trap->ahead->staying, page);
			ret_staying[i] |= left & -left;
		}
	}
}

/* Still open for the kernel. With no frame for it, it is armed like the others; where that fails,
 * too, what it holds now is all that is left of it. */
static int keep_open_page(struct trap *trap, uint64_t page)
{
	int r;

	openset_add(&trap->ahead->guessed, page);
	r = fault(trap->space, page, FAULT_SPARE);
	if (r == 0)
		return 0;
	r = trap->ops->protect(trap, page, 1);
	if (r == 0)
		return 0;
	openset_add(&trap->open, page);
	space_give_up(trap->space, page);
	return r;
}

int ahead_keep_staying(struct trap *trap)
{
	struct ahead *ahead = trap->ahead;
	uint64_t bits, word = 0;
	int lost = 0;

	ahead->cutting = true;
	for (; openset_next(&ahead->staying, &word, &bits); word++) {
		openset_take(&ahead->staying, word, 1, &bits);
		for (; bits; bits &= bits - 1)
			if (keep_open_page(trap, word * 64 + (uint64_t)__builtin_ctzll(bits)) < 0)
				lost = -1;
	}
	ahead->cutting = false;
	return lost;
}

/* --- after it --- */

/* A page in a run that a writer has a hand on ends what is opened in one go. */
static int keep_run(struct trap *trap, uint64_t first, uint64_t end)
{
	int r = 0;

	openset_add_run(&trap->ahead->guessed, first, end - first);
	for (uint64_t page = first; r == 0 && page < end; page++)
		if (!space_is_open(trap->space, page))
			r = keep_ahead(trap->space, page, (struct block){ page, end });
	return r;
}

static int keep_word(struct trap *trap, uint64_t word, uint64_t bits)
{
	int r = 0;

	while (r == 0 && bits) {
		unsigned first = (unsigned)__builtin_ctzll(bits);
		uint64_t after = ~(bits >> first);
		unsigned length = after ? (unsigned)__builtin_ctzll(after) : 64;

		if (length > 64 - first)
			length = 64 - first;
		r = keep_run(trap, word * 64 + first, word * 64 + first + length);
		bits &= ~((length == 64 ? ~(uint64_t)0 : ((uint64_t)1 << length) - 1) << first);
	}
	return r;
}

int ahead_step(struct trap *trap)
{
	uint64_t word = 0, bits;
	struct openset *last;
	int r = 0;

	gate_enter(&trap->space->gate, host_shard(), false);
	last = &trap->ahead->written[trap->ahead->current ^ 1];
	if (openset_next(last, &word, &bits)) {
		openset_take(last, word, 1, &bits);
		r = keep_word(trap, word, drop_unwritten(trap, word, bits));
		if (r == 0)
			r = 1;
	}
	gate_leave(&trap->space->gate, host_shard());
	return r;
}
