/* SPDX-License-Identifier: MIT */
/*
 * The library against plain copies: random operations on a few regions, each step compared with a
 * model that copies everything (copies/), and the internal invariants checked after each step.
 *
 * Model
 * - A run is a seed. Every step has a generator of its own, made of seed and step, so that steps
 *   can be left out: when a run fails, steps are taken away as long as it still fails, and what
 *   remains is printed. Runs happen in forked children, so that a failed assert() is a failure like
 *   any other.
 * - Calls may be refused at a limit (-EAGAIN); then nothing may have changed. What DROP gave up has
 *   to be neither mapped nor branched, and older than all that could have been taken in its place.
 *
 * Replay: test-model --seed N [--steps N], or COW_SEED and COW_STEPS.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/api/copies/copies.h"
#include "tests/tap.h"

#define VERIFY_EVERY 50u

#ifdef MODEL_LONG
#define DEFAULT_RUNS  400u
#define DEFAULT_STEPS 4000u
#else
#define DEFAULT_RUNS  60u
#define DEFAULT_STEPS 1500u
#endif

/* --- a run --- */

static void run_steps(uint64_t seed, unsigned steps, const bool *left_out)
{
	for (unsigned i = 0; i < steps; i++) {
		if (left_out[i])
			continue;
		draw_from(mix(seed ^ mix(i)));
		step_now = report->steps = i;
		random_operation();
		check_after_step();
		if (i % VERIFY_EVERY == 0)
			verify_all();
	}
	doing("the last look, and freeing everything");
	verify_all();
	free_everything();
}

/* --- children, and taking steps away --- */

struct outcome {
	bool failed;
	int status;
};

/* A child that hangs is a failure, too. */
static struct outcome run_in_child(uint64_t seed, unsigned steps, const bool *left_out, bool print)
{
	int status = 0;
	pid_t pid;

	memset(report, 0, sizeof(*report));
	pid = fork();
	if (pid < 0)
		bail("fork: %s", strerror(errno));
	if (pid == 0) {
		printing = print;
		if (!print && freopen("/dev/null", "w", stdout) == NULL)
			_exit(2);
		alarm(patience(120));
		run_steps(seed, steps, left_out);
		exit(0); /* so that a leak checker has its say */
	}
	waitpid(pid, &status, 0);
	return (struct outcome){ .failed = status != 0, .status = status };
}

static bool still_fails(uint64_t seed, unsigned steps, const bool *left_out)
{
	int saved = dup(STDERR_FILENO), none = open("/dev/null", O_WRONLY | O_CLOEXEC);
	bool failed;

	dup2(none, STDERR_FILENO);
	failed = run_in_child(seed, steps, left_out, false).failed;
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(none);
	return failed;
}

/* Takes ever smaller pieces away, as long as what is left still fails. */
static void shrink(uint64_t seed, unsigned steps, bool *left_out)
{
	static bool tried[STEPS_MAX];
	unsigned runs = 0;

	for (unsigned piece = steps / 2; piece > 0 && runs < 400; piece /= 2)
		for (unsigned start = 0; start < steps && runs < 400; start += piece) {
			bool any = false;

			memcpy(tried, left_out, steps);
			for (unsigned i = start; i < start + piece && i < steps; i++) {
				any |= !tried[i];
				tried[i] = true;
			}
			if (!any)
				continue;
			runs++;
			if (still_fails(seed, steps, tried))
				memcpy(left_out, tried, steps);
		}
}

static void explain(uint64_t seed, unsigned steps, struct outcome outcome)
{
	static bool left_out[STEPS_MAX];

	diag("seed %" PRIu64 ", step %u: %s", seed, report->steps, report->doing);
	if (WIFSIGNALED(outcome.status))
		diag("died by signal %d", WTERMSIG(outcome.status));
	else
		diag("exit %d: %s", WEXITSTATUS(outcome.status), report->message);
	diag("again: --seed %" PRIu64 " --steps %u", seed, steps);
	steps = report->steps + 1 < steps ? report->steps + 1 : steps;
	memset(left_out, 0, sizeof(left_out));
	shrink(seed, steps, left_out);
	diag("the steps that are needed:");
	outcome = run_in_child(seed, steps, left_out, true);
	diag("%s", outcome.failed ? report->message : "(it did not fail again)");
}

