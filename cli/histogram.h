/* SPDX-License-Identifier: MIT */
/*
 * Distributions of values over many orders of magnitude, latencies above all: fixed memory, every
 * value kept to within 1/64 of itself, whatever its size. Values below 64 are exact.
 */
#ifndef CLI_HISTOGRAM_H
#define CLI_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_STEPS   64 /* buckets an octave */
#define HISTOGRAM_BUCKETS (59 * HISTOGRAM_STEPS)

/* All zero is empty. Not for several threads at once: each has its own, merged afterwards. */
struct histogram {
	uint64_t counts[HISTOGRAM_BUCKETS];
	uint64_t total;
	uint64_t min, max; /* exact; 0 while empty */
};

void histogram_add(struct histogram *histogram, uint64_t value);
void histogram_merge(struct histogram *into, const struct histogram *from);

/*
 * The smallest recorded value that a share of all values does not exceed: share 0.99 is the 99th
 * percentile, 1 the maximum. Rounded up within its bucket, never above the maximum; 0 when empty.
 */
uint64_t histogram_quantile(const struct histogram *histogram, double share);

/*
 * Prints distributions of nanoseconds side by side: a line a range (1-2-5 steps), with counts and
 * bars. Bars are logarithmic in the count, so that one stall among a million writes can be seen.
 */
void histogram_print_ns(FILE *stream, const struct histogram *const series[],
			const char *const names[], size_t count);

#endif
