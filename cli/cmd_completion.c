/* SPDX-License-Identifier: MIT */
/*
 * cow completion SHELL: prints the completion script for a shell, made from the table of verbs.
 * `cow completion list` prints what the table holds, a line an option, for tests of the manual.
 */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/output.h"

static const char *const shells[] = { "bash", "zsh", "fish", "list", NULL };

static void each_verb(void (*print)(const struct command *command))
{
	const struct command *const *command;

	for (command = command_table; *command; command++)
		if (!(*command)->hidden)
			print(*command);
}

static void print_name(const struct command *command)
{
	printf(" %s", command->name);
}

/* What completes a verb's first operand: the words it lists, or for `help` the verbs. */
static void print_operands(const struct command *command)
{
	const char *const *word;

	for (word = command->operands; word && *word; word++)
		printf(" %s", *word);
	if (command == &command_help)
		each_verb(print_name);
}

static int bash_option(const struct command_option *option, void *context)
{
	printf(" --%s", option->name);
	if (option->letter)
		printf(" -%c", option->letter);
	return 0;
}

static int bash_path_option(const struct command_option *option, void *context)
{
	if (option->type == OPTION_PATH)
		printf("|%s:--%s", (const char *)context, option->name);
	if (option->type == OPTION_PATH && option->letter)
		printf("|%s:-%c", (const char *)context, option->letter);
	return 0;
}

static void bash_verb_paths(const struct command *command)
{
	command_each_option(command, bash_path_option, (void *)command->name);
}

static void bash_verb(const struct command *command)
{
	printf("\t%s) words=\"", command->name);
	print_operands(command);
	printf("\" files=\"%s\" options=\"", command->stop_at_operand ? "-c -f" :
					     command->files           ? "-f" :
									"");
	command_each_option(command, bash_option, NULL);
	printf("\" ;;\n");
}

static void print_bash(void)
{
	printf("# Completion of cow for bash, made by: cow completion bash\n"
	       "_cow() {\n"
	       "\tlocal current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
	       "\tlocal verb=${COMP_WORDS[1]} words= files= options=\n"
	       "\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n"
	       "\t\tCOMPREPLY=($(compgen -W '");
	each_verb(print_name);
	printf(" --help --version' -- \"$current\"))\n"
	       "\t\treturn\n"
	       "\tfi\n"
	       "\tcase $verb:$previous in\n"
	       "\t-:-");
	each_verb(bash_verb_paths);
	printf(")\n"
	       "\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
	       "\t\treturn ;;\n"
	       "\tesac\n"
	       "\tcase $verb in\n");
	each_verb(bash_verb);
	printf("\tesac\n"
	       "\tif [[ $current == -* || -z $words$files ]]; then\n"
	       "\t\tCOMPREPLY=($(compgen -W \"$options\" -- \"$current\"))\n"
	       "\t\treturn\n"
	       "\tfi\n"
	       "\tCOMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
	       "\tif [ -n \"$files\" ] && [[ -z $words || $COMP_CWORD -gt 2 ]]; then\n"
	       "\t\tmapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen $files -- \"$current\")\n"
	       "\tfi\n"
	       "}\n"
	       "complete -o filenames -F _cow cow\n");
}

/* Text inside single quotes, where `special` characters get a backslash before them. */
static void print_quoted(const char *text, const char *special)
{
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\'", stdout);
		else if (strchr(special, *text))
			putchar('\\');
		putchar(*text);
	}
}

static void zsh_spec(const char *dashes, const char *name, const struct command_option *option)
{
	printf(" \\\n\t\t\t'%s%s[", dashes, name);
	print_quoted(option->help, "[]:\\");
	putchar(']');
	if (option->argument)
		printf(":%s:%s", option->argument, option->type == OPTION_PATH ? "_files" : "");
	putchar('\'');
}

static int zsh_option(const struct command_option *option, void *context)
{
	const char letter[] = { option->letter, '\0' };

	zsh_spec("--", option->name, option);
	if (option->letter)
		zsh_spec("-", letter, option);
	return 0;
}

