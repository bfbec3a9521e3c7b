/* SPDX-License-Identifier: MIT */
/*
 * The kernel's answers and exit records of taskstats: generic netlink, bytes in, structs out.
 *
 * The record is versioned and grows at its end; what an older kernel does not report is absent.
 * Version 15 (about Linux 6.14) put new fields into the middle, version 16 took that back: 15 is
 * refused.
 */
#ifndef PROC_TASKSTATS_H
#define PROC_TASKSTATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TASKSTATS_COMMAND 32

struct proc_taskstats {
	bool process; /* of a whole process that has ended, or was asked for; else of one thread */
	uint32_t id;  /* the thread's or the process's */
	uint32_t version;
	uint32_t tgid;   /* 0: not reported (before Linux 5.18), or of a process */
	uint32_t parent; /* */
	char command[TASKSTATS_COMMAND];
	uint64_t minor_faults, major_faults;
	bool has_copies; /* since version 13 (Linux 5.18) */
	uint64_t copies, copy_ns;
};

/*
 * Calls visit for each record of a datagram that may hold several messages of the family.
 * Returns 0, the first error that a message of the kernel carries, -EPROTO for what cannot be
 * read, -EPROTONOSUPPORT for a version that is not understood.
 */
int taskstats_parse(const void *bytes, size_t length, uint16_t family,
		    void (*visit)(const struct proc_taskstats *record, void *context),
		    void *context);

/* The number of a family in the answer to CTRL_CMD_GETFAMILY: 0, or as above. */
int taskstats_parse_family(const void *bytes, size_t length, uint16_t *ret_family);

#endif
