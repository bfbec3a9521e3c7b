/* SPDX-License-Identifier: MIT */
/*
 * The library against plain copies: random operations on a few regions, each step compared with a
 * model that copies everything, and the internal invariants checked after each step.
 *
 * Model
 * - A region of the model is an array of page contents; a snapshot of it is a memcpy of that. Large
 *   regions are sparse: a few dozen of their pages are ever written, only these are modelled, and
 *   the rest has to read as zero.
 * - A run is a seed. Every step has a generator of its own, made of seed and step, so that steps
 *   can be left out: when a run fails, steps are taken away as long as it still fails, and what
 *   remains is printed. Runs happen in forked children, so that a failed assert() is a failure like
 *   any other.
 * - Calls may be refused at a limit (-EAGAIN); then nothing may have changed. What DROP gave up has
 *   to be neither mapped nor branched, and older than all that could have been taken in its place.
 *
 * Replay: test-model --seed N [--steps N], or COW_SEED and COW_STEPS.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "lib/helper.h"
#include "lib/internal.h"
#include "tests/tap.h"

/* The test is built once for each trap. */
#ifndef TEST_TRAP
#define TEST_TRAP COW_TRAP_EXPLICIT
#endif
static const enum cow_trap trap = TEST_TRAP;

#define PAGE         ((size_t)4096)
#define SLOTS_MAX    160u
#define REGIONS      6u
#define SNAPSHOTS    20u
#define STEPS_MAX    20000u
#define VERIFY_EVERY 50u

#ifdef MODEL_LONG
#define DEFAULT_RUNS  400u
#define DEFAULT_STEPS 4000u
#else
#define DEFAULT_RUNS  60u
#define DEFAULT_STEPS 1500u
#endif

/* --- numbers --- */

static uint64_t rng;

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t draw(uint64_t below)
{
	rng = mix(rng);
	return below ? rng % below : 0;
}

static bool one_in(unsigned n)
{
	return draw(n) == 0;
}

/* --- what a child tells its parent --- */

struct report {
	unsigned steps;
	char message[400];
	char doing[200];
	uint64_t calls, refused, dropped, spilled, verified;
};

static struct report *report;
static unsigned step_now;
static bool printing;

__attribute__((format(printf, 1, 2), noreturn)) static void wrong(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(report->message, sizeof(report->message), format, arguments);
	va_end(arguments);
	_exit(1);
}

#define must(condition, ...)                \
	do {                                \
		if (!(condition))           \
			wrong(__VA_ARGS__); \
	} while (0)

__attribute__((format(printf, 1, 2))) static void doing(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(report->doing, sizeof(report->doing), format, arguments);
	va_end(arguments);
	if (printing)
		printf("# step %u: %s\n", step_now, report->doing);
}

/* --- the model --- */

struct shape {
	uint64_t pages;           /* of the region */
	unsigned slots;           /* pages that are modelled */
	bool dense;               /* all of them: page[i] is i */
	uint64_t page[SLOTS_MAX]; /* ascending */
};

struct msnap;

struct mregion {
	struct cow_region *region;
	unsigned id, refs; /* the user's, and one for each snapshot */
	struct shape shape;
	unsigned char *live; /* the pages that are modelled, one after the other */
	struct msnap *source;
	bool branch, limited;
	enum cow_limit_policy policy;
	unsigned alive; /* snapshots that were not given up */
	uint64_t spilled;
};

struct msnap {
	struct cow_snapshot *snapshot;
	struct mregion *of;
	unsigned id, order, refs, user_refs, branches;
	unsigned char *content;
	const unsigned char *view;
	bool dropped, spared;
};

static struct mregion *regions[REGIONS];
static struct msnap *snaps[SNAPSHOTS];
static unsigned next_id;
static unsigned char scratch[SLOTS_MAX * PAGE], pattern[SLOTS_MAX * PAGE];
static const char *spill_directory;

static struct {
	void *memory;
	size_t length;
} adopted[STEPS_MAX / 8];
static unsigned adopted_count;

static size_t bytes(const struct mregion *r)
{
	return (size_t)r->shape.pages * PAGE;
}

static void mregion_put(struct mregion *r);

static void msnap_put(struct msnap *s)
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

static void mregion_put(struct mregion *r)
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

static struct mregion *pick_region(void)
{
	unsigned first = (unsigned)draw(REGIONS);

	for (unsigned i = 0; i < REGIONS; i++)
		if (regions[(first + i) % REGIONS])
			return regions[(first + i) % REGIONS];
	return NULL;
}

static struct msnap *pick_snap(void)
{
	unsigned first = (unsigned)draw(SNAPSHOTS);

	for (unsigned i = 0; i < SNAPSHOTS; i++)
		if (snaps[(first + i) % SNAPSHOTS])
			return snaps[(first + i) % SNAPSHOTS];
	return NULL;
}

