/* SPDX-License-Identifier: MIT */
#include "cli/help.h"

#include <string.h>

#include "cli/output.h"

#define LONGEST_WORD  31
#define OPTION_COLUMN 24 /* where the explanations begin */

static unsigned int min3(unsigned int a, unsigned int b, unsigned int c)
{
	unsigned int least = a < b ? a : b;

	return least < c ? least : c;
}

unsigned int help_distance(const char *left, const char *right)
{
	unsigned int cost[LONGEST_WORD + 1][LONGEST_WORD + 1];
	size_t rows = strlen(left), columns = strlen(right), i, j;

	if (rows > LONGEST_WORD || columns > LONGEST_WORD)
		return (unsigned int)(rows > columns ? rows : columns);
	for (i = 0; i <= rows; i++)
		cost[i][0] = (unsigned int)i;
	for (j = 0; j <= columns; j++)
		cost[0][j] = (unsigned int)j;
	for (i = 1; i <= rows; i++)
		for (j = 1; j <= columns; j++) {
			cost[i][j] = min3(cost[i - 1][j] + 1, cost[i][j - 1] + 1,
					  cost[i - 1][j - 1] + (left[i - 1] != right[j - 1]));
			if (i > 1 && j > 1 && left[i - 1] == right[j - 2] &&
			    left[i - 2] == right[j - 1] && cost[i - 2][j - 2] + 1 < cost[i][j])
				cost[i][j] = cost[i - 2][j - 2] + 1;
		}
	return cost[rows][columns];
}

/* The nearest of the words offered so far, when it is near enough to be a slip of the finger. */
struct suggestion {
	const char *typed;
	const char *nearest;
	unsigned int distance;
};

static void suggest(struct suggestion *suggestion, const char *word)
{
	unsigned int limit = (unsigned int)strlen(suggestion->typed) / 3 + 1;
	unsigned int distance = help_distance(suggestion->typed, word);

	if (strlen(suggestion->typed) >= 2 &&
	    strncmp(suggestion->typed, word, strlen(suggestion->typed)) == 0)
		distance = 0;
	if (distance > limit || (suggestion->nearest && distance >= suggestion->distance))
		return;
	suggestion->nearest = word;
	suggestion->distance = distance;
}

void help_complain_verb(const char *name)
{
	struct suggestion suggestion = { .typed = name };
	const struct command *const *command;

	for (command = command_table; *command; command++)
		if (!(*command)->hidden)
			suggest(&suggestion, (*command)->name);
	if (suggestion.nearest)
		complain("there is no verb '%s'; did you mean '%s'?", name, suggestion.nearest);
	else
		complain("there is no verb '%s'; see: cow help", name);
}

static int suggest_option(const struct command_option *option, void *context)
{
	suggest(context, option->name);
	return 0;
}

void help_complain_option(const struct command *command, const char *name, size_t length)
{
	char typed[64];
	struct suggestion suggestion = { .typed = typed };

	snprintf(typed, sizeof(typed), "%.*s", length < 60 ? (int)length : 60, name);
	command_each_option(command, suggest_option, &suggestion);
	if (suggestion.nearest)
		complain("unknown option '--%s'; did you mean '--%s'?", typed, suggestion.nearest);
	else
		complain("unknown option '--%s'; see: cow help %s", typed, command->name);
}

void help_print_overview(FILE *stream)
{
	const struct command *const *command;

	fprintf(stream,
		"usage: cow VERB [options]\n\nCopy-on-write for live memory.\n\n%sverbs:%s\n",
		style(stream, STYLE_BOLD), style(stream, STYLE_NONE));
	for (command = command_table; *command; command++)
		if (!(*command)->hidden)
			fprintf(stream, "  %-12s %s\n", (*command)->name, (*command)->summary);
	fprintf(stream, "\n'cow help VERB' explains a verb; 'cow --version' prints the version.\n"
			"Exit status: 0 done, 1 failed or found, 2 wrong usage.\n");
}

/* The default of an option, or an empty string where it has none worth showing. */
static const char *format_default(const struct command_option *option, char *text, size_t size)
{
	char unit[UNIT_LENGTH];

	text[0] = '\0';
	switch (option->type) {
	case OPTION_FLAG:
		break;
	case OPTION_STRING:
	case OPTION_PATH:
		if (*option->value.string)
			snprintf(text, size, " (default: %s)", *option->value.string);
		break;
	case OPTION_COUNT:
		/* UINT64_MAX: not given, where 0 is a choice. */
		if (*option->value.number && *option->value.number != UINT64_MAX)
			snprintf(text, size, " (default: %" PRIu64 ")", *option->value.number);
		break;
	case OPTION_SIZE:
		if (*option->value.number)
			snprintf(text, size, " (default: %s)",
				 format_bytes(unit, *option->value.number));
		break;
	case OPTION_DURATION:
		if (*option->value.number)
			snprintf(text, size, " (default: %s)",
				 format_ns(unit, *option->value.number));
		break;
	}
	return text;
}

static int print_option(const struct command_option *option, void *context)
{
	FILE *stream = context;
	char left[64], letter[8] = "    ", text[256], standard[128];

	if (option->letter)
		snprintf(letter, sizeof(letter), "-%c, ", option->letter);
	snprintf(left, sizeof(left), "  %s--%s%s%s", letter, option->name,
		 option->argument ? " " : "", option->argument ? option->argument : "");
	if (strlen(left) < OPTION_COLUMN)
		fprintf(stream, "%-*s ", OPTION_COLUMN, left);
	else
		fprintf(stream, "%s\n%*s ", left, OPTION_COLUMN, "");
	snprintf(text, sizeof(text), "%s%s", option->help,
		 format_default(option, standard, sizeof(standard)));
	output_wrap(stream, OPTION_COLUMN + 1, text);
	return 0;
}

void help_print_command(const struct command *command, FILE *stream)
{
	fprintf(stream, "usage: cow %s [options]%s%s\n\n%s%s%s\n", command->name,
		command->synopsis ? " " : "", command->synopsis ? command->synopsis : "",
		style(stream, STYLE_BOLD), command->summary, style(stream, STYLE_NONE));
	if (command->description)
		fprintf(stream, "\n%s", command->description);
	fprintf(stream, "\noptions:\n");
	command_each_option(command, print_option, stream);
	/* What is hidden has no page of its own; cow(1) tells of it. */
	fprintf(stream, "\nSee also: man cow%s%s\n", command->hidden ? "" : "-",
		command->hidden ? "" : command->name);
}
