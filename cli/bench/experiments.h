/* SPDX-License-Identifier: MIT */
/* The experiments' records; each is defined in x_<name>.c. Their order is in experiments.c. */
#ifndef CLI_BENCH_EXPERIMENTS_H
#define CLI_BENCH_EXPERIMENTS_H

#include "cli/bench/bench.h"

extern const struct bench_experiment experiment_bgsave;
extern const struct bench_experiment experiment_break_even;
extern const struct bench_experiment experiment_containers;
extern const struct bench_experiment experiment_engine;
extern const struct bench_experiment experiment_fault_contention;
extern const struct bench_experiment experiment_fault_path;
extern const struct bench_experiment experiment_fork_exec;
extern const struct bench_experiment experiment_fork_methods;
extern const struct bench_experiment experiment_fork_size;
extern const struct bench_experiment experiment_gc;
extern const struct bench_experiment experiment_ksm;
extern const struct bench_experiment experiment_misconceptions;
extern const struct bench_experiment experiment_page_granularity;
extern const struct bench_experiment experiment_persistent_structure;
extern const struct bench_experiment experiment_postgres;
extern const struct bench_experiment experiment_prefork;
extern const struct bench_experiment experiment_qcow2;
extern const struct bench_experiment experiment_reflink;
extern const struct bench_experiment experiment_rss;
extern const struct bench_experiment experiment_spawn_rate;
extern const struct bench_experiment experiment_swarm;

#endif