static struct msnap *pick_snap_of(const struct mregion *r)
{
	unsigned first = (unsigned)draw(SNAPSHOTS);

	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		struct msnap *s = snaps[(first + i) % SNAPSHOTS];

		if (s && s->of == r)
			return s;
	}
	return NULL;
}

static unsigned free_region_slot(void)
{
	unsigned i = 0;

	while (i < REGIONS && regions[i])
		i++;
	return i;
}

static unsigned free_snap_slot(void)
{
	unsigned i = 0;

	while (i < SNAPSHOTS && snaps[i])
		i++;
	return i;
}

/* --- ranges --- */

/* A range that the model can follow: anywhere in a dense region, in one modelled page of a sparse
 * one. */
struct range {
	size_t offset, length; /* in the region */
	size_t at;             /* of its first byte, in the model */
};

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

static struct range pick_range(const struct shape *shape)
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

static void make_pattern(size_t length)
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

/* --- comparing --- */

static size_t first_difference(const unsigned char *a, const unsigned char *b, size_t length)
{
	size_t i = 0;

	while (i < length && a[i] == b[i])
		i++;
	return i;
}

static void compare(const char *what, unsigned id, size_t page, const unsigned char *got,
		    const unsigned char *expected, size_t length)
{
	size_t i;

	if (memcmp(got, expected, length) == 0)
		return;
	i = first_difference(got, expected, length);
	wrong("%s %u: page %zu+%zu: got %#x, expected %#x", what, id, page + i / PAGE, i % PAGE,
	      got[i], expected[i]);
}

static void check_unmodelled(const char *what, unsigned id, const unsigned char *content)
{
	for (size_t i = 0; i < PAGE; i++)
		must(content[i] == 0, "%s %u: a page never written is not zero at %zu", what, id,
		     i);
}

static bool is_modelled(const struct shape *shape, uint64_t page)
{
	for (unsigned i = 0; i < shape->slots; i++)
		if (shape->page[i] == page)
			return true;
	return false;
}

static void verify_live(struct mregion *r)
{
	const struct shape *shape = &r->shape;
	uint64_t other = draw(shape->pages);
	int e;

	if (shape->dense) {
		e = cow_region_read(r->region, 0, scratch, bytes(r));
		must(e == 0, "read of region %u: %d", r->id, e);
		compare("region", r->id, 0, scratch, r->live, bytes(r));
		if (!r->branch)
			compare("memory of region", r->id, 0, cow_region_get_base(r->region),
				r->live, bytes(r));
		return;
	}
	for (unsigned i = 0; i < shape->slots; i++) {
		e = cow_region_read(r->region, shape->page[i] * PAGE, scratch, PAGE);
		must(e == 0, "read of region %u: %d", r->id, e);
		compare("region", r->id, shape->page[i], scratch, r->live + i * PAGE, PAGE);
	}
	if (!is_modelled(shape, other)) {
		e = cow_region_read(r->region, other * PAGE, scratch, PAGE);
		must(e == 0, "read of region %u: %d", r->id, e);
		check_unmodelled("region", r->id, scratch);
	}
}

static void verify_snap(struct msnap *s)
{
	const struct shape *shape = &s->of->shape;
	uint64_t other = draw(shape->pages);
	int e, expected = s->dropped ? -ESTALE : 0;

	if (shape->dense) {
		e = cow_snapshot_read(s->snapshot, 0, scratch, shape->pages * PAGE);
		must(e == expected, "read of snapshot %u: %d, expected %d", s->id, e, expected);
		if (e == 0)
			compare("snapshot", s->id, 0, scratch, s->content, shape->pages * PAGE);
		return;
	}
	for (unsigned i = 0; i < shape->slots; i++) {
		e = cow_snapshot_read(s->snapshot, shape->page[i] * PAGE, scratch, PAGE);
		must(e == expected, "read of snapshot %u: %d, expected %d", s->id, e, expected);
		if (e == 0)
			compare("snapshot", s->id, shape->page[i], scratch, s->content + i * PAGE,
				PAGE);
	}
	if (!is_modelled(shape, other) && !s->dropped) {
		e = cow_snapshot_read(s->snapshot, other * PAGE, scratch, PAGE);
		must(e == 0, "read of snapshot %u: %d", s->id, e);
		check_unmodelled("snapshot", s->id, scratch);
	}
}

static void verify_view(const struct msnap *s)
{
	const struct shape *shape = &s->of->shape;

	for (unsigned i = 0; s->view && i < shape->slots; i++)
		compare("view of snapshot", s->id, shape->page[i], s->view + shape->page[i] * PAGE,
			s->content + i * PAGE, PAGE);
}

