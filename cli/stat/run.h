/* SPDX-License-Identifier: MIT */
/* One run of `cow stat`: from the start of the command to the last reading of what it did. */
#ifndef CLI_STAT_RUN_H
#define CLI_STAT_RUN_H

#include <poll.h>
#include <stdio.h>

#include <json-c/json_object.h>

#include "cli/stat/child.h"
#include "cli/stat/result.h"
#include "cli/stat/rise.h"
#include "cli/stat/stat.h"

#define MOST_PIDS 256

/* What a run needs besides its session. */
struct run {
	const struct stat_options *options;
	const pid_t *pids;
	size_t pid_count;
	struct session session;
	struct child child;
	struct result result;
	int signals;
	FILE *stream;
	uint64_t began_ns, next_interval_ns;
	uint64_t next_look_ns; /* at the sharing of a command that may end; 0: none */
	struct counts last;
	struct rise rise;
	unsigned int lines;
	json_object *intervals; /* NULL: no JSON, or no -I */
	struct pollfd targets[MOST_PIDS];
	bool over;
	bool shrunk; /* the last look at the sharing found much less than the one before */
	int wait_status;
};

/* The exit status of our own failures, as opposed to those of the command's. */
int run_failure(const struct stat_options *options);

/*
 * The caller has set options, pids, signals, stream and intervals. Returns COMMAND_OK, or the exit
 * status that says why there was no run; the session is left for printing, and to be ended.
 */
int run_once(struct run *run);

#endif
