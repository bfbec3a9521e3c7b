/* SPDX-License-Identifier: MIT */
/*
 * What a sample looks at: how large its windows are, and how far apart, so that all of them
 * together stay within the budget.
 */
#include <errno.h>

#include "cli/ps/measure.h"

/* A sample's window: less costs no less, since a walk has its own cost. */
#define WINDOW_PAGES 32

/* What the counters say before anything is looked at: it decides how much of it will be. */
static void count_pages(const struct job *job, uint64_t pages[AREA_KINDS])
{
	const struct ps_process *process;
	uint64_t bytes = job->world->page_bytes;
	size_t i;

	for (i = job->first; i < job->end; i++) {
		process = &job->result->processes[i];
		if (process->state != PS_MEASURED)
			continue;
		pages[AREA_ANON] += process->anon / bytes;
		pages[AREA_FILE] += process->file / bytes;
	}
	/* Those of further batches are like these. */
	for (i = 0; i < AREA_KINDS; i++)
		pages[i] = pages[i] * job->result->count / (job->end - job->first);
}

/*
 * Strata are of an odd length: what programs do at round addresses (the head of each arena, of each
 * table) is then met neither by all windows nor by none. And they are longer than their windows.
 */
static uint64_t plan_stratum(uint64_t pages, uint64_t budget)
{
	uint64_t rounded = pages / (budget / WINDOW_PAGES + 1) / 64 * 64;

	return (rounded > WINDOW_PAGES ? rounded : WINDOW_PAGES) + 64 * 3 / 8 + 1;
}

static struct window plan_window(uint64_t pages, uint64_t budget)
{
	if (pages <= budget)
		return (struct window){ .pages = LEAF_ENTRIES, .stratum_pages = LEAF_ENTRIES };
	return (struct window){
		.pages = WINDOW_PAGES,
		.stratum_pages = plan_stratum(pages, budget),
	};
}

/* No strata where everything fits into the budget; files, if they are few, get half of it. */
int job_plan_sample(struct job *job)
{
	uint64_t pages[AREA_KINDS] = { 0 }, budget = job->options->budget, for_files;
	struct page_world *world = job->world;

	if (!job->options->fast || world->strata || world->whole)
		return 0;
	count_pages(job, pages);
	world->whole = pages[AREA_ANON] + pages[AREA_FILE] <= budget;
	if (world->whole)
		return 0;
	for_files = pages[AREA_FILE] < budget / 2 ? pages[AREA_FILE] : budget / 2;
	world->windows[AREA_FILE] = plan_window(pages[AREA_FILE], for_files);
	world->windows[AREA_ANON] = plan_window(pages[AREA_ANON], budget - for_files);
	world->seed = job->options->seed;
	world->strata = strata_new();
	return world->strata ? 0 : -ENOMEM;
}
