/* SPDX-License-Identifier: MIT */
/* The life of a session: which backends count, and what is known at any time. */
#ifndef CLI_STAT_SESSION_H
#define CLI_STAT_SESSION_H

#include "cli/stat/stat.h"

/* Whether a name is one of --backend. */
bool session_knows_backend(const char *name);

/*
 * Changes what the options allow to be changed. Before the command is started: the kernel's
 * accounting takes in only tasks that begin after it was switched on.
 */
void session_tune(const struct stat_options *wanted);

/*
 * Starts the best backend that works here, or the one asked for. Returns 0, or a negative errno
 * after a message. The caller has set target and options; the rest is zero.
 */
int session_start(struct session *session);

/* A descriptor that polls readable when it is time to drain, or -1. */
int session_wakeups(const struct session *session);
/* Keeps buffers from running full. */
void session_drain(struct session *session);
/* Brings totals and processes up to date. */
void session_read(struct session *session);
/* After the last reading: what could not be known after all is counted no more. */
void session_settle(struct session *session);
/*
 * Whether the kernel's accounting, switched on for this run, knows only those of the target that
 * began since.
 */
bool session_is_of_the_later(const struct session *session);

/* What a metric means under the session's backend, or why it is not counted. */
const char *session_coverage(const struct session *session, enum metric metric);

void session_end(struct session *session);

#endif
