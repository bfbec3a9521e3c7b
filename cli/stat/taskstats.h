/* SPDX-License-Identifier: MIT */
/*
 * The kernel's own count of copies after write faults, and the time they took (taskstats).
 *
 * Needs kernel.task_delayacct=1, CAP_NET_ADMIN, Linux 5.18, and the first namespaces of users and
 * processes (no container's). Includes replaced pages of zeroes and hugetlb pages; tasks that
 * started before the accounting was switched on count nothing. It names processes that have ended,
 * but not what they belong to: another source has to know the target's processes.
 */
#ifndef CLI_STAT_TASKSTATS_H
#define CLI_STAT_TASKSTATS_H

#include "cli/stat/stat.h"

/*
 * The targets have to be in the session's table. Returns 0 or a negative errno: -ENODATA where
 * accounting is off, -EPERM without privilege, -EOPNOTSUPP where the kernel's records lack copies.
 */
int taskstats_source_start(struct session *session);

/* Copies go to the processes only where no better source counts them. */
void taskstats_source_read(struct session *session);
void taskstats_source_drain(struct session *session);

void taskstats_source_free(struct taskstats_source *source);

#endif
