/* SPDX-License-Identifier: MIT */
/*
 * The layers of an overlay mount, from the last field of its line in /proc/PID/mountinfo.
 *
 * Two escapes lie over each other there. The kernel writes blanks, commas, equal signs and
 * backslashes as three octal digits; and who mounted has put a backslash before a colon that is
 * part of a path, since colons part the layers of lowerdir. "lowerdir+" and "datadir+" (Linux 6.8)
 * name one layer each, without the second escape. What follows "::" in lowerdir are layers with
 * data alone (6.5): no file is looked up in them by its name.
 */
#ifndef PROC_OVERLAY_H
#define PROC_OVERLAY_H

#include "proc/text.h"

#define PROC_OVERLAY_PATH 4096

enum proc_overlay_kind {
	PROC_OVERLAY_UPPER,
	PROC_OVERLAY_LOWER, /* topmost first */
	PROC_OVERLAY_DATA,
};

struct proc_overlay {
	struct text options; /* not yet looked at */
	struct text layers;  /* of the lowerdir that is being taken apart */
	enum proc_overlay_kind kind;
};

void proc_overlay_begin(struct text super_options, struct proc_overlay *ret_overlay);

/* Takes the next layer: 1, 0 at the end, -EINVAL (an empty path), -ENAMETOOLONG. */
int proc_overlay_next(struct proc_overlay *overlay, enum proc_overlay_kind *ret_kind,
		      char ret_path[PROC_OVERLAY_PATH]);

/* Whether an option without a value, such as "userxattr", is set. */
bool proc_overlay_has(struct text super_options, const char *name);

/* A path of mountinfo without its octal escapes; -ENAMETOOLONG where the room ends. */
int proc_mount_path(struct text escaped, char *to, size_t room);

#endif
