/* SPDX-License-Identifier: MIT */
/*
 * The script: six steps, done by two processes and by libcow's core.
 *
 * No file of the kernel shows the write bit of a page table. What is shown is inferred, by the
 * rules of infer_writable(), and then proven: before each write it is said how many faults it will
 * take, and the process counts them. A rule that were wrong would show as a contradiction.
 */
#include <errno.h>
#include <unistd.h>

#include "cli/output.h"
#include "cli/walk/actors.h"
#include "cli/walk/look.h"

const struct walk_page_kind walk_page_kinds[WALK_PAGES] = {
	[WALK_UNTOUCHED] = { "untouched", "mapped, never touched", .anonymous = true },
	[WALK_READ] = { "read", "read before the fork; the child writes", .anonymous = true },
	[WALK_BOTH] = { "both", "written; the child writes, then the parent", .anonymous = true },
	[WALK_PARENT] = { "parent", "written; the parent writes", .anonymous = true },
	[WALK_LAST] = { "last", "written; the parent writes after the exit", .anonymous = true },
	[WALK_SHARED] = { "shared", "MAP_SHARED of a file; the child writes" },
	[WALK_PRIVATE] = { "private", "MAP_PRIVATE of a file; the child writes" },
	[WALK_HUGE] = { "huge", "of a huge page; the child writes, then the parent",
			.anonymous = true, .huge = true },
	[WALK_HUGE_NEXT] = { "huge+1", "its neighbour in the huge page; nobody writes",
			     .anonymous = true, .huge = true },
};

const char *const walk_outcome_names[] = {
	[WALK_WRITTEN] = "written", [WALK_ZERO_FILLED] = "zero-filled", [WALK_COPIED] = "copied",
	[WALK_REUSED] = "reused",   [WALK_MAPPED] = "mapped",
};

const char *const walk_sim_outcome_names[] = {
	[SIM_WRITTEN] = "written",
	[SIM_ZERO_FILLED] = "zero-filled",
	[SIM_COPIED] = "copied",
	[SIM_REUSED] = "reused",
};

/* --- what is done --- */

struct planned_write {
	enum walk_who who;
	enum walk_page page;
};

static const struct plan {
	const char *name, *what;
	enum { DO_NOTHING, DO_FORK, DO_EXIT } action;
	struct planned_write writes[WALK_PAGES];
	unsigned write_count;
} plans[WALK_STEPS] = {
	{
		.name = "start",
		.what = "the parent has written some pages, read another, mapped a file twice",
	},
	{
		.name = "fork",
		.what = "the page table is copied, no page is; both sides are write-protected",
		.action = DO_FORK,
	},
	{
		.name = "child writes",
		.what = "its first write to a page faults: the kernel gives it a copy",
		.writes = { { WALK_BY_CHILD, WALK_READ },
			    { WALK_BY_CHILD, WALK_BOTH },
			    { WALK_BY_CHILD, WALK_SHARED },
			    { WALK_BY_CHILD, WALK_PRIVATE },
			    { WALK_BY_CHILD, WALK_HUGE } },
		.write_count = 5,
	},
	{
		.name = "parent writes",
		.what = "copied where the child still has the page, else reused",
		.writes = { { WALK_BY_PARENT, WALK_BOTH },
			    { WALK_BY_PARENT, WALK_PARENT },
			    { WALK_BY_PARENT, WALK_HUGE } },
		.write_count = 3,
	},
	{
		.name = "child exits",
		.what = "its page table goes, and the pages that only it had",
		.action = DO_EXIT,
	},
	{
		.name = "parent writes the last",
		.what = "still protected, but nobody else has it: reused",
		.writes = { { WALK_BY_PARENT, WALK_LAST } },
		.write_count = 1,
	},
};

struct walking {
	struct walk *walk;
	struct actors actors;
	struct lookout lookout;
	struct sim *sim;
	int pagemaps[WALK_ACTORS]; /* -1: no such process */
	/* Protected by the fork, and not written since. */
	bool armed[WALK_ACTORS][WALK_PAGES];
};

/* --- what is seen --- */

/*
 * A page of zeroes and a file's page in a private mapping are never writable; an anonymous one that
 * a fork has met is protected until this process writes it, as is one that others map, too. What a
 * shared mapping has is writable: a file in memory needs no notice of the first write.
 */
