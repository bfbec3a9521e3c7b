/* SPDX-License-Identifier: MIT */
/*
 * Failures injected at every kernel call and every allocation.
 *
 * Model
 * - A script of public calls uses everything the library has. It is run once for every N, with the
 *   Nth call through the seam (sys/sys.h) failing. Where one step makes many calls of one kind
 *   (reading a hundred spilled pages), a few of these stand for the rest; test-inject-long leaves
 *   out none.
 * - A public call that fails has to say so by an errno, and to change nothing: every region and
 *   snapshot is compared with what the script expects, the internal invariants are checked, and the
 *   same call is made again without the failure and has to succeed. A call that finds another way
 *   is fine, too.
 * - When a run has ended, no descriptor and no mapping is left behind.
 * - The test is built once for each trap. A plain store that traps cannot be told of a failure, so
 *   whatever fails once has to be got over.
 */
#include <signal.h>
#include <sys/wait.h>

#include "lib/internal.h"
#include "tests/fault/injector.h"
#include "tests/fault/script.h"
#include "tests/resources.h"
#include "tests/tap.h"

static bool known_errno(int r)
{
	return r == injected_errors[plan.what][plan.way] || r == -ENOMEM || r == -EAGAIN ||
	       r == -EIO || r == -EOPNOTSUPP;
}

/* One call, with whatever the plan has for it, and again without where it failed. */
static bool run_step(const struct step *step, unsigned n)
{
	unsigned left;
	int r;

	plan.fired = false;
	observed = true;
	r = step_call(step);
	observed = false;
	if (r < 0) {
		if (!ok(plan.fired, "%s fails by itself: %s", step_name(step), tap_errno_name(r)))
			return false;
		ok(known_errno(r), "%s gives %s when %s fails with %s", step_name(step),
		   tap_errno_name(r), sys_call_name(plan.what),
		   tap_errno_name(injected_errors[plan.what][plan.way]));
		left = plan.left;
		plan.left = 0;
		if (!world_holds()) {
			diag("after %s failed at call %u: %s", step_name(step), n,
			     sys_call_name(plan.what));
			return false;
		}
		r = step_call(step);
		plan.left = left;
		if (!is_errno(r, 0, "%s succeeds the second time, after %s had failed",
			      step_name(step), sys_call_name(plan.what)))
			return false;
	}
	step_expect(step);
	return true;
}

/* Of a run that dies. */
static unsigned running;

static void say_where(int signal)
{
	char text[120];
	int length = snprintf(text, sizeof(text),
			      "# failure %u in way %u, step %u (%s), of %s: %s\n", running,
			      plan.way, record.step, step_name(&script[record.step]),
			      sys_call_name(plan.what), strsignal(signal));

	(void)!write(STDOUT_FILENO, text, (size_t)length);
	raise(signal);
}

