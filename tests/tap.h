/* SPDX-License-Identifier: MIT */
/*
 * A test file's whole harness: cases, checks, and their report in the Test Anything Protocol.
 *
 *	TEST(frame_starts_with_one_reference)
 *	{
 *		struct frame *frame = frame_new();
 *
 *		if (!ok(frame, "a frame is allocated"))
 *			return;
 *		is_u64(frame->refs, 1, "references");
 *		frame_unref(frame);
 *	}
 *
 *	TAP_MAIN(CASE(frame_starts_with_one_reference))
 *
 * Model
 * - One process a file. A case is one line of the report ("ok 1 - name"), its checks print
 *   nothing while they hold: a loop may check a million times. A failed check prints where it
 *   stands, what it got and what it expected, and returns false; the case goes on unless it
 *   returns. A case that checked nothing fails, since it proves nothing.
 * - The plan comes last. A file that dies earlier prints no plan and ends by its signal: both are
 *   failures to every TAP consumer.
 * - Arguments select cases by name or part of it; --list prints the names. $TAP_FILTER does the
 *   same where a runner passes no arguments.
 * - Checks may come from any thread: the count of failures is atomic, each line is one write.
 *   A forked child must not report through checks; it says by its exit status what it found.
 *
 * A file calls skip_all() before or within its first case, when nothing in it can run here.
 */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

/* Invariants of the code under test are asserts: a run without them would be a weaker test. */
#ifdef NDEBUG
#error "tests need assert(): build without NDEBUG (meson setup -Db_ndebug=false)"
#endif

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct tap_case {
	const char *name;
	void (*run)(void);
};

/* Of the case that runs. */
static struct {
	unsigned int checks; /* atomic */
	unsigned int failed; /* atomic */
	unsigned int cases;  /* reported so far; the main thread's */
	char skipped[256];   /* why, or empty; the main thread's */
} tap;

/* A sanitizer has mappings, stacks and signal handlers of its own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

#define TAP_MAYBE_UNUSED          __attribute__((unused))
#define TAP_PRINTF(string, first) __attribute__((unused, format(printf, string, first)))
#define TAP_NORETURN              __attribute__((noreturn))

TAP_PRINTF(1, 0)
static void tap_diag_v(const char *format, va_list arguments)
{
	char text[2048];
	char *line, *rest;

	vsnprintf(text, sizeof(text), format, arguments);
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		printf("# %s\n", line);
}

/* A remark in the report: seeds, counts, what was found. */
TAP_PRINTF(1, 2)
static void diag(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	tap_diag_v(format, arguments);
	va_end(arguments);
}

/* Nothing further makes sense: ends the process and the whole run of its consumer. */
TAP_PRINTF(1, 2)
static TAP_NORETURN void bail(const char *format, ...)
{
	va_list arguments;
	char text[512];

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	printf("Bail out! %s\n", text);
	exit(99);
}

/* How long to wait for what should come at once: so many seconds, times $COW_TEST_SCALE where the
 * machine is emulated. */
TAP_MAYBE_UNUSED static unsigned patience(unsigned seconds)
{
	const char *scale = getenv("COW_TEST_SCALE");
	unsigned long times = scale ? strtoul(scale, NULL, 10) : 1;

	return times > 1 && times < 1000 ? seconds * (unsigned)times : seconds;
}

/* The case cannot run here; it must return after this. */
TAP_PRINTF(1, 2)
static void skip(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(tap.skipped, sizeof(tap.skipped), format, arguments);
	va_end(arguments);
}

/* No case of the file can run here. */
TAP_PRINTF(1, 2)
static TAP_NORETURN void skip_all(const char *format, ...)
{
	va_list arguments;
	char text[256];

	if (tap.cases)
		bail("skip_all() after a case was reported");
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	printf("1..0 # SKIP %s\n", text);
	exit(0);
}

TAP_PRINTF(4, 0)
static bool tap_check_v(bool holds, const char *file, int line, const char *format,
			va_list arguments)
{
	char text[1024];

	__atomic_fetch_add(&tap.checks, 1, __ATOMIC_RELAXED);
	if (holds)
		return true;
	__atomic_fetch_add(&tap.failed, 1, __ATOMIC_RELAXED);
	vsnprintf(text, sizeof(text), format, arguments);
	diag("%s:%d: failed: %s", file, line, text);
	return false;
}

TAP_PRINTF(4, 5)
static bool tap_ok(bool holds, const char *file, int line, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	tap_check_v(holds, file, line, format, arguments);
	va_end(arguments);
	return holds;
}

TAP_PRINTF(5, 6)
static bool tap_is_int(int64_t got, int64_t expected, const char *file, int line,
		       const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (!tap_check_v(got == expected, file, line, format, arguments))
		diag("  got %" PRId64 ", expected %" PRId64, got, expected);
	va_end(arguments);
	return got == expected;
}

