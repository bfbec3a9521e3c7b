/* SPDX-License-Identifier: MIT */
/*
 * cow probe: what the kernel, the container and the user allow libcow to do, and how to be allowed
 * more. The work is in cli/probe/.
 */
#include <string.h>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/probe/probe.h"

static const char *required;

static const struct command_option options[] = {
	{
		.name = "require",
		.letter = 'r',
		.type = OPTION_STRING,
		.argument = "TRAP",
		.help = "end with 1 unless it is to be had: a trap, or kernel-writes",
		.value.string = &required,
	},
	{ 0 },
};

#define KERNEL_WRITES PROBE_TRAPS /* of the thread trap; beside the traps' numbers */

/* -1: no such trap. */
static int required_trap(void)
{
	int trap;

	if (strcmp(required, "kernel-writes") == 0)
		return KERNEL_WRITES;
	for (trap = 0; trap < PROBE_TRAPS; trap++)
		if (probe_trap_names[trap] && strcmp(required, probe_trap_names[trap]) == 0)
			return trap;
	complain("--require: '%s' is none of signal, thread, mprotect, explicit, kernel-writes",
		 required);
	return -1;
}

static bool is_to_be_had(const struct probe_facts *facts, int trap)
{
	if (trap == KERNEL_WRITES)
		return facts->system.trap_error[COW_TRAP_THREAD] == 0 &&
		       facts->system.kernel_faults;
	return facts->system.trap_error[trap] == 0;
}

static int run(const struct command *command, int argc, char **argv)
{
	int trap = COW_TRAP_AUTO, error;
	struct probe_facts facts;

	if (required) {
		trap = required_trap();
		if (trap < 0)
			return COMMAND_USAGE;
	}
	error = probe_look(&facts);
	if (error) {
		complain_errno(error, "cannot find out what is allowed here");
		return COMMAND_FAILED;
	}
	if (command_json_wanted && !probe_print_json(&facts))
		return COMMAND_FAILED;
	if (!command_json_wanted)
		probe_print_text(&facts);
	return is_to_be_had(&facts, trap) ? COMMAND_OK : COMMAND_FAILED;
}

const struct command command_probe = {
	.name = "probe",
	.summary = "show which traps can be had here, why not, and how to get a better one",
	.description =
		"Tries, with the library's own calls, what the kernel, the container and the\n"
		"user allow, and says why something is refused, which trap COW_TRAP_AUTO takes,\n"
		"and what an administrator can do about it.\n",
	.options = options,
	.json = COMMAND_JSON_STDOUT,
	.run = run,
};
