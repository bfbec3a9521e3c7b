/* SPDX-License-Identifier: MIT */
/* All experiments, in the order in which they are run: memory, applications, file systems. */
#include <stddef.h>

#include "cli/bench/experiments.h"

/* clang-format off */
const struct bench_experiment *const bench_experiments[] = {
	&experiment_fork_methods,
	&experiment_spawn_rate,
	&experiment_fork_size,
	&experiment_fork_exec,
	&experiment_rss,
	&experiment_page_granularity,
	&experiment_break_even,
	&experiment_swarm,
	&experiment_fault_path,
	&experiment_fault_contention,
	&experiment_ksm,
	&experiment_misconceptions,
	&experiment_gc,
	&experiment_persistent_structure,
	&experiment_prefork,
	&experiment_bgsave,
	&experiment_postgres,
	&experiment_containers,
	&experiment_reflink,
	&experiment_qcow2,
	&experiment_engine,
	NULL,
};
/* clang-format on */
