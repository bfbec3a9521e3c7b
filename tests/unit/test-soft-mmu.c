/* SPDX-License-Identifier: MIT */
/* The software MMU on the library's own build of the core: what a TLB does to a cut, and that the
 * core copes. tests/model explores the interleavings; here each is made by hand, and threads run
 * for real. */
#include <pthread.h>

#include "mmu/soft.h"
#include "tests/tap.h"

#define SHIFT 12u
#define PAGE  ((size_t)1 << SHIFT)
#define PAGES 4u
#define CPUS  3u

struct machine {
	struct space space;
	struct soft_mmu soft;
	unsigned char *window;
	void *bits;
};

static void machine_init(struct machine *machine, enum base_kind base, struct snap *source)
{
	struct space_config config = {
		.page_shift = SHIFT,
		.pages = PAGES,
		.base = base,
		.source = source,
		.mmu = &machine->soft.mmu,
		.idle_limit = SIZE_MAX,
	};

	machine->window = aligned_alloc(PAGE, PAGES * PAGE);
	machine->bits = calloc(1, soft_bytes(CPUS, PAGES));
	assert(machine->window && machine->bits);
	memset(machine->window, 0, PAGES * PAGE);
	config.window = machine->window;
	soft_init(&machine->soft, &machine->space, machine->bits, CPUS, PAGES, base);
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
	struct gate *gate = &machine->space.gate;

	while (!gate_seal(gate)) {
		gate_unseal(gate);
		gate_drain(gate, UINT64_MAX);
	}
	(void)dup_space(&machine->space, snap);
	gate_open(gate);
}

static void store(struct machine *machine, unsigned cpu, unsigned page, unsigned char byte)
{
	is_errno(soft_store(&machine->soft, cpu, page * PAGE, byte), 0, "CPU %u stores to page %u",
		 cpu, page);
}

static unsigned load(struct machine *machine, unsigned cpu, unsigned page)
{
	unsigned char byte = 0;

	is_errno(soft_load(&machine->soft, cpu, page * PAGE, &byte), 0, "CPU %u loads page %u", cpu,
		 page);
	return byte;
}

static unsigned past(struct snap *snap, unsigned page)
{
	unsigned char byte = 0;

	is_errno(snap_read(snap, page, 0, &byte, 1), 0, "page %u of the snapshot is read", page);
	return byte;
}

static uint64_t traps(struct machine *machine)
{
	return atomic_load(&machine->soft.counts.traps);
}

static uint64_t copied(struct machine *machine)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < HOST_SHARDS; i++)
		sum += atomic_load(&machine->space.counters[i].copied);
	return sum;
}

TEST(stale_translation_stores_until_the_flush)
{
	struct machine machine;
	const struct mmu_ops *ops;

	machine_init(&machine, BASE_ZERO, NULL);
	ops = machine.soft.mmu.ops;
	store(&machine, 0, 1, 10);
	is_u64(traps(&machine), 1, "the first store trapped");
	ops->protect(&machine.soft.mmu, 1);
	is_u64(soft_table_bits(&machine.soft, 1), SOFT_PRESENT, "the page table says read-only");
	store(&machine, 0, 1, 11);
	is_u64(traps(&machine), 1, "the CPU that has the translation stores on");
	is_u64(machine.window[PAGE], 11, "and the store is done");
	ops->flush(&machine.soft.mmu);
	is_u64(soft_cached_bits(&machine.soft, 0, 1), 0, "nothing is cached after the flush");
	/* The core thinks that the page is open, so nobody would unprotect it: not by a store. */
	ops->unprotect(&machine.soft.mmu, 1, 1);
	store(&machine, 0, 1, 12);
	is_u64(traps(&machine), 1, "the page was opened again");
	machine_free(&machine);
}

TEST(unprotect_leaves_a_spurious_fault)
{
	struct machine machine;

	machine_init(&machine, BASE_ZERO, NULL);
	is_u64(load(&machine, 1, 0), 0, "CPU 1 caches the page read-only");
	store(&machine, 0, 0, 1);
	is_u64(soft_cached_bits(&machine.soft, 1, 0), SOFT_PRESENT, "its entry is stale");
	store(&machine, 1, 0, 2);
	is_u64(traps(&machine), 2, "it trapped once more than needed");
	store(&machine, 1, 0, 3);
	is_u64(traps(&machine), 2, "and no further time");
	is_u64(space_count_opened(&machine.space), 1, "the core opened the page once");
	machine_free(&machine);
}

