/* SPDX-License-Identifier: MIT */
/*
 * bgsave: a snapshot of memory is saved while it is being written, as Redis does it: by fork(), by
 * libcow with a cap on extra memory, by Redis itself; and where memory is short.
 */
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/bench/bench.h"
#include "cli/bench/bgsave.h"
#include "cli/bench/memory_limit.h"

#define MIB ((uint64_t)1 << 20)

static const struct side {
	const char *key, *name;
	bench_child_fn work;
} sides[] = {
	{ "fork", "fork()", bgsave_by_fork },
	{ "libcow", "libcow with a cap", bgsave_by_libcow },
	{ "libcow-free", "libcow without a cap", bgsave_by_libcow_freely },
};

#define SIDES (sizeof(sides) / sizeof(sides[0]))

struct collected {
	struct bench_samples figures[BGSAVE_FIGURES];
};

static const struct figure {
	enum bgsave_figure figure;
	const char *key, *label;
	enum bench_unit unit;
	const char *text; /* of fork() */
} figures[] = {
	{ BGSAVE_STALL, "stall", "the writer stands still when the snapshot is taken", BENCH_NS,
	  "microseconds for 1 GB" },
	{ BGSAVE_P99, "p99", "one write in a hundred takes longer than", BENCH_NS, NULL },
	{ BGSAVE_PAUSE, "pause", "the longest write", BENCH_NS, NULL },
	{ BGSAVE_WRITES, "writes", "writes during the save", BENCH_PER_SECOND, NULL },
	{ BGSAVE_COPIED, "copied", "pages copied (rdb_cow_size's way)", BENCH_BYTES, NULL },
	{ BGSAVE_EXTRA, "extra", "extra memory at the end of the save", BENCH_BYTES, NULL },
};

/* --- under load --- */

static void add_side(struct bench *bench, const struct side *side, struct collected *collected)
{
	bool fork_side = side->work == bgsave_by_fork;
	size_t i;

	for (i = 0; i < sizeof(figures) / sizeof(figures[0]); i++)
		bench_add(bench,
			  &(struct bench_row){
				  bench_text(bench, "%s/%s", side->key, figures[i].key),
				  bench_text(bench, "%s: %s", side->name, figures[i].label),
				  figures[i].unit, fork_side ? figures[i].text : NULL,
				  figures[i].figure == BGSAVE_EXTRA ? "extra" : NULL, "extra" },
			  &collected->figures[figures[i].figure]);
}

static void add_fork_rows(struct bench *bench, struct collected *collected)
{
	bench_add(bench,
		  &(struct bench_row){ "fork/rss/parent", "fork(): the parent's RSS grows by",
				       BENCH_BYTES, "increases" },
		  &collected->figures[BGSAVE_RSS_PARENT]);
	bench_add(bench,
		  &(struct bench_row){ "fork/rss/child", "fork(): the child's RSS after the fork",
				       BENCH_BYTES },
		  &collected->figures[BGSAVE_RSS_CHILD]);
	bench_add(bench,
		  &(struct bench_row){ "fork/rss/child/after",
				       "fork(): the child's RSS at the end of the save",
				       BENCH_BYTES, "increases" },
		  &collected->figures[BGSAVE_RSS_CHILD_AFTER]);
}

static void collect(struct collected *collected, const double *values)
{
	size_t i;

	for (i = 0; i < BGSAVE_FIGURES; i++)
		bench_samples_add(&collected->figures[i], values[i]);
}

static void release(struct collected *collected)
{
	size_t i;

	for (i = 0; i < BGSAVE_FIGURES; i++)
		bench_samples_free(&collected->figures[i]);
}

static void run_turns(struct bench *bench, struct bgsave_plan *plan, struct collected *collected)
{
	const unsigned int turns = bench->warm_ups + bench->runs;
	double values[BGSAVE_FIGURES];
	bool sound[SIDES] = { true, true, true };
	unsigned int turn;
	size_t i, side;

	for (turn = 0; turn < turns && !bench_over(bench); turn++) {
		bench_progress(bench, turn, turns);
		for (i = 0; i < SIDES; i++) {
			side = turn % 2 ? SIDES - 1 - i : i;
			memset(values, 0, sizeof(values));
			if (!bench_in_child(bench, sides[side].work, plan, values, BGSAVE_FIGURES))
				break;
			sound[side] = sound[side] && values[BGSAVE_SOUND] > 0;
			if (turn >= bench->warm_ups)
				collect(&collected[side], values);
		}
	}
	bench_progress(bench, turns, turns);
	for (side = 0; side < SIDES && !bench_over(bench); side++)
		bench_check(bench, sound[side], "%s: what was saved is what was there",
			    sides[side].name);
}

