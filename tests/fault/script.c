/* SPDX-License-Identifier: MIT */
#include "tests/fault/script.h"

#include <sys/mman.h>

#include "lib/internal.h"
#include "tests/fault/injector.h"
#include "tests/tap.h"

struct state {
	unsigned char page[PAGES];
};

static struct {
	struct cow_region *regions[8];
	struct state live[8];
	struct cow_snapshot *snaps[8];
	struct state past[8];
	const unsigned char *views[8];
	void *adopted;
} world;

static const char *const kind_names[] = {
	"new",  "adopt", "write",  "store",    "arm",  "discard", "snapshot", "snapshot_many",
	"read", "map",   "branch", "rollback", "diff", "merge",   "unref",    "free",
};

const struct step script[] = {
	{ NEW, .r = 0, .byte = PLAIN },
	{ NEW, .r = 1, .byte = SPILLING },
	{ NEW, .r = 2, .byte = SHARED },
	{ ADOPT, .r = 3 },
	{ WRITE, .r = 0, .first = 10, .count = 60, .byte = 1 },
	{ WRITE, .r = 1, .first = 20, .count = 80, .byte = 1 },
	{ WRITE, .r = 2, .first = 0, .count = 20, .byte = 1 },
	{ WRITE, .r = 3, .first = 0, .count = 20, .byte = 1 },
	{ SNAP, .r = 0, .s = 0 },
	{ SNAP, .r = 1, .s = 1 },
	{ STORE, .r = 0, .first = 5, .count = 3, .byte = 5 },
	{ STORE, .r = 0, .first = 50, .count = 3, .byte = 6 },
	{ ARM, .r = 0 },
	{ STORE, .r = 0, .first = 4, .count = 2, .byte = 7 },
	{ WRITE, .r = 0, .first = 0, .count = 100, .byte = 2 },
	{ WRITE, .r = 1, .first = 0, .count = 100, .byte = 2 }, /* spills */
	{ MANY, .r = 0, .s = 2, .count = 4 }, /* regions 0 to 3: snapshots 2 to 5 */
	{ DISCARD, .r = 0, .first = 5, .count = 50 },
	{ DISCARD, .r = 2, .first = 5, .count = 50 },
	{ DISCARD, .r = 3, .first = 5, .count = 50 },
	{ STORE, .r = 2, .first = 2, .count = 1, .byte = 8 },
	{ STORE, .r = 3, .first = 20, .count = 1, .byte = 8 },
	{ WRITE, .r = 1, .first = 30, .count = 60, .byte = 3 }, /* spills */
	{ READ, .s = 1 },
	{ MAP, .s = 0, .byte = 0 },
	{ MAP, .s = 1, .byte = COW_MAP_POPULATE },
	{ MAP, .s = 2, .byte = COW_MAP_POPULATE },
	{ BRANCH, .s = 1, .r = 4, .byte = SPILLING },
	{ BRANCH, .s = 2, .r = 5, .byte = SHARED },
	{ WRITE, .r = 4, .first = 10, .count = 80, .byte = 4 },
	{ WRITE, .r = 5, .first = 10, .count = 20, .byte = 4 },
	{ STORE, .r = 5, .first = 60, .count = 1, .byte = 5 },
	{ SNAP, .r = 4, .s = 6 },
	{ STORE, .r = 4, .first = 12, .count = 1, .byte = 5 },
	{ DISCARD, .r = 4, .first = 15, .count = 70 },
	{ ROLLBACK, .r = 4, .s = 6 },
	{ ROLLBACK, .r = 0, .s = 0 },
	{ ROLLBACK, .r = 1, .s = 1 }, /* out of the file */
	{ ROLLBACK, .r = 2, .s = 4 },
	{ ROLLBACK, .r = 3, .s = 5 },
	{ DIFF, .r = 1, .s = 1 },
	{ MERGE, .r = 0 },
	{ MERGE, .r = 1 },
	{ UNREF, .s = 1 },
	{ FREE, .r = 1 },
	{ READ, .s = 3 },
};
const size_t script_steps = sizeof(script) / sizeof(script[0]);

const char *step_name(const struct step *step)
{
	return kind_names[step->kind];
}

struct cow_region_options options_for(enum how how)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;

	options.trap = TEST_TRAP;
	if (how == SHARED)
		options.flags = COW_REGION_SHARED | COW_REGION_HUGE_PAGES;
	if (how == SPILLING) {
		options.preimage_limit = COW_PREIMAGE_LIMIT_MIN;
		options.spill_directory = getenv("BUILD_ROOT") ?: ".";
		options.limit_timeout_ns = 1;
	}
	return options;
}

static int count_range(size_t offset, size_t length, void *context)
{
	size_t *pages = context;

	(void)offset;
	*pages += length / PAGE;
	return 0;
}

static int write_pages(const struct step *step)
{
	static unsigned char content[PAGES * PAGE];

	memset(content, (int)step->byte, step->count * PAGE);
	return cow_region_write(world.regions[step->r], step->first * PAGE, content,
				step->count * PAGE);
}

