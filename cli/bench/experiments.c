/* SPDX-License-Identifier: MIT */
/* All experiments, in the order in which they are run: memory, applications, file systems. */
#include <stddef.h>

#include "cli/bench/experiments.h"

/* clang-format off */
const struct bench_experiment *const bench_experiments[] = {
	&experiment_rss,
	&experiment_prefork,
	&experiment_containers,
	&experiment_reflink,
	NULL,
};
/* clang-format on */
