/* SPDX-License-Identifier: MIT */
#include "cli/ps/strata.h"

#include <errno.h>
#include <stddef.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct stratum {
	struct stratum_key key;
	uint32_t next; /* in its bucket; 0: none, else number + 1 */
};

struct strata {
	pthread_mutex_t mutex; /* guards what follows, until strata_sums() */
	struct stratum *list;
	size_t count, room;
	uint32_t *buckets;
	size_t bucket_mask;
	struct stratum_sums *sums;
};

struct strata *strata_new(void)
{
	struct strata *strata = calloc(1, sizeof(*strata));

	if (!strata)
		return NULL;
	pthread_mutex_init(&strata->mutex, NULL);
	strata->bucket_mask = 1023;
	strata->buckets = calloc(strata->bucket_mask + 1, sizeof(*strata->buckets));
	if (strata->buckets)
		return strata;
	strata_free(strata);
	return NULL;
}

void strata_free(struct strata *strata)
{
	if (!strata)
		return;
	pthread_mutex_destroy(&strata->mutex);
	free(strata->buckets);
	free(strata->list);
	free(strata->sums);
	free(strata);
}

static uint32_t *bucket_of(struct strata *strata, const struct stratum_key *key)
{
	return &strata->buckets[XXH3_64bits(key, sizeof(*key)) & strata->bucket_mask];
}

static void put_in_bucket(struct strata *strata, size_t number)
{
	uint32_t *bucket = bucket_of(strata, &strata->list[number].key);

	strata->list[number].next = *bucket;
	*bucket = (uint32_t)number + 1;
}

/* Doubles the list, and the buckets with it. */
static int make_room(struct strata *strata)
{
	size_t room = strata->room ? 2 * strata->room : 1024, i;
	struct stratum *list;
	uint32_t *buckets;

	if (strata->count < strata->room)
		return 0;
	if (room > INT32_MAX)
		return -EOVERFLOW;
	list = realloc(strata->list, room * sizeof(*list));
	if (!list)
		return -ENOMEM;
	strata->list = list;
	buckets = calloc(room, sizeof(*buckets));
	if (!buckets)
		return -ENOMEM;
	free(strata->buckets);
	strata->buckets = buckets;
	strata->bucket_mask = room - 1;
	strata->room = room;
	for (i = 0; i < strata->count; i++)
		put_in_bucket(strata, i);
	return 0;
}

static int64_t find_or_add(struct strata *strata, const struct stratum_key *key)
{
	uint32_t at = *bucket_of(strata, key);
	int error;

	for (; at; at = strata->list[at - 1].next)
		if (memcmp(&strata->list[at - 1].key, key, sizeof(*key)) == 0)
			return at - 1;
	error = make_room(strata);
	if (error)
		return error;
	strata->list[strata->count].key = *key;
	put_in_bucket(strata, strata->count);
	return (int64_t)strata->count++;
}

int64_t strata_find(struct strata *strata, const struct stratum_key *key)
{
	int64_t number;

	pthread_mutex_lock(&strata->mutex);
	number = find_or_add(strata, key);
	pthread_mutex_unlock(&strata->mutex);
	return number;
}

size_t strata_count(const struct strata *strata)
{
	return strata->count;
}

struct stratum_sums *strata_sums(struct strata *strata)
{
	if (!strata->sums)
		strata->sums = calloc(PAGE_KINDS * strata->count + 1, sizeof(*strata->sums));
	return strata->sums;
}

/* --- estimates --- */

/*
 * Student's t at 0.995: from the table in every textbook, at the next smaller number of degrees
 * in it. An estimated number of degrees deserves no interpolation.
 */
double student_99(double degrees)
{
	static const struct {
		double degrees, t;
	} table[] = {
		{ 120, 2.617 }, { 60, 2.660 }, { 40, 2.704 }, { 30, 2.750 }, { 25, 2.787 },
		{ 20, 2.845 },  { 17, 2.898 }, { 15, 2.947 }, { 13, 3.012 }, { 12, 3.055 },
		{ 11, 3.106 },  { 10, 3.169 }, { 9, 3.250 },  { 8, 3.355 },  { 7, 3.499 },
		{ 6, 3.707 },   { 5, 4.032 },  { 4, 4.604 },  { 3, 5.841 },  { 2, 9.925 },
	};
	size_t i;

	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (degrees >= table[i].degrees)
			return table[i].t;
	return 63.657;
}

/* How far a stratum is from the ratio, as much of it as chance has to do with. */
static double residual(const struct observation *at, double ratio)
{
	return sqrt(at->missed) * (at->y - ratio * at->x);
}

