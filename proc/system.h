/* SPDX-License-Identifier: MIT */
/*
 * What /proc and /sys say about the machine, and settings in the files of programs.
 */
#ifndef PROC_SYSTEM_H
#define PROC_SYSTEM_H

#include "proc/keyed.h"

/* /proc/meminfo; bytes, KEYED_ABSENT where a kernel does not tell. */
struct proc_meminfo {
	uint64_t total, available;
	uint64_t swap_total, swap_free;
	uint64_t commit_limit, committed;
};

/* -ENODATA where even the total is missing. */
int proc_meminfo_parse(struct text text, struct proc_meminfo *ret_meminfo);

/* Of "always [madvise] never" the one in brackets; -EINVAL where there is none. */
int proc_choice_parse(struct text text, struct text *ret_choice);

/*
 * The path of a process in a hierarchy, from /proc/PID/cgroup: of a version 1 controller, or of
 * version 2 where controller is "". -ENOENT where it is in none.
 */
int proc_cgroup_find(struct text text, const char *controller, struct text *ret_path);

/* A line of /proc/PID/mountinfo. Blanks in paths stand there as \040, and here. */
struct proc_mount {
	uint64_t id;       /* as statx() tells it */
	struct text root;  /* what of the file system is mounted */
	struct text point; /* where */
	struct text type, super_options;
};

/* Takes the next line: 1, 0 at the end, or -EINVAL. */
int proc_mount_next(struct text *mountinfo, struct proc_mount *ret_mount);

/*
 * The last "name = value" of a configuration file like PostgreSQL's, without quotes and comments;
 * -ENOENT where there is none.
 */
int proc_setting_find(struct text text, const char *name, struct text *ret_value);

/* "128MB", "16384" (in units of unit_bytes), "1.5GB" is refused: -EINVAL; -ERANGE. */
int proc_setting_size(struct text value, uint64_t unit_bytes, uint64_t *ret_bytes);

#endif
