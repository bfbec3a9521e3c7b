/* SPDX-License-Identifier: MIT */
#include <string.h>
#include <sys/mman.h>

#include "lib/internal.h"
#include "tests/api/copies/copies.h"
#include "tests/tap.h"

/* Of regions that were adopted: the program's, and freed last. */
static struct {
	void *memory;
	size_t length;
} adopted[STEPS_MAX / 8];
static unsigned adopted_count;

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
	shape.pages = (uint64_t)1 << (10 + draw(TEST_TRAP == COW_TRAP_MPROTECT ? 6 : 20));
	shape.slots = 24;
	for (unsigned i = 0; i < shape.slots; i++)
		shape.page[i] = shape.pages / shape.slots * i + draw(shape.pages / shape.slots);
	return shape;
}

static struct cow_region_options make_options(struct mregion *r)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;

	options.trap = TEST_TRAP;
	if (one_in(4))
		options.flags |= COW_REGION_SHARED;
	if (one_in(8))
		options.flags |= COW_REGION_HUGE_PAGES;
	if (one_in(4))
		options.flags |= COW_REGION_COPY_AHEAD;
	r->checked = one_in(8);
	if (r->checked)
		options.flags |= COW_REGION_CHECK;
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
		options.flags &= COW_REGION_COPY_AHEAD | COW_REGION_CHECK;
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
		e = TEST_TRAP == COW_TRAP_EXPLICIT ? write_touched(r, &range) :
						     write_plainly(r, &range);
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

/* Beside a cut that may come, or not. */
static void op_arm(void)
{
	struct mregion *r = pick_region();
	int e;

	if (!r)
		return;
	doing("region %u: arm", r->id);
	e = cow_region_arm(r->region);
	must(e == 0, "arming region %u: %d", r->id, e);
}

/* Nobody writes past the library here. */
static void op_check(void)
{
	struct mregion *r = pick_region();
	uint64_t pages = 99;
	int e;

	if (!r)
		return;
	doing("region %u: check", r->id);
	e = cow_region_check(r->region, &pages);
	if (!r->checked)
		must(e == -EOPNOTSUPP, "check of region %u, made without: %d", r->id, e);
	else if (done(r, e, "check"))
		must(pages == 0, "check of region %u finds %" PRIu64 " pages", r->id, pages);
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

/* --- any of them --- */

static const struct op {
	unsigned weight;
	void (*run)(void);
} ops[] = {
	{ 4, op_region_new }, { 1, op_region_free },   { 34, op_write },    { 5, op_discard },
	{ 14, op_snapshot },  { 3, op_snapshot_many }, { 8, op_read_snap }, { 4, op_read_live },
	{ 3, op_map },        { 3, op_ref },           { 14, op_unref },    { 4, op_branch },
	{ 4, op_rollback },   { 3, op_merge },         { 4, op_diff },      { 4, op_arm },
	{ 2, op_check },
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

void random_operation(void)
{
	pick_op()->run();
}

void free_everything(void)
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