static void verify_all(void)
{
	for (unsigned i = 0; i < REGIONS; i++)
		if (regions[i])
			verify_live(regions[i]);
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		if (snaps[i]) {
			verify_snap(snaps[i]);
			verify_view(snaps[i]);
		}
	report->verified++;
}

/* --- what a call may answer --- */

/* true: it was done. Refused: nothing may have changed, which is looked at here. */
static bool done(struct mregion *r, int e, const char *what)
{
	report->calls++;
	if (e == 0)
		return true;
	must(e == -EAGAIN && r->limited, "%s on region %u: %d (%s)", what, r->id, e,
	     tap_errno_name(e));
	report->refused++;
	verify_live(r);
	return false;
}

/* Finds out what DROP gave up, and whether it might. */
static bool is_pinned(const struct msnap *s)
{
	return s->view || s->branches > 0 || s->spared;
}

static void note_dropped(struct msnap *s)
{
	must(!is_pinned(s) || trap != COW_TRAP_EXPLICIT,
	     "snapshot %u was given up, but is mapped, branched or rolled back to", s->id);
	/* A store cannot be refused, so under a trap each policy ends in giving up. */
	must(s->of->limited && (s->of->policy == COW_LIMIT_DROP || trap != COW_TRAP_EXPLICIT),
	     "snapshot %u was given up", s->id);
	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		const struct msnap *o = snaps[i];

		if (o && o->of == s->of && o->order < s->order && !is_pinned(o)) {
			struct cow_snapshot_stats stats = COW_SNAPSHOT_STATS_INIT;

			must(cow_snapshot_get_stats(o->snapshot, &stats) == 0 && stats.dropped,
			     "snapshot %u was given up before the older %u", s->id, o->id);
		}
	}
	s->dropped = true;
	s->of->alive--;
	report->dropped++;
}

static void find_dropped(void)
{
	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		struct cow_snapshot_stats stats = COW_SNAPSHOT_STATS_INIT;
		struct msnap *s = snaps[i];

		if (!s)
			continue;
		must(cow_snapshot_get_stats(s->snapshot, &stats) == 0, "stats of snapshot %u",
		     s->id);
		must(stats.branches == s->branches, "snapshot %u has %u branches, expected %u",
		     s->id, stats.branches, s->branches);
		must(!s->dropped || stats.dropped, "snapshot %u came back", s->id);
		if (stats.dropped && !s->dropped)
			note_dropped(s);
	}
}

/* --- making and freeing regions --- */

static struct shape make_shape(void)
{
	struct shape shape = { .dense = !one_in(6) };

	if (shape.dense) {
		shape.slots = (unsigned)(one_in(3) ? SLOTS_MAX - draw(64) : draw(64) + 1);
		shape.pages = shape.slots;
		for (unsigned i = 0; i < shape.slots; i++)
			shape.page[i] = i;
		return shape;
	}
	/* Without userfaultfd a discard looks at each page. */
	shape.pages = (uint64_t)1 << (10 + draw(trap == COW_TRAP_MPROTECT ? 6 : 20));
	shape.slots = 24;
	for (unsigned i = 0; i < shape.slots; i++)
		shape.page[i] = shape.pages / shape.slots * i + draw(shape.pages / shape.slots);
	return shape;
}

static struct cow_region_options make_options(struct mregion *r)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;

	options.trap = trap;
	if (one_in(4))
		options.flags |= COW_REGION_SHARED;
	if (one_in(8))
		options.flags |= COW_REGION_HUGE_PAGES;
	if (one_in(4))
		options.flags |= COW_REGION_COPY_AHEAD;
	if (one_in(2))
		options.block = PAGE << draw(7);
	if (one_in(4))
		options.pool_limit = PAGE * (draw(64) + 1);
	r->limited = one_in(2);
	if (!r->limited)
		return options;
	r->policy = options.limit_policy = (enum cow_limit_policy)draw(3);
	options.preimage_limit = COW_PREIMAGE_LIMIT_MIN + draw(40) * PAGE;
	options.limit_timeout_ns = 1;
	if (r->policy == COW_LIMIT_SPILL && !one_in(5))
		options.spill_directory = spill_directory;
	return options;
}

static struct mregion *mregion_new(const struct shape *shape)
{
	struct mregion *r = calloc(1, sizeof(*r));

	r->id = next_id++;
	r->refs = 1;
	r->shape = *shape;
	r->live = calloc(shape->slots, PAGE);
	return r;
}

static void *memory_to_adopt(struct mregion *r)
{
	void *memory = mmap(NULL, bytes(r), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);

	must(memory != MAP_FAILED, "mmap");
	make_pattern(bytes(r));
	memcpy(memory, pattern, bytes(r));
	memcpy(r->live, pattern, bytes(r));
	adopted[adopted_count].memory = memory;
	adopted[adopted_count++].length = bytes(r);
	return memory;
}

