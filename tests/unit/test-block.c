/* SPDX-License-Identifier: MIT */
/* Which pages one trap opens, and that fault_around() opens them as one fault would each. */
#include "mmu/soft.h"
#include "tests/tap.h"

#define SHIFT 12u
#define PAGE  ((size_t)1 << SHIFT)
#define PAGES 1024u

struct machine {
	struct space space;
	struct soft_mmu soft;
	unsigned char *window;
	void *bits;
};

static void machine_init(struct machine *machine, bool huge, size_t limit)
{
	struct space_config config = {
		.page_shift = SHIFT,
		.pages = PAGES,
		.base = BASE_WINDOW,
		.mmu = &machine->soft.mmu,
		.limit = limit,
		.idle_limit = SIZE_MAX,
		.block_pages = 64,
		.huge = huge,
	};

	machine->window = aligned_alloc(PAGE, PAGES * PAGE);
	machine->bits = calloc(1, soft_bytes(1, PAGES));
	assert(machine->window && machine->bits);
	memset(machine->window, 7, PAGES * PAGE);
	config.window = machine->window;
	soft_init(&machine->soft, &machine->space, machine->bits, 1, PAGES, BASE_WINDOW);
	space_init(&machine->space, &config);
}

static void machine_free(struct machine *machine)
{
	space_validate(&machine->space);
	space_destroy(&machine->space);
	free(machine->window);
	free(machine->bits);
}

static void cut(struct machine *machine, struct snap *snap)
{
	bool sealed = gate_seal(&machine->space.gate);

	assert(sealed);
	(void)dup_space(&machine->space, snap);
	gate_open(&machine->space.gate);
}

static void open_pages(struct machine *machine, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++)
		is_errno(fault(&machine->space, page, 0), 0, "page %d opens", (int)page);
}

static void is_block(struct machine *machine, uint64_t page, uint64_t first, uint64_t end,
		     const char *what)
{
	struct block block = block_around(&machine->space, page);

	is_u64(block.first, first, "%s: first page", what);
	is_u64(block.end, end, "%s: end", what);
}

TEST(a_page_with_nothing_near_it_is_opened_alone)
{
	struct machine machine;

	machine_init(&machine, false, 0);
	is_block(&machine, 100, 100, 101, "nothing known");
	open_pages(&machine, 300, 301);
	is_block(&machine, 316, 316, 317, "in another group");
	is_block(&machine, 310, 310, 311, "in another quarter");
	is_block(&machine, 302, 300, 304, "in the same quarter");
	machine_free(&machine);
}

TEST(a_run_is_followed_in_its_direction)
{
	struct machine machine;

	machine_init(&machine, false, 0);
	open_pages(&machine, 32, 36);
	is_block(&machine, 36, 36, 44, "upwards");
	is_block(&machine, 31, 24, 32, "downwards");
	open_pages(&machine, 36, 96);
	is_block(&machine, 96, 96, 160, "no farther than the most");
	open_pages(&machine, 448, 511);
	is_block(&machine, 511, 511, 512, "not beyond the leaf");
	machine_free(&machine);
}

TEST(a_group_that_fills_up_is_opened)
{
	struct machine machine;

	machine_init(&machine, false, 0);
	open_pages(&machine, 64, 65);
	open_pages(&machine, 69, 70);
	open_pages(&machine, 74, 75);
	is_block(&machine, 78, 78, 79, "three of sixteen");
	open_pages(&machine, 77, 78);
	is_block(&machine, 67, 64, 80, "four of sixteen");
	machine_free(&machine);
}

TEST(what_an_earlier_epoch_opened_says_nothing)
{
	struct machine machine;
	struct snap snap;

	machine_init(&machine, false, 0);
	open_pages(&machine, 0, 40);
	cut(&machine, &snap);
	is_block(&machine, 40, 40, 41, "after a cut");
	dup_release(&machine.space, &snap);
	machine_free(&machine);
}

TEST(a_huge_page_is_opened_whole)
{
	struct machine machine;

	machine_init(&machine, true, 0);
	open_pages(&machine, 3, 4);
	is_block(&machine, 700, 512, 1024, "untouched");
	is_block(&machine, 6, 6, 7, "touched");
	machine_free(&machine);
}

TEST(neighbours_are_kept_and_opened_with_one_call)
{
	struct machine machine;
	struct snap snap;
	uint64_t calls;
	unsigned char byte = 0;

	machine_init(&machine, false, 0);
	cut(&machine, &snap);
	open_pages(&machine, 18, 19);
	calls = machine.soft.counts.unprotects;
	is_errno(fault_around(&machine.space, 20, 0, (struct block){ 16, 32 }), 0, "opened");
	is_u64(machine.soft.counts.unprotects - calls, 1, "calls to the MMU");
	for (uint64_t page = 16; page < 32; page++)
		ok(space_is_open(&machine.space, page), "page %d is open", (int)page);
	ok(!space_is_open(&machine.space, 15) && !space_is_open(&machine.space, 32),
	   "those beyond are not");
	memset(machine.window + 16 * PAGE, 9, 16 * PAGE);
	for (uint64_t page = 16; page < 32; page++) {
		is_errno(snap_read(&snap, page, 77, &byte, 1), 0, "read");
		is_u64(byte, 7, "page %d as the snapshot has it", (int)page);
	}
	dup_release(&machine.space, &snap);
	machine_free(&machine);
}

TEST(near_the_limit_only_what_was_asked_for_is_kept)
{
	struct machine machine;
	struct snap snap;

	machine_init(&machine, false, 40 * PAGE);
	cut(&machine, &snap);
	is_errno(fault_around(&machine.space, 64, 0, (struct block){ 64, 128 }), 0, "opened");
	ok(space_is_open(&machine.space, 64), "the page itself");
	ok(!space_is_open(&machine.space, 127), "not all of the block");
	is_errno(fault(&machine.space, 900, 0), 0, "there are frames left for who needs one");
	dup_release(&machine.space, &snap);
	machine_free(&machine);
}

TAP_MAIN(CASE(a_page_with_nothing_near_it_is_opened_alone),
	 CASE(a_run_is_followed_in_its_direction), CASE(a_group_that_fills_up_is_opened),
	 CASE(what_an_earlier_epoch_opened_says_nothing), CASE(a_huge_page_is_opened_whole),
	 CASE(neighbours_are_kept_and_opened_with_one_call),
	 CASE(near_the_limit_only_what_was_asked_for_is_kept))
