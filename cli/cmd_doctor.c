/* SPDX-License-Identifier: MIT */
/*
 * cow doctor: what copy-on-write will cost on this machine, and what a fork of a process would. The
 * work is in cli/doctor/.
 *
 * Its exit status is the worst finding, as monitoring wants it: 0, 1, 2. Hence what other verbs say
 * with 1 and 2 (failed, wrong usage) is 3 here, "cannot tell".
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/doctor/doctor.h"
#include "cli/options.h"
#include "cli/output.h"

static const char *pid_text, *earlier, *sysroot;
static bool caps;

static const struct command_option options[] = {
	{
		.name = "pid",
		.letter = 'p',
		.type = OPTION_STRING,
		.argument = "PID",
		.help = "what a fork of this process would cost, and whether it fits",
		.value.string = &pid_text,
	},
	{
		.name = "earlier",
		.type = OPTION_PATH,
		.argument = "FILE",
		.help = "with --pid: a report of cow stat --json over an earlier fork",
		.value.string = &earlier,
	},
	{
		.name = "caps",
		.type = OPTION_FLAG,
		.help = "name each missing privilege, and what it would bring",
		.value.flag = &caps,
	},
	{
		.name = "sysroot",
		.type = OPTION_PATH,
		.argument = "DIR",
		.help = "read a captured tree, DIR/proc and DIR/sys, instead of this machine's",
		.value.string = &sysroot,
	},
	{ 0 },
};

static void look_at_all(struct doctor *doctor, pid_t pid)
{
	struct text text;

	doctor->container = doctor_is_container(doctor);
	doctor->memory = (struct proc_meminfo){ KEYED_ABSENT, KEYED_ABSENT, KEYED_ABSENT,
						KEYED_ABSENT, KEYED_ABSENT, KEYED_ABSENT };
	if (doctor_read(doctor, "proc/meminfo", &text) &&
	    proc_meminfo_parse(text, &doctor->memory) < 0)
		doctor->unreadable++;
	doctor_look_at_memory(doctor);
	doctor_look_at_cgroups(doctor, pid);
	doctor_look_at_machine(doctor);
	doctor_look_at_file_systems(doctor);
	doctor_look_at_postgresql(doctor);
}

static int status_of(enum level level)
{
	return level == LEVEL_CRITICAL ? 2 : level == LEVEL_WARNING ? 1 : COMMAND_OK;
}

static int examine(struct doctor *doctor, pid_t pid)
{
	const struct privilege *privileges = caps ? doctor_privileges(doctor) : NULL;
	struct fork_cost cost;
	bool written = true;

	look_at_all(doctor, pid);
	if (!doctor->count || doctor->looked == doctor->unreadable) {
		complain("nothing could be read under %s; is it a captured tree with proc/ in it?",
			 sysroot ? sysroot : "/proc");
		return COMMAND_UNKNOWN;
	}
	if (pid && doctor_look_at_fork(doctor, pid, earlier, &cost) < 0)
		return COMMAND_UNKNOWN;
	if (command_json_wanted)
		written = doctor_print_json(doctor, pid ? &cost : NULL, privileges);
	else
		doctor_print_text(doctor, pid ? &cost : NULL, privileges);
	if (!written || (!command_json_wanted && !output_finish()))
		return COMMAND_UNKNOWN;
	return status_of(doctor_worst(doctor));
}

static int run(const struct command *command, int argc, char **argv)
{
	struct doctor doctor = { 0 };
	int status, error;
	pid_t pid = 0;

	if (pid_text && !options_parse_pid("pid", pid_text, &pid))
		return COMMAND_UNKNOWN;
	if (earlier && !pid_text) {
		complain("--earlier is about a process; give --pid PID, too");
		return COMMAND_UNKNOWN;
	}
	error = proc_root_open(sysroot, &doctor.root);
	if (error) {
		complain_errno(error, "cannot open %s", sysroot ? sysroot : "/");
		return COMMAND_UNKNOWN;
	}
	status = examine(&doctor, pid);
	free(doctor.findings);
	proc_buffer_free(&doctor.buffer);
	proc_root_close(&doctor.root);
	return status;
}

const struct command command_doctor = {
	.name = "doctor",
	.summary = "say what copy-on-write will cost here, and what a fork would",
	.description =
		"Looks at settings and limits of the machine, at its file systems and PostgreSQL\n"
		"servers, and says what each means here, what to do, and how we know.\n"
		"\n"
		"Ends with 0 where all is well, 1 with a warning, 2 where something is critical,\n"
		"and 3 where it cannot tell (wrong usage, too).\n",
	.options = options,
	.json = COMMAND_JSON_STDOUT,
	.usage_status = COMMAND_UNKNOWN,
	.run = run,
};
