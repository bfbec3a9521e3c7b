/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "sys/sys.h"
#include "tests/model/actions.h"

const struct scenario *world_scenario;

static unsigned preparing_as;

unsigned self(void)
{
	return model_thread() < MODEL_THREADS ? model_thread() : preparing_as;
}

static unsigned sides(void)
{
	return world_scenario->branch || world_scenario->two ? 2 : 1;
}

static size_t place(unsigned half)
{
	return half * PAGE / 2 + 8 * self();
}

/* --- an open set: the software MMU as a back end of mmu/trap.c --- */

static struct soft_mmu *soft_behind(struct trap *trap)
{
	struct side *side = (struct side *)(void *)((char *)trap - offsetof(struct side, trap));

	return &side->soft;
}

static int protect_run(struct trap *trap, uint64_t first, uint64_t count)
{
	struct mmu *mmu = &soft_behind(trap)->mmu;

	for (uint64_t page = first; page < first + count; page++) {
		STEP("mmu: protect");
		mmu->ops->protect(mmu, page);
	}
	mmu->ops->flush(mmu);
	return 0;
}

static int unprotect_run(struct trap *trap, uint64_t first, uint64_t count)
{
	struct mmu *mmu = &soft_behind(trap)->mmu;

	mmu->ops->unprotect(mmu, first, count);
	return 0;
}

static const struct trap_ops set_ops = { .protect = protect_run, .unprotect = unprotect_run };

/* Of at most 64 pages: its set is one word, which stands in the state. */
static void set_init(struct side *side)
{
	const struct trap_policy policy = { .is_nested = inside_any };

	if (trap_init(&side->trap, &set_ops, &side->space, &policy) < 0)
		model_fail("no trap");
	openset_destroy(&side->trap.open);
	side->trap.open = (struct openset){
		.levels = { &side->open_pages },
		.words = { 1 },
		.height = 1,
	};
	atomic_store(&side->trap.armed, TRAP_ARMED);
	side->space.mmu = &side->trap.mmu;
}

/* What registering a trap, and copying ahead, would need. */
void *sys_alloc(size_t bytes)
{
	return NULL;
}

int sys_map(void *address, size_t length, int protection, int flags, int fd, void **ret_address)
{
	return -ENOMEM;
}

void sys_free(void *memory)
{
}

bool sys_is_alone(void)
{
	return false;
}

/* --- programs --- */

static bool was_stored(struct side *side, unsigned thread, unsigned page, unsigned half)
{
	unsigned char byte;

	soft_load(&side->soft, self(), page * PAGE + half * PAGE / 2 + 8 * (size_t)thread, &byte);
	return byte != 0;
}

static unsigned digit(const char *word, unsigned at)
{
	return (unsigned)(word[at] - '0');
}

static bool do_snap_word(const char *word)
{
	struct held_snap *held;

	if (!strchr("rxygku", word[0]))
		return false;
	held = wait_for_snap(digit(word, 1));
	if (!held)
		return true;
	switch (word[0]) {
	case 'r':
		read_snap(held, digit(word, 2));
		break;
	case 'x':
		release(held);
		break;
	case 'y':
		drop(held);
		break;
	case 'g':
		detach(held);
		break;
	case 'u':
		consume(held);
		break;
	default:
		rollback(held);
		break;
	}
	return true;
}

/* false: the program ends here. */
static bool do_word(const char *word)
{
	bool capital = word[0] >= 'A' && word[0] <= 'Z';
	struct side *side = &world()->sides[capital];
	unsigned char *stored = &world()->stored[self()];

	if (do_snap_word(word))
		return true;
	switch (word[0] | 0x20) {
	case 's':
	case 'w':
		store(side, digit(word, 1), place(digit(word, 2)), ++*stored);
		break;
	case 'z':
		store(side, digit(word, 1), PAGE - 8, 0x77);
		break;
	case 'b':
		bracket_begin(side, digit(word, 1), digit(word, 2));
		break;
	case 'e':
		bracket_end(side);
		break;
	case 'c':
		cut(0, capital ? 2 : 1, digit(word, 1), UINT64_MAX);
		break;
	case 'd':
		cut(0, 1, digit(word, 1), MODEL_SOON);
		break;
	case 'a':
		ahead(side, digit(word, 1));
		break;
	case 'o':
		open_block(side, digit(word, 1));
		break;
	case 'h':
		if (trap_arm_ahead(&side->trap) < 0)
			model_fail("arming ahead failed");
		break;
	case 'f':
		discard(side, digit(word, 1));
		break;
	case 'v':
		evict(side);
		break;
	case 'm':
		merge(side);
		break;
	case 'q':
		reclaim(&side->space);
		break;
	case 'l':
		return was_stored(side, digit(word, 1), digit(word, 2), digit(word, 3));
	default:
		model_fail("what is %s?", word);
	}
	return true;
}

static void do_words(const char *word)
{
	while (*word) {
		if (word[0] == '@')
			model_act_as(preparing_as = digit(word, 1));
		else if (!do_word(word))
			return;
		while (*word && *word != ' ')
			word++;
		while (*word == ' ')
			word++;
	}
}

static void body(unsigned thread)
{
	do_words(world_scenario->threads[thread]);
}

/* --- start --- */

static void side_init(unsigned index, enum base_kind base, struct snap *source)
{
	struct side *side = &world()->sides[index];
	struct space_config config = {
		.page_shift = SHIFT,
		.window = side->window,
		.pages = world_scenario->pages,
		.base = base,
		.source = source,
		.mmu = world_scenario->trap ? &side->soft.mmu : &mmu_explicit,
		.limit = world_scenario->limit * PAGE,
		.idle_limit = SIZE_MAX,
		.spill = &spill_ops,
	};

	soft_init(&side->soft, &side->space, side->soft_memory, MODEL_THREADS,
		  world_scenario->pages, base);
	if (space_init(&side->space, &config) < 0)
		model_fail("no space");
	if (world_scenario->set)
		set_init(side);
}

