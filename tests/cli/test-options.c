/* SPDX-License-Identifier: MIT */
/* The parser of command lines, on a verb made for it. */
#include <unistd.h>

#include "tests/tap.h"

#include "cli/command.h"
#include "cli/help.h"
#include "cli/options.h"

static bool quiet;
static const char *label;
static const char *output;
static uint64_t rows;
static uint64_t limit;
static uint64_t seconds;

static const struct command_option options[] = {
	{ "quiet", 'q', OPTION_FLAG, NULL, "say less", { .flag = &quiet }, 0, 0 },
	{ "name", 'n', OPTION_STRING, "NAME", "a name", { .string = &label }, 0, 0 },
	{ "output", 'o', OPTION_PATH, "FILE", "a file", { .string = &output }, 0, 0 },
	{ "rows", 'r', OPTION_COUNT, "N", "rows", { .number = &rows }, 1, 1000000 },
	{ "limit", 0, OPTION_SIZE, "BYTES", "bytes", { .number = &limit }, 0, 0 },
	{ "seconds", 's', OPTION_DURATION, "TIME", "time", { .number = &seconds }, 0, 0 },
	{ 0 },
};

static const struct command verb = {
	.name = "verb",
	.synopsis = "WORD...",
	.options = options,
	.min_operands = 1,
	.max_operands = 3,
	.json = COMMAND_JSON_FILE,
};

const struct command *const command_table[] = { &verb, NULL };

const struct command *command_find(const char *name)
{
	return strcmp(name, verb.name) == 0 ? &verb : NULL;
}

static char line[256];
static char *words[16];

