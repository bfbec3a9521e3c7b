/* SPDX-License-Identifier: MIT */
/*
 * Verdicts of cow bench follow from rows. Each experiment is given rows that agree with its claim,
 * and has to say that it holds; and rows that contradict it, and has to say that it does not.
 * Nothing is measured here.
 */
#include <math.h>

#include "cli/bench/bench.h"
#include "cli/bench/result.h"
#include "tests/tap.h"

#define KB 1e3
#define MB (1024. * 1024)
#define US 1e3
#define MS 1e6

struct fed {
	const char *key;
	double agreeing, contradicting;
};

static const struct given {
	const char *name;
	struct fed rows[24];
	const char *agreed; /* what is to be said at best; NULL: "holds" */
} givens[] = {
	{ "fork-methods",
	  { { "parent", 120 * MB, 120 * MB },
	    { "fork", 45 * US, 5 * MS },
	    { "naive", 12400 * US, 10 * MS },
	    { "naive/fork", 276, 2 },
	    { "clone-vm", 30 * US, 6 * MS },
	    { "memory/fork", 0.2 * MB, 119 * MB },
	    { "memory/clone-vm", 0, 60 * MB } } },
	{ "spawn-rate",
	  { { "rate/10MB", 5000, 500 }, { "rate/100MB", 2000, 100 }, { "rate/500MB", 1500, 20 } } },
	{ "fork-size",
	  { { "growth", 0.01, 0.98 },
	    { "cycle/1MB", 50 * US, 100 * US },
	    { "cycle/50MB", 55 * US, 900 * US },
	    { "fork/smallest", 10, 60 * US },
	    { "fork/largest", 60 * US, 20 * MS },
	    { "smallest", MB, MB },
	    { "largest", 500 * MB, 500 * MB },
	    { "cycle/500MB", 5 * MS, 900 * MS },
	    { "copy/500MB", 2000 * MS, 1000 * MS },
	    { "tables/smallest", 60 * KB, 60 * KB },
	    { "tables/largest", 60 * KB, MB },
	    { "cycle/largest", 5 * MS, 900 * MS },
	    { "written/largest", 500 * MS, 900 * MS } } },
	{ "fork-exec",
	  { { "parent/pages", 65536, 65536 },
	    { "copied", 24, 60000 },
	    { "fork-exec/spawn", 1.01, 20 },
	    { "fork-exec", MS, 20 * MS },
	    { "spawn", MS, MS } } },
	{ "rss",
	  { { "buffer", 64 * MB, 64 * MB },
	    { "after fork/parent/RSS", 66 * MB, 66 * MB },
	    { "after fork/child/RSS", 3 * MB, 64 * MB },
	    { "all read/child/RSS", 65 * MB, 10 * MB },
	    { "all written/child/RSS", 66 * MB, 64 * MB },
	    { "all read/child/USS", 0, 60 * MB },
	    { "a quarter written/child/USS", 16 * MB, 60 * MB },
	    { "all written/child/USS", 64 * MB, 60 * MB },
	    { "all read/parent/RSS", 65 * MB, 64 * MB },
	    { "all read/parent/PSS", 33 * MB, 64 * MB },
	    { "all read/child/PSS", 33 * MB, 64 * MB } } },
	{ "page-granularity",
	  { { "pages", 1024, 1024 },
	    { "diverged_pages", 1, 1024 },
	    { "huge/diverged_pages", 1, 512 },
	    { "map-shared/diverged_pages", 0, 1024 } } },
	{ "break-even",
	  { { "ratio/100%", 2, 0.5 },
	    { "ratio/1%", 0.1, 1.5 },
	    { "break_even", 40, NAN },
	    { "lazy/100%", 20 * MS, 5 * MS },
	    { "eager/100%", 10 * MS, 10 * MS } } },
	{ "swarm",
	  { { "processes", 1000, 1000 },
	    { "4 KiB/fork", 100 * US, 20 * MS },
	    { "4 KiB/cow", 3 * MS, 90 * MS },
	    { "2 MiB/cow", 1 * MS, 95 * MS },
	    { "4 KiB/rss", 8200 * MB, 4100 * MB },
	    { "4 KiB/pss", 8000 * MB, 4100 * MB } } },
	{ "fault-path",
	  { { "copy", 1200, 500 },
	    { "reuse", 300, 600 },
	    { "file/private", 1100, 5000 },
	    { "map-shared", 100, 900 },
	    { "huge/grown", 4096, 2 * MB },
	    { "segfaults", 1, 0 } } },
	{ "fault-contention",
	  { { "cpus", 8, 8 },
	    { "scaling/threads", 1.9, 0.7 },
	    { "scaling/processes", 2, 2 },
	    { "mapper", 0.95, 0.1 } } },
	{ "ksm",
	  { { "saved", 8 * MB, 0 },
	    { "buffer", 8 * MB, 8 * MB },
	    { "merge", MS, MS },
	    { "write/merged", 100, 2000 },
	    { "write/single", 200, 100 },
	    { "guess", 99, 50 } } },
	{ "misconceptions",
	  { { "pages", 512, 512 },
	    { "memory", 2 * MB, 2 * MB },
	    { "fork/copied", 0, 512 },
	    { "fork/written", 7, 512 },
	    { "private/copied", 5, 512 },
	    { "shared/copied", 0, 512 },
	    { "file/changed", 0, 1 },
	    { "overcommit-2/copied", 512, 0 },
	    { "clone-vm", 900 * US, 10 * US },
	    { "fork", 100 * US, 100 * US },
	    { "clone-vm/memory", 2 * MB, 0 } } },
	{ "gc",
	  { { "model/counting", 100, 1 },
	    { "model/marking", 100, 1 },
	    { "model/bitmap", 0, 0 },
	    { "model/moving", 100, 1 },
	    { "python/collect", 90, 2 },
	    { "python/frozen", 2, 2 },
	    { "python/counting", 20, 20 } } },
	{ "persistent-structure",
	  { { "copied", 3, 1057 },
	    { "nodes", 1057, 1057 },
	    { "bytes/tree", 768, 270592 },
	    { "bytes/copy", 262144, 262144 },
	    { "copy/tree", 300, 0.9 },
	    { "time/tree", 300, 90 * US },
	    { "time/copy", 86 * US, 80 * US },
	    { "time/libcow", 1700, 1700 } } },
	{ "prefork",
	  { { "workers", 100, 100 },
	    { "100/worker/rss", 12 * MB, 12 * MB },
	    { "100/worker/uss", 3 * MB, 11 * MB },
	    { "100/sum/rss", 10240 * MB, 500 * MB },
	    { "100/sum/pss", 9000 * MB, 340 * MB },
	    { "100/master/rss", 10 * MB, 10 * MB } } },
	{ "bgsave",
	  { { "bytes", 512 * MB, 512 * MB },
	    { "fork/stall", 100 * US, 20 * MS },
	    { "libcow/stall", 1 * US, 1 * US },
	    { "distinct", 100 * MB, 100 * MB },
	    { "fork/copied", 101 * MB, 500 * MB },
	    { "fork/extra", 101 * MB, 500 * MB },
	    { "fork/rss/parent", 101 * MB, 0 },
	    { "short/fork", 0, 1 },
	    { "short/fork/kills", 1, 0 },
	    { "short/libcow", 1, 1 } } },
	{ "postgres",
	  { { "shared", 4 * MB, 128 * MB },
	    { "private", 4 * MB, 4 * MB },
	    { "default/faults", 100000, 100000 },
	    { "swap/faults", 77000, 100000 },
	    { "faults/ratio", 0.77, 1 },
	    { "swap/checkpoint", 20 * MS, 20 * MS },
	    { "huge/checkpoint", 15 * MS, 20 * MS } } },
	{ "containers",
	  { { "pods", 100, 100 },
	    { "pods/some", 10, 10 },
	    { "own", MB, MB },
	    { "image", 100 * MB, 100 * MB },
	    { "image/1/rss", 120 * MB, 120 * MB },
	    { "image/100/rss", 112 * MB, 120 * MB },
	    { "image/100/pss", 10 * MB, 120 * MB },
	    { "image/100/uss", 2 * MB, 120 * MB },
	    { "image/10/saved", 95 * MB, 95 * MB },
	    { "image/100/saved", 910 * MB, 95 * MB },
	    { "file", 64 * MB, 64 * MB },
	    { "upper/ext4", 4 * KB, 64 * MB },
	    { "upper/xfs", 4 * KB, 64 * MB },
	    { "upper/btrfs", 4 * KB, 64 * MB } } },
	{ "reflink",
	  { { "snapshot/0", MS, MS },
	    { "snapshot/1", MS, 100 * MS },
	    { "snapshot/growth", 100, 100 },
	    { "clone/btrfs/0", MS, MS },
	    { "clone/btrfs/1", MS, 99 * MS },
	    { "copy/btrfs/1", 100 * MS, 100 * MS },
	    { "copy/btrfs/0", 100 * MS, 100 * MS },
	    { "moved/own/btrfs", 0, 1 },
	    { "moved/own/xfs", 0, 1 },
	    { "amplification/btrfs/each", 4, 1 },
	    { "amplification/ext4/each", 1.5, 2 },
	    { "extents/btrfs/all", 1000, 1 },
	    { "extents/ext4/all", 1, 1 },
	    { "tunables/xfs", 1, 0 } },
	  .agreed = "holds in part" },
	{ "qcow2",
	  { { "nothing/0", MS, MS },
	    { "nothing/1", MS, MS },
	    { "internal/0", 2 * MS, 2 * MS },
	    { "internal/1", 2 * MS, 90 * MS },
	    { "copy/1", 50 * MS, 50 * MS },
	    { "write/internal", 40 * MS, 5 * MS },
	    { "write/plain", 10 * MS, 10 * MS },
	    { "write/overlay", 30 * MS, 30 * MS },
	    { "write/libcow", 5 * MS, 5 * MS },
	    { "growth/libcow", 1.1, 20 },
	    { "growth/overlay", 16, 16 } } },
	{ "engine",
	  { { "stall/explicit/0", 200, 200 },
	    { "stall/explicit/1", 220, MS },
	    { "stall/fork/0", MS, MS },
	    { "stall/fork/1", 10 * MS, 10 * MS },
	    { "first/explicit", 900, 3000 },
	    { "first/fork", 2800, 2800 },
	    { "memory/explicit", 1.02 * MB, 2 * MB },
	    { "memory/fork", 1.01 * MB, 1.01 * MB },
	    { "bytes", MB, MB },
	    { "rollback/explicit", MS, 9 * MS },
	    { "rollback/fork", 5 * MS, 5 * MS },
	    { "branch/explicit", MS, 9 * MS },
	    { "branch/fork", 5 * MS, 5 * MS },
	    { "restore/explicit", MS, 9 * MS },
	    { "restore/fork", 5 * MS, 5 * MS } } },
};

