/* SPDX-License-Identifier: MIT */
/*
 * The parser of command lines. A number is digits, possibly a fraction, and a unit; it is exact
 * or refused: "1.5k" is 1500, "1.0001k" of a count is an error rather than 1000.
 */
#include "cli/options.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cli/help.h"
#include "cli/output.h"
#include "proc/text.h"

bool command_help_wanted;
bool command_json_wanted;
const char *command_json_path;
static bool no_color;

struct unit {
	const char *suffix;
	uint64_t factor;
};

static const struct unit count_units[] = {
	{ "", 1 }, { "k", 1000 }, { "K", 1000 }, { "M", 1000000 }, { "G", 1000000000 }, { NULL, 0 },
};

static const struct unit size_units[] = {
	{ "", 1 },
	{ "B", 1 },
	{ "k", UINT64_C(1) << 10 },
	{ "K", UINT64_C(1) << 10 },
	{ "KiB", UINT64_C(1) << 10 },
	{ "M", UINT64_C(1) << 20 },
	{ "MiB", UINT64_C(1) << 20 },
	{ "G", UINT64_C(1) << 30 },
	{ "GiB", UINT64_C(1) << 30 },
	{ "T", UINT64_C(1) << 40 },
	{ "TiB", UINT64_C(1) << 40 },
	{ "P", UINT64_C(1) << 50 },
	{ "PiB", UINT64_C(1) << 50 },
	{ NULL, 0 },
};

static const struct unit duration_units[] = {
	{ "", 1000000000 },
	{ "ns", 1 },
	{ "us", 1000 },
	{ "ms", 1000000 },
	{ "s", 1000000000 },
	{ "m", UINT64_C(60000000000) },
	{ "h", UINT64_C(3600000000000) },
	{ NULL, 0 },
};

