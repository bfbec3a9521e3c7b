/* SPDX-License-Identifier: MIT */
/* A log-linear histogram of nanoseconds, 16 steps an octave (within 1/16), for many writing
 * threads. */
#ifndef COW_LIB_HISTOGRAM_H
#define COW_LIB_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_STEPS   16u
#define HISTOGRAM_BUCKETS (40u * HISTOGRAM_STEPS) /* up to about 2.4 hours */

struct histogram {
	_Atomic uint32_t counts[HISTOGRAM_BUCKETS];
	_Atomic uint64_t max;
};

void histogram_add(struct histogram *histogram, uint64_t ns);

/* The value that a share (0 to 1) of all entries stays at or below; 0 when there are none. */
uint64_t histogram_quantile(const struct histogram *histogram, double share);

#endif