TEST(a_cut_is_like_a_fork)
{
	struct machine machine;
	struct snap first, second;

	machine_init(&machine, BASE_ZERO, NULL);
	store(&machine, 0, 0, 1);
	store(&machine, 1, 1, 1);
	cut(&machine, &first);
	is_u64(soft_table_bits(&machine.soft, 0) & SOFT_WRITE, 0, "the cut armed the page");
	is_u64(soft_cached_bits(&machine.soft, 0, 0), 0, "and flushed the CPUs");
	store(&machine, 0, 0, 2);
	store(&machine, 1, 0, 3);
	is_u64(copied(&machine), 1, "one copy for two writers");
	cut(&machine, &second);
	store(&machine, 2, 0, 4);
	store(&machine, 2, 2, 4);
	is_u64(past(&first, 0), 1, "page 0, first");
	is_u64(past(&first, 1), 1, "page 1, first");
	is_u64(past(&second, 0), 3, "page 0, second");
	is_u64(past(&second, 2), 0, "page 2, second");
	is_u64(load(&machine, 1, 0), 4, "page 0, live");
	space_validate(&machine.space);
	dup_release(&machine.space, &first);
	is_u64(past(&second, 0), 3, "page 0, second, alone");
	dup_release(&machine.space, &second);
	store(&machine, 0, 0, 5);
	is_u64(machine.space.kept_frames, 0, "nothing is kept for nobody");
	machine_free(&machine);
}

TEST(a_page_that_nobody_reads_is_reused)
{
	struct machine machine;
	struct snap snap;

	machine_init(&machine, BASE_ZERO, NULL);
	store(&machine, 0, 0, 1);
	cut(&machine, &snap);
	dup_release(&machine.space, &snap);
	store(&machine, 0, 0, 2);
	is_u64(traps(&machine), 2, "the page was armed, so the store trapped");
	is_u64(copied(&machine), 0, "but nothing was copied");
	machine_free(&machine);
}

TEST(a_branch_reads_through_and_is_filled_by_a_store)
{
	struct machine machine, branch;
	struct snap snap;

	machine_init(&machine, BASE_ZERO, NULL);
	store(&machine, 0, 0, 1);
	is_errno(soft_store(&machine.soft, 0, 7, 77), 0, "another byte of the page");
	cut(&machine, &snap);
	machine_init(&branch, BASE_SOURCE, &snap);
	store(&machine, 0, 0, 2);
	is_u64(load(&branch, 1, 0), 1, "read through to the snapshot");
	is_u64(soft_table_bits(&branch.soft, 0), 0, "without a page of its own");
	store(&branch, 1, 0, 3);
	is_u64(branch.window[7], 77, "the store brought in the rest of the page");
	is_u64(load(&branch, 0, 0), 3, "the branch");
	is_u64(load(&machine, 0, 0), 2, "the source");
	is_u64(past(&snap, 0), 1, "the snapshot");
	machine_free(&branch);
	dup_release(&machine.space, &snap);
	machine_free(&machine);
}

TEST(a_store_outside_is_refused)
{
	struct machine machine;
	unsigned char byte;

	machine_init(&machine, BASE_ZERO, NULL);
	is_errno(soft_store(&machine.soft, 0, PAGES * PAGE, 1), -EFAULT, "store");
	is_errno(soft_load(&machine.soft, 0, PAGES * PAGE, &byte), -EFAULT, "load");
	machine_free(&machine);
}

/* --- threads --- */

struct runner {
	struct machine *machine;
	unsigned cpu;
	_Atomic bool *stop;
	int failed;
};

/* Counts up, first in page 2 * cpu, then in the next. */
static void *count_up(void *context)
{
	struct runner *runner = context;
	unsigned char number = 0;

	while (!atomic_load(runner->stop) && runner->failed == 0) {
		number = number == 100 ? 100 : number + 1;
		for (unsigned i = 0; i < 2 && runner->failed == 0; i++)
			runner->failed = soft_store(&runner->machine->soft, runner->cpu,
						    (2 * (size_t)runner->cpu + i) * PAGE, number);
	}
	return NULL;
}

TEST(snapshots_of_running_cpus_are_consistent)
{
	struct machine machine;
	struct snap snap;
	_Atomic bool stop = false;
	struct runner runners[2];
	pthread_t threads[2];

	machine_init(&machine, BASE_ZERO, NULL);
	for (unsigned i = 0; i < 2; i++) {
		runners[i] = (struct runner){ .machine = &machine, .cpu = i, .stop = &stop };
		pthread_create(&threads[i], NULL, count_up, &runners[i]);
	}
	for (unsigned round = 0; round < 300; round++) {
		cut(&machine, &snap);
		for (unsigned cpu = 0; cpu < 2; cpu++) {
			unsigned later = past(&snap, 2 * cpu + 1), before = past(&snap, 2 * cpu);

			ok(before == later || before == later + 1, "CPU %u stored %u, then %u", cpu,
			   before, later);
			is_u64(past(&snap, 2 * cpu + 1), later, "page %u stays", 2 * cpu + 1);
		}
		dup_release(&machine.space, &snap);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		is_errno(runners[i].failed, 0, "the stores of CPU %u", i);
	}
	machine_free(&machine);
}

TAP_MAIN(CASE(stale_translation_stores_until_the_flush), CASE(unprotect_leaves_a_spurious_fault),
	 CASE(a_cut_is_like_a_fork), CASE(a_page_that_nobody_reads_is_reused),
	 CASE(a_branch_reads_through_and_is_filled_by_a_store), CASE(a_store_outside_is_refused),
	 CASE(snapshots_of_running_cpus_are_consistent))