static void op_region_new(void)
{
	unsigned slot = free_region_slot();
	struct shape shape = make_shape();
	struct mregion *r;
	struct cow_region_options options;
	bool adopt = shape.dense && one_in(4) && adopted_count < STEPS_MAX / 8;
	size_t cut_off = draw(PAGE);
	int e;

	if (slot == REGIONS)
		return;
	r = mregion_new(&shape);
	options = make_options(r);
	doing("region %u: new, %" PRIu64 " pages%s, flags %x, limit %zu, policy %u", r->id,
	      shape.pages, adopt ? " adopted" : "", options.flags, options.preimage_limit,
	      options.limit_policy);
	if (adopt) {
		options.flags &= COW_REGION_COPY_AHEAD;
		e = cow_region_adopt(memory_to_adopt(r), bytes(r), &options, &r->region);
	} else {
		e = cow_region_new(bytes(r) - cut_off, &options, &r->region);
	}
	must(e == 0, "region %u: %d", r->id, e);
	must(cow_region_get_length(r->region) == bytes(r), "length of region %u", r->id);
	regions[slot] = r;
}

static void forget_region(struct mregion *r)
{
	for (unsigned i = 0; i < REGIONS; i++)
		if (regions[i] == r)
			regions[i] = NULL;
	cow_region_free(r->region);
	r->region = NULL;
	mregion_put(r);
}

static void op_region_free(void)
{
	struct mregion *r = pick_region();

	if (!r)
		return;
	doing("region %u: free", r->id);
	forget_region(r);
}

/* --- writing --- */

/* Inside the bracket the plain memory has to show what the region holds, in whole pages. */
static void check_opened(struct mregion *r, const struct range *range)
{
	size_t head = range->offset % PAGE;
	size_t length = (head + range->length + PAGE - 1) / PAGE * PAGE;

	if (range->length > 0)
		compare("opened memory of region", r->id, (range->offset - head) / PAGE,
			(unsigned char *)cow_region_get_base(r->region) + range->offset - head,
			r->live + range->at - head, length);
}

static int write_bracketed(struct mregion *r, const struct range *range, bool nested)
{
	unsigned char *to = (unsigned char *)cow_region_get_base(r->region) + range->offset;
	int e = cow_region_write_begin(r->region, to, range->length);

	if (e < 0)
		return e;
	check_opened(r, range);
	if (nested) {
		e = cow_region_write_begin(r->region, to, range->length);
		must(e == 0, "a nested bracket on open pages of region %u: %d", r->id, e);
	}
	memcpy(to, pattern, range->length);
	if (nested)
		cow_region_write_end(r->region, to, range->length);
	cow_region_write_end(r->region, to, range->length);
	return 0;
}

static int write_touched(struct mregion *r, const struct range *range)
{
	unsigned char *to = (unsigned char *)cow_region_get_base(r->region) + range->offset;
	int e = cow_region_touch(r->region, to, range->length);

	if (e < 0)
		return e;
	check_opened(r, range);
	memcpy(to, pattern, range->length);
	return 0;
}

/* As programs do that know nothing of us. */
static int write_plainly(struct mregion *r, const struct range *range)
{
	memcpy((unsigned char *)cow_region_get_base(r->region) + range->offset, pattern,
	       range->length);
	return 0;
}

static void op_write(void)
{
	struct mregion *r = pick_region();
	unsigned how = (unsigned)draw(4);
	struct range range;
	int e;

	if (!r)
		return;
	range = pick_range(&r->shape);
	make_pattern(range.length);
	doing("region %u: write %u, %zu bytes at %zu", r->id, how, range.length, range.offset);
	if (how == 0)
		e = trap == COW_TRAP_EXPLICIT ? write_touched(r, &range) : write_plainly(r, &range);
	else if (how == 1)
		e = cow_region_write(r->region, range.offset, pattern, range.length);
	else
		e = write_bracketed(r, &range, how == 2);
	if (done(r, e, "write"))
		memcpy(r->live + range.at, pattern, range.length);
}

/* In a sparse region a discard may span everything. */
static void op_discard(void)
{
	struct mregion *r = pick_region();
	struct range range;
	bool all;

	if (!r)
		return;
	range = pick_range(&r->shape);
	all = !r->branch && one_in(8);
	doing("region %u: discard %zu at %zu%s", r->id, range.length, range.offset,
	      all ? " (all)" : "");
	if (all) {
		if (done(r, cow_region_discard(r->region, 0, bytes(r)), "discard"))
			memset(r->live, 0, r->shape.slots * PAGE);
	} else if (done(r, cow_region_discard(r->region, range.offset, range.length), "discard")) {
		memset(r->live + range.at, 0, range.length);
	}
}

