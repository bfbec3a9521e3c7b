/* SPDX-License-Identifier: MIT */
/*
 * What the parts of ps_measure() hand to each other.
 *
 *	measure.c   the whole                     inspect.c   one process, apart from its pages
 *	batch.c     many, on several threads      plan.c      how much a sample looks at
 *	exact.c     pieces -> sums                estimate.c  pieces of a sample -> estimates
 */
#ifndef CLI_PS_MEASURE_H
#define CLI_PS_MEASURE_H

#include <pthread.h>

#include "cli/ps/pages.h"
#include "cli/ps/ps.h"
#include "cli/ps/stripes.h"

struct job {
	const struct ps_options *options;
	struct ps_result *result;
	struct page_world *world; /* NULL: by smaps_rollup */
	struct pages *pages;      /* of each process */
	int error;                /* atomic: the first that ends everything */

	/* Processes are opened together as far as descriptors allow: a batch. */
	struct page_source *sources;
	size_t first, end; /* the batch, by numbers of processes */
	struct stripes *stripes;
	size_t next;           /* atomic: the process, or the stripe, to go on with */
	pthread_mutex_t mutex; /* guards what follows */
	struct pages read;     /* of the batch */
};

/* --- inspect.c --- */

/* The process of this number in the selection: its state, and what is known by its files. */
void job_inspect(struct job *job, struct page_reader *reader, size_t number);
/* What an error means for a process, or for all. */
void job_settle(struct job *job, size_t number, int error);
/* Ends everything; the first error counts. */
void job_fail(struct job *job, int error);

/* --- batch.c --- */

/* All of them: 0 or a negative errno. */
int job_measure_all(struct job *job);

/* --- plan.c --- */

/* What a sample looks at, by the counters of the batch; later batches follow the first. */
int job_plan_sample(struct job *job);

/* --- exact.c --- */

struct sums {
	uint64_t pages, private_pages, inside, outside, ksm, special;
	uint64_t pss, unique, unique_outside; /* bytes << SHARE_SHIFT */
};

void sums_add_piece(struct sums *sums, const struct page_world *world, const struct piece *piece);
void job_finish_exact(struct job *job);

/* Totals of what was measured, so that they are about the same processes. */
void result_add_up(struct ps_result *result);
bool process_is_measured(const struct ps_process *process);
/* Of those that have memory, how many were measured: 1 for no error at all. */
double result_share_measured(const struct ps_result *result);

/* --- estimate.c --- */
int job_finish_sample(struct job *job);

#endif