TAP_PRINTF(5, 6)
static bool tap_is_u64(uint64_t got, uint64_t expected, const char *file, int line,
		       const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (!tap_check_v(got == expected, file, line, format, arguments))
		diag("  got %" PRIu64 " (%#" PRIx64 "), expected %" PRIu64 " (%#" PRIx64 ")", got,
		     got, expected, expected);
	va_end(arguments);
	return got == expected;
}

TAP_PRINTF(5, 6)
static bool tap_is_str(const char *got, const char *expected, const char *file, int line,
		       const char *format, ...)
{
	bool same = got && expected ? strcmp(got, expected) == 0 : got == expected;
	va_list arguments;

	va_start(arguments, format);
	if (!tap_check_v(same, file, line, format, arguments)) {
		diag("  got      %s%s%s", got ? "\"" : "", got ? got : "NULL", got ? "\"" : "");
		diag("  expected %s%s%s", expected ? "\"" : "", expected ? expected : "NULL",
		     expected ? "\"" : "");
	}
	va_end(arguments);
	return same;
}

TAP_MAYBE_UNUSED static const char *tap_errno_name(int result)
{
	const char *name = result > 0 ? NULL : strerrorname_np(-result);

	return result == 0 ? "0" : name ? name : "?";
}

TAP_PRINTF(5, 6)
static bool tap_is_errno(int got, int expected, const char *file, int line, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (!tap_check_v(got == expected, file, line, format, arguments))
		diag("  got %d (%s), expected %d (%s)", got, tap_errno_name(got), expected,
		     tap_errno_name(expected));
	va_end(arguments);
	return got == expected;
}

/* Every check takes what it checks, then a printf format that says what was to hold. */
#define ok(condition, ...)         tap_ok(!!(condition), __FILE__, __LINE__, __VA_ARGS__)
#define is_int(got, expected, ...) tap_is_int(got, expected, __FILE__, __LINE__, __VA_ARGS__)
#define is_u64(got, expected, ...) tap_is_u64(got, expected, __FILE__, __LINE__, __VA_ARGS__)
#define is_str(got, expected, ...) tap_is_str(got, expected, __FILE__, __LINE__, __VA_ARGS__)
/* For calls that return 0 or a negative errno: is_errno(f(), -EINVAL, "..."). */
#define is_errno(got, expected, ...) tap_is_errno(got, expected, __FILE__, __LINE__, __VA_ARGS__)

TAP_MAYBE_UNUSED static bool tap_run_case(const struct tap_case *test)
{
	bool passed;

	tap.checks = 0;
	tap.failed = 0;
	tap.skipped[0] = '\0';
	test->run();
	if (!tap.checks && !tap.skipped[0]) {
		diag("%s checked nothing", test->name);
		tap.failed = 1;
	}
	passed = !tap.failed;
	tap.cases++;
	/* What failed before the case found that it could not go on stays a failure. */
	printf("%s %u - %s%s%s\n", passed ? "ok" : "not ok", tap.cases, test->name,
	       passed && tap.skipped[0] ? " # SKIP " : "", passed ? tap.skipped : "");
	return passed;
}

TAP_MAYBE_UNUSED static bool tap_selected(const char *name, int argc, char **argv)
{
	const char *filter = getenv("TAP_FILTER");
	int i;

	if (filter && !strstr(name, filter))
		return false;
	for (i = 1; i < argc; i++)
		if (strstr(name, argv[i]))
			return true;
	return argc <= 1;
}

TAP_MAYBE_UNUSED
static int tap_main(int argc, char **argv, const struct tap_case cases[], size_t count)
{
	unsigned int failed = 0;
	size_t i;

	/* By lines, so that a forked child does not print the parent's buffer a second time. */
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	if (argc > 1 && strcmp(argv[1], "--list") == 0) {
		for (i = 0; i < count; i++)
			puts(cases[i].name);
		return 0;
	}
	for (i = 0; i < count; i++)
		if (tap_selected(cases[i].name, argc, argv) && !tap_run_case(&cases[i]))
			failed++;
	if (!tap.cases) {
		fprintf(stderr, "%s: no case has such a name\n", argv[0]);
		return 2;
	}
	printf("1..%u\n", tap.cases);
	return failed ? 1 : 0;
}

#define TEST(name) static void test_##name(void)
/* clang-format off */
#define CASE(name) { #name, test_##name }
/* clang-format on */
#define TAP_MAIN(...)                                                                 \
	int main(int argc, char **argv)                                               \
	{                                                                             \
		static const struct tap_case cases[] = { __VA_ARGS__ };               \
                                                                                      \
		return tap_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0])); \
	}

#endif