/* --- snapshots --- */

static void msnap_new(struct mregion *r, struct cow_snapshot *snapshot)
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

static void op_snapshot(void)
{
	struct cow_snapshot *snapshot = NULL;
	struct mregion *r = pick_region();
	int e;

	if (!r || free_snap_slot() == SNAPSHOTS)
		return;
	doing("region %u: snapshot %u", r->id, next_id);
	e = cow_region_snapshot(r->region, &snapshot);
	must(e == 0, "snapshot of region %u: %d", r->id, e);
	must(cow_snapshot_get_length(snapshot) == bytes(r), "length of a snapshot");
	msnap_new(r, snapshot);
}

static unsigned free_snap_slots(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SNAPSHOTS; i++)
		n += !snaps[i];
	return n;
}

static void op_snapshot_many(void)
{
	struct cow_snapshot *made[REGIONS];
	struct cow_region *of[REGIONS];
	struct mregion *models[REGIONS];
	size_t count = 0;
	int e;

	for (unsigned i = 0; i < REGIONS; i++)
		if (regions[i] && one_in(2)) {
			models[count] = regions[i];
			of[count++] = regions[i]->region;
		}
	if (count == 0 || free_snap_slots() < count)
		return;
	doing("one cut of %zu regions, from %u", count, next_id);
	e = cow_region_snapshot_many(of, count, made);
	must(e == 0, "snapshot_many: %d", e);
	for (size_t i = 0; i < count; i++)
		msnap_new(models[i], made[i]);
}

static void op_read_snap(void)
{
	struct msnap *s = pick_snap();
	struct range range;
	int e;

	if (!s)
		return;
	range = pick_range(&s->of->shape);
	doing("snapshot %u: read %zu at %zu", s->id, range.length, range.offset);
	e = cow_snapshot_read(s->snapshot, range.offset, scratch, range.length);
	must(e == (s->dropped && range.length > 0 ? -ESTALE : 0) || (s->dropped && e == -ESTALE),
	     "read of snapshot %u: %d", s->id, e);
	if (e == 0)
		compare("snapshot", s->id, range.offset / PAGE, scratch, s->content + range.at,
			range.length);
}

static void op_read_live(void)
{
	struct mregion *r = pick_region();
	struct range range;
	int e;

	if (!r)
		return;
	range = pick_range(&r->shape);
	doing("region %u: read %zu at %zu", r->id, range.length, range.offset);
	e = cow_region_read(r->region, range.offset, scratch, range.length);
	must(e == 0, "read of region %u: %d", r->id, e);
	compare("region", r->id, range.offset / PAGE, scratch, r->live + range.at, range.length);
}

static void op_map(void)
{
	struct msnap *s = pick_snap();
	bool whole = one_in(2);
	const void *base = NULL;
	int e;

	if (!s || (s->of->shape.pages > 2048 && whole))
		return;
	doing("snapshot %u: map%s", s->id, whole ? ", populate" : "");
	e = cow_snapshot_map(s->snapshot, whole ? COW_MAP_POPULATE : 0, &base);
	must(e == (s->dropped ? -ESTALE : 0), "map of snapshot %u: %d", s->id, e);
	if (s->dropped)
		return;
	must(!s->view || s->view == base, "the view of snapshot %u moved", s->id);
	s->view = base;
	if (one_in(2))
		verify_view(s);
}

static void op_ref(void)
{
	struct msnap *s = pick_snap();

	if (!s || s->user_refs > 3)
		return;
	doing("snapshot %u: ref", s->id);
	must(cow_snapshot_ref(s->snapshot) == s->snapshot, "ref returns its argument");
	s->user_refs++;
}

static void unref(struct msnap *s)
{
	must(cow_snapshot_unref(s->snapshot) == NULL, "unref returns NULL");
	if (--s->user_refs > 0)
		return;
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		if (snaps[i] == s)
			snaps[i] = NULL;
	msnap_put(s);
}

static void op_unref(void)
{
	struct msnap *s = pick_snap();

	if (!s)
		return;
	doing("snapshot %u: unref", s->id);
	unref(s);
}

static void op_branch(void)
{
	unsigned slot = free_region_slot();
	struct cow_region_options options;
	struct msnap *s = pick_snap();
	struct mregion *r;
	int e;

	if (!s || slot == REGIONS)
		return;
	r = mregion_new(&s->of->shape);
	options = make_options(r);
	doing("snapshot %u: branch %u, flags %x, limit %zu, policy %u", s->id, r->id, options.flags,
	      options.preimage_limit, options.limit_policy);
	e = cow_snapshot_branch(s->snapshot, &options, &r->region);
	must(e == (s->dropped ? -ESTALE : 0), "branch of snapshot %u: %d", s->id, e);
	if (e < 0) {
		mregion_put(r);
		return;
	}
	memcpy(r->live, s->content, r->shape.slots * PAGE);
	r->branch = true;
	r->source = s;
	s->refs++;
	s->branches++;
	regions[slot] = r;
}

