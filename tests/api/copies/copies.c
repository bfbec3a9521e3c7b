/* SPDX-License-Identifier: MIT */
#include "tests/api/copies/copies.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* --- numbers --- */

static uint64_t rng;

void draw_from(uint64_t seed)
{
	rng = seed;
}

uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

uint64_t draw(uint64_t below)
{
	rng = mix(rng);
	return below ? rng % below : 0;
}

bool one_in(unsigned n)
{
	return draw(n) == 0;
}

/* --- what a child tells its parent --- */
struct report *report;
unsigned step_now;
bool printing;

void wrong(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(report->message, sizeof(report->message), format, arguments);
	va_end(arguments);
	_exit(1);
}
void doing(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(report->doing, sizeof(report->doing), format, arguments);
	va_end(arguments);
	if (printing)
		printf("# step %u: %s\n", step_now, report->doing);
}

/* --- the model --- */

struct mregion *regions[REGIONS];
struct msnap *snaps[SNAPSHOTS];
unsigned next_id;
unsigned char scratch[SLOTS_MAX * PAGE], pattern[SLOTS_MAX * PAGE];
const char *spill_directory;

size_t bytes(const struct mregion *r)
{
	return (size_t)r->shape.pages * PAGE;
}

struct mregion *mregion_new(const struct shape *shape)
{
	struct mregion *r = calloc(1, sizeof(*r));

	r->id = next_id++;
	r->refs = 1;
	r->shape = *shape;
	r->live = calloc(shape->slots, PAGE);
	return r;
}
void msnap_new(struct mregion *r, struct cow_snapshot *snapshot)
{
	struct msnap *s = calloc(1, sizeof(*s));

	s->snapshot = snapshot;
	s->of = r;
	r->refs++;
	r->alive++;
	s->id = s->order = next_id++;
	s->refs = s->user_refs = 1;
	s->content = malloc(r->shape.slots * PAGE);
	memcpy(s->content, r->live, r->shape.slots * PAGE);
	snaps[free_snap_slot()] = s;
}
void msnap_put(struct msnap *s)
{
	struct mregion *of = s->of;

	if (--s->refs > 0)
		return;
	if (!s->dropped)
		of->alive--;
	free(s->content);
	free(s);
	mregion_put(of);
}

void mregion_put(struct mregion *r)
{
	struct msnap *source = r->source;

	if (--r->refs > 0)
		return;
	free(r->live);
	free(r);
	if (source) {
		source->branches--;
		msnap_put(source);
	}
}

struct mregion *pick_region(void)
{
	unsigned first = (unsigned)draw(REGIONS);

	for (unsigned i = 0; i < REGIONS; i++)
		if (regions[(first + i) % REGIONS])
			return regions[(first + i) % REGIONS];
	return NULL;
}

struct msnap *pick_snap(void)
{
	unsigned first = (unsigned)draw(SNAPSHOTS);

	for (unsigned i = 0; i < SNAPSHOTS; i++)
		if (snaps[(first + i) % SNAPSHOTS])
			return snaps[(first + i) % SNAPSHOTS];
	return NULL;
}

struct msnap *pick_snap_of(const struct mregion *r)
{
	unsigned first = (unsigned)draw(SNAPSHOTS);

	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		struct msnap *s = snaps[(first + i) % SNAPSHOTS];

		if (s && s->of == r)
			return s;
	}
	return NULL;
}

unsigned free_region_slot(void)
{
	unsigned i = 0;

	while (i < REGIONS && regions[i])
		i++;
	return i;
}

unsigned free_snap_slot(void)
{
	unsigned i = 0;

	while (i < SNAPSHOTS && snaps[i])
		i++;
	return i;
}

/* --- ranges --- */
static size_t random_length(size_t room)
{
	switch (draw(8)) {
	case 0:
		return 0;
	case 1:
	case 2:
		return draw(room) + 1;
	case 3:
		return room < PAGE ? room : PAGE;
	case 4:
		return room;
	default:
		return draw(room < 200 ? room : 200) + 1;
	}
}

struct range pick_range(const struct shape *shape)
{
	unsigned slot = (unsigned)draw(shape->slots);
	size_t in_page = one_in(2) ? 0 : draw(PAGE);
	size_t room = shape->dense ? (shape->slots - slot) * PAGE - in_page : PAGE - in_page;

	return (struct range){
		.offset = (size_t)shape->page[slot] * PAGE + in_page,
		.length = random_length(room),
		.at = slot * PAGE + in_page,
	};
}

void make_pattern(size_t length)
{
	uint64_t kind = draw(4), seed = draw(UINT64_MAX);

	if (kind == 0)
		memset(pattern, 0, length);
	else if (kind == 1)
		memset(pattern, (int)(seed & 3) + 1, length); /* equal pages, for merging */
	else
		for (size_t i = 0; i < length; i++)
			pattern[i] = (unsigned char)((seed = seed * 6364136223846793005u + 1) >>
						     56);
}
