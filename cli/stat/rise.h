/* SPDX-License-Identifier: MIT */
/*
 * Sudden rises in a series of intervals: a figure that is far above what it was used to be.
 *
 * Each figure has a moving mean and variance. A rise is at least twice the mean, four standard
 * deviations above it, and not a handful; the first intervals only teach. What rose counts less for
 * the mean than what did not, so that a second burst is marked like the first.
 */
#ifndef CLI_STAT_RISE_H
#define CLI_STAT_RISE_H

#include "cli/stat/stat.h"

struct rise {
	double mean[METRICS], variance[METRICS];
	unsigned int seen;
};

/* Takes an interval's figures; writes "copied x12, forks x3" or nothing. Returns how many rose. */
unsigned int rise_look(struct rise *rise, uint32_t counted, const struct counts *delta, char *text,
		       size_t size);

#endif