static void zsh_verb(const struct command *command)
{
	printf("\t%s)\n\t\t_arguments", command->name);
	command_each_option(command, zsh_option, NULL);
	if (command->operands || command == &command_help) {
		printf(" \\\n\t\t\t'1:word:(");
		print_operands(command);
		printf(")'");
	}
	if (command->stop_at_operand)
		printf(" \\\n\t\t\t'*::command:_normal'");
	else if (command->files)
		printf(" \\\n\t\t\t'*:file:_files'");
	printf(" ;;\n");
}

static void zsh_name(const struct command *command)
{
	printf("\t\t\t'%s:", command->name);
	print_quoted(command->summary, ":\\");
	printf("'\n");
}

static void print_zsh(void)
{
	printf("#compdef cow\n"
	       "# Completion of cow for zsh, made by: cow completion zsh\n"
	       "_cow() {\n"
	       "\tlocal -a verbs\n"
	       "\tif (( CURRENT == 2 )); then\n"
	       "\t\tverbs=(\n");
	each_verb(zsh_name);
	printf("\t\t)\n"
	       "\t\t_describe verb verbs\n"
	       "\t\treturn\n"
	       "\tfi\n"
	       "\tshift words\n"
	       "\t(( CURRENT-- ))\n"
	       "\tcase $words[1] in\n");
	each_verb(zsh_verb);
	printf("\tesac\n"
	       "}\n"
	       "_cow \"$@\"\n");
}

static int fish_option(const struct command_option *option, void *context)
{
	printf("complete -c cow -n '__fish_seen_subcommand_from %s' -l %s", (const char *)context,
	       option->name);
	if (option->letter)
		printf(" -s %c", option->letter);
	if (option->argument)
		printf(" -r%s", option->type == OPTION_PATH ? " -F" : "");
	printf(" -d '");
	print_quoted(option->help, "\\");
	printf("'\n");
	return 0;
}

static void fish_verb(const struct command *command)
{
	printf("complete -c cow -n __fish_use_subcommand -a %s -d '", command->name);
	print_quoted(command->summary, "\\");
	printf("'\n");
	command_each_option(command, fish_option, (void *)command->name);
	if (command->operands || command == &command_help) {
		printf("complete -c cow -n '__fish_seen_subcommand_from %s' -a '", command->name);
		print_operands(command);
		printf("'\n");
	}
	if (command->files || command->stop_at_operand)
		printf("complete -c cow -n '__fish_seen_subcommand_from %s' -F\n", command->name);
}

static void print_fish(void)
{
	printf("# Completion of cow for fish, made by: cow completion fish\n"
	       "complete -c cow -f\n");
	each_verb(fish_verb);
}

static int list_option(const struct command_option *option, void *context)
{
	printf("%s --%s\n", (const char *)context, option->name);
	if (option->letter)
		printf("%s -%c\n", (const char *)context, option->letter);
	return 0;
}

static void list_verb(const struct command *command)
{
	printf("%s\n", command->name);
	command_each_option(command, list_option, (void *)command->name);
}

static int run(const struct command *command, int argc, char **argv)
{
	if (strcmp(argv[0], "bash") == 0) {
		print_bash();
	} else if (strcmp(argv[0], "zsh") == 0) {
		print_zsh();
	} else if (strcmp(argv[0], "fish") == 0) {
		print_fish();
	} else if (strcmp(argv[0], "list") == 0) {
		each_verb(list_verb);
	} else {
		complain("there is no completion for '%s'; give bash, zsh or fish", argv[0]);
		return COMMAND_USAGE;
	}
	return COMMAND_OK;
}

const struct command command_completion = {
	.name = "completion",
	.summary = "print the completion script for a shell",
	.synopsis = "bash|zsh|fish",
	.min_operands = 1,
	.max_operands = 1,
	.operands = shells,
	.hidden = true,
	.run = run,
};
