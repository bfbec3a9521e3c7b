/* SPDX-License-Identifier: MIT */
#include "cli/stat/rise.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LESSONS    5    /* intervals before the first mark */
#define WEIGHT     0.1  /* of a new value in the means */
#define RISEN      0.02 /* the same, of one that rose */
#define LEAST      64.0 /* less is no rise, whatever was before */
#define DEVIATIONS 4.0

static const struct {
	enum metric metric;
	const char *name;
} watched[] = {
	{ METRIC_FORKS, "forks" },
	{ METRIC_COPIED, "copied" },
	{ METRIC_PROTECTED, "writes to protected pages" },
	{ METRIC_ZERO_FILLED, "zero-filled" },
	{ METRIC_MINOR_FAULTS, "minor faults" },
	{ METRIC_MAJOR_FAULTS, "major faults" },
};

static bool has_risen(const struct rise *rise, enum metric metric, double value)
{
	double mean = rise->mean[metric];

	return rise->seen >= LESSONS && value >= LEAST && value >= 2 * mean &&
	       value > mean + DEVIATIONS * sqrt(rise->variance[metric]);
}

static void learn(struct rise *rise, enum metric metric, double value, double weight)
{
	double step = value - rise->mean[metric];

	if (!rise->seen) {
		rise->mean[metric] = value;
		return;
	}
	rise->mean[metric] += weight * step;
	rise->variance[metric] = (1 - weight) * (rise->variance[metric] + weight * step * step);
}

unsigned int rise_look(struct rise *rise, uint32_t counted, const struct counts *delta, char *text,
		       size_t size)
{
	unsigned int count = 0;
	double value, mean;
	size_t i, used;
	bool risen;

	text[0] = '\0';
	for (i = 0; i < sizeof(watched) / sizeof(watched[0]); i++) {
		if (!is_counted(counted, watched[i].metric))
			continue;
		/* Where copies are known, the sum that they are part of says nothing new. */
		if (watched[i].metric == METRIC_PROTECTED && is_counted(counted, METRIC_COPIED))
			continue;
		value = (double)delta->value[watched[i].metric];
		mean = rise->mean[watched[i].metric];
		risen = has_risen(rise, watched[i].metric, value);
		learn(rise, watched[i].metric, value, risen ? RISEN : WEIGHT);
		if (!risen)
			continue;
		used = strlen(text);
		snprintf(text + used, size - used, "%s%s x%.0f", count ? ", " : "", watched[i].name,
			 value / (mean < 1 ? 1 : mean));
		count++;
	}
	rise->seen++;
	return count;
}
