/* SPDX-License-Identifier: MIT */
/*
 * Names from /proc for people to read. A process may call itself anything: escape sequences that
 * recolour a terminal or move its cursor, newlines that forge a line of a table, bytes that are
 * no UTF-8. Printed are characters; anything else appears as \n, \t or \xHH, a backslash as \\.
 */
#ifndef PROC_NAME_H
#define PROC_NAME_H

#include <stddef.h>

#define PROC_NAME_ROOM(bytes) (4 * (bytes) + 1) /* what so many bytes may grow to */

/* Cuts where the room ends, between characters; returns `to`. */
const char *proc_name_escape(const char *name, char *to, size_t room);

#endif
