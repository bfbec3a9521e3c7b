/* SPDX-License-Identifier: MIT */
/* Sums over what was read in full, and the totals of a selection. */
#include "cli/ps/measure.h"

void sums_add_piece(struct sums *sums, const struct page_world *world, const struct piece *piece)
{
	uint64_t page = world->page_bytes << SHARE_SHIFT;
	const struct leaf_sums *leaf;

	sums->pages += piece->private_pages;
	sums->private_pages += piece->private_pages;
	sums->pss += piece->private_pages * page;
	sums->unique += piece->private_pages * page;
	if (!piece->leaf)
		return;
	leaf = frame_set_leaf(world->frames, piece->leaf - 1);
	sums->pages += leaf->pages;
	sums->private_pages += leaf->private_pages;
	sums->inside += leaf->inside_pages;
	sums->outside += leaf->outside_pages;
	sums->ksm += leaf->ksm_pages;
	sums->special += leaf->special;
	sums->pss += leaf->pss;
	sums->unique += leaf->unique;
	sums->unique_outside += leaf->unique_outside;
}

/* Returns how many of the pages are not in the frame set, being nobody else's. */
static uint64_t take_exact(const struct page_world *world, const struct pages *pages,
			   struct ps_process *process)
{
	struct sums sums = { 0 };
	uint64_t unlisted = 0, thp_pages = 0;
	size_t i;

	for (i = 0; i < pages->count; i++) {
		sums_add_piece(&sums, world, &pages->pieces[i]);
		unlisted += pages->pieces[i].private_pages;
		thp_pages += pages->pieces[i].thp_pages;
	}
	process->rss = sums.pages * world->page_bytes;
	process->pss = sums.pss >> SHARE_SHIFT;
	process->uss = sums.private_pages * world->page_bytes;
	process->inside = sums.inside * world->page_bytes;
	process->outside = sums.outside * world->page_bytes;
	if (!world->unmarked)
		process->ksm = sums.ksm * world->page_bytes;
	process->thp = thp_pages * world->page_bytes;
	return unlisted;
}

bool process_is_measured(const struct ps_process *process)
{
	return process->state == PS_MEASURED || process->state == PS_ESTIMATED;
}

static void add_known(uint64_t *total, uint64_t value)
{
	*total = *total == PS_UNKNOWN || value == PS_UNKNOWN ? PS_UNKNOWN : *total + value;
}

void result_add_up(struct ps_result *result)
{
	struct ps_totals *totals = &result->totals;
	const struct ps_process *process;
	size_t i;

	for (i = 0; i < result->count; i++) {
		process = &result->processes[i];
		result->measured += process_is_measured(process);
		result->denied += process->state == PS_DENIED;
		result->vanished += process->state == PS_VANISHED;
		result->unreadable += process->state == PS_UNREADABLE;
		if (!process_is_measured(process))
			continue;
		add_known(&totals->rss, process->rss);
		add_known(&totals->pss, process->pss);
		add_known(&totals->uss, process->uss);
		add_known(&totals->swap, process->swap);
		add_known(&totals->ksm, process->ksm);
		add_known(&totals->thp, process->thp);
		add_known(&totals->huge_tlb, process->huge_tlb);
		add_known(&totals->page_tables, process->page_tables);
	}
}

double result_share_measured(const struct ps_result *result)
{
	size_t wanted = result->measured + result->denied + result->vanished + result->unreadable;

	return wanted ? (double)result->measured / (double)wanted : 1;
}

void job_finish_exact(struct job *job)
{
	struct ps_result *result = job->result;
	struct frame_totals frames = frame_set_totals(job->world->frames);
	uint64_t unique = frames.unique_pages;
	size_t i;

	for (i = 0; i < result->count; i++)
		if (result->processes[i].state == PS_MEASURED)
			unique += take_exact(job->world, &job->pages[i], &result->processes[i]);
	result_add_up(result);
	result->totals.unique = unique * job->world->page_bytes;
	result->totals.outside = frames.outside_pages * job->world->page_bytes;
	result->coverage = result_share_measured(result);
}