static void run_load(struct bench *bench, uint64_t bytes)
{
	struct bgsave_plan plan = { .bytes = bytes, .writes = bytes / 4096 / 2, .cap = bytes / 10 };
	struct collected collected[SIDES] = { 0 };
	size_t i;

	if (plan.cap < MIB)
		plan.cap = MIB;
	bench_add_value(bench, &(struct bench_row){ "bytes", "the memory", BENCH_BYTES, "1 GB" },
			(double)plan.bytes);
	bench_add_value(bench, &(struct bench_row){ "cap", "libcow's cap", BENCH_BYTES },
			(double)plan.cap);
	run_turns(bench, &plan, collected);
	if (!bench_over(bench) && collected[0].figures[BGSAVE_DISTINCT].count) {
		bench_add_value(bench,
				&(struct bench_row){ "distinct",
						     "distinct pages written during a save",
						     BENCH_BYTES },
				collected[0].figures[BGSAVE_DISTINCT].values[0]);
		for (i = 0; i < SIDES; i++)
			add_side(bench, &sides[i], &collected[i]);
		add_fork_rows(bench, &collected[0]);
		bench_add(bench,
			  &(struct bench_row){ "libcow/spilled",
					       "libcow with a cap: of these in its file",
					       BENCH_BYTES },
			  &collected[1].figures[BGSAVE_SPILLED]);
		bench_add_ratio(bench,
				&(struct bench_row){ "stall/ratio", "fork()'s stall, of libcow's",
						     BENCH_RATIO },
				"fork/stall", "libcow/stall");
		bench_check(bench,
			    fabs(bench_median(bench, "libcow/copied") -
				 bench_median(bench, "distinct")) < 1,
			    "libcow keeps each page that was written, once");
	}
	for (i = 0; i < SIDES; i++)
		release(&collected[i]);
}

/* --- where memory is short --- */

