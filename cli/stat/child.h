/* SPDX-License-Identifier: MIT */
/*
 * The command that is watched: it waits before its exec until the backends are ready.
 *
 * Signals that would end `cow` are taken through a descriptor, so that the report still comes and
 * settings are put back. Those that someone sent to `cow` alone are sent on to the command; those
 * of the terminal reach it anyway.
 */
#ifndef CLI_STAT_CHILD_H
#define CLI_STAT_CHILD_H

#include <sys/resource.h>
#include <sys/types.h>

struct child {
	pid_t pid;
	int go;     /* a byte lets it go; closed without one, it ends */
	int failed; /* says why exec failed; at its end, it did not */
};

/* Blocks the signals; a descriptor that reports them, or a negative errno. */
int child_take_signals(void);

/* 0 or a negative errno. */
int child_start(struct child *child, char **command);

/* Lets it go: 0, or the negative errno with which exec failed. */
int child_release(struct child *child);

/* Ends one that has not been let go. */
void child_abandon(struct child *child);

/* Reads one signal: its number, or 0 where none waits; with_child: NULL, or whom to send it on. */
int child_next_signal(int signals, const struct child *with_child);

/* The exit status that stands for a wait status: 128+N where a signal ended it. */
int child_exit_status(int wait_status);

#endif