static void op_rollback(void)
{
	struct mregion *r = pick_region();
	struct msnap *s = r ? pick_snap_of(r) : NULL;
	int e;

	if (!s)
		return;
	doing("region %u: rollback to %u", r->id, s->id);
	s->spared = true;
	e = cow_region_rollback(r->region, s->snapshot);
	if (s->dropped)
		must(e == -ESTALE, "rollback to a dropped snapshot: %d", e);
	else if (done(r, e, "rollback"))
		memcpy(r->live, s->content, r->shape.slots * PAGE);
	find_dropped();
	s->spared = false;
	verify_live(r);
}

static void op_merge(void)
{
	struct mregion *r = pick_region();
	struct cow_region_stats before = COW_REGION_STATS_INIT, after = COW_REGION_STATS_INIT;
	uint64_t freed = 1;
	int e;

	if (!r)
		return;
	doing("region %u: merge", r->id);
	cow_region_get_stats(r->region, &before);
	e = cow_region_merge(r->region, &freed);
	must(e == 0, "merge of region %u: %d", r->id, e);
	cow_region_get_stats(r->region, &after);
	must(before.preimage_bytes >= after.preimage_bytes + freed,
	     "merge of region %u says %" PRIu64 " bytes, %" PRIu64 " -> %" PRIu64, r->id, freed,
	     before.preimage_bytes, after.preimage_bytes);
}

/* --- differences --- */

struct found {
	size_t end; /* of the last range */
	unsigned calls;
	int stop;
	bool differs[SLOTS_MAX];
	const struct shape *shape;
};

static int note_range(size_t offset, size_t length, void *context)
{
	struct found *found = context;

	must(offset % PAGE == 0 && length % PAGE == 0 && length > 0, "diff reports whole pages");
	must(found->calls == 0 || offset > found->end, "diff reports in order, neighbours joined");
	found->end = offset + length;
	found->calls++;
	for (unsigned i = 0; i < found->shape->slots; i++)
		if (found->shape->page[i] >= offset / PAGE &&
		    found->shape->page[i] < (offset + length) / PAGE) {
			found->differs[i] = true;
			length -= PAGE;
			offset += PAGE;
		}
	must(length == 0, "diff reports a page that was never written");
	return found->stop;
}

static void check_diff(struct msnap *a, struct msnap *b, const unsigned char *content, int stop)
{
	struct found found = { .shape = &a->of->shape, .stop = stop };
	bool stale = a->dropped || (b && b->dropped), any = false;
	int e = cow_snapshot_diff(a->snapshot, b ? b->snapshot : NULL, note_range, &found);

	if (stale) {
		must(e == -ESTALE, "diff with a dropped snapshot: %d", e);
		return;
	}
	for (unsigned i = 0; i < found.shape->slots; i++) {
		bool differs = memcmp(a->content + i * PAGE, content + i * PAGE, PAGE) != 0;

		any |= differs;
		must(stop || differs == found.differs[i],
		     "diff of %u: page %" PRIu64 " differs %d, expected %d", a->id,
		     found.shape->page[i], found.differs[i], differs);
	}
	must(e == (any ? stop : 0), "diff returns %d, expected %d", e, any ? stop : 0);
	must(!stop || found.calls <= 1, "diff goes on after it was stopped");
}

static void op_diff(void)
{
	struct mregion *r = pick_region();
	struct msnap *a = pick_snap(), *b = a ? pick_snap_of(a->of) : NULL;
	int stop = one_in(6) ? (one_in(2) ? 7 : -7) : 0;

	if (!a)
		return;
	doing("diff of %u and %u, and with region %u", a->id, b->id, r ? r->id : 0);
	check_diff(a, b, b->content, stop);
	a = r ? pick_snap_of(r) : NULL;
	if (a)
		check_diff(a, NULL, r->live, stop);
}

/* --- after each step --- */