/* Whether the save ended well, in a process that may be killed for it. */
static bool survives(struct bench *bench, bench_child_fn work, struct bgsave_plan *plan)
{
	double values[BGSAVE_FIGURES] = { 0 };
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(work(bench, plan, values) == 0 && values[BGSAVE_SOUND] > 0 ? 0 : 1);
	if (pid < 0) {
		bench_fail(bench, -errno, "cannot start a process");
		return false;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* What AddressSanitizer takes for itself would be most of a small group's memory. */
#ifdef __SANITIZE_ADDRESS__
#define SANITIZED true
#else
#define SANITIZED false
#endif

static void run_short(struct bench *bench, uint64_t bytes)
{
	/* Everything is rewritten before the save is over: fork() needs it all twice. */
	struct bgsave_plan plan = { .bytes = bytes,
				    .writes = bytes / 4096,
				    .cap = bytes / 10 < MIB ? MIB : bytes / 10,
				    .all = true,
				    .keep_in_memory = true };
	const uint64_t limit_bytes = bytes + bytes / 2 + 6 * MIB;
	struct memory_limit limit;
	const char *reason = NULL;
	uint64_t kills;
	size_t i;

	/* Without a cap libcow takes what fork() takes. */
	for (i = 0; i < 2 && !bench_over(bench) && !reason; i++) {
		const struct bench_row row = {
			.key = bench_text(bench, "short/%s", sides[i].key),
			.label = bench_text(
				bench, "%s, everything rewritten, in %s: saved (1) or killed (0)",
				sides[i].name,
				bench_figure(bench, BENCH_BYTES, (double)limit_bytes)),
			.unit = BENCH_COUNT,
		};

		reason = SANITIZED ? "built with a sanitizer, which needs memory of its own" :
				     memory_limit_make(bench, limit_bytes, &limit);
		if (reason) {
			bench_add_skipped(bench, &row, "%s", reason);
			break;
		}
		plan.limit = limit.directory;
		bench_add_value(bench, &row, survives(bench, sides[i].work, &plan));
		kills = memory_limit_kills(&limit);
		bench_add_value(
			bench,
			&(struct bench_row){
				bench_text(bench, "short/%s/kills", sides[i].key),
				bench_text(bench, "%s: processes that were killed", sides[i].name),
				BENCH_COUNT },
			(double)kills);
		bench_add_value(
			bench,
			&(struct bench_row){
				bench_text(bench, "short/%s/peak", sides[i].key),
				bench_text(bench, "%s: most memory of that group", sides[i].name),
				BENCH_BYTES },
			(double)memory_limit_peak(&limit));
		memory_limit_remove(&limit);
	}
	if (bench_over(bench) || reason)
		return;
	bench_check(bench, bench_median(bench, "short/fork") < 1,
		    "fork() does not save where there is memory for one and a half");
	bench_check(bench, bench_median(bench, "short/libcow") > 0,
		    "libcow saves there, below its cap");
}

static void run(struct bench *bench)
{
	const uint64_t wanted = BENCH_BY_SCALE(bench, 16, 128, 512, 2048) * MIB;
	const uint64_t bytes = bench_fit(bench, wanted, 3);

	if (bytes < wanted || bytes < 1024 * MIB)
		bench_note(bench, "the memory is %s, not the text's 1 GB",
			   bench_figure(bench, BENCH_BYTES, (double)bytes));
	run_load(bench, bytes);
	if (!bench_over(bench))
		bgsave_by_redis(bench, bench->scale == BENCH_QUICK ? bytes / 2 : bytes);
	/* What a process needs beside its data has to be little beside it. */
	if (!bench_over(bench))
		run_short(bench, bytes < 48 * MIB ? 48 * MIB : bytes);
}

/* --- judging --- */

static void judge_stall(struct bench *bench)
{
	double fork_ns = bench_median(bench, "fork/stall");
	double redis = bench_median(bench, "redis/stall");
	double libcow = bench_median(bench, "libcow/stall");

	bench_judge(bench, "the fork takes microseconds",
		    fork_ns < 1e6 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%s for %s, in the real Redis %s; libcow %s",
		    bench_figure(bench, BENCH_NS, fork_ns),
		    bench_figure(bench, BENCH_BYTES, bench_median(bench, "bytes")),
		    isnan(redis) ? "not measured" : bench_figure(bench, BENCH_NS, redis),
		    bench_figure(bench, BENCH_NS, libcow));
}

static void judge_copies(struct bench *bench)
{
	double distinct = bench_median(bench, "distinct");
	double copied = bench_median(bench, "fork/copied"),
	       extra = bench_median(bench, "fork/extra");
	bool only = copied > 0.9 * distinct && copied < 1.15 * distinct + 2 * (double)MIB;

	bench_judge(bench, "only pages that are written are copied",
		    only ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%s of pages were written, %s copied by fork(), which took %s more memory",
		    bench_figure(bench, BENCH_BYTES, distinct),
		    bench_figure(bench, BENCH_BYTES, copied),
		    bench_figure(bench, BENCH_BYTES, extra));
}

static void judge_rss(struct bench *bench)
{
	double parent = bench_median(bench, "fork/rss/parent");
	double copied = bench_median(bench, "fork/copied");
	double extra = bench_median(bench, "fork/extra");

	bench_judge(
		bench, "writes during the save increase the RSS of both",
		parent > copied / 2 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		"the parent's RSS changed by %s while %s were copied: RSS counts shared pages as "
		"well, so a copy in their place changes nothing; what grew is the sum of PSS, by "
		"%s",
		bench_figure(bench, BENCH_BYTES, fabs(parent)),
		bench_figure(bench, BENCH_BYTES, copied), bench_figure(bench, BENCH_BYTES, extra));
}

static void judge_oom(struct bench *bench)
{
	double fork_saved = bench_median(bench, "short/fork");
	double libcow_saved = bench_median(bench, "short/libcow");
	const char *part = "simultaneous writes summon the OOM killer mid-snapshot";

	if (isnan(fork_saved) || isnan(libcow_saved)) {
		bench_judge(bench, part, BENCH_NOT_JUDGED, "no memory cgroup could be had");
		return;
	}
	bench_judge(
		bench, part,
		fork_saved < 1 && bench_median(bench, "short/fork/kills") > 0 ? BENCH_HOLDS :
										BENCH_DOES_NOT_HOLD,
		"with half as much again as the data needs, everything rewritten before the save "
		"is over: by fork() %s, by libcow with a cap of a tenth %s",
		fork_saved < 1 ? "the save was killed" : "it was saved",
		libcow_saved < 1 ? "it failed" : "it was saved");
}

static void judge(struct bench *bench)
{
	judge_stall(bench);
	judge_copies(bench);
	judge_rss(bench);
	judge_oom(bench);
}

static const struct bench_plot plots[] = {
	{ "extra", "Extra memory of a save under writes", NULL, "bytes" },
	{ 0 },
};

const struct bench_experiment experiment_bgsave = {
	.name = "bgsave",
	.title = "Saving memory that is being written: fork(), libcow, Redis",
	.source = BENCH_SOURCE_ATLAS,
	.claim =
		"Redis BGSAVE forks, and the child writes the snapshot from pages shared by "
		"copy-on-write: clone() takes microseconds for a process of 1 GB; the parent goes "
		"on, and only pages that are written are copied; writes during the snapshot "
		"increase the RSS of parent and child (Redis reports rdb_cow_size). Commitment can "
		"silently exceed RAM, until simultaneous writes un-share pages and summon the OOM "
		"killer mid-snapshot.",
	.method =
		"Memory is saved to a file while one thread writes to pages at random, so that "
		"about two fifths of them change: by fork(), whose child's Private_Dirty is "
		"counted as Redis does, and by libcow under the explicit trap, with a cap of a "
		"tenth and a spill file, and without; all saves are compared with what was there. "
		"The real Redis with as much data, BGSAVE under SETs. Then all pages are rewritten "
		"before the save is over, in a memory cgroup of one and a half times the data.",
	.plots = plots,
	.seconds = 45,
	.run = run,
	.judge = judge,
};
