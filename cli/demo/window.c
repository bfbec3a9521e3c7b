/* SPDX-License-Identifier: MIT */
/* The measured stretch of time of a side: see sides.h. */
#include "cli/demo/measure.h"
#include "cli/demo/sides.h"

#include <unistd.h>

#define CADENCE_NS (500 * NS_PER_MS)

enum { CUTS_LEAST = 2 }; /* in a round, however short */

/* 500 ms; less where the time is short, more where there would be too many cuts. */
static uint64_t cadence(uint64_t window)
{
	uint64_t interval = CADENCE_NS;

	if (window / interval < CUTS_LEAST)
		interval = window / CUTS_LEAST;
	if (window / interval > DEMO_CUTS_MAX)
		interval = window / DEMO_CUTS_MAX + 1;
	return interval;
}

static void name_cut(struct demo *demo, enum side side, struct round *round, struct cut *cut)
{
	snprintf(cut->name, sizeof(cut->name), "%s-%u-%02zu", side == SIDE_LIBCOW ? "snap" : "fork",
		 demo->round + 1, round->cuts + 1);
}

static int make_cut(struct demo *demo, enum side side, struct load *load, cut_function function,
		    void *context)
{
	struct round *round = &demo->shared->rounds[side][demo->round];
	struct cut *cut = &round->cut[round->cuts];
	char file[32];

	name_cut(demo, side, round, cut);
	snprintf(file, sizeof(file), "%s.db", cut->name);
	if (!demo_path(demo, file, cut->path) || function(context, cut) < 0)
		return -1;
	cut->near_ns = load_watched_ns(load);
	round->cuts++;
	return 0;
}

static int make_cuts(struct demo *demo, enum side side, struct load *load, uint64_t window,
		     cut_function function, void *context)
{
	struct round *round = &demo->shared->rounds[side][demo->round];
	uint64_t interval = cadence(window), end = now_ns() + window, due = end - window;

	/* The first comes half an interval late, when the load has warmed up. */
	for (due += interval / 2; due < end && round->cuts < DEMO_CUTS_MAX; due += interval) {
		if (due < now_ns())
			continue;
		sleep_until_ns(due);
		if (!round->cuts) {
			round->baseline_bytes = pss_bytes(getpid());
			round->peak_bytes = round->baseline_bytes;
			atomic_store(&demo->shared->measuring, true);
		}
		if (make_cut(demo, side, load, function, context) < 0)
			return -1;
		atomic_fetch_add(&demo->shared->progress, 1);
	}
	sleep_until_ns(end);
	return 0;
}

int window_run(struct demo *demo, enum side side, struct load *load, cut_function function,
	       void *context)
{
	struct round *round = &demo->shared->rounds[side][demo->round];
	uint64_t begin = now_ns(), cpu = cpu_ns();
	int result;

	if (load_start(load, &round->writes) < 0)
		return -1;
	result = make_cuts(demo, side, load, demo->options->duration_ns / DEMO_ROUNDS, function,
			   context);
	atomic_store(&demo->shared->measuring, false);
	if (load_stop(load) < 0)
		result = -1;
	round->waited_ns = load->waited_ns;
	round->window_ns = now_ns() - begin;
	round->cpu_ns = cpu_ns() - cpu;
	return result;
}
