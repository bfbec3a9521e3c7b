/* SPDX-License-Identifier: MIT */
/* cow: the table of verbs, and the way into one of them. */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cow.h>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/report.h"
#include "config.h"

/* One verb a line. */
/* clang-format off */
const struct command *const command_table[] = {
	&command_bench,
#ifdef COW_HAVE_DEMO
	&command_demo,
#endif
	&command_doctor,
	&command_file,
	&command_probe,
	&command_ps,
	&command_stat,
	&command_store,
	&command_walk,
	&command_version,
	&command_help,
	&command_completion,
	NULL,
};
/* clang-format on */

const struct command *command_find(const char *name)
{
	const struct command *const *command;

	for (command = command_table; *command; command++)
		if (strcmp((*command)->name, name) == 0)
			return *command;
	return NULL;
}

/*
 * A standard descriptor that the caller closed would be taken by the next file opened, which
 * would then receive the output: put something in its place on which reads and writes fail.
 */
static void occupy_standard_descriptors(void)
{
	int fd, opened;

	for (fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF)
			continue;
		/* Not O_CLOEXEC: a program that a verb runs needs it as much. */
		opened = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
		if (opened >= 0 && opened != fd)
			close(opened);
	}
}

static int run_command(const struct command *command, int argc, char **argv)
{
	int operands;

	output_set_verb(command->name);
	if (options_parse(command, argc, argv, &operands) < 0)
		return command->usage_status ? command->usage_status : COMMAND_USAGE;
	if (command_help_wanted) {
		help_print_command(command, stdout);
		return COMMAND_OK;
	}
	if (command_json_wanted && !report_check_path(command_json_path))
		return COMMAND_FAILED;
	return command->run(command, operands, argv);
}

static bool is_option(const char *word, const char *name, const char *letter)
{
	return strcmp(word, name) == 0 || strcmp(word, letter) == 0;
}

/* "cow --help VERB" is "cow help VERB". */
static const char *verb_name(const char *word)
{
	return is_option(word, "--help", "-h") ? "help" : word;
}

/* The command and the library may come from different builds. */
static int print_version(void)
{
	printf("cow %s (libcow %s)\n", COW_PACKAGE_VERSION, cow_version());
	return output_finish() ? COMMAND_OK : COMMAND_FAILED;
}

int main(int argc, char **argv)
{
	const struct command *command;
	int status;

	occupy_standard_descriptors();
	setlocale(LC_CTYPE, "");
	/*
	 * A closed pipe is an error to report, after temporary files are gone, not a silent end. A
	 * verb that runs a program sets this back for it: ignored signals outlive exec.
	 */
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		help_print_overview(stderr);
		return COMMAND_USAGE;
	}
	if (is_option(argv[1], "--version", "-V"))
		return print_version();
	command = command_find(verb_name(argv[1]));
	if (!command && argv[1][0] == '-') {
		complain("unknown option '%s'; a verb comes first, see: cow help", argv[1]);
		return COMMAND_USAGE;
	}
	if (!command) {
		help_complain_verb(argv[1]);
		return COMMAND_USAGE;
	}
	status = run_command(command, argc - 2, argv + 2);
	if (!output_finish() && status == COMMAND_OK)
		status = COMMAND_FAILED;
	return status;
}