static const struct bench_experiment *find(const char *name)
{
	size_t i;

	for (i = 0; bench_experiments[i]; i++)
		if (strcmp(bench_experiments[i]->name, name) == 0)
			return bench_experiments[i];
	return NULL;
}

static const char *judge(const struct given *given, bool agreeing)
{
	struct bench bench = { .experiment = find(given->name), .result = bench_result_new() };
	const char *name, *reason;
	const struct fed *row;

	if (!bench.experiment) {
		ok(false, "there is no experiment %s", given->name);
		bench_result_free(bench.result);
		return NULL;
	}
	for (row = given->rows; row->key; row++) {
		double value = agreeing ? row->agreeing : row->contradicting;

		if (!isnan(value))
			bench_add_value(&bench, &(struct bench_row){ .key = row->key }, value);
	}
	bench.experiment->judge(&bench);
	name = bench_verdict_name(bench_result_verdict(bench.result));
	reason = bench_result_reason(&bench);
	diag("%s: %s", given->name, reason ? reason : "no reason");
	ok(reason, "%s gives a reason", given->name);
	bench_result_free(bench.result);
	return name;
}

TEST(rows_that_agree_with_a_claim_let_it_hold)
{
	size_t i;

	for (i = 0; i < sizeof(givens) / sizeof(givens[0]); i++)
		is_str(judge(&givens[i], true), givens[i].agreed ? givens[i].agreed : "holds", "%s",
		       givens[i].name);
}

