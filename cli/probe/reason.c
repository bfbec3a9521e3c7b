/* SPDX-License-Identifier: MIT */
/*
 * Why something is refused. EPERM alone says little: for the call that serves the kernel's accesses
 * it is the ordinary answer to users without privilege (vm.unprivileged_userfaultfd), while the one
 * of user mode is everybody's since Linux 5.11, so that there it can only be a filter of system
 * calls or a security module. ENOSYS is a filter's answer, too, unless the kernel has no sysctl for
 * it either: then it was built without.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/output.h"
#include "cli/probe/probe.h"

const char *const probe_trap_names[PROBE_TRAPS] = {
	[COW_TRAP_SIGNAL] = "signal",
	[COW_TRAP_THREAD] = "thread",
	[COW_TRAP_MPROTECT] = "mprotect",
	[COW_TRAP_EXPLICIT] = "explicit",
};

const struct probe_feature probe_features[] = {
	{ COW_FEATURE_WRITE_PROTECT, "write_protect", "5.7, on arm64 6.10",
	  "no signal and no thread trap" },
	{ COW_FEATURE_WRITE_PROTECT_SHARED, "write_protect_shared", "5.19",
	  "no signal and no thread trap" },
	{ COW_FEATURE_WRITE_PROTECT_EMPTY, "write_protect_empty", "6.4",
	  "pages without content get the zero page before they are protected" },
	{ COW_FEATURE_WRITE_PROTECT_ASYNC, "write_protect_async", "6.7", NULL },
	{ COW_FEATURE_SIGBUS, "sigbus", "4.14", "no signal trap" },
	{ COW_FEATURE_MINOR, "minor", "5.14", NULL },
	{ COW_FEATURE_MOVE, "move", "6.8", NULL },
	{ COW_FEATURE_PAGEMAP_SCAN, "pagemap_scan", "6.7",
	  "content of long reserved ranges is looked for page by page" },
	{ 0, NULL, NULL, NULL },
};

static bool is_filtered(const struct probe_facts *facts)
{
	return facts->system.user_call_error != 0 && facts->unprivileged != PROBE_UNKNOWN;
}

const char *probe_why_user_call(const struct probe_facts *facts)
{
	switch (facts->system.user_call_error) {
	case 0:
		return "";
	case -ENOSYS:
		return is_filtered(facts) ? "a filter of system calls (seccomp) hides it" :
					    "this kernel was built without userfaultfd";
	case -EPERM:
	case -EACCES:
		return facts->filter == FILTER_PROGRAM ?
			       "a filter of system calls (seccomp) refuses it" :
			       "a security module refuses it";
	default:
		return strerror(-facts->system.user_call_error);
	}
}

const char *probe_why_call(const struct probe_facts *facts)
{
	if (facts->system.call_error == 0)
		return "";
	if (facts->system.user_call_error != 0)
		return probe_why_user_call(facts);
	if (facts->system.call_error == -EPERM && !probe_has(facts, PROBE_CAP_PTRACE))
		return "vm.unprivileged_userfaultfd is 0, and there is no CAP_SYS_PTRACE";
	return strerror(-facts->system.call_error);
}

const char *probe_why_device(const struct probe_facts *facts)
{
	switch (facts->system.device_error) {
	case 0:
		return "";
	case -ENOENT:
	case -ENXIO:
		return facts->container ? "the container has no /dev/userfaultfd" :
					  "no /dev/userfaultfd (Linux 6.1)";
	case -EPERM:
	case -EACCES:
		return facts->device.exists && (facts->device.mode & 0006) == 0006 ?
			       "the container's rules for devices refuse it" :
			       "its permissions";
	default:
		return strerror(-facts->system.device_error);
	}
}

const char *probe_why_pagemap(const struct probe_facts *facts)
{
	switch (facts->system.pagemap_error) {
	case 0:
		return "";
	case -ENOENT:
		return "no /proc is mounted";
	case -EACCES:
	case -EPERM:
		return "it belongs to another user: who changed theirs is not dumpable";
	default:
		return strerror(-facts->system.pagemap_error);
	}
}

static const char *why_userfaultfd(const struct probe_facts *facts, int error)
{
	const struct cow_system *system = &facts->system;

	if (system->user_call_error != 0 && system->device_error != 0)
		return probe_why_user_call(facts);
	if (system->pagemap_error != 0)
		return "/proc/self/pagemap cannot be read";
	if (!(system->features & COW_FEATURE_WRITE_PROTECT))
		return "this kernel's userfaultfd cannot protect against writing";
	return strerror(-error);
}

void probe_why_trap(const struct probe_facts *facts, enum cow_trap trap, char *text, size_t room)
{
	int error = facts->system.trap_error[trap];
	char count[UNIT_LENGTH];

	text[0] = '\0';
	if (error != 0)
		snprintf(text, room, "%s", why_userfaultfd(facts, error));
	else if (trap == COW_TRAP_EXPLICIT)
		snprintf(text, room, "the program brackets its writes");
	else if (trap == COW_TRAP_SIGNAL)
		snprintf(text, room, "system calls that write into a region need a bracket");
	else if (trap == COW_TRAP_THREAD)
		snprintf(text, room,
			 facts->system.kernel_faults ?
				 "system calls may write into a region" :
				 "system calls that write into a region need a bracket");
	else if (trap == COW_TRAP_MPROTECT && facts->map_count != PROBE_UNKNOWN)
		snprintf(text, room, "at most some %s runs of written pages between two cuts",
			 format_count(count, facts->map_count / 2));
}

/* --- what to do --- */

