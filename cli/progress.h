/* SPDX-License-Identifier: MIT */
/*
 * A line on standard error that says how far a long step is; erased when the step is over. It
 * appears only on a terminal, is redrawn ten times a second at most, and makes way for messages.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdint.h>

/* From the thread that prints, only: one line at a time. total 0: the end is not known. */
void progress_begin(const char *label, uint64_t total);
void progress_update(uint64_t done);
void progress_end(void);

/* Takes the line off the terminal until the next update. */
void progress_erase(void);

/* In a child of fork(): the line is the parent's. */
void progress_forget(void);

#endif
