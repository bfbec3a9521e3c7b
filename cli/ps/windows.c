/* SPDX-License-Identifier: MIT */
/* Reads the windows of a sample: where strata begin, and which part of a window a range holds. */
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "cli/ps/reading.h"

/*
 * How far the strata of an object begin before its own begin, 1 to their length; each begins with
 * its window. Windows at equal distances meet a stretch of memory as often as its length says, give
 * or take one, and every page is met with the same probability.
 */
static uint64_t strata_shift(const struct page_world *world, const struct page_range *range)
{
	const uint64_t object[] = { range->object, range->inode };

	return XXH3_64bits_withSeed(object, sizeof(object), world->seed) %
		       world->windows[range->kind].stratum_pages +
	       1;
}

uint64_t page_world_shift(const struct page_world *world)
{
	const struct page_range anonymous = { .kind = AREA_ANON };

	return world->strata ? strata_shift(world, &anonymous) : 0;
}

/* The strata of a stripe are looked up again for each process. */
#define RECENT_STRATA 64

struct recent_stratum {
	struct stratum_key key;
	uint64_t number; /* + 1; 0: nothing here */
};

struct recent_stratum *recent_strata_new(void)
{
	return calloc(RECENT_STRATA, sizeof(struct recent_stratum));
}

static int64_t find_stratum(struct reading *reading, const struct stratum_key *key)
{
	struct recent_stratum *recent =
		&reading->reader->strata[(key->index ^ key->inode) % RECENT_STRATA];
	int64_t number;

	if (recent->number && memcmp(&recent->key, key, sizeof(*key)) == 0)
		return (int64_t)recent->number - 1;
	number = strata_find(reading->world->strata, key);
	if (number >= 0)
		*recent = (struct recent_stratum){ .key = *key, .number = (uint64_t)number + 1 };
	return number;
}

/* The stratum is there, though its window met nothing of this area. */
static int add_nothing(struct reading *reading, struct piece piece)
{
	piece.process = reading->source->number;
	return pages_append(&reading->reader->pages, &piece);
}

/* A part of an object: pages [from, to) of it stand at the address `page` on. */
struct stretch {
	uint64_t from, to, page;
};

/* Reads as much of the window [first, end) as lies in the stretch. */
static int read_window(struct reading *reading, const struct stratum_key *key, enum area_kind area,
		       uint64_t first, uint64_t end, const struct stretch *stretch)
{
	const struct window *window = &reading->world->windows[area];
	uint64_t begin = first > stretch->from ? first : stretch->from;
	uint64_t stop = end < stretch->to ? end : stretch->to;
	uint64_t page = stretch->page + (begin - stretch->from);
	int64_t stratum = find_stratum(reading, key);
	const uint64_t *words;
	struct piece piece;
	int error;

	if (stratum < 0)
		return (int)stratum;
	piece = (struct piece){ .stratum = (uint32_t)stratum, .area = (uint8_t)area };
	if (begin >= stop)
		return add_nothing(reading, piece);
	error = reading_words(reading, page, (size_t)(stop - begin),
			      window->pages == window->stratum_pages, &words);
	return error ? error : reading_leaf(reading, page, words, (size_t)(stop - begin), piece);
}

int reading_windows(struct reading *reading, const struct page_range *range, uint64_t page,
		    uint64_t count)
{
	const struct window *window = &reading->world->windows[range->kind];
	uint64_t shift = strata_shift(reading->world, range), first, end, next;
	struct stratum_key key = { .object = range->object, .inode = range->inode };
	struct stretch stretch = { .from = range->from + (page - range->page), .page = page };
	uint64_t to = stretch.from + count;
	int error = 0;

	for (; stretch.from < to && !error; stretch.from = next) {
		key.index = (stretch.from + shift) / window->stratum_pages;
		/* The first stratum begins before the object does. */
		first = key.index ? key.index * window->stratum_pages - shift : 0;
		end = key.index             ? first + window->pages :
		      window->pages > shift ? window->pages - shift :
					      0;
		next = (key.index + 1) * window->stratum_pages - shift;
		stretch.to = next < to ? next : to;
		next = stretch.to;
		error = read_window(reading, &key, range->kind, first, end, &stretch);
		stretch.page += stretch.to - stretch.from;
	}
	return error;
}
