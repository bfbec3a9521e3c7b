/* SPDX-License-Identifier: MIT */
/*
 * The one setting of the system that counting may need: kernel.task_delayacct. It is changed only
 * where the user allowed it, and put back when the command ends.
 *
 * Limit: two commands that change it at once do not know of each other; the first to end puts it
 * back. SIGKILL leaves it on, which costs a few nanoseconds when a task waits.
 */
#ifndef CLI_STAT_TUNING_H
#define CLI_STAT_TUNING_H

#include <stdbool.h>

bool tuning_delays_are_counted(void);

/* Switches the accounting on for tasks that start from now: 0 or a negative errno. */
int tuning_count_delays(void);

/* Whether this process switched it on. */
bool tuning_is_ours(void);

/* Puts back what was changed; also runs when the process exits. */
void tuning_restore(void);

#endif