/* Before the library has a handler of its own. */
static void watch_over(void)
{
	const int signals[] = { SIGABRT, SIGSEGV, SIGBUS };
	const struct sigaction action = { .sa_handler = say_where, .sa_flags = (int)SA_RESETHAND };

	for (unsigned i = 0; running == 0 && i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
}

/* Whether the failure was met. */
static bool run_script(unsigned n, unsigned way)
{
	bool met = false, good = true;

	set_up_world();
	running = n;
	plan.left = n;
	plan.way = way;
	for (size_t i = 0; good && i < script_steps; i++) {
		record.step = (unsigned)i;
		good = run_step(&script[i], n);
		met |= plan.fired;
		if (plan.fired && good)
			good = world_holds();
		if (!good)
			diag("step %zu, failure %u", i, n);
	}
	plan.left = 0;
	if (!met)
		ok(world_holds(), "the end of the script");
	free_world();
	return met && good;
}

static void report_kinds(void)
{
	char text[600] = "";

	for (unsigned i = 0; i < SYS_CALLS; i++)
		if (plan.kinds[i])
			snprintf(text + strlen(text), sizeof(text) - strlen(text), " %s %u",
				 sys_call_name((enum sys_call)i), plan.kinds[i]);
	diag("failures injected:%s", text);
}

#ifdef INJECT_LONG
#define FIRST_FEW  UINT32_MAX
#define EVERY_READ true
#else
#define FIRST_FEW  2u
#define EVERY_READ false
#endif

/* Whether call n stands for itself, or for others of its kind in its step. */
static bool is_chosen(unsigned n)
{
	unsigned before = 0;

	for (unsigned i = n; i-- > 0 && record.calls[i].step == record.calls[n].step;)
		before += record.calls[i].call == record.calls[n].call;
	return before < FIRST_FEW || before % 32 == 31;
}

static void record_script(unsigned way)
{
	record.count = 0;
	record.on = true;
	run_script(0, way);
	record.on = false;
}

static void fail_each(unsigned way)
{
	size_t mapped;
	unsigned files, failed = 0;

	watch_over();
	if (!can_spill()) {
		skip("no directory on a disk");
		return;
	}
	sys_injector = inject;
	plan.only = -1;
	memset(plan.kinds, 0, sizeof(plan.kinds));
	for (unsigned i = 0; i < 3; i++)
		run_script(0, way); /* what is kept for good by then: stacks, the process's mark */
	record_script(way);
	files = open_files();
	mapped = mapped_bytes();
	for (unsigned n = 0; n < record.count && tap.failed < 20; n++) {
		const int *ways = injected_errors[record.calls[n].call];

		if (!is_chosen(n) || (way > 0 && ways[way] == ways[0]))
			continue;
		failed++;
		/* Under a limit it is a matter of time what is spilled: the last ones may not
		 * come. */
		ok(run_script(n + 1, way) || n > record.count / 10 * 9, "failure %u is met", n);
		is_u64(open_files(), files, "descriptors after failure %u", n);
		if (COUNT_MAPPINGS)
			is_u64(mapped_bytes(), mapped, "mapped bytes after failure %u", n);
	}
	diag("%u calls, %u of them failed once", record.count, failed);
	report_kinds();
	ok(record.count > 100, "the script makes many calls");
	ok(plan.kinds[SYS_CALL_OPEN] && plan.kinds[SYS_CALL_WRITE_AT],
	   "among them those that spill");
	ok(plan.kinds[SYS_CALL_USERFAULTFD] && plan.kinds[SYS_CALL_EPOLL],
	   "and those that make views");
	sys_injector = NULL;
}

TEST(every_call_fails_once)
{
	fail_each(0);
}

TEST(every_call_fails_once_in_another_way)
{
	fail_each(1);
}

/* --- rollbacks and a disk that fails --- */

/* How often a step reads from the disk. */
static unsigned reads_of(size_t step)
{
	unsigned reads = 0;

	for (unsigned i = 0; i < record.count; i++)
		reads += record.calls[i].step == step && record.calls[i].call == SYS_CALL_READ_AT;
	return reads;
}

static unsigned next_read(unsigned n)
{
	return n < 3 || EVERY_READ ? n + 1 : n + 9;
}

/* The script up to a step, at whose nth read the disk fails, once or from then on. */
static bool fail_a_read(size_t step, unsigned n, bool for_good)
{
	bool good = true, met;

	set_up_world();
	for (size_t i = 0; good && i <= step; i++) {
		plan.left = i == step ? n : 0;
		plan.for_good = for_good;
		good = run_step(&script[i], n);
	}
	met = plan.fired;
	plan.left = 0;
	good = good && world_holds();
	if (!good)
		diag("step %zu, read %u%s", step, n, for_good ? " and all after it" : "");
	free_world();
	return good && met;
}

/* Everything is read once before anything changes: a disk that is broken by then changes nothing.
 * After that a single failure does not either; a disk that breaks for good at the second look is
 * beyond help, since what was there before may be on it, too. */
TEST(rollbacks_and_a_disk_that_fails)
{
	unsigned failed = 0;

	if (!can_spill()) {
		skip("no directory on a disk");
		return;
	}
	sys_injector = inject;
	plan.way = 0;
	plan.only = -1;
	record_script(0);
	plan.only = SYS_CALL_READ_AT;
	for (size_t i = 0; i < script_steps; i++) {
		unsigned reads = script[i].kind == ROLLBACK ? reads_of(i) : 0;

		for (unsigned n = 1; n <= reads && tap.failed < 10; n = next_read(n)) {
			ok(fail_a_read(i, n, n <= reads / 2), "step %zu, read %u of %u", i, n,
			   reads);
			failed++;
		}
	}
	plan.for_good = false;
	plan.only = -1;
	sys_injector = NULL;
	diag("%u reads failed", failed);
	ok(failed > 10, "rollbacks read from the disk");
}

/* --- the process's first region --- */

static int first_region(unsigned n, unsigned way)
{
	struct cow_region_options options = options_for(PLAIN);
	struct cow_region *region = NULL;
	int r;

	sys_injector = inject;
	plan = (struct injector_plan){ .left = n, .way = way, .only = -1 };
	observed = true;
	r = cow_region_new(PAGE, &options, &region);
	observed = false;
	if (!plan.fired)
		return 2;
	if (r == 0 || region)
		return r == 0 && region ? 0 : 3;
	if (cow_region_new(PAGE, &options, &region) < 0)
		return 4;
	cow_region_free(region);
	return 0;
}

/* In a child that has not used the library, what is made once in a process is made again. */
TEST(the_first_region_of_a_process)
{
	for (unsigned way = 0; way < 2; way++)
		for (unsigned n = 1, status = 0; status == 0; n++) {
			int wait_status = 0;
			pid_t pid = fork();

			if (pid == 0)
				_exit(first_region(n, way));
			waitpid(pid, &wait_status, 0);
			status = (unsigned)wait_status;
			ok(status == 0 || (WIFEXITED(wait_status) &&
					   WEXITSTATUS(wait_status) == 2 && n > 2),
			   "failure %u: status %d", n, wait_status);
		}
}

TAP_MAIN(CASE(the_first_region_of_a_process), CASE(every_call_fails_once),
	 CASE(every_call_fails_once_in_another_way), CASE(rollbacks_and_a_disk_that_fails))