static bool infer_writable(const struct walking *walking, enum walk_who who, enum walk_page page,
			   const struct walk_entry *entry)
{
	if (!entry->present)
		return false;
	if (page == WALK_SHARED)
		return true;
	return !entry->zero && !entry->file && !walking->armed[who][page] && entry->exclusive;
}

static int see(struct walking *walking, enum walk_who who, enum walk_page page,
	       struct walk_entry *ret_entry)
{
	struct walk_entry entry = { 0 };
	int error = 0;

	if (walking->pagemaps[who] >= 0)
		error = lookout_see(&walking->lookout, walking->pagemaps[who],
				    walking->actors.pages[page], &entry);
	if (error)
		return error;
	/* Nobody told, but what else would be mapped often before anything is shared? */
	if (!walking->walk->knows_zero && page == WALK_READ && entry.present && !entry.exclusive)
		entry.zero = true;
	entry.writable = infer_writable(walking, who, page, &entry);
	*ret_entry = entry;
	return 0;
}

static int see_all(struct walking *walking, struct walk_step *step)
{
	unsigned who, page;
	int error = 0;

	for (who = 0; who < WALK_ACTORS; who++)
		for (page = 0; page < walking->walk->pages && !error; page++)
			error = see(walking, who, page, &step->entries[who][page]);
	return error;
}

static bool in_sim(enum walk_page page)
{
	return walk_page_kinds[page].anonymous;
}

static void see_sim(struct walking *walking, struct walk_step *step)
{
	unsigned who, page;

	for (who = 0; who < WALK_ACTORS; who++)
		for (page = 0; page < walking->walk->pages; page++)
			step->in_sim[who] = sim_look(walking->sim, who, page,
						     &step->sim[who][page]) == 0;
}

/* --- what is done --- */

static enum walk_outcome judge(const struct walk_entry *before, const struct walk_entry *after,
			       enum walk_page page, uint64_t faults)
{
	if (!faults)
		return WALK_WRITTEN;
	if (page == WALK_SHARED)
		return WALK_MAPPED;
	if (before->file || (page == WALK_PRIVATE && !before->present))
		return WALK_COPIED;
	if (!before->present || before->zero)
		return WALK_ZERO_FILLED;
	if (before->frame != WALK_UNKNOWN)
		return before->frame == after->frame ? WALK_REUSED : WALK_COPIED;
	return before->exclusive ? WALK_REUSED : WALK_COPIED;
}

static int write_sim(struct walking *walking, struct walk_write *write)
{
	struct sim_entry before;
	int error;

	write->in_sim = in_sim(write->page);
	if (!write->in_sim)
		return 0;
	error = sim_look(walking->sim, (enum sim_who)write->who, write->page, &before);
	if (error)
		return error;
	write->sim_expected_faults = !before.writable;
	return sim_store(walking->sim, (enum sim_who)write->who, write->page, 'x', &write->sim);
}

static bool is_as_inferred(const struct walk_write *write)
{
	return write->faults == write->expected_faults && write->faults_again == 0 &&
	       (!write->in_sim || write->sim.faults == write->sim_expected_faults);
}

static int write_page(struct walking *walking, const struct planned_write *planned,
		      struct walk_write *ret_write)
{
	struct walk_write write = { .page = planned->page, .who = planned->who };
	struct walk_entry before, after;
	int error = see(walking, write.who, write.page, &before);

	if (error)
		return error;
	write.expected_faults = !before.writable;
	error = actors_write(&walking->actors, write.who, write.page, &write.faults,
			     &write.faults_again);
	walking->armed[write.who][write.page] = false;
	if (!error)
		error = see(walking, write.who, write.page, &after);
	if (!error)
		error = write_sim(walking, &write);
	if (error)
		return error;
	write.outcome = judge(&before, &after, write.page, write.faults);
	walking->walk->contradictions += !is_as_inferred(&write);
	*ret_write = write;
	return 0;
}

static int do_fork(struct walking *walking, const struct walk_step *before)
{
	unsigned page;
	int error = actors_fork(&walking->actors);

	if (!error)
		error = sim_fork(walking->sim);
	if (error)
		return error;
	for (page = 0; page < walking->walk->pages; page++)
		walking->armed[WALK_BY_PARENT][page] = walking->armed[WALK_BY_CHILD][page] =
			before->entries[WALK_BY_PARENT][page].present && page != WALK_SHARED;
	walking->pagemaps[WALK_BY_CHILD] =
		lookout_open_process(&walking->lookout, walking->actors.pids[WALK_BY_CHILD]);
	return walking->pagemaps[WALK_BY_CHILD] < 0 ? walking->pagemaps[WALK_BY_CHILD] : 0;
}