struct spread {
	double variance, degrees;
};

static struct spread measure_spread(const struct observation *list, size_t count, double ratio)
{
	double variance = 0, squares = 0, difference;
	size_t i;

	/* An odd one at the end makes a pair with the one before it. */
	for (i = 0; i + 1 < count; i += 2 - (i + 3 == count)) {
		difference = residual(&list[i], ratio) - residual(&list[i + 1], ratio);
		variance += difference * difference;
		squares += difference * difference * difference * difference;
	}
	return (struct spread){
		.variance = variance,
		.degrees = squares > 0 ? variance * variance / squares : 1,
	};
}

/*
 * A ratio is fitted to what it is then compared with: the fewer windows met anything, the less
 * of the spread is left to be seen, with one of them nothing. Then all that is known is a bound.
 */
struct estimate ratio_estimate(const struct observation *list, size_t count, double known)
{
	double sum_x = 0, sum_y = 0, met = 0, sampled = 0, ratio;
	struct spread spread;
	size_t i;

	for (i = 0; i < count; i++) {
		sum_x += list[i].x;
		sum_y += list[i].y;
		met += list[i].x > 0;
		sampled += list[i].missed > 0;
	}
	if (sum_x <= 0)
		return (struct estimate){ .value = 0, .error = known };
	ratio = sum_y / sum_x;
	if (sampled < 1)
		return (struct estimate){ .value = known * ratio, .error = 0 };
	if (met < 2)
		return (struct estimate){ .value = known * ratio, .error = known };
	spread = measure_spread(list, count, ratio);
	return (struct estimate){
		.value = known * ratio,
		.error = known * sqrt(spread.variance * met / (met - 1)) / sum_x *
			 student_99(spread.degrees),
	};
}

static int compare_numbers(const void *a, const void *b, void *context)
{
	const struct stratum *list = context;
	const struct stratum_key *x = &list[*(const uint32_t *)a].key;
	const struct stratum_key *y = &list[*(const uint32_t *)b].key;

	if (x->object != y->object)
		return x->object < y->object ? -1 : 1;
	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

/* The numbers of the strata in the order of their keys. */
static uint32_t *sort_strata(struct strata *strata)
{
	uint32_t *order = malloc((strata->count + 1) * sizeof(*order));
	size_t i;

	if (!order)
		return NULL;
	for (i = 0; i < strata->count; i++)
		order[i] = (uint32_t)i;
	if (strata->count)
		qsort_r(order, strata->count, sizeof(*order), compare_numbers, strata->list);
	return order;
}

struct estimate estimate_add(struct estimate a, struct estimate b)
{
	return (struct estimate){ .value = a.value + b.value, .error = a.error + b.error };
}

/* One quantity of one kind; which one is the place of its member. */
static void add_quantity(const struct strata *strata, const uint32_t *order, enum page_kind kind,
			 double known, size_t quantity, struct observation *list,
			 struct estimate *sum)
{
	const struct stratum_sums *sums;
	size_t i;

	for (i = 0; i < strata->count; i++) {
		sums = &strata->sums[PAGE_KINDS * order[i] + kind];
		list[i].x = sums->rss;
		list[i].missed = sums->missed;
		memcpy(&list[i].y, (const char *)sums + quantity, sizeof(list[i].y));
	}
	*sum = estimate_add(*sum, ratio_estimate(list, strata->count, known));
}

static void add_kind(const struct strata *strata, const uint32_t *order, enum page_kind kind,
		     double known, struct observation *list, struct strata_estimates *sum)
{
	add_quantity(strata, order, kind, known, offsetof(struct stratum_sums, pss), list,
		     &sum->pss);
	add_quantity(strata, order, kind, known, offsetof(struct stratum_sums, unique), list,
		     &sum->unique);
	add_quantity(strata, order, kind, known, offsetof(struct stratum_sums, outside), list,
		     &sum->outside);
}

int strata_estimate(struct strata *strata, const double known_rss[PAGE_KINDS],
		    struct strata_estimates *ret_estimates)
{
	struct strata_estimates sum = { 0 };
	struct observation *list;
	enum page_kind kind;
	uint32_t *order;

	list = calloc(strata->count + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	order = strata_sums(strata) ? sort_strata(strata) : NULL;
	if (!order) {
		free(list);
		return -ENOMEM;
	}
	for (kind = 0; kind < PAGE_KINDS; kind++)
		if (known_rss[kind] > 0)
			add_kind(strata, order, kind, known_rss[kind], list, &sum);
	free(list);
	free(order);
	*ret_estimates = sum;
	return 0;
}