struct list {
	struct probe_advice *advice;
	unsigned count;
};

static void add(struct list *list, const char *what, const char *command, const char *note)
{
	if (list->count < PROBE_ADVICE_MAX)
		list->advice[list->count++] = (struct probe_advice){ what, command, note };
}

static void advise_on_device(const struct probe_facts *facts, struct list *list)
{
	if (facts->container && !facts->device.exists)
		add(list, "in a container", "docker run --device /dev/userfaultfd ...",
		    "podman alike; its permissions must let the container's user");
	else if (facts->device.exists)
		add(list, "for one user, until the next boot",
		    "setfacl -m u:USER:rw /dev/userfaultfd", "as root");
	if (facts->device.exists && !facts->container)
		add(list, "for a group, for good",
		    "KERNEL==\"userfaultfd\", GROUP=\"GROUP\", MODE=\"0660\"",
		    "a line of /etc/udev/rules.d/60-userfaultfd.rules");
}

static void advise_on_filter(const struct probe_facts *facts, struct list *list)
{
	add(list, facts->container ? "in a container" : "where a container's profile filters",
	    "docker run --security-opt seccomp=PROFILE.json ...",
	    "the engine's default profile with userfaultfd among the allowed calls; to try: "
	    "seccomp=unconfined");
	add(list, "where systemd filters", "SystemCallFilter=userfaultfd",
	    "in the unit's [Service], after its other filters");
}

static void advise_on_privilege(struct list *list)
{
	add(list, "for one service", "AmbientCapabilities=CAP_SYS_PTRACE",
	    "in the unit's [Service]; it lets the service debug others of its user, too");
	add(list, "for everybody", "sysctl vm.unprivileged_userfaultfd=1",
	    "as root; any program can then hold up the kernel's own accesses, which exploits use");
}

unsigned probe_advise(const struct probe_facts *facts, struct probe_advice advice[PROBE_ADVICE_MAX])
{
	const struct cow_system *system = &facts->system;
	struct list list = { advice, 0 };

	if (system->trap_error[COW_TRAP_THREAD] == 0 && system->kernel_faults)
		return 0;
	if (system->pagemap_error == -ENOENT)
		add(&list, "first of all", "mount -t proc proc /proc",
		    "as root, or in the container");
	else if (system->pagemap_error != 0)
		add(&list, "in the program", "prctl(PR_SET_DUMPABLE, 1)",
		    "after it changed its user");
	if (system->device_error != 0 && system->call_error != 0)
		advise_on_device(facts, &list);
	if (is_filtered(facts))
		advise_on_filter(facts, &list);
	else if (system->call_error == -EPERM)
		advise_on_privilege(&list);
	if (system->auto_trap == COW_TRAP_MPROTECT)
		add(&list, "to stay with mprotect", "sysctl vm.max_map_count=1048576",
		    "as root: each run of written pages is a mapping");
	return list.count;
}
