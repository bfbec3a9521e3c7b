/* SPDX-License-Identifier: MIT */
#include "cli/commands.h"
#include "cli/help.h"

static int run(const struct command *command, int argc, char **argv)
{
	const struct command *topic;

	if (!argc) {
		help_print_overview(stdout);
		return COMMAND_OK;
	}
	topic = command_find(argv[0]);
	if (!topic) {
		help_complain_verb(argv[0]);
		return COMMAND_USAGE;
	}
	help_print_command(topic, stdout);
	return COMMAND_OK;
}

const struct command command_help = {
	.name = "help",
	.summary = "explain cow or one of its verbs",
	.synopsis = "[VERB]",
	.max_operands = 1,
	.run = run,
};