static void check_stats(struct mregion *r)
{
	struct cow_region_stats s = COW_REGION_STATS_INIT;
	int e = cow_region_get_stats(r->region, &s);

	must(e == 0, "stats: %d", e);
	must(s.size == sizeof(s) && s.trap == trap && s.page_size == PAGE, "stats: constants");
	must(s.pages == r->shape.pages, "stats: pages %" PRIu64, s.pages);
	must(s.present_pages <= s.pages && s.open_pages <= s.pages,
	     "stats: present %" PRIu64 ", open %" PRIu64, s.present_pages, s.open_pages);
	must(s.faults == s.copied_pages + s.reused_pages + s.filled_pages, "stats: faults");
	/* A trap's last resort takes also what only a branch still holds: no handle of ours
	 * tells. */
	must(s.snapshots == r->alive || (trap != COW_TRAP_EXPLICIT && r->limited),
	     "stats: %" PRIu64 " snapshots, expected %u", s.snapshots, r->alive);
	must(s.snapshots > 0 || s.spilled_bytes == 0 || r->region->space.dying,
	     "stats: spilled bytes without a snapshot");
	must(!r->limited || s.preimage_bytes + s.pool_bytes <= r->region->space.pool.limit,
	     "stats: above the limit");
	report->spilled += r->spilled < s.spilled_pages ? s.spilled_pages - r->spilled : 0;
	r->spilled = s.spilled_pages;
	must(s.cut_ns_last <= s.cut_ns_max && s.fault_ns_p50 <= s.fault_ns_p99 &&
		     s.fault_ns_p99 <= s.fault_ns_max,
	     "stats: times");
}

static void check_after_step(void)
{
	find_dropped();
	for (unsigned i = 0; i < REGIONS; i++)
		if (regions[i]) {
			helper_drain(regions[i]->region);
			space_validate(&regions[i]->region->space);
			check_stats(regions[i]);
		}
	for (unsigned i = 0; i < SNAPSHOTS; i++)
		if (snaps[i] && !snaps[i]->of->region) /* its region was freed */
			space_validate(&snaps[i]->snapshot->region->space);
}

/* --- a run --- */

static const struct op {
	unsigned weight;
	void (*run)(void);
} ops[] = {
	{ 4, op_region_new }, { 1, op_region_free },   { 34, op_write },    { 5, op_discard },
	{ 14, op_snapshot },  { 3, op_snapshot_many }, { 8, op_read_snap }, { 4, op_read_live },
	{ 3, op_map },        { 3, op_ref },           { 14, op_unref },    { 4, op_branch },
	{ 4, op_rollback },   { 3, op_merge },         { 4, op_diff },
};

static const struct op *pick_op(void)
{
	unsigned total = 0, at;

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		total += ops[i].weight;
	at = (unsigned)draw(total);
	for (size_t i = 0;; i++) {
		if (at < ops[i].weight)
			return &ops[i];
		at -= ops[i].weight;
	}
}

static void clean_up(void)
{
	while (true) {
		bool any = false;

		for (unsigned i = 0; i < SNAPSHOTS; i++)
			if (snaps[i]) {
				unref(snaps[i]);
				any = true;
			}
		if (!any)
			break;
	}
	for (unsigned i = 0; i < REGIONS; i++)
		if (regions[i])
			forget_region(regions[i]);
	for (unsigned i = 0; i < adopted_count; i++)
		munmap(adopted[i].memory, adopted[i].length);
}

static void run_steps(uint64_t seed, unsigned steps, const bool *left_out)
{
	for (unsigned i = 0; i < steps; i++) {
		if (left_out[i])
			continue;
		rng = mix(seed ^ mix(i));
		step_now = report->steps = i;
		pick_op()->run();
		check_after_step();
		if (i % VERIFY_EVERY == 0)
			verify_all();
	}
	doing("the last look, and freeing everything");
	verify_all();
	clean_up();
}

/* --- children, and taking steps away --- */

struct outcome {
	bool failed;
	int status;
};

/* A child that hangs is a failure, too. */
static struct outcome run_in_child(uint64_t seed, unsigned steps, const bool *left_out, bool print)
{
	int status = 0;
	pid_t pid;

	memset(report, 0, sizeof(*report));
	pid = fork();
	if (pid < 0)
		bail("fork: %s", strerror(errno));
	if (pid == 0) {
		printing = print;
		if (!print && freopen("/dev/null", "w", stdout) == NULL)
			_exit(2);
		alarm(patience(120));
		run_steps(seed, steps, left_out);
		exit(0); /* so that a leak checker has its say */
	}
	waitpid(pid, &status, 0);
	return (struct outcome){ .failed = status != 0, .status = status };
}

static bool still_fails(uint64_t seed, unsigned steps, const bool *left_out)
{
	int saved = dup(STDERR_FILENO), none = open("/dev/null", O_WRONLY | O_CLOEXEC);
	bool failed;

	dup2(none, STDERR_FILENO);
	failed = run_in_child(seed, steps, left_out, false).failed;
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(none);
	return failed;
}

/* Takes ever smaller pieces away, as long as what is left still fails. */
static void shrink(uint64_t seed, unsigned steps, bool *left_out)
{
	static bool tried[STEPS_MAX];
	unsigned runs = 0;

	for (unsigned piece = steps / 2; piece > 0 && runs < 400; piece /= 2)
		for (unsigned start = 0; start < steps && runs < 400; start += piece) {
			bool any = false;

			memcpy(tried, left_out, steps);
			for (unsigned i = start; i < start + piece && i < steps; i++) {
				any |= !tried[i];
				tried[i] = true;
			}
			if (!any)
				continue;
			runs++;
			if (still_fails(seed, steps, tried))
				memcpy(left_out, tried, steps);
		}
}

