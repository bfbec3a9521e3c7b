/* SPDX-License-Identifier: MIT */
/*
 * The two processes of `cow walk`: a parent and its child, which do what they are told, one thing
 * at a time, and count the faults that it took.
 *
 * Everything runs on one CPU, so that what a CPU keeps back for itself (pages on their way to the
 * LRU lists) cannot make the kernel copy where it would reuse. Both processes end when the command
 * does.
 */
#ifndef CLI_WALK_ACTORS_H
#define CLI_WALK_ACTORS_H

#include <stddef.h>

#include "cli/walk/walk.h"

struct actors {
	unsigned char *pages[WALK_PAGES]; /* the same addresses in both */
	void *arena;
	size_t arena_bytes;
	int sockets[WALK_ACTORS]; /* -1: none */
	int pids[WALK_ACTORS];    /* 0: none */
	bool huge;
};

/* The parent, which has made its pages what they are before the fork. 0 or a negative errno. */
int actors_start(bool huge, struct actors *actors);
void actors_stop(struct actors *actors); /* also of half-started ones */

int actors_fork(struct actors *actors);
int actors_exit(struct actors *actors); /* the child */
/* Two writes in a row, and the minor faults that each took. */
int actors_write(struct actors *actors, enum walk_who who, enum walk_page page,
		 uint64_t *ret_faults, uint64_t *ret_faults_again);

#endif