/* --- arguments --- */

static struct {
	uint64_t seed;
	bool seed_given;
	unsigned runs, steps;
} chosen = { .seed = 20240607, .runs = DEFAULT_RUNS, .steps = DEFAULT_STEPS };

static void choose_seed(const char *text)
{
	chosen.seed = strtoull(text, NULL, 0);
	chosen.seed_given = true;
	chosen.runs = 1;
}

static void choose_steps(const char *text)
{
	chosen.steps = (unsigned)strtoul(text, NULL, 0);
	if (chosen.steps > STEPS_MAX)
		chosen.steps = STEPS_MAX;
}

TEST(random_operations_match_plain_copies)
{
	static const bool none[STEPS_MAX];
	uint64_t calls = 0, refused = 0, dropped = 0, spilled = 0, steps = 0;

	diag("first seed %" PRIu64 ", %u runs of %u steps", chosen.seed, chosen.runs, chosen.steps);
	for (unsigned i = 0; i < chosen.runs; i++) {
		uint64_t seed = chosen.runs == 1 ? chosen.seed : mix(chosen.seed + i) >> 20;
		struct outcome outcome = run_in_child(seed, chosen.steps, none, false);

		if (!ok(!outcome.failed, "a run holds")) {
			explain(seed, chosen.steps, outcome);
			return;
		}
		steps += chosen.steps;
		calls += report->calls;
		refused += report->refused;
		dropped += report->dropped;
		spilled += report->spilled;
	}
	diag("%" PRIu64 " steps; %" PRIu64 " writes, %" PRIu64
	     " of them refused at a limit; %" PRIu64 " snapshots given up; %" PRIu64
	     " pages spilled",
	     steps, calls, refused, dropped, spilled);
	/* A generator that never gets to the limits would prove nothing about them. */
	if (chosen.runs > 10) {
		ok(refused > 0, "limits were reached");
		ok(dropped > 0, "snapshots were given up");
		ok(spilled > 0 || !spill_directory, "pages were spilled");
	}
}

/* The build directory, unless that is on tmpfs: then nothing spills, and the limit blocks. */
static void choose_spill_directory(void)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_region *region;

	spill_directory = getenv("BUILD_ROOT") ?: ".";
	options.trap = COW_TRAP_EXPLICIT;
	options.spill_directory = spill_directory;
	if (cow_region_new(PAGE, &options, &region) < 0) {
		diag("no spilling: %s is no disk", spill_directory);
		spill_directory = NULL;
		return;
	}
	cow_region_free(region);
}

int main(int argc, char **argv)
{
	static const struct tap_case cases[] = { CASE(random_operations_match_plain_copies) };
	const char *seed = getenv("COW_SEED"), *steps = getenv("COW_STEPS");
	const char *runs = getenv("COW_RUNS"); /* fewer where a run takes long */

#ifdef MODEL_LONG
	chosen.seed = (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();
#endif
	if (seed)
		choose_seed(seed);
	if (steps)
		choose_steps(steps);
	if (runs && strtoul(runs, NULL, 0) > 0)
		chosen.runs = (unsigned)strtoul(runs, NULL, 0);
	for (; argc > 2; argc -= 2, argv += 2) {
		if (strcmp(argv[1], "--seed") == 0)
			choose_seed(argv[2]);
		else if (strcmp(argv[1], "--steps") == 0)
			choose_steps(argv[2]);
		else
			break;
	}
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (report == MAP_FAILED)
		bail("mmap: %s", strerror(errno));
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	choose_spill_directory();
	return tap_main(argc, argv, cases, 1);
}
