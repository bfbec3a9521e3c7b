/* SPDX-License-Identifier: MIT */
/*
 * The harness checks itself: what fails must be reported as failed, or every other test's "ok"
 * means nothing. Each case runs small cases in a forked child and reads the child's report.
 */
#include <pthread.h>
#include <sys/wait.h>

#include "tests/tap.h"

struct report {
	char text[4096];
	int status; /* as waitpid() gives it */
};

static void inner_holds(void)
{
	ok(1 + 1 == 2, "arithmetic");
	is_int(-3, -3, "int");
	is_u64(UINT64_MAX, UINT64_MAX, "u64");
	is_str("a", "a", "string");
	is_str(NULL, NULL, "no string");
	is_errno(-ENOENT, -ENOENT, "errno");
}

static void inner_fails_then_goes_on(void)
{
	ok(!is_int(1, 2, "the number %d", 7), "a failed check returns false");
	is_str("left", NULL, "one side only");
	is_errno(-EIO, 0, "an error");
}

static void inner_checks_nothing(void)
{
}

static void inner_skips(void)
{
	skip("no %s here", "kernel");
}

static void inner_fails_then_skips(void)
{
	ok(false, "already wrong");
	skip("too late");
}

static void inner_skips_all(void)
{
	skip_all("nothing of %s", "it");
}

static void inner_crashes(void)
{
	abort();
}

static void inner_bails(void)
{
	bail("no ground");
}

static void *check_often(void *context)
{
	int i;

	for (i = 0; i < 100; i++)
		ok(i != 50, "fifty");
	return NULL;
}

static void inner_fails_in_threads(void)
{
	pthread_t threads[4];
	size_t i;

	for (i = 0; i < 4; i++)
		if (pthread_create(&threads[i], NULL, check_often, NULL))
			bail("pthread_create");
	for (i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	is_u64(tap.checks, 400, "checks of all threads");
	is_u64(tap.failed, 4, "failures of all threads");
}

static void read_all(int fd, char *buffer, size_t size)
{
	size_t length = 0;
	ssize_t n;

	while ((n = read(fd, buffer + length, size - 1 - length)) > 0)
		length += (size_t)n;
	buffer[length] = '\0';
}

/* Runs cases as a test file of their own would, with at most one argument. */
static struct report run_inner(const struct tap_case *cases, size_t count, const char *argument)
{
	char name[] = "inner", copy[64];
	char *argv[] = { name, copy, NULL };
	struct report report = { .status = -1 };
	int pipes[2];
	pid_t child;

	snprintf(copy, sizeof(copy), "%s", argument ? argument : "");
	if (pipe(pipes) < 0)
		bail("pipe: %s", strerror(errno));
	child = fork();
	if (child < 0)
		bail("fork: %s", strerror(errno));
	if (!child) {
		dup2(pipes[1], STDOUT_FILENO);
		close(pipes[0]);
		tap.cases = 0;
		exit(tap_main(argument ? 2 : 1, argv, cases, count));
	}
	close(pipes[1]);
	read_all(pipes[0], report.text, sizeof(report.text));
	close(pipes[0]);
	if (waitpid(child, &report.status, 0) != child)
		bail("waitpid: %s", strerror(errno));
	return report;
}

static struct report run_one(void (*run)(void))
{
	const struct tap_case cases[] = { { "inner", run } };

	return run_inner(cases, 1, NULL);
}

static int exit_status(const struct report *report)
{
	return WIFEXITED(report->status) ? WEXITSTATUS(report->status) : -1;
}

TEST(what_holds_passes)
{
	struct report report = run_one(inner_holds);

	is_str(report.text, "ok 1 - inner\n1..1\n", "the report");
	is_int(exit_status(&report), 0, "the exit status");
}

TEST(failed_checks_say_what_they_got)
{
	struct report report = run_one(inner_fails_then_goes_on);

	ok(strstr(report.text, "failed: the number 7\n#   got 1, expected 2\n"), "numbers");
	ok(strstr(report.text, "\"left\"\n#   expected NULL\n"), "strings");
	ok(strstr(report.text, "(EIO), expected 0 (0)"), "errno names");
	ok(strstr(report.text, "\nnot ok 1 - inner\n1..1\n"), "the verdict");
	is_int(exit_status(&report), 1, "the exit status");
}

TEST(a_case_without_checks_fails)
{
	struct report report = run_one(inner_checks_nothing);

	ok(strstr(report.text, "not ok 1 - inner\n"), "the verdict");
	is_int(exit_status(&report), 1, "the exit status");
}

TEST(skips_carry_their_reason)
{
	struct report report = run_one(inner_skips);

	is_str(report.text, "ok 1 - inner # SKIP no kernel here\n1..1\n", "one case");
	is_int(exit_status(&report), 0, "one case: the exit status");
	report = run_one(inner_skips_all);
	is_str(report.text, "1..0 # SKIP nothing of it\n", "the whole file");
	is_int(exit_status(&report), 0, "the whole file: the exit status");
}

TEST(a_skip_does_not_hide_a_failure)
{
	struct report report = run_one(inner_fails_then_skips);

	ok(strstr(report.text, "not ok 1 - inner\n"), "the verdict");
	is_int(exit_status(&report), 1, "the exit status");
}

TEST(a_crash_leaves_no_plan)
{
	struct report report = run_one(inner_crashes);

	ok(WIFSIGNALED(report.status), "ends by the signal");
	ok(!strstr(report.text, "1.."), "prints no plan");
}

TEST(bail_ends_the_run)
{
	struct report report = run_one(inner_bails);

	is_str(report.text, "Bail out! no ground\n", "the report");
	is_int(exit_status(&report), 99, "the exit status");
}

TEST(checks_come_from_any_thread)
{
	struct report report = run_one(inner_fails_in_threads);

	ok(!strstr(report.text, "of all threads"), "none is lost");
	ok(strstr(report.text, "failed: fifty\n"), "each says what it found");
	ok(strstr(report.text, "\nnot ok 1 - inner\n1..1\n"), "the verdict");
}

TEST(arguments_select_cases)
{
	const struct tap_case cases[] = {
		{ "apple", inner_holds },
		{ "pear", inner_fails_then_goes_on },
	};
	struct report report = run_inner(cases, 2, "app");

	is_str(report.text, "ok 1 - apple\n1..1\n", "by a part of the name");
	report = run_inner(cases, 2, "--list");
	is_str(report.text, "apple\npear\n", "--list");
	report = run_inner(cases, 2, "plum");
	is_int(exit_status(&report), 2, "no such case is an error");
}

TAP_MAIN(CASE(what_holds_passes), CASE(failed_checks_say_what_they_got),
	 CASE(a_case_without_checks_fails), CASE(skips_carry_their_reason),
	 CASE(a_skip_does_not_hide_a_failure), CASE(a_crash_leaves_no_plan),
	 CASE(bail_ends_the_run), CASE(checks_come_from_any_thread), CASE(arguments_select_cases))
