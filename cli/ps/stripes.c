/* SPDX-License-Identifier: MIT */
#include "cli/ps/stripes.h"

#include <stdlib.h>

struct stripe {
	uint64_t number; /* (the first page + shift) / stripe_pages */
	uint32_t first, last;
	uint32_t next; /* in its bucket; 0: none, else number + 1 */
};

struct stripes {
	uint64_t pages, shift;
	struct stripe *list;
	size_t count, room;
	uint32_t *buckets;
	size_t bucket_mask;
	struct stripe_part *parts;
	size_t part_count, part_room;
};

void stripes_free(struct stripes *stripes)
{
	if (!stripes)
		return;
	free(stripes->list);
	free(stripes->buckets);
	free(stripes->parts);
	free(stripes);
}

size_t stripes_count(const struct stripes *stripes)
{
	return stripes->count;
}

const struct stripe_part *stripes_next(const struct stripes *stripes, size_t stripe,
				       const struct stripe_part *after)
{
	uint32_t next = after ? after->next : stripes->list[stripe].first;

	return next ? &stripes->parts[next - 1] : NULL;
}

static uint32_t *bucket_of(struct stripes *stripes, uint64_t number)
{
	return &stripes->buckets[number * UINT64_C(0x9e3779b97f4a7c15) >> 32 &
				 stripes->bucket_mask];
}

static void put_in_bucket(struct stripes *stripes, size_t stripe)
{
	uint32_t *bucket = bucket_of(stripes, stripes->list[stripe].number);

	stripes->list[stripe].next = *bucket;
	*bucket = (uint32_t)stripe + 1;
}

/* Doubles the list, and the buckets with it. */
static bool grow_list(struct stripes *stripes)
{
	size_t room = stripes->room ? 2 * stripes->room : 1024, i;
	struct stripe *list = realloc(stripes->list, room * sizeof(*list));
	uint32_t *buckets;

	if (!list)
		return false;
	stripes->list = list;
	buckets = calloc(room, sizeof(*buckets));
	if (!buckets)
		return false;
	free(stripes->buckets);
	stripes->buckets = buckets;
	stripes->bucket_mask = room - 1;
	stripes->room = room;
	for (i = 0; i < stripes->count; i++)
		put_in_bucket(stripes, i);
	return true;
}

static struct stripe *find_stripe(struct stripes *stripes, uint64_t number)
{
	uint32_t at = stripes->count ? *bucket_of(stripes, number) : 0;

	for (; at; at = stripes->list[at - 1].next)
		if (stripes->list[at - 1].number == number)
			return &stripes->list[at - 1];
	if (stripes->count == stripes->room && !grow_list(stripes))
		return NULL;
	stripes->list[stripes->count] = (struct stripe){ .number = number };
	put_in_bucket(stripes, stripes->count);
	return &stripes->list[stripes->count++];
}

static struct stripe_part *new_part(struct stripes *stripes)
{
	size_t room = stripes->part_room ? 2 * stripes->part_room : 4096;
	struct stripe_part *grown;

	if (stripes->part_count == stripes->part_room) {
		grown = room < UINT32_MAX ? realloc(stripes->parts, room * sizeof(*grown)) : NULL;
		if (!grown)
			return NULL;
		stripes->parts = grown;
		stripes->part_room = room;
	}
	return &stripes->parts[stripes->part_count++];
}

static bool add_part(struct stripes *stripes, const struct stripe_part *wanted)
{
	struct stripe_part *part = new_part(stripes);
	struct stripe *stripe =
		part ? find_stripe(stripes, (wanted->page + stripes->shift) / stripes->pages) :
		       NULL;
	uint32_t number = (uint32_t)stripes->part_count;

	if (!stripe)
		return false;
	*part = *wanted;
	if (stripe->last)
		stripes->parts[stripe->last - 1].next = number;
	else
		stripe->first = number;
	stripe->last = number;
	return true;
}

static bool cut_range(struct stripes *stripes, uint32_t source, uint32_t range,
		      const struct page_range *of)
{
	struct stripe_part part = { .source = source, .range = range, .page = of->page };
	uint64_t end = of->page + of->count;

	for (; part.page < end; part.page += part.count) {
		part.count = stripes->pages - (part.page + stripes->shift) % stripes->pages;
		if (part.count > end - part.page)
			part.count = end - part.page;
		if (!add_part(stripes, &part))
			return false;
	}
	return true;
}

struct stripes *stripes_new(const struct page_source *sources, size_t count, uint64_t stripe_pages,
			    uint64_t shift)
{
	struct stripes *stripes = calloc(1, sizeof(*stripes));
	size_t i, j;

	if (!stripes)
		return NULL;
	stripes->pages = stripe_pages;
	stripes->shift = shift;
	for (i = 0; i < count; i++)
		for (j = 0; j < sources[i].count; j++)
			if (!cut_range(stripes, (uint32_t)i, (uint32_t)j, &sources[i].ranges[j])) {
				stripes_free(stripes);
				return NULL;
			}
	return stripes;
}