/* Under the explicit trap a store is a bracket's. */
static int store_pages(const struct step *step)
{
	unsigned char *base = cow_region_get_base(world.regions[step->r]);

	if (TEST_TRAP == COW_TRAP_EXPLICIT)
		return write_pages(step);
	storing = true;
	for (unsigned page = step->first; page < step->first + step->count; page++)
		memset(base + page * PAGE, (int)step->byte, PAGE);
	storing = false;
	return 0;
}

static int read_all(const struct step *step)
{
	static unsigned char content[PAGES * PAGE];

	return cow_snapshot_read(world.snaps[step->s], 0, content, sizeof(content));
}

static int map_view(const struct step *step)
{
	const void *view = NULL;
	int r = cow_snapshot_map(world.snaps[step->s], step->byte, &view);

	if (r == 0)
		world.views[step->s] = view;
	return r;
}

int step_call(const struct step *step)
{
	struct cow_region_options options = options_for(step->kind == ADOPT ? PLAIN :
									      (enum how)step->byte);
	size_t pages = 0;

	switch (step->kind) {
	case NEW:
		return cow_region_new(PAGES * PAGE, &options, &world.regions[step->r]);
	case ADOPT:
		return cow_region_adopt(world.adopted, PAGES * PAGE, &options,
					&world.regions[step->r]);
	case WRITE:
		return write_pages(step);
	case STORE:
		return store_pages(step);
	case ARM:
		return cow_region_arm(world.regions[step->r]);
	case DISCARD:
		return cow_region_discard(world.regions[step->r], step->first * PAGE,
					  step->count * PAGE);
	case SNAP:
		return cow_region_snapshot(world.regions[step->r], &world.snaps[step->s]);
	case MANY:
		return cow_region_snapshot_many(&world.regions[step->r], step->count,
						&world.snaps[step->s]);
	case READ:
		return read_all(step);
	case MAP:
		return map_view(step);
	case BRANCH:
		return cow_snapshot_branch(world.snaps[step->s], &options, &world.regions[step->r]);
	case ROLLBACK:
		return cow_region_rollback(world.regions[step->r], world.snaps[step->s]);
	case DIFF:
		return cow_snapshot_diff(world.snaps[step->s], NULL, count_range, &pages);
	case MERGE:
		return cow_region_merge(world.regions[step->r], NULL);
	case UNREF:
		world.snaps[step->s] = cow_snapshot_unref(world.snaps[step->s]);
		world.views[step->s] = NULL;
		return 0;
	case FREE:
		cow_region_free(world.regions[step->r]);
		world.regions[step->r] = NULL;
		return 0;
	}
	return -ENOSYS;
}

void step_expect(const struct step *step)
{
	switch (step->kind) {
	case NEW:
	case ADOPT:
		memset(&world.live[step->r], 0, sizeof(world.live[0]));
		break;
	case WRITE:
	case STORE:
		memset(world.live[step->r].page + step->first, (int)step->byte, step->count);
		break;
	case DISCARD:
		memset(world.live[step->r].page + step->first, 0, step->count);
		break;
	case SNAP:
		world.past[step->s] = world.live[step->r];
		break;
	case MANY:
		for (unsigned i = 0; i < step->count; i++)
			world.past[step->s + i] = world.live[step->r + i];
		break;
	case BRANCH:
	case ROLLBACK:
		world.live[step->r] = world.past[step->s];
		break;
	default:
		break;
	}
}

/* --- what has to hold after each call --- */

static bool is_uniform(const unsigned char *page, unsigned char byte)
{
	return page[0] == byte && memcmp(page, page + 1, PAGE - 1) == 0;
}

static unsigned wrong_pages(const unsigned char *content, const struct state *state)
{
	unsigned wrong = 0;

	for (unsigned page = 0; page < PAGES; page++)
		wrong += !is_uniform(content + page * PAGE, state->page[page]);
	return wrong;
}

bool world_holds(void)
{
	static unsigned char content[PAGES * PAGE];
	bool holds = true;

	for (unsigned i = 0; i < 8; i++) {
		if (world.regions[i]) {
			space_validate(&world.regions[i]->space);
			holds &= ok(cow_region_read(world.regions[i], 0, content,
						    sizeof(content)) == 0 &&
					    wrong_pages(content, &world.live[i]) == 0,
				    "region %u holds what it should", i);
		}
		if (world.snaps[i])
			holds &= ok(cow_snapshot_read(world.snaps[i], 0, content,
						      sizeof(content)) == 0 &&
					    wrong_pages(content, &world.past[i]) == 0,
				    "snapshot %u holds what it should", i);
		if (world.views[i])
			holds &= ok(wrong_pages(world.views[i], &world.past[i]) == 0,
				    "view %u shows what it should", i);
	}
	return holds;
}

void free_world(void)
{
	for (unsigned i = 0; i < 8; i++) {
		cow_snapshot_unref(world.snaps[i]);
		cow_region_free(world.regions[i]);
	}
	munmap(world.adopted, PAGES * PAGE);
	memset(&world, 0, sizeof(world));
}
void set_up_world(void)
{
	world.adopted = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (world.adopted == MAP_FAILED)
		bail("mmap: %s", strerror(errno));
}

bool can_spill(void)
{
	struct cow_region_options options = options_for(SPILLING);
	struct cow_region *region;

	if (cow_region_new(PAGE, &options, &region) < 0)
		return false;
	cow_region_free(region);
	return true;
}