TEST(rows_that_contradict_a_claim_refute_it)
{
	size_t i;

	for (i = 0; i < sizeof(givens) / sizeof(givens[0]); i++)
		is_str(judge(&givens[i], false), "does not hold", "%s", givens[i].name);
}

TEST(every_experiment_is_put_to_this_test)
{
	size_t i, j;
	bool found;

	for (i = 0; bench_experiments[i]; i++) {
		for (found = false, j = 0; j < sizeof(givens) / sizeof(givens[0]); j++)
			found |= strcmp(givens[j].name, bench_experiments[i]->name) == 0;
		ok(found, "%s", bench_experiments[i]->name);
	}
}

/* A run that was cut short has few rows: nothing may come to harm. */
TEST(a_judge_lives_with_missing_rows)
{
	size_t i, j;

	for (i = 0; bench_experiments[i]; i++)
		for (j = 0; j < 2; j++) {
			struct bench bench = { .experiment = bench_experiments[i],
					       .result = bench_result_new() };

			if (j)
				bench_skip(&bench, "for a reason");
			bench.experiment->judge(&bench);
			ok(!j || bench_result_verdict(bench.result) == BENCH_NOT_JUDGED, "%s",
			   bench_experiments[i]->name);
			bench_result_free(bench.result);
		}
}

