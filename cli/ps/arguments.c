/* SPDX-License-Identifier: MIT */
/*
 * The command lines of processes: nine called python3 are told apart by what they were started
 * with, and a service that names its workers (postgres: walwriter) writes that there.
 *
 * A process may write anything over its arguments; they are for people, and escaped where they
 * are printed. Kernel threads and zombies have none.
 */
#include <stdio.h>
#include <string.h>

#include "cli/output.h"
#include "cli/ps/ps.h"

#define MOST_BYTES 4096 /* of a command line; some have megabytes */

/* "a\0b c\0\0" as "a b c"; NULL where nothing is left. */
static char *join(struct text words)
{
	size_t length = text_length(words) < MOST_BYTES ? text_length(words) : MOST_BYTES, i;
	char *line;

	while (length && (words.at[length - 1] == '\0' || words.at[length - 1] == ' '))
		length--;
	if (!length)
		return NULL;
	line = output_realloc(NULL, length + 1);
	for (i = 0; i < length; i++)
		line[i] = words.at[i] ? words.at[i] : ' ';
	line[length] = '\0';
	return line;
}

void ps_read_arguments(const struct proc_root *root, struct ps_result *result)
{
	struct proc_buffer buffer = { 0 };
	struct text words;
	char path[40];
	size_t i;

	for (i = 0; i < result->count; i++) {
		snprintf(path, sizeof(path), "proc/%d/cmdline", (int)result->processes[i].pid);
		if (proc_root_read(root, path, &buffer, &words) == 0)
			result->processes[i].arguments = join(words);
	}
	proc_buffer_free(&buffer);
}
