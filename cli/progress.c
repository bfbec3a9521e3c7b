/* SPDX-License-Identifier: MIT */
#include "cli/progress.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/output.h"

#define INTERVAL_NS UINT64_C(100000000)

static struct {
	const char *label;
	uint64_t total;
	uint64_t drawn_ns; /* when it was last drawn */
	bool active;       /* between begin and end, on a terminal */
	bool shown;
} progress;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void draw(uint64_t done)
{
	char left[UNIT_LENGTH], right[UNIT_LENGTH];

	/* Done may exceed an estimated total. */
	if (progress.total)
		fprintf(stderr, "\r%s: %s of %s (%.0f %%)\033[K", progress.label,
			format_count(left, done), format_count(right, progress.total),
			done >= progress.total ? 100. :
						 100. * (double)done / (double)progress.total);
	else
		fprintf(stderr, "\r%s: %s\033[K", progress.label, format_count(left, done));
	fflush(stderr);
	progress.shown = true;
	progress.drawn_ns = now_ns();
}

void progress_begin(const char *label, uint64_t total)
{
	const char *term = getenv("TERM");

	progress_end();
	progress.label = label;
	progress.total = total;
	progress.active = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
	if (progress.active)
		draw(0);
}

void progress_update(uint64_t done)
{
	if (progress.active && now_ns() - progress.drawn_ns >= INTERVAL_NS)
		draw(done);
}

void progress_end(void)
{
	progress_erase();
	progress.active = false;
}

void progress_erase(void)
{
	if (!progress.shown)
		return;
	fputs("\r\033[K", stderr);
	fflush(stderr);
	progress.shown = false;
}

void progress_forget(void)
{
	progress.shown = false;
	progress.active = false;
}
