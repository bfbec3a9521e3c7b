/* SPDX-License-Identifier: MIT */
/*
 * cow file: what files have on disk, and with whom they share it. The work is in cli/file/;
 * file.h says which part is where.
 */
#include <limits.h>

#include "cli/commands.h"
#include "cli/fd.h"
#include "cli/file/file.h"
#include "cli/output.h"

static bool recursive, every_file, one_file_system, extents, no_sync;

static const struct command_option options[] = {
	{
		.name = "recursive",
		.letter = 'r',
		.type = OPTION_FLAG,
		.help = "of a directory: everything below it",
		.value.flag = &recursive,
	},
	{
		.name = "all",
		.letter = 'a',
		.type = OPTION_FLAG,
		.help = "with --recursive: a row for each file, not only for each PATH",
		.value.flag = &every_file,
	},
	{
		.name = "one-file-system",
		.letter = 'x',
		.type = OPTION_FLAG,
		.help = "with --recursive: stay out of other mounts; subvolumes belong to theirs",
		.value.flag = &one_file_system,
	},
	{
		.name = "extents",
		.letter = 'e',
		.type = OPTION_FLAG,
		.help = "list the extents of each file, too",
		.value.flag = &extents,
	},
	{
		.name = "no-sync",
		.type = OPTION_FLAG,
		.help = "do not have the files written to disk first",
		.value.flag = &no_sync,
	},
	{ 0 },
};

static int run(const struct command *command, int argc, char **argv)
{
	const struct file_options how = {
		.recursive = recursive,
		.every_file = every_file || extents,
		.one_file_system = one_file_system,
		.no_sync = no_sync,
	};
	struct file_result result = { 0 };
	bool written = true;
	int i, status;

	if ((every_file || one_file_system) && !recursive) {
		complain("--%s needs --recursive", every_file ? "all" : "one-file-system");
		return COMMAND_USAGE;
	}
	for (i = 0; i < argc; i++)
		if (!argv[i][0]) {
			complain("an empty word is no PATH; give the name of a file or directory");
			return COMMAND_USAGE;
		}
	fd_allow_many(); /* a level of directories holds one */
	for (i = 0; i < argc; i++)
		file_add(&how, argv[i], &result);
	file_finish(&result);
	if (command_json_wanted)
		written = file_print_json(&result, extents);
	else
		file_print_text(&result, extents);
	status = written && !result.failed ? COMMAND_OK : COMMAND_FAILED;
	file_result_free(&result);
	return status;
}

const struct command command_file = {
	.name = "file",
	.summary = "show what files have on disk, and with whom they share it",
	.synopsis = "PATH...",
	.description =
		"Clones (reflinks), snapshots and overlay mounts share what lies on disk until\n"
		"somebody writes. By extent: what a file has for itself, what the file system\n"
		"says it shares with anybody, and what those named share among themselves; each\n"
		"place counted once in 'unique'. Of an overlay mount: what was copied up, what\n"
		"is still below.\n"
		"\n"
		"Layers of an overlay and files of others need the rights to read them; the rest\n"
		"needs none.\n",
	.options = options,
	.min_operands = 1,
	.max_operands = UINT_MAX >> 1,
	.files = true,
	.json = COMMAND_JSON_STDOUT,
	.run = run,
};
