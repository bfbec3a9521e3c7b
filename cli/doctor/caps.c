/* SPDX-License-Identifier: MIT */
/* Which privileges this process has, and what each one brings to the verbs of the command. */
#include <errno.h>

#include "cli/doctor/doctor.h"

/* As in <linux/capability.h>; the newest of them are missing in older headers. */
enum { NET_ADMIN = 12, SYS_PTRACE = 19, SYS_ADMIN = 21, PERFMON = 38, BPF = 39 };

static struct privilege privileges[] = {
	{ "CAP_SYS_ADMIN",
	  "frame numbers: cow ps says what is unique and who shares with whom, and --fast", 0 },
	{ "CAP_SYS_PTRACE", "processes of other users: cow ps and cow doctor --pid", 0 },
	{ "CAP_NET_ADMIN", "the kernel's counts of copies (taskstats): cow stat", 0 },
	{ "CAP_PERFMON", "tracepoints of page faults: cow stat tells copied from reused pages", 0 },
	{ "CAP_BPF",
	  "programs on tracepoints, with CAP_PERFMON: cow stat's copies without sampling loss", 0 },
	{ NULL, NULL, 0 },
};

static const int numbers[] = { SYS_ADMIN, SYS_PTRACE, NET_ADMIN, PERFMON, BPF };

/* CAP_SYS_ADMIN held the rights of CAP_PERFMON and CAP_BPF before Linux 5.8, and still has them. */
static bool holds(uint64_t set, int number)
{
	if (set & UINT64_C(1) << number)
		return true;
	return (number == PERFMON || number == BPF) && (set & UINT64_C(1) << SYS_ADMIN);
}

const struct privilege *doctor_privileges(struct doctor *doctor)
{
	struct proc_status status = { 0 };
	struct text text;
	size_t i;

	if (!doctor_read(doctor, "proc/self/status", &text) || proc_status_parse(text, &status) < 0)
		status.effective_capabilities = 0;
	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		privileges[i].present = holds(status.effective_capabilities, numbers[i]);
	return privileges;
}
