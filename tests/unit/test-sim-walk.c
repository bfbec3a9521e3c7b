/* SPDX-License-Identifier: MIT */
/* The core's side of `cow walk`: what a fork does to a process, done to a space. */
#include "sim/walk.h"
#include "tests/tap.h"

static struct sim_entry look(struct sim *sim, enum sim_who who, unsigned page)
{
	struct sim_entry entry = { 0 };

	is_errno(sim_look(sim, who, page, &entry), 0, "page %u is looked at", page);
	return entry;
}

static void is_entry(struct sim_entry entry, enum sim_place place, unsigned readers, bool writable,
		     const char *what)
{
	is_u64(entry.place, place, "%s: place", what);
	is_u64(entry.readers, readers, "%s: readers", what);
	is_u64(entry.writable, writable, "%s: writable", what);
}

static void is_write(struct sim *sim, enum sim_who who, unsigned page, enum sim_outcome outcome,
		     unsigned faults)
{
	struct sim_write write = { 0 };

	is_errno(sim_store(sim, who, page, 1, &write), 0, "page %u is written", page);
	is_u64(write.outcome, outcome, "page %u: outcome", page);
	is_u64(write.faults, faults, "page %u: faults", page);
}

TEST(a_fork_shares_until_somebody_writes)
{
	struct sim *sim = NULL;

	is_errno(sim_new(3, &sim), 0, "a space");
	is_entry(look(sim, SIM_PARENT, 0), SIM_ZERO, 0, false, "untouched");
	is_write(sim, SIM_PARENT, 0, SIM_ZERO_FILLED, 1);
	is_write(sim, SIM_PARENT, 0, SIM_WRITTEN, 0);
	is_write(sim, SIM_PARENT, 1, SIM_ZERO_FILLED, 1);
	is_errno(sim_fork(sim), 0, "a fork");
	is_entry(look(sim, SIM_PARENT, 0), SIM_WINDOW, 2, false, "the parent's");
	is_entry(look(sim, SIM_CHILD, 0), SIM_WINDOW, 2, false, "the child's");
	is_entry(look(sim, SIM_CHILD, 2), SIM_ZERO, 0, false, "the child's untouched one");
	is_write(sim, SIM_CHILD, 0, SIM_COPIED, 1);
	is_write(sim, SIM_CHILD, 0, SIM_WRITTEN, 0);
	is_write(sim, SIM_CHILD, 2, SIM_ZERO_FILLED, 1);
	is_entry(look(sim, SIM_PARENT, 0), SIM_WINDOW, 1, false, "what the child left");
	is_entry(look(sim, SIM_CHILD, 0), SIM_OWN, 1, true, "what it has instead");
	is_write(sim, SIM_PARENT, 1, SIM_COPIED, 1);
	is_entry(look(sim, SIM_CHILD, 1), SIM_KEPT, 1, false, "what is kept for the child");
	sim_free(sim);
}

TEST(after_the_exit_the_parent_reuses)
{
	struct sim *sim = NULL;
	unsigned round;

	is_errno(sim_new(1, &sim), 0, "a space");
	is_write(sim, SIM_PARENT, 0, SIM_ZERO_FILLED, 1);
	for (round = 0; round < 3; round++) {
		is_errno(sim_fork(sim), 0, "a fork");
		sim_exit(sim);
		is_entry(look(sim, SIM_PARENT, 0), SIM_WINDOW, 1, false, "still protected");
		is_write(sim, SIM_PARENT, 0, SIM_REUSED, 1);
	}
	sim_free(sim);
}

TEST(wrong_calls_change_nothing)
{
	struct sim_entry entry = { .readers = 77 };
	struct sim_write write = { .faults = 77 };
	struct sim *sim = NULL;

	is_errno(sim_new(1, &sim), 0, "a space");
	is_errno(sim_look(sim, SIM_CHILD, 0, &entry), -ESRCH, "there is no child to look at");
	is_errno(sim_store(sim, SIM_CHILD, 0, 1, &write), -ESRCH, "nor to write");
	is_errno(sim_look(sim, SIM_PARENT, 1, &entry), -EFAULT, "there is no such page");
	is_errno(sim_load(sim, SIM_PARENT, 1), -EFAULT, "nor to read");
	is_u64(entry.readers, 77, "the result is untouched");
	is_u64(write.faults, 77, "and the other");
	sim_exit(sim);
	is_errno(sim_fork(sim), 0, "a fork");
	is_errno(sim_fork(sim), -EBUSY, "not a second child");
	sim_free(sim);
	sim_free(NULL);
}

TAP_MAIN(CASE(a_fork_shares_until_somebody_writes), CASE(after_the_exit_the_parent_reuses),
	 CASE(wrong_calls_change_nothing))
