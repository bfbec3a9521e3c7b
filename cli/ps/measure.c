/* SPDX-License-Identifier: MIT */
/*
 * Measures a selection: by frames where their numbers can be seen, else by what the kernel sums
 * up for each process (smaps_rollup).
 *
 * The second way cannot see who shares with whom: what is shared inside and outside the selection
 * and its distinct frames stay unknown.
 */
#include "cli/ps/measure.h"

#include <errno.h>
#include <stdlib.h>

static int measure_frames(struct job *job)
{
	struct page_world *world = job->world;
	int error = job_measure_all(job);

	if (!error)
		error = frame_set_resolve(
			world->frames, world->strata != NULL, job->options->threads,
			page_world_counts,
			world->merging && !world->unmarked ? page_world_flags : NULL, world);
	if (error)
		return error;
	if (world->strata)
		return job_finish_sample(job);
	job_finish_exact(job);
	return 0;
}

/* One process alone shares with nobody inside. */
static void finish_rollup(struct ps_result *result)
{
	struct ps_process *process;
	size_t i;

	for (i = 0; i < result->count && result->count == 1; i++) {
		process = &result->processes[i];
		if (process->state != PS_MEASURED || process->uss == PS_UNKNOWN)
			continue;
		process->inside = 0;
		process->outside = process->rss - process->uss;
	}
	result_add_up(result);
	result->totals.unique = PS_UNKNOWN;
	result->totals.outside = PS_UNKNOWN;
	result->coverage = result_share_measured(result);
}

static void free_job(struct job *job)
{
	size_t i;

	for (i = 0; job->pages && i < job->result->count; i++)
		pages_free(&job->pages[i]);
	free(job->pages);
	if (job->world)
		page_world_close(job->world);
}

int ps_measure(const struct ps_options *options, struct ps_result *result)
{
	struct job job = { .options = options, .result = result };
	struct page_world world;
	int error;

	result->backend = PS_ROLLUP;
	result->captured = options->root.captured;
	if (ps_can_see_frames(&options->root) && page_world_open(&world, &options->root) == 0) {
		result->backend = PS_PAGEMAP;
		job.world = &world;
	}
	job.pages = calloc(result->count + 1, sizeof(*job.pages));
	error = !job.pages ? -ENOMEM : job.world ? measure_frames(&job) : job_measure_all(&job);
	if (!error && !job.world)
		finish_rollup(result);
	free_job(&job);
	return error;
}

void ps_result_free(struct ps_result *result)
{
	size_t i;

	for (i = 0; i < result->count; i++)
		free(result->processes[i].arguments);
	free(result->processes);
	*result = (struct ps_result){ 0 };
}
