/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "lib/helper.h"
#include "lib/internal.h"
#include "tests/api/copies/copies.h"
#include "tests/tap.h"

/* --- comparing --- */

static size_t first_difference(const unsigned char *a, const unsigned char *b, size_t length)
{
	size_t i = 0;

	while (i < length && a[i] == b[i])
		i++;
	return i;
}

void compare(const char *what, unsigned id, size_t page, const unsigned char *got,
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

void verify_live(struct mregion *r)
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

/* Where the snapshot was given up as the last resort, what is not there yet raises SIGBUS. */
void verify_view(const struct msnap *s)
{
	const struct shape *shape = &s->of->shape;

	if (!s->view || s->dropped)
		return;
	for (unsigned i = 0; i < shape->slots; i++)
		compare("view of snapshot", s->id, shape->page[i], s->view + shape->page[i] * PAGE,
			s->content + i * PAGE, PAGE);
}

void verify_all(void)
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
bool done(struct mregion *r, int e, const char *what)
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
	must(!is_pinned(s) || TEST_TRAP != COW_TRAP_EXPLICIT,
	     "snapshot %u was given up, but is mapped, branched or rolled back to", s->id);
	/* A store cannot be refused, so under a trap each policy ends in giving up. */
	must(s->of->limited && (s->of->policy == COW_LIMIT_DROP || TEST_TRAP != COW_TRAP_EXPLICIT),
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

void find_dropped(void)
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

/* --- after each step --- */

static void check_stats(struct mregion *r)
{
	struct cow_region_stats s = COW_REGION_STATS_INIT;
	int e = cow_region_get_stats(r->region, &s);

	must(e == 0, "stats: %d", e);
	must(s.size == sizeof(s) && s.trap == TEST_TRAP && s.page_size == PAGE, "stats: constants");
	must(s.pages == r->shape.pages, "stats: pages %" PRIu64, s.pages);
	must(s.present_pages <= s.pages && s.open_pages <= s.pages,
	     "stats: present %" PRIu64 ", open %" PRIu64, s.present_pages, s.open_pages);
	must(s.faults == s.copied_pages + s.reused_pages + s.filled_pages, "stats: faults");
	/* A trap's last resort takes also what only a branch still holds: no handle of ours
	 * tells. */
	must(s.snapshots == r->alive || (TEST_TRAP != COW_TRAP_EXPLICIT && r->limited),
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

void check_after_step(void)
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
