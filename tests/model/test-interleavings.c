/* SPDX-License-Identifier: MIT */
/*
 * Every interleaving of small programs on the core, and mutants of the core, which these have
 * to find.
 *
 * A scenario is explored until its frontier is empty; how many states that took is printed. A
 * mutant is a core that leaves out or swaps one thing (MUTANT() in core/): at least one scenario
 * has to fail for each. world.h says what the programs mean and how they are judged, explore.h how
 * they are explored.
 *
 * A failure prints the path that led to it, step by step, and how to see it again:
 *
 *	MODEL_REPLAY=scenario:mutant:0010212 test-interleavings
 *
 * MODEL_SCENARIO=name explores one scenario alone, with MODEL_MUTANT=name.
 */
#include <time.h>

#include "tests/model/world.h"
#include "tests/tap.h"

/* test-interleavings-large explores the large scenarios, and has no mutants of its own. */
#ifndef MODEL_LARGE
#define MODEL_LARGE 0
#endif

#define MOST_STATES 40000000u

static const struct scenario *find_scenario(const char *name)
{
	for (const struct scenario *s = scenarios; s->name; s++)
		if (strcmp(s->name, name) == 0)
			return s;
	bail("no scenario is named %s", name);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void explain(const struct scenario *scenario, const char *mutant,
		    const struct model_result *result)
{
	struct model_program program = world_program();

	diag("%s: %s; step by step:", scenario->name, result->message);
	model_replay(&program, mutant, result->path, scenario->threads);
	diag("again: MODEL_REPLAY=%s:%s:%s", scenario->name, mutant ? mutant : "", result->path);
}

static void explore(const struct scenario *scenario, const char *mutant, bool check_ends,
		    struct model_result *result)
{
	struct model_program program;

	world_scenario = scenario;
	program = world_program();
	model_explore(&program, mutant, MOST_STATES, check_ends, result);
}

struct total {
	uint64_t states, transitions;
	double start;
};

static void check_scenario(const struct scenario *scenario, const char *mutant, struct total *total)
{
	double start = seconds();
	struct model_result result;

	explore(scenario, mutant, !scenario->large, &result);
	diag("%s: %s", scenario->name, scenario->about);
	diag("  %" PRIu64 " states, %" PRIu64 " transitions, %" PRIu64
	     " ends, depth %u, %zu bytes a state, "
	     "%.1f s%s",
	     result.states, result.transitions, result.ends, result.depth, result.state_bytes,
	     seconds() - start, result.complete ? ", the frontier is empty" : "");
	if (!ok(!result.failed, "no interleaving of %s fails", scenario->name)) {
		explain(scenario, mutant, &result);
		return;
	}
	total->states += result.states;
	total->transitions += result.transitions;
	ok(result.complete, "all states of %s were explored", scenario->name);
	is_u64(result.stuck, 0, "from every state of %s the end can be reached", scenario->name);
}

/* Of the scenarios that this test is for. */
static const struct scenario *next_scenario(const struct scenario *scenario)
{
	for (scenario = scenario ? scenario + 1 : scenarios; scenario->name; scenario++)
		if (scenario->large == MODEL_LARGE)
			return scenario;
	return NULL;
}

TEST(every_interleaving_is_right)
{
	struct total total = { .start = seconds() };

	for (const struct scenario *s = next_scenario(NULL); s; s = next_scenario(s))
		check_scenario(s, NULL, &total);
	diag("in all %" PRIu64 " states, %" PRIu64 " transitions, %.1f s%s", total.states,
	     total.transitions, seconds() - total.start,
	     tap.failed ? "" : "; every frontier is empty");
}

#if !MODEL_LARGE
/* What it leaves out, and the scenario that is tried first. */
static const struct mutant {
	const char *name, *scenario;
} mutants[] = {
	{ "gate-stays-open", "two-cuts" },
	{ "no-drain", "brackets" },
	{ "seal-no-look", "brackets" },
	{ "gate-no-second-look", "brackets" },
	{ "sleep-uncounted", "brackets" },
	{ "leave-no-wake", "brackets" },
	{ "open-no-wake", "brackets" },
	{ "nested-waits", "nested" },
	{ "open-before-dup", "two-cuts" },
	{ "no-protect", "trap-cut" },
	{ "no-flush", "trap-cut" },
	{ "flush-before-protect", "trap-cut" },
	{ "flush-one-cpu", "trap-cut" },
	{ "always-reuse", "trap-cut" },
	{ "open-before-keep", "same-page" },
	{ "version-after-state", "same-page" },
	{ "unprotect-before-keep", "same-page" },
	{ "unprotect-before-settle", "same-page" },
	{ "no-wait-for-busy", "same-page" },
	{ "settle-no-wake", "same-page" },
	{ "newest-not-rechecked", "release" },
	{ "recent-not-forgotten", "two-owners" },
	{ "base-needs-no-version", "base" },
	{ "no-second-look", "same-page" },
	{ "stale-before-read", "drop" },
	{ "dropped-said-late", "drop" },
	{ "no-backing", "detach" },
	{ "backing-said-late", "detach" },
	{ "consume-says-early", "consume" },
	{ "no-grace", "grace" },
	{ "advance-at-once", "grace" },
	{ "release-ignores-older", "copier" },
	{ "evict-no-wait", "evict" },
	{ "evict-no-recheck", "evict" },
	{ "share-no-recheck", "merge-released" },
	{ "no-lock", "release" },
	{ "lock-no-wake", "release" },
	{ "recycle-early", "grace" },
	{ "newest-not-published", "two-cuts" },
	{ "latest-not-raised", "two-cuts" },
	{ "no-fill", "branch" },
	{ "no-unprotect", "trap-cut" },
	{ "failure-keeps-busy", "limit" },
	{ "cuts-together", "two-cutters" },
	{ "forget-ignores-busy", "discard" },
	{ "ahead-outside-gate", "copier" },
	{ "neighbour-unclaimed", "block" },
	{ "neighbour-not-kept", "block" },
	{ "arm-unclaimed", "arm-twice" },
	{ "armed-before-protect", "arm-stale" },
	{ "arm-removes-late", "arm-ahead" },
	{ "armed-unsaid", "arm-ahead" },
	{ "armed-is-open", "arm-ahead" },
	{ "arm-outside-gate", "arm-ahead" },
};

/* A livelock, too, is found. */
static bool is_killed(struct model_result *result)
{
	if (!result->failed && result->stuck > 0)
		snprintf(result->message, sizeof(result->message),
			 "livelock: from %" PRIu64 " states the end cannot be reached",
			 result->stuck);
	return result->failed || result->stuck > 0;
}

static void check_mutant(const struct mutant *mutant)
{
	const struct scenario *first = find_scenario(mutant->scenario);
	struct model_result result;
	double start = seconds();

	explore(first, mutant->name, true, &result);
	for (const struct scenario *s = next_scenario(NULL); s && !is_killed(&result);
	     s = next_scenario(s))
		if (s != first)
			explore(s, mutant->name, true, &result);
	if (ok(is_killed(&result), "mutant %s is killed", mutant->name))
		diag("mutant %s: killed by %s: %s (%" PRIu64 " states, %.1f s)", mutant->name,
		     world_scenario->name, result.message, result.states, seconds() - start);
}

TEST(every_mutant_is_killed)
{
	for (size_t i = 0; i < sizeof(mutants) / sizeof(mutants[0]); i++)
		check_mutant(&mutants[i]);
}

#endif

static void replay(char *what)
{
	char *scenario = strsep(&what, ":"), *mutant = strsep(&what, ":");
	struct model_program program;

	if (!what)
		bail("MODEL_REPLAY=scenario:mutant:path");
	world_scenario = find_scenario(scenario);
	program = world_program();
	model_replay(&program, *mutant ? mutant : NULL, what, world_scenario->threads);
}

int main(int argc, char **argv)
{
	static const struct tap_case cases[] = {
		CASE(every_interleaving_is_right),
#if !MODEL_LARGE
		CASE(every_mutant_is_killed),
#endif
	};
	const char *one = getenv("MODEL_SCENARIO");
	char *path = getenv("MODEL_REPLAY");

	if (path) {
		replay(path);
		return 0;
	}
	if (one) {
		struct total total = { 0 };

		check_scenario(find_scenario(one), getenv("MODEL_MUTANT"), &total);
		return 0;
	}
	return tap_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
