/* SPDX-License-Identifier: MIT */
#include "lib/histogram.h"

static unsigned bucket_of(uint64_t ns)
{
	unsigned octave, bucket;

	if (ns < HISTOGRAM_STEPS)
		return (unsigned)ns;
	octave = 63 - (unsigned)__builtin_clzll(ns); /* at least 4 */
	bucket = (octave - 3) * HISTOGRAM_STEPS + (unsigned)(ns >> (octave - 4)) % HISTOGRAM_STEPS;
	return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

static uint64_t highest_in(unsigned bucket)
{
	unsigned octave = bucket / HISTOGRAM_STEPS + 3;

	if (bucket < HISTOGRAM_STEPS)
		return bucket;
	return ((uint64_t)(HISTOGRAM_STEPS + bucket % HISTOGRAM_STEPS + 1) << (octave - 4)) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t ns)
{
	uint64_t max = atomic_load_explicit(&histogram->max, memory_order_relaxed);

	atomic_fetch_add_explicit(&histogram->counts[bucket_of(ns)], 1, memory_order_relaxed);
	while (ns > max &&
	       !atomic_compare_exchange_weak_explicit(&histogram->max, &max, ns,
						      memory_order_relaxed, memory_order_relaxed))
		;
}

uint64_t histogram_quantile(const struct histogram *histogram, double share)
{
	uint64_t total = 0, seen = 0, max = atomic_load(&histogram->max);

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		total += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS && total > 0; i++) {
		seen += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
		if ((double)seen >= share * (double)total)
			return highest_in(i) < max ? highest_in(i) : max;
	}
	return max;
}