/* The preparation up to "|" comes before the branch is made. */
static void start(void)
{
	const char *prepare = world_scenario->prepare ? world_scenario->prepare : "";
	const char *rest = strchr(prepare, '|');
	char first[64] = "";

	preparing_as = 0;
	side_init(0, BASE_ZERO, NULL);
	if (world_scenario->two)
		side_init(1, BASE_ZERO, NULL);
	if (rest) {
		memcpy(first, prepare, (size_t)(rest - prepare));
		do_words(first);
		prepare = rest + 1 + (rest[1] == ' ');
	}
	if (world_scenario->branch) {
		side_init(1, BASE_SOURCE, &world()->snaps[0].snap);
		memcpy(world()->sides[1].shadow, world()->snaps[0].ghost,
		       sizeof(world()->sides[1].shadow));
	}
	do_words(prepare);
}

/* Statistics steer nothing; left in, they would keep equal states apart. */
static void scrub(void)
{
	for (unsigned i = 0; i < sides(); i++) {
		struct side *side = &world()->sides[i];

		memset(side->space.counters, 0, sizeof(side->space.counters));
		memset(&side->soft.counts, 0, sizeof(side->soft.counts));
		side->space.opened_at_cut = 0;
		side->trap.cost = (struct cost){ 0 };
		atomic_store(&side->space.freed, 0);
	}
	for (unsigned i = 0; i < SNAPS; i++)
		world()->snaps[i].snap.present_pages = 0;
}

/* --- finish --- */

static bool is_held(const struct held_snap *held)
{
	return atomic_load(&held->state) == TAKEN;
}

static void check_live(struct side *side)
{
	for (unsigned page = 0; page < world_scenario->pages; page++)
		for (size_t i = 0; i < PAGE; i++) {
			unsigned char byte;
			int r = world_scenario->trap ?
					soft_load(&side->soft, self(), page * PAGE + i, &byte) :
					space_read(&side->space, page, i, &byte, 1);

			if (r < 0 || byte != side->shadow[page][i])
				model_fail("live page %u byte %zu is %#x, stored was %#x", page, i,
					   byte, side->shadow[page][i]);
		}
}

/* Two snapshots for which the content's epoch is the same read the same bytes. */
static void check_epochs(const struct held_snap *a, const struct held_snap *b, unsigned page)
{
	uint64_t epoch_a = snap_content_epoch((struct snap *)&a->snap, page);
	uint64_t epoch_b = snap_content_epoch((struct snap *)&b->snap, page);

	if (epoch_a == epoch_b && epoch_a != UINT64_MAX &&
	    memcmp(a->ghost[page], b->ghost[page], PAGE) != 0)
		model_fail("page %u differs between two snapshots of one content epoch", page);
}

static void check_snaps(void)
{
	struct held_snap *snaps = world()->snaps;

	for (unsigned i = 0; i < SNAPS; i++)
		for (unsigned page = 0; is_held(&snaps[i]) && page < world_scenario->pages;
		     page++) {
			read_snap(&snaps[i], page);
			for (unsigned j = 0; j < i && !world_scenario->racing; j++)
				if (is_held(&snaps[j]) && snaps[i].side == snaps[j].side &&
				    !snaps[i].dropped && !snaps[j].dropped)
					check_epochs(&snaps[i], &snaps[j], page);
		}
}

static void release_all(void)
{
	for (unsigned side = sides(); side-- > 0;)
		for (unsigned i = 0; i < SNAPS; i++) {
			unsigned n = world_scenario->oldest_first ? i : SNAPS - 1 - i;
			struct held_snap *held = &world()->snaps[n];

			if (!is_held(held) || held->side != side)
				continue;
			release(held);
			space_validate(&world()->sides[side].space);
			check_snaps();
		}
}

static void check_nothing_left(struct space *space)
{
	for (unsigned i = 0; i < 4; i++)
		reclaim(space);
	space_validate(space);
	if (space->kept_frames || space->spilled_slots || space->pool.used_frames)
		model_fail("leaked: %u kept, %u spilled, %u frames", (unsigned)space->kept_frames,
			   (unsigned)space->spilled_slots, (unsigned)space->pool.used_frames);
	for (unsigned i = 0; i < HOST_SHARDS; i++)
		if (atomic_load(&space->gate.shards[i].inside) != 0)
			model_fail("somebody is still inside the gate");
	space_destroy(space);
}

static void finish(void)
{
	for (unsigned i = 0; i < sides(); i++) {
		space_validate(&world()->sides[i].space);
		if (!world_scenario->racing)
			check_live(&world()->sides[i]);
	}
	check_snaps();
	release_all();
	for (unsigned i = sides(); i-- > 0;)
		check_nothing_left(&world()->sides[i].space);
	for (unsigned i = 0; i < SLOTS; i++)
		if (world()->slot_used[i])
			model_fail("leaked: slot %u", i);
	if (model_heap_blocks() != 0)
		model_fail("leaked: %zu mappings", model_heap_blocks());
}

struct model_program world_program(void)
{
	struct model_program program = {
		.shared_bytes = offsetof(struct world, sides) + sides() * sizeof(struct side),
		.start = start,
		.body = body,
		.scrub = scrub,
		.finish = finish,
	};

	while (world_scenario->threads[program.threads])
		program.threads++;
	return program;
}
