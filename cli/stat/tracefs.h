/* SPDX-License-Identifier: MIT */
/*
 * Tracepoints: their numbers and the offsets of their fields, which only tracefs tells.
 *
 * Where it is not mounted, a mount that is attached nowhere is made for this process alone: the
 * system is not changed, and nothing has to be put back.
 */
#ifndef CLI_STAT_TRACEFS_H
#define CLI_STAT_TRACEFS_H

#include <stdint.h>

/* A descriptor of the directory of events, or a negative errno. */
int tracefs_open(void);

/* Takes "category/name": the tracepoint's number, or a negative errno. */
int tracefs_id(int events, const char *tracepoint);

/* Where a field begins in the tracepoint's raw data: bytes, or a negative errno. */
int tracefs_offset(int events, const char *tracepoint, const char *field);

#endif
