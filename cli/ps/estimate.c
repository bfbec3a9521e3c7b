/* SPDX-License-Identifier: MIT */
/* Estimates of processes and of the selection, from the pieces that a sample has met. */
#include <errno.h>
#include <stdlib.h>

#include "cli/ps/measure.h"

static uint64_t clamp(double value, uint64_t most)
{
	return value <= 0 ? 0 : value >= (double)most ? most : (uint64_t)(value + 0.5);
}

/* What is scaled up from a process's windows, of one kind of pages. */
struct expanded {
	double pages, private_pages, inside, outside, ksm;
};

static double missed_share(const struct page_world *world, const struct piece *piece)
{
	const struct window *window = &world->windows[piece->area];

	return 1 - (double)window->pages / (double)window->stratum_pages;
}

static double expansion(const struct page_world *world, const struct piece *piece)
{
	return 1 / (1 - missed_share(world, piece));
}

static void expand(const struct sums *sums, double weight, struct expanded *to)
{
	to->pages += weight * (double)sums->pages;
	to->private_pages += weight * (double)sums->private_pages;
	to->inside += weight * (double)sums->inside;
	to->outside += weight * (double)sums->outside;
	to->ksm += weight * (double)sums->ksm;
}

/* The windows of a process by strata. Returns how many there are. */
static size_t observe(const struct page_world *world, const struct pages *pages,
		      enum page_kind kind, struct observation *list, struct expanded *all)
{
	double page = (double)(world->page_bytes << SHARE_SHIFT), weight;
	const struct piece *piece;
	size_t count = 0, i;
	struct sums sums;

	for (i = 0; i < pages->count; i++) {
		piece = &pages->pieces[i];
		if (!i || piece->stratum != piece[-1].stratum)
			list[count++] =
				(struct observation){ .missed = missed_share(world, piece) };
		if (piece->kind != kind)
			continue;
		sums = (struct sums){ 0 };
		sums_add_piece(&sums, world, piece);
		weight = expansion(world, piece);
		expand(&sums, weight, all);
		list[count - 1].x += weight * (double)sums.pages * page;
		list[count - 1].y += weight * (double)sums.pss;
	}
	return count;
}

static void add_scaled(uint64_t *to, double part, double whole, uint64_t known_bytes)
{
	*to += clamp(part / whole * (double)known_bytes, known_bytes);
}

/* False where nothing of the kind was met. */
static bool add_kind(const struct page_world *world, const struct pages *pages, enum page_kind kind,
		     struct observation *list, struct estimate *pss, struct ps_process *process)
{
	uint64_t known_bytes = kind == PAGE_ANON ? process->anon : process->file;
	struct expanded all = { 0 };
	size_t count = observe(world, pages, kind, list, &all);

	*pss = estimate_add(*pss, ratio_estimate(list, count, (double)known_bytes));
	if (all.pages <= 0)
		return false;
	add_scaled(&process->uss, all.private_pages, all.pages, known_bytes);
	add_scaled(&process->inside, all.inside, all.pages, known_bytes);
	add_scaled(&process->outside, all.outside, all.pages, known_bytes);
	add_scaled(&process->ksm, all.ksm, all.pages, known_bytes);
	return true;
}

static int take_estimate(const struct page_world *world, const struct pages *pages,
			 struct ps_process *process)
{
	struct observation *list = malloc((pages->count + 1) * sizeof(*list));
	struct ps_process sum = *process;
	struct estimate pss = { 0 };
	bool met;

	if (!list)
		return -ENOMEM;
	sum.uss = sum.inside = sum.outside = 0;
	if (!world->unmarked)
		sum.ksm = 0;
	met = add_kind(world, pages, PAGE_ANON, list, &pss, &sum);
	met |= add_kind(world, pages, PAGE_FILE, list, &pss, &sum);
	free(list);
	process->state = PS_ESTIMATED;
	if (!met)
		return 0;
	sum.state = PS_ESTIMATED;
	sum.pss = clamp(pss.value, sum.rss);
	sum.pss_error = clamp(pss.error, sum.rss);
	*process = sum;
	return 0;
}

static void add_strata(const struct page_world *world, const struct pages *pages,
		       struct stratum_sums *strata)
{
	double fixed = (double)(1 << SHARE_SHIFT), weight;
	const struct piece *piece;
	struct stratum_sums *to;
	struct sums sums;
	size_t i;

	for (i = 0; i < pages->count; i++) {
		piece = &pages->pieces[i];
		to = &strata[PAGE_KINDS * piece->stratum];
		to[PAGE_ANON].missed = to[PAGE_FILE].missed = missed_share(world, piece);
		to += piece->kind;
		weight = expansion(world, piece);
		sums = (struct sums){ 0 };
		sums_add_piece(&sums, world, piece);
		to->rss += weight * (double)(sums.pages * world->page_bytes);
		to->pss += weight * (double)sums.pss / fixed;
		to->unique += weight * (double)sums.unique / fixed;
		to->outside += weight * (double)sums.unique_outside / fixed;
	}
}

static int estimate_processes(struct job *job, struct stratum_sums *strata)
{
	struct ps_result *result = job->result;
	int error = 0;
	size_t i;

	for (i = 0; i < result->count && !error; i++) {
		if (result->processes[i].state != PS_MEASURED)
			continue;
		add_strata(job->world, &job->pages[i], strata);
		error = take_estimate(job->world, &job->pages[i], &result->processes[i]);
	}
	return error;
}

/* The counters of what was measured, by kind. */
static void sum_known_rss(const struct ps_result *result, double known_rss[PAGE_KINDS])
{
	size_t i;

	known_rss[PAGE_ANON] = known_rss[PAGE_FILE] = 0;
	for (i = 0; i < result->count; i++) {
		if (!process_is_measured(&result->processes[i]))
			continue;
		known_rss[PAGE_ANON] += (double)result->processes[i].anon;
		known_rss[PAGE_FILE] += (double)result->processes[i].file;
	}
}

/* Of the pages that there are, how many the windows met. */
static double share_seen(const struct job *job)
{
	double seen = 0, all = 0, weight;
	struct sums sums;
	size_t i, j;

	for (i = 0; i < job->result->count; i++)
		for (j = 0; j < job->pages[i].count; j++) {
			sums = (struct sums){ 0 };
			sums_add_piece(&sums, job->world, &job->pages[i].pieces[j]);
			weight = expansion(job->world, &job->pages[i].pieces[j]);
			seen += (double)sums.pages;
			all += weight * (double)sums.pages;
		}
	return all > 0 ? seen / all : 1;
}

int job_finish_sample(struct job *job)
{
	struct stratum_sums *sums = strata_sums(job->world->strata);
	struct ps_totals *totals = &job->result->totals;
	struct strata_estimates estimates;
	double known_rss[PAGE_KINDS];
	uint64_t most;
	int error;

	error = sums ? estimate_processes(job, sums) : -ENOMEM;
	if (error)
		return error;
	result_add_up(job->result);
	most = totals->rss;
	sum_known_rss(job->result, known_rss);
	error = strata_estimate(job->world->strata, known_rss, &estimates);
	if (error)
		return error;
	totals->pss = clamp(estimates.pss.value, most);
	totals->pss_error = clamp(estimates.pss.error, most);
	totals->unique = clamp(estimates.unique.value, most);
	totals->unique_error = clamp(estimates.unique.error, most);
	totals->outside = clamp(estimates.outside.value, most);
	totals->outside_error = clamp(estimates.outside.error, most);
	job->result->sampled = true;
	job->result->coverage = share_seen(job) * result_share_measured(job->result);
	return 0;
}
