/* SPDX-License-Identifier: MIT */
/*
 * Runs one experiment in a process of its own, under a supervisor that ends it: in time, with all
 * that it has started, and with every setting put back. See run.c.
 */
#ifndef CLI_BENCH_RUN_H
#define CLI_BENCH_RUN_H

#include "cli/bench/bench.h"
#include "cli/report.h"

struct bench_options {
	enum bench_scale scale;
	unsigned int runs, warm_ups;
	uint64_t seed;
	uint64_t memory;
	bool allow_tuning;
	const char *directory; /* where directories of experiments are made */
};

/*
 * Returns the experiment's object, whatever became of it, which the caller puts; NULL where a
 * signal asked to stop: *ret_signal. The shortest interval that it has timed goes to
 * *ret_shortest_ns where that is shorter than what is there.
 */
json_object *bench_run_experiment(const struct bench_experiment *experiment,
				  const struct bench_options *options, uint64_t *ret_shortest_ns,
				  int *ret_signal);

/* From inside an experiment, or a child of it. */
void bench_shared_interval(uint64_t ns);

/*
 * A file of settings, read as it is to be written again: of "always [madvise] never" what is in
 * brackets. 0 or a negative errno. Experiments change settings by bench_tune(), which has them put
 * back.
 */
int bench_setting_read(const char *path, char *value, size_t room);
int bench_setting_write(const char *path, const char *value);

/* MemAvailable, or less where a cgroup allows less. */
uint64_t bench_available_memory(void);

#endif
