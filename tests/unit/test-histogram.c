/* SPDX-License-Identifier: MIT */
/* The histogram: quantiles are within 1/16, for every magnitude. */
#include "lib/histogram.h"
#include "tests/tap.h"

static struct histogram histogram;

static void clear(void)
{
	memset(&histogram, 0, sizeof(histogram));
}

TEST(empty)
{
	clear();
	is_u64(histogram_quantile(&histogram, 0.5), 0, "no entries");
}

TEST(one_value_of_every_magnitude)
{
	unsigned wrong = 0;

	for (uint64_t ns = 0; ns < (uint64_t)1 << 40; ns += ns / 7 + 1) {
		uint64_t got;

		clear();
		histogram_add(&histogram, ns);
		histogram_add(&histogram,
			      UINT64_MAX); /* so that the quantile is not capped at the maximum */
		got = histogram_quantile(&histogram, 0.5);
		wrong += got < ns || got > ns + ns / 16;
	}
	is_u64(wrong, 0, "values that are off by more than 1/16");
}

TEST(quantiles)
{
	uint64_t p50, p99;

	clear();
	for (uint64_t ns = 1; ns <= 100000; ns++)
		histogram_add(&histogram, ns);
	p50 = histogram_quantile(&histogram, 0.5);
	p99 = histogram_quantile(&histogram, 0.99);
	ok(p50 >= 50000 && p50 <= 53125, "p50 is %" PRIu64, p50);
	ok(p99 >= 99000 && p99 <= 100000, "p99 is %" PRIu64, p99);
	is_u64(histogram_quantile(&histogram, 1), 100000, "all are at or below the largest");
	is_u64(atomic_load(&histogram.max), 100000, "which is exact");
}

TEST(absurd_values)
{
	clear();
	histogram_add(&histogram, UINT64_MAX);
	ok(histogram_quantile(&histogram, 0.5) > 0, "the last bucket takes what is above");
	is_u64(atomic_load(&histogram.max), UINT64_MAX, "the maximum is exact");
}

TAP_MAIN(CASE(empty), CASE(one_value_of_every_magnitude), CASE(quantiles), CASE(absurd_values))
