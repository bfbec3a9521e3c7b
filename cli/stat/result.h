/* SPDX-License-Identifier: MIT */
/* What a run of `cow stat` found, and its printing: text as of perf stat, and JSON. */
#ifndef CLI_STAT_RESULT_H
#define CLI_STAT_RESULT_H

#include <stdio.h>
#include <sys/resource.h>

#include <json-c/json_object.h>

#include "cli/stat/live.h"
#include "cli/stat/stat.h"

struct result {
	uint32_t counted;
	struct counts totals;
	struct {
		uint64_t count, p50, p99, max, sum;
	} fork_ns;
	uint64_t elapsed_ns;
	uint64_t lost;
	struct vmstat before, after;
	struct sharing sharing;
	bool has_exit_status;
	int exit_status;
	struct rusage usage; /* of the command and those it waited for */
};

/* Several runs of one command: the mean and the spread of each figure. */
struct runs {
	struct result *results;
	size_t count;
};

/* "'sleep 1'", "process 12", "the whole system". */
void result_target(const struct session *session, char *text, size_t size);

void result_print(FILE *stream, const struct session *session, const struct runs *runs);

/* The members of a run; those that describe processes only where with_processes. */
void result_report(json_object *to, const struct session *session, const struct result *result,
		   bool with_processes);
struct result result_mean(const struct runs *runs);

/* A line of -I. rises says which figures rose suddenly, or is empty. */
void interval_print_titles(FILE *stream, const struct session *session);
void interval_print(FILE *stream, const struct session *session, const struct counts *delta,
		    uint64_t at_ns, const char *rises);
void interval_report(json_object *to, const struct session *session, const struct counts *delta,
		     uint64_t at_ns, const char *rises);

#endif