static int do_exit(struct walking *walking)
{
	close(walking->pagemaps[WALK_BY_CHILD]);
	walking->pagemaps[WALK_BY_CHILD] = -1;
	sim_exit(walking->sim);
	return actors_exit(&walking->actors);
}

static int do_step(struct walking *walking, const struct plan *plan, struct walk_step *step)
{
	const struct planned_write *planned;
	int error = 0;
	unsigned i;

	step->name = plan->name;
	step->what = plan->what;
	if (plan->action == DO_FORK)
		error = do_fork(walking, step - 1);
	else if (plan->action == DO_EXIT)
		error = do_exit(walking);
	for (i = 0; i < plan->write_count && !error; i++) {
		planned = &plan->writes[i];
		if (planned->page >= walking->walk->pages)
			continue;
		error = write_page(walking, planned, &step->writes[step->write_count++]);
	}
	if (!error)
		error = see_all(walking, step);
	if (!error)
		see_sim(walking, step);
	return error;
}

/* What the parent did before the first step. */
static int prepare_sim(struct walking *walking)
{
	static const enum walk_page written[] = { WALK_BOTH, WALK_PARENT, WALK_LAST, WALK_HUGE,
						  WALK_HUGE_NEXT };
	struct sim_write write;
	unsigned i;
	int error = sim_new(walking->walk->pages, &walking->sim);

	if (!error)
		error = sim_load(walking->sim, SIM_PARENT, WALK_READ);
	for (i = 0; i < sizeof(written) / sizeof(written[0]) && !error; i++)
		if (written[i] < walking->walk->pages)
			error = sim_store(walking->sim, SIM_PARENT, written[i], 'p', &write);
	return error;
}

/* What can be known here: it is tried on pages of which the answer is known. */
static int find_out(struct walking *walking)
{
	struct walk *walk = walking->walk;
	struct walk_entry zero, written;
	int error;

	walk->page_bytes = walking->lookout.page_bytes;
	walk->knows_zero = true;
	error = see(walking, WALK_BY_PARENT, WALK_READ, &zero);
	if (!error)
		error = see(walking, WALK_BY_PARENT, WALK_BOTH, &written);
	if (error)
		return error;
	walk->knows_zero = zero.zero;
	walk->sees_frames = written.frame != WALK_UNKNOWN;
	if (walk->pages == WALK_PAGES) {
		error = see(walking, WALK_BY_PARENT, WALK_HUGE, &written);
		walk->huge_missing = !written.huge;
	}
	return error;
}

static int walk_through(struct walking *walking)
{
	int error = 0;
	unsigned i;

	for (i = 0; i < WALK_STEPS && !error; i++)
		error = do_step(walking, &plans[i], &walking->walk->steps[i]);
	return error;
}

static int start(struct walking *walking, bool huge)
{
	int error = actors_start(huge, &walking->actors);

	if (error)
		return error;
	walking->pagemaps[WALK_BY_PARENT] =
		lookout_open_process(&walking->lookout, walking->actors.pids[WALK_BY_PARENT]);
	if (walking->pagemaps[WALK_BY_PARENT] < 0)
		return walking->pagemaps[WALK_BY_PARENT];
	error = find_out(walking);
	return error ? error : prepare_sim(walking);
}

static void clean_up(struct walking *walking)
{
	unsigned who;

	for (who = 0; who < WALK_ACTORS; who++)
		if (walking->pagemaps[who] >= 0)
			close(walking->pagemaps[who]);
	actors_stop(&walking->actors);
	sim_free(walking->sim);
	lookout_close(&walking->lookout);
}

int walk_run(bool huge, struct walk *ret_walk)
{
	struct walk walk = { .pages = huge ? WALK_PAGES : WALK_SMALL_PAGES };
	struct walking walking = {
		.walk = &walk,
		.actors = { .sockets = { -1, -1 } },
		.pagemaps = { -1, -1 },
	};
	int error = lookout_open(&walking.lookout);

	if (!error) {
		error = start(&walking, huge);
		if (!error)
			error = walk_through(&walking);
		clean_up(&walking);
	}
	if (error)
		complain_errno(error, "cannot walk through a fork here");
	else
		*ret_walk = walk;
	return error;
}