TEST(parts_make_a_verdict)
{
	static const struct {
		enum bench_verdict parts[3], whole;
	} cases[] = {
		{ { BENCH_HOLDS, BENCH_HOLDS, BENCH_HOLDS }, BENCH_HOLDS },
		{ { BENCH_HOLDS, BENCH_NOT_JUDGED, BENCH_HOLDS }, BENCH_HOLDS },
		{ { BENCH_HOLDS, BENCH_DOES_NOT_HOLD, BENCH_HOLDS }, BENCH_HOLDS_IN_PART },
		{ { BENCH_HOLDS, BENCH_HOLDS_IN_PART, BENCH_HOLDS }, BENCH_HOLDS_IN_PART },
		{ { BENCH_DOES_NOT_HOLD, BENCH_DOES_NOT_HOLD, BENCH_NOT_JUDGED },
		  BENCH_DOES_NOT_HOLD },
		{ { BENCH_DOES_NOT_HOLD, BENCH_HOLDS_IN_PART, BENCH_DOES_NOT_HOLD },
		  BENCH_HOLDS_IN_PART },
		{ { BENCH_NOT_JUDGED, BENCH_NOT_JUDGED, BENCH_NOT_JUDGED }, BENCH_NOT_JUDGED },
	};
	size_t i, j;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bench bench = { .result = bench_result_new() };

		for (j = 0; j < 3; j++)
			bench_judge(&bench, "part", cases[i].parts[j], "reason");
		is_u64(bench_result_verdict(bench.result), cases[i].whole, "case %zu", i);
		bench_result_free(bench.result);
	}
}

static bool near(double a, double b)
{
	return fabs(a - b) < 1e-9;
}

TEST(statistics_are_right)
{
	struct bench bench = { .result = bench_result_new() };
	double values[] = { 4, 1, 3, 2 }, others[] = { 8, 3, 6, 5 };
	const struct bench_samples samples = { values, 4, 4 }, more = { others, 4, 4 };
	json_object *report = json_object_new_object(), *row, *rows;

	bench_add(&bench, &(struct bench_row){ .key = "a", .unit = BENCH_NS }, &samples);
	bench_add(&bench, &(struct bench_row){ .key = "b", .unit = BENCH_NS }, &more);
	bench_add_ratio(&bench, &(struct bench_row){ .key = "b/a" }, "b", "a");
	ok(near(bench_median(&bench, "a"), 2.5), "median");
	ok(near(bench_min(&bench, "a"), 1) && near(bench_max(&bench, "a"), 4), "extremes");
	ok(near(bench_median(&bench, "b/a"), 2.25), "ratios are turn by turn");
	ok(bench_is_above(&bench, "b", "a") && !bench_is_above(&bench, "a", "b"),
	   "quartiles apart");
	ok(isnan(bench_median(&bench, "nothing")), "no row, no figure");
	bench.experiment = bench_experiments[0];
	bench_result_report(&bench, report);
	json_object_object_get_ex(report, "rows", &rows);
	row = json_object_array_get_idx(rows, 0);
	ok(near(json_object_get_double(json_object_object_get(row, "mean")), 2.5), "mean");
	ok(fabs(json_object_get_double(json_object_object_get(row, "sigma")) - 1.2909944) < 1e-4,
	   "sigma of a sample");
	json_object_put(report);
	bench_result_free(bench.result);
}

TEST(what_is_over_takes_no_more_rows)
{
	struct bench bench = { .result = bench_result_new() };

	bench_fail(&bench, -ENOMEM, "memory");
	bench_add_value(&bench, &(struct bench_row){ .key = "a" }, 1);
	ok(bench_over(&bench), "over");
	ok(isnan(bench_median(&bench, "a")), "no row");
	is_str(bench_result_failure(bench.result), "memory: Cannot allocate memory", "the reason");
	bench_result_free(bench.result);
	bench.result = bench_result_new();
	bench_add_value(&bench, &(struct bench_row){ .key = "a" }, NAN);
	ok(bench_over(&bench), "a figure that is none is a failure");
	bench_result_free(bench.result);
}

TEST(figures_for_people)
{
	static const struct {
		enum bench_unit unit;
		double value;
		const char *text;
	} cases[] = {
		{ BENCH_NS, 45600, "45.6 us" },  { BENCH_BYTES, 3 * MB, "3 MiB" },
		{ BENCH_RATIO, 2.5, "2.50 x" },  { BENCH_RATIO, 0.073, "0.073 x" },
		{ BENCH_PERCENT, 100, "100 %" }, { BENCH_PER_SECOND, 12345, "12,345/s" },
		{ BENCH_PAGES, 1, "1" },         { BENCH_NS, -1500, "-1.50 us" },
		{ BENCH_COUNT, INFINITY, "?" },
	};
	char text[BENCH_FIGURE_LENGTH];
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		is_str(bench_format(text, cases[i].unit, cases[i].value), cases[i].text, "%s",
		       cases[i].text);
}

TAP_MAIN(CASE(rows_that_agree_with_a_claim_let_it_hold),
	 CASE(rows_that_contradict_a_claim_refute_it), CASE(every_experiment_is_put_to_this_test),
	 CASE(a_judge_lives_with_missing_rows), CASE(parts_make_a_verdict),
	 CASE(statistics_are_right), CASE(what_is_over_takes_no_more_rows),
	 CASE(figures_for_people))