/* Parses words that are separated by blanks; what is said about them goes nowhere. */
static int parse(const struct command *command, const char *text, int *ret_operands)
{
	int count = 0, stderr_copy, result;
	char *word, *rest;

	quiet = false;
	label = output = NULL;
	rows = limit = seconds = 0;
	command_json_wanted = command_help_wanted = false;
	command_json_path = NULL;
	snprintf(line, sizeof(line), "%s", text);
	for (word = strtok_r(line, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		words[count++] = word;
	stderr_copy = dup(STDERR_FILENO);
	if (!freopen("/dev/null", "w", stderr))
		bail("/dev/null: %s", strerror(errno));
	result = options_parse(command, count, words, ret_operands);
	fflush(stderr); /* it is buffered since it was reopened */
	dup2(stderr_copy, STDERR_FILENO);
	close(stderr_copy);
	return result;
}

TEST(every_form_of_an_option_is_understood)
{
	int operands = -1;

	is_errno(parse(&verb, "-q a --name x b --rows=10k -s5 -o out --limit 2M", &operands), 0,
		 "all of them");
	is_int(operands, 2, "operands");
	is_str(words[0], "a", "the first");
	is_str(words[1], "b", "the second");
	ok(quiet, "a flag");
	is_str(label, "x", "a separate argument");
	is_u64(rows, 10000, "an attached argument");
	is_u64(seconds, UINT64_C(5000000000), "an argument at a letter");
	is_str(output, "out", "an argument after a letter");
	is_u64(limit, 2 << 20, "a size");
	is_errno(parse(&verb, "a -qr7", &operands), 0, "letters in a row");
	ok(quiet, "the flag in a row");
	is_u64(rows, 7, "the argument in a row");
}

TEST(double_dash_ends_options)
{
	int operands = -1;

	is_errno(parse(&verb, "-q -- -n - --", &operands), 0, "options, then operands");
	is_int(operands, 3, "operands");
	is_str(words[0], "-n", "looks like an option");
	is_str(words[2], "--", "only the first counts");
	is_errno(parse(&verb, "-", &operands), 0, "a dash alone is an operand");
	is_errno(parse(&verb, "--name=-- a", &operands), 0, "attached, it is an argument");
}

TEST(a_program_keeps_its_own_options)
{
	struct command runner = verb;
	int operands = -1;

	runner.stop_at_operand = true;
	runner.max_operands = 99;
	is_errno(parse(&runner, "-q program -q --rows x", &operands), 0, "parsed");
	is_int(operands, 4, "operands");
	is_str(words[1], "-q", "the program's option");
	is_u64(rows, 0, "not cow's");
}

TEST(wrong_lines_are_refused)
{
	static const char *const wrong[] = {
		"",
		"a b c d",
		"a --rows",
		"a -r",
		"a --rows=",
		"a --rows=0",
		"a --rows 2M",
		"a --rows -5",
		"a -r x",
		"a --name=",
		"a --quiet=1",
		"a --unknown",
		"a -x",
		"a -qx",
		"a --row 5",
		"a --limit 1Q",
		"a --seconds 5d",
		"a --=x",
		"a ---",
		"a --json",
		"--name -- a",
		"-r -- a",
	};
	int operands = -7;
	size_t i;

	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		is_errno(parse(&verb, wrong[i], &operands), -EINVAL, "'%s'", wrong[i]);
	is_int(operands, -7, "the result is untouched");
}

TEST(json_may_go_to_a_file_or_to_standard_output)
{
	int operands;

	is_errno(parse(&verb, "a --json report", &operands), 0, "a file");
	ok(command_json_wanted, "wanted");
	is_str(command_json_path, "report", "its path");
	is_errno(parse(&verb, "a --json -", &operands), 0, "standard output");
	ok(command_json_wanted, "wanted");
	is_str(command_json_path, NULL, "no path");
}

struct number {
	const char *text;
	int (*parse)(const char *text, uint64_t *ret_value);
	int error;
	uint64_t value;
};

TEST(numbers_are_exact_or_refused)
{
	static const struct number numbers[] = {
		{ "0", options_parse_count, 0, 0 },
		{ "18446744073709551615", options_parse_count, 0, UINT64_MAX },
		{ "18446744073709551616", options_parse_count, -ERANGE, 0 },
		{ "99999999999999999999999", options_parse_count, -ERANGE, 0 },
		{ "1.5k", options_parse_count, 0, 1500 },
		{ "1.0001k", options_parse_count, -EINVAL, 0 },
		{ "1.", options_parse_count, 0, 1 },
		{ ".5", options_parse_count, -EINVAL, 0 },
		{ "", options_parse_count, -EINVAL, 0 },
		{ "k", options_parse_count, -EINVAL, 0 },
		{ "+1", options_parse_count, -EINVAL, 0 },
		{ " 1", options_parse_count, -EINVAL, 0 },
		{ "1 ", options_parse_count, -EINVAL, 0 },
		{ "0x10", options_parse_count, -EINVAL, 0 },
		{ "1.5G", options_parse_size, 0, UINT64_C(3) << 29 },
		{ "64KiB", options_parse_size, 0, 65536 },
		{ "1P", options_parse_size, 0, UINT64_C(1) << 50 },
		{ "20000000T", options_parse_size, -ERANGE, 0 },
		{ "0.5", options_parse_duration, 0, 500000000 },
		{ "20ms", options_parse_duration, 0, 20000000 },
		{ "1.5us", options_parse_duration, 0, 1500 },
		{ "0.5ns", options_parse_duration, -EINVAL, 0 },
		{ "2m", options_parse_duration, 0, UINT64_C(120000000000) },
		{ "0.0000000000000000000001", options_parse_duration, -EINVAL, 0 },
	};
	uint64_t value;
	size_t i;

	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		value = numbers[i].error ? 0 : 77;
		is_errno(numbers[i].parse(numbers[i].text, &value), numbers[i].error, "'%s'",
			 numbers[i].text);
		is_u64(value, numbers[i].value, "the value of '%s'", numbers[i].text);
	}
}

TEST(distance_counts_slips)
{
	char longest[64];

	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	is_u64(help_distance("version", "version"), 0, "equal");
	is_u64(help_distance("verson", "version"), 1, "a letter lacks");
	is_u64(help_distance("vresion", "version"), 1, "two are swapped");
	is_u64(help_distance("", "help"), 4, "nothing");
	is_u64(help_distance(longest, "help"), 63, "absurdly long");
}

TAP_MAIN(CASE(every_form_of_an_option_is_understood), CASE(double_dash_ends_options),
	 CASE(a_program_keeps_its_own_options), CASE(wrong_lines_are_refused),
	 CASE(json_may_go_to_a_file_or_to_standard_output), CASE(numbers_are_exact_or_refused),
	 CASE(distance_counts_slips))
