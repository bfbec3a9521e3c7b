/* SPDX-License-Identifier: MIT */
/*
 * cow walk: what a fork does to page tables, step by step, in a small process of its own. The work
 * is in cli/walk/; walk.h says which part is where.
 */
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/report.h"
#include "cli/walk/walk.h"

static const char *svg;
static bool huge;

static const struct command_option options[] = {
	{
		.name = "svg",
		.type = OPTION_PATH,
		.argument = "FILE",
		.help = "draw a picture, too; with -, print it instead of text",
		.value.string = &svg,
	},
	{
		.name = "huge",
		.type = OPTION_FLAG,
		.help = "with a huge page among the others",
		.value.flag = &huge,
	},
	{ 0 },
};

static int run(const struct command *command, int argc, char **argv)
{
	const bool only_picture = report_is_stdout(svg);
	struct walk walk;

	if (only_picture && command_json_wanted) {
		complain("--svg - and --json both want standard output; give the picture a FILE");
		return COMMAND_USAGE;
	}
	if (svg && !report_check_path(svg))
		return COMMAND_FAILED;
	if (walk_run(huge, &walk) < 0)
		return COMMAND_FAILED;
	if (svg && !walk_draw(&walk, svg))
		return COMMAND_FAILED;
	if (command_json_wanted && !walk_print_json(&walk))
		return COMMAND_FAILED;
	if (!command_json_wanted && !only_picture)
		walk_print_text(&walk);
	return walk.contradictions ? COMMAND_FAILED : COMMAND_OK;
}

const struct command command_walk = {
	.name = "walk",
	.summary = "walk through a fork: page tables, frames and faults, step by step",
	.description =
		"A small process forks; the child writes, the parent writes, the child exits.\n"
		"After each step both page tables are shown: frames, how often each is mapped,\n"
		"and what is write-protected, which the faults of the writes then prove. Beside\n"
		"them the same steps in libcow's core on a simulated MMU.\n"
		"\n"
		"Frame numbers need CAP_SYS_ADMIN; without it the rest is shown.\n",
	.options = options,
	.json = COMMAND_JSON_STDOUT,
	.run = run,
};