static void explain(uint64_t seed, unsigned steps, struct outcome outcome)
{
	static bool left_out[STEPS_MAX];

	diag("seed %" PRIu64 ", step %u: %s", seed, report->steps, report->doing);
	if (WIFSIGNALED(outcome.status))
		diag("died by signal %d", WTERMSIG(outcome.status));
	else
		diag("exit %d: %s", WEXITSTATUS(outcome.status), report->message);
	diag("again: --seed %" PRIu64 " --steps %u", seed, steps);
	steps = report->steps + 1 < steps ? report->steps + 1 : steps;
	memset(left_out, 0, sizeof(left_out));
	shrink(seed, steps, left_out);
	diag("the steps that are needed:");
	outcome = run_in_child(seed, steps, left_out, true);
	diag("%s", outcome.failed ? report->message : "(it did not fail again)");
}

/* --- arguments --- */

static struct {
	uint64_t seed;
	bool seed_given;
	unsigned runs, steps;
} chosen = { .seed = 20240607, .runs = DEFAULT_RUNS, .steps = DEFAULT_STEPS };

static void choose_seed(const char *text)
{
	chosen.seed = strtoull(text, NULL, 0);
	chosen.seed_given = true;
	chosen.runs = 1;
}

static void choose_steps(const char *text)
{
	chosen.steps = (unsigned)strtoul(text, NULL, 0);
	if (chosen.steps > STEPS_MAX)
		chosen.steps = STEPS_MAX;
}

TEST(random_operations_match_plain_copies)
{
	static const bool none[STEPS_MAX];
	uint64_t calls = 0, refused = 0, dropped = 0, spilled = 0, steps = 0;

	diag("first seed %" PRIu64 ", %u runs of %u steps", chosen.seed, chosen.runs, chosen.steps);
	for (unsigned i = 0; i < chosen.runs; i++) {
		uint64_t seed = chosen.runs == 1 ? chosen.seed : mix(chosen.seed + i) >> 20;
		struct outcome outcome = run_in_child(seed, chosen.steps, none, false);

		if (!ok(!outcome.failed, "a run holds")) {
			explain(seed, chosen.steps, outcome);
			return;
		}
		steps += chosen.steps;
		calls += report->calls;
		refused += report->refused;
		dropped += report->dropped;
		spilled += report->spilled;
	}
	diag("%" PRIu64 " steps; %" PRIu64 " writes, %" PRIu64
	     " of them refused at a limit; %" PRIu64 " snapshots given up; %" PRIu64
	     " pages spilled",
	     steps, calls, refused, dropped, spilled);
	/* A generator that never gets to the limits would prove nothing about them. */
	if (chosen.runs > 10) {
		ok(refused > 0, "limits were reached");
		ok(dropped > 0, "snapshots were given up");
		ok(spilled > 0 || !spill_directory, "pages were spilled");
	}
}

/* The build directory, unless that is on tmpfs: then nothing spills, and the limit blocks. */
static void choose_spill_directory(void)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_region *region;

	spill_directory = getenv("BUILD_ROOT") ?: ".";
	options.trap = COW_TRAP_EXPLICIT;
	options.spill_directory = spill_directory;
	if (cow_region_new(PAGE, &options, &region) < 0) {
		diag("no spilling: %s is no disk", spill_directory);
		spill_directory = NULL;
		return;
	}
	cow_region_free(region);
}

int main(int argc, char **argv)
{
	static const struct tap_case cases[] = { CASE(random_operations_match_plain_copies) };
	const char *seed = getenv("COW_SEED"), *steps = getenv("COW_STEPS");
	const char *runs = getenv("COW_RUNS"); /* fewer where a run takes long */

#ifdef MODEL_LONG
	chosen.seed = (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();
#endif
	if (seed)
		choose_seed(seed);
	if (steps)
		choose_steps(steps);
	if (runs && strtoul(runs, NULL, 0) > 0)
		chosen.runs = (unsigned)strtoul(runs, NULL, 0);
	for (; argc > 2; argc -= 2, argv += 2) {
		if (strcmp(argv[1], "--seed") == 0)
			choose_seed(argv[2]);
		else if (strcmp(argv[1], "--steps") == 0)
			choose_steps(argv[2]);
		else
			break;
	}
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (report == MAP_FAILED)
		bail("mmap: %s", strerror(errno));
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	choose_spill_directory();
	return tap_main(argc, argv, cases, 1);
}