static const struct unit *find_unit(const struct unit *units, const char *suffix)
{
	for (; units->suffix; units++)
		if (strcmp(units->suffix, suffix) == 0)
			return units;
	return NULL;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Reads digits from *text into *value, as many as there are; returns their number. */
static int read_digits(const char **text, uint64_t *value, bool *overflow)
{
	int digits = 0;

	for (; is_digit(**text); (*text)++, digits++)
		if (__builtin_mul_overflow(*value, 10, value) ||
		    __builtin_add_overflow(*value, (uint64_t)(**text - '0'), value))
			*overflow = true;
	return digits;
}

static int parse_number(const char *text, const struct unit *units, uint64_t *ret_value)
{
	uint64_t value = 0, scale = 1;
	const struct unit *unit;
	bool overflow = false;
	int digits, decimals = 0;

	digits = read_digits(&text, &value, &overflow);
	if (*text == '.') {
		text++;
		decimals = read_digits(&text, &value, &overflow);
	}
	if (!digits || decimals > 18)
		return -EINVAL;
	while (decimals--)
		scale *= 10;
	unit = find_unit(units, text);
	if (!unit)
		return -EINVAL;
	if (overflow || __builtin_mul_overflow(value, unit->factor, &value))
		return -ERANGE;
	if (value % scale)
		return -EINVAL;
	*ret_value = value / scale;
	return 0;
}

int options_parse_count(const char *text, uint64_t *ret_count)
{
	return parse_number(text, count_units, ret_count);
}

int options_parse_size(const char *text, uint64_t *ret_bytes)
{
	return parse_number(text, size_units, ret_bytes);
}

int options_parse_duration(const char *text, uint64_t *ret_ns)
{
	return parse_number(text, duration_units, ret_ns);
}

bool options_parse_pid(const char *option, const char *text, pid_t *ret_pid)
{
	uint64_t pid;

	if (text_only_u64(text_of_string(text), &pid) < 0 || pid == 0 || pid > INT_MAX) {
		complain("%s%s%s'%s' is not a process ID; give a number such as 1234",
			 option ? "--" : "", option ? option : "", option ? ": " : "", text);
		return false;
	}
	*ret_pid = (pid_t)pid;
	return true;
}

static const struct command_option common_options[] = {
	{
		.name = "no-color",
		.type = OPTION_FLAG,
		.help = "no colours, as with NO_COLOR in the environment",
		.value.flag = &no_color,
	},
	{
		.name = "help",
		.letter = 'h',
		.type = OPTION_FLAG,
		.help = "show this help",
		.value.flag = &command_help_wanted,
	},
	{ 0 },
};

static const struct command_option json_options[] = {
	{
		.name = "json",
		.type = OPTION_FLAG,
		.help = "print JSON instead of text",
		.value.flag = &command_json_wanted,
	},
	{ 0 },
};

static const struct command_option json_file_options[] = {
	{
		.name = "json",
		.type = OPTION_PATH,
		.argument = "FILE",
		.help = "write JSON to FILE too; with -, print it instead of text",
		.value.string = &command_json_path,
	},
	{ 0 },
};

int command_each_option(const struct command *command,
			int (*visit)(const struct command_option *option, void *context),
			void *context)
{
	const struct command_option *const tables[] = {
		command->options,
		command->json == COMMAND_JSON_STDOUT ? json_options :
		command->json == COMMAND_JSON_FILE   ? json_file_options :
						       NULL,
		common_options,
	};
	const struct command_option *option;
	size_t i;
	int result;

	for (i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (option = tables[i]; option && option->name; option++) {
			result = visit(option, context);
			if (result)
				return result;
		}
	return 0;
}

struct search {
	const char *name; /* with its length, since "=VALUE" may follow; or NULL */
	size_t length;
	char letter;
	const struct command_option *found;
};

static int match_option(const struct command_option *option, void *context)
{
	struct search *search = context;

	if (search->name ? strlen(option->name) == search->length &&
				   strncmp(option->name, search->name, search->length) == 0 :
			   option->letter && option->letter == search->letter)
		search->found = option;
	return !!search->found;
}

static const struct command_option *find_option(const struct command *command, struct search search)
{
	command_each_option(command, match_option, &search);
	return search.found;
}

static const char *format_value(char text[UNIT_LENGTH], enum option_type type, uint64_t value)
{
	if (type == OPTION_SIZE)
		return format_bytes(text, value);
	if (type == OPTION_DURATION)
		return format_ns(text, value);
	snprintf(text, UNIT_LENGTH, "%" PRIu64, value);
	return text;
}

static void complain_value(const struct command_option *option, const char *text, int error)
{
	char least[UNIT_LENGTH], most[UNIT_LENGTH];
	static const char *const examples[] = {
		[OPTION_COUNT] = "give a number such as 500, 10k or 2M",
		[OPTION_SIZE] = "give a size such as 4096, 64k or 1.5G",
		[OPTION_DURATION] = "give a time such as 10, 0.5, 20ms or 2m",
	};

	if (error == -ERANGE && option->max)
		complain("--%s: '%s' is out of range; give %s to %s", option->name, text,
			 format_value(least, option->type, option->min),
			 format_value(most, option->type, option->max));
	else if (error == -EDOM)
		complain("--%s: '%s' is too little; give %s or more", option->name, text,
			 format_value(least, option->type, option->min));
	else if (error == -ERANGE)
		complain("--%s: '%s' is out of range; %s", option->name, text,
			 examples[option->type]);
	else
		complain("--%s: '%s' is not %s; %s", option->name, text,
			 option->type == OPTION_DURATION ? "a time" :
			 option->type == OPTION_SIZE     ? "a size" :
							   "a number",
			 examples[option->type]);
}

static int set_number(const struct command_option *option, const char *text)
{
	const struct unit *units = option->type == OPTION_COUNT ? count_units :
				   option->type == OPTION_SIZE  ? size_units :
								  duration_units;
	uint64_t value;
	int error;

	error = parse_number(text, units, &value);
	if (!error && option->max && (value < option->min || value > option->max))
		error = -ERANGE;
	else if (!error && value < option->min)
		error = -EDOM;
	if (error) {
		complain_value(option, text, error);
		return -EINVAL;
	}
	*option->value.number = value;
	return 0;
}

static int set_option(const struct command_option *option, const char *text)
{
	switch (option->type) {
	case OPTION_FLAG:
		*option->value.flag = true;
		return 0;
	case OPTION_STRING:
	case OPTION_PATH:
		if (!text[0]) {
			complain("--%s: the argument is empty; give %s", option->name,
				 option->argument);
			return -EINVAL;
		}
		*option->value.string = text;
		return 0;
	case OPTION_COUNT:
	case OPTION_SIZE:
	case OPTION_DURATION:
		return set_number(option, text);
	}
	return -EINVAL;
}

struct cursor {
	const struct command *command;
	char **argv;
	int argc;
	int next;
};

/* The argument of an option: attached to it, or the next word. Not the "--" that ends the options:
 * somebody forgot the argument before the command that follows it. */
static const char *take_argument(struct cursor *cursor, const struct command_option *option,
				 const char *attached)
{
	if (attached)
		return attached;
	if (cursor->next < cursor->argc && strcmp(cursor->argv[cursor->next], "--") != 0)
		return cursor->argv[cursor->next++];
	complain("--%s needs an argument; give %s", option->name, option->argument);
	return NULL;
}

static int parse_long(struct cursor *cursor, const char *name)
{
	size_t length = strcspn(name, "=");
	const char *attached = name[length] ? name + length + 1 : NULL;
	const struct command_option *option;

	option = find_option(cursor->command, (struct search){ .name = name, .length = length });
	if (!option) {
		help_complain_option(cursor->command, name, length);
		return -EINVAL;
	}
	if (option->type == OPTION_FLAG) {
		if (attached) {
			complain("--%s takes no argument; leave out '=%s'", option->name, attached);
			return -EINVAL;
		}
		return set_option(option, NULL);
	}
	attached = take_argument(cursor, option, attached);
	return attached ? set_option(option, attached) : -EINVAL;
}

/* "-ab" is "-a -b" where a is a flag, and "-a b" where it is not. */
static int parse_short(struct cursor *cursor, const char *letters)
{
	const struct command_option *option;
	const char *argument;
	int error;

	for (; *letters; letters++) {
		option = find_option(cursor->command, (struct search){ .letter = *letters });
		if (!option) {
			complain("unknown option '-%c'; see: cow help %s", *letters,
				 cursor->command->name);
			return -EINVAL;
		}
		if (option->type != OPTION_FLAG) {
			argument = take_argument(cursor, option, letters[1] ? letters + 1 : NULL);
			return argument ? set_option(option, argument) : -EINVAL;
		}
		error = set_option(option, NULL);
		if (error)
			return error;
	}
	return 0;
}

static int check_operands(const struct command *command, int operands, char **argv)
{
	if (operands > (int)command->max_operands) {
		complain("unexpected '%s'; see: cow help %s", argv[command->max_operands],
			 command->name);
		return -EINVAL;
	}
	if (operands < (int)command->min_operands) {
		complain("something is missing after 'cow %s'; give %s", command->name,
			 command->synopsis);
		return -EINVAL;
	}
	return 0;
}

static int parse_words(struct cursor *cursor, int *ret_operands)
{
	bool options_over = false;
	int operands = 0, error;
	char *word;

	while (cursor->next < cursor->argc) {
		word = cursor->argv[cursor->next++];
		if (options_over || word[0] != '-' || !word[1]) {
			/* Operands only move to the front, over words already read. */
			cursor->argv[operands++] = word;
			options_over |= cursor->command->stop_at_operand;
		} else if (strcmp(word, "--") == 0) {
			options_over = true;
		} else {
			error = word[1] == '-' ? parse_long(cursor, word + 2) :
						 parse_short(cursor, word + 1);
			if (error)
				return error;
		}
	}
	*ret_operands = operands;
	return 0;
}

int options_parse(const struct command *command, int argc, char **argv, int *ret_operands)
{
	struct cursor cursor = { .command = command, .argv = argv, .argc = argc };
	int operands, error;

	error = parse_words(&cursor, &operands);
	if (error)
		return error;
	if (no_color)
		output_disable_color();
	if (command_json_path) {
		command_json_wanted = true;
		if (strcmp(command_json_path, "-") == 0)
			command_json_path = NULL;
	}
	if (!command_help_wanted) {
		error = check_operands(command, operands, argv);
		if (error)
			return error;
	}
	*ret_operands = operands;
	return 0;
}
