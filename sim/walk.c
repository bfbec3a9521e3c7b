/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sys/mman.h>

#include "mmu/soft.h"
#include "sim/walk.h"
#include "sys/sys.h"

#define CPUS 2u

struct machine {
	struct space space;
	struct soft_mmu soft;
	void *window, *bits;
};

struct sim {
	unsigned pages;
	struct machine machines[2]; /* by enum sim_who */
	struct snap snap;           /* what the child was cut from */
	bool has_child;
};

static void machine_free(struct machine *machine, size_t bytes)
{
	if (machine->window) {
		space_destroy(&machine->space);
		sys_unmap(machine->window, bytes);
	}
	sys_free(machine->bits);
	*machine = (struct machine){ 0 };
}

static size_t window_bytes(const struct sim *sim)
{
	return sim->pages * sys_page_size();
}

static int machine_init(struct sim *sim, struct machine *machine, struct snap *source)
{
	struct space_config config = {
		.page_shift = (unsigned)__builtin_ctzl(sys_page_size()),
		.pages = sim->pages,
		.base = source ? BASE_SOURCE : BASE_ZERO,
		.source = source,
		.mmu = &machine->soft.mmu,
		.idle_limit = SIZE_MAX,
	};
	int r;

	machine->bits = sys_alloc(soft_bytes(CPUS, sim->pages));
	if (!machine->bits)
		return -ENOMEM;
	r = sys_map(NULL, window_bytes(sim), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, &config.window);
	if (r == 0) {
		soft_init(&machine->soft, &machine->space, machine->bits, CPUS, sim->pages,
			  config.base);
		r = space_init(&machine->space, &config);
		if (r < 0)
			sys_unmap(config.window, window_bytes(sim));
	}
	if (r < 0) {
		sys_free(machine->bits);
		*machine = (struct machine){ 0 };
		return r;
	}
	machine->window = config.window;
	return 0;
}

int sim_new(unsigned pages, struct sim **ret_sim)
{
	struct sim *sim = sys_alloc(sizeof(*sim));
	int r;

	if (!sim)
		return -ENOMEM;
	*sim = (struct sim){ .pages = pages };
	r = machine_init(sim, &sim->machines[SIM_PARENT], NULL);
	if (r < 0) {
		sys_free(sim);
		return r;
	}
	*ret_sim = sim;
	return 0;
}

void sim_free(struct sim *sim)
{
	if (!sim)
		return;
	sim_exit(sim);
	machine_free(&sim->machines[SIM_PARENT], window_bytes(sim));
	sys_free(sim);
}

/* --- fork and exit --- */

/* One thread: nobody is inside the gate. */
static int cut(struct space *space, struct snap *snap)
{
	int r = -EBUSY;

	if (gate_seal(&space->gate))
		r = dup_space(space, snap);
	gate_open(&space->gate);
	return r;
}

int sim_fork(struct sim *sim)
{
	struct space *parent = &sim->machines[SIM_PARENT].space;
	int r;

	if (sim->has_child)
		return -EBUSY;
	r = cut(parent, &sim->snap);
	if (r < 0)
		return r;
	r = machine_init(sim, &sim->machines[SIM_CHILD], &sim->snap);
	if (r < 0) {
		dup_release(parent, &sim->snap);
		return r;
	}
	sim->has_child = true;
	return 0;
}

void sim_exit(struct sim *sim)
{
	if (!sim->has_child)
		return;
	machine_free(&sim->machines[SIM_CHILD], window_bytes(sim));
	dup_release(&sim->machines[SIM_PARENT].space, &sim->snap);
	sim->has_child = false;
}

/* --- loads and stores --- */

static int find_machine(struct sim *sim, enum sim_who who, unsigned page,
			struct machine **ret_machine)
{
	if (who == SIM_CHILD && !sim->has_child)
		return -ESRCH;
	if (page >= sim->pages)
		return -EFAULT;
	*ret_machine = &sim->machines[who];
	return 0;
}

int sim_load(struct sim *sim, enum sim_who who, unsigned page)
{
	struct machine *machine = NULL;
	unsigned char byte;
	int r = find_machine(sim, who, page, &machine);

	return r < 0 ? r : soft_load(&machine->soft, who, page * sys_page_size(), &byte);
}

struct tally {
	uint64_t traps, filled, copied, reused;
};

static struct tally tally(const struct machine *machine)
{
	struct tally tally = { .traps = atomic_load(&machine->soft.counts.traps) };

	for (unsigned i = 0; i < HOST_SHARDS; i++) {
		const struct space_counters *counters = &machine->space.counters[i];

		tally.filled += atomic_load(&counters->filled);
		tally.copied += atomic_load(&counters->copied);
		tally.reused += atomic_load(&counters->reused);
	}
	return tally;
}

/* A page that a branch brings in from its source is a copy, as the kernel counts it. */
static enum sim_outcome outcome(const struct tally *before, const struct tally *after,
				enum sim_place place)
{
	if (after->filled > before->filled)
		return place == SIM_ZERO ? SIM_ZERO_FILLED : SIM_COPIED;
	if (after->copied > before->copied)
		return SIM_COPIED;
	return after->reused > before->reused ? SIM_REUSED : SIM_WRITTEN;
}

int sim_store(struct sim *sim, enum sim_who who, unsigned page, unsigned char byte,
	      struct sim_write *ret_write)
{
	struct sim_entry entry = { 0 };
	struct machine *machine = NULL;
	struct tally before, after;
	int r = find_machine(sim, who, page, &machine);

	if (r == 0)
		r = sim_look(sim, who, page, &entry);
	if (r < 0)
		return r;
	before = tally(machine);
	r = soft_store(&machine->soft, who, page * sys_page_size(), byte);
	if (r < 0)
		return r;
	after = tally(machine);
	*ret_write = (struct sim_write){
		.faults = after.traps - before.traps,
		.outcome = outcome(&before, &after, entry.place),
	};
	return 0;
}

/* --- looking --- */

static struct entry *find_entry(const struct machine *machine, unsigned page)
{
	/* Looking up changes nothing. */
	return table_find((struct table *)(uintptr_t)&machine->space.table, page);
}

static uint64_t state_of(struct entry *entry)
{
	return entry ? atomic_load(&entry->state) : 0;
}

/* Frames are numbered from the begin of their chunk. */
static struct sim_entry kept(const struct space *parent, uintptr_t content)
{
	char *frame;

	if (content_kind(content) != CONTENT_FRAME)
		return (struct sim_entry){ .place = SIM_ZERO };
	frame = content_frame(content);
	return (struct sim_entry){
		.place = SIM_KEPT,
		.frame = (uint64_t)(frame - (char *)frame_chunk(&parent->pool, frame)) >>
			 parent->page_shift,
		.readers = 1,
	};
}

/* What the snapshot reads: the look-up of core/lookup.c, without the copy. */
static struct sim_entry look_through_snapshot(const struct sim *sim, unsigned page)
{
	const struct machine *parent = &sim->machines[SIM_PARENT];
	struct entry *entry = find_entry(parent, page);
	uint64_t state = state_of(entry);
	struct version *version;

	if (state_epoch(state) <= sim->snap.epoch) {
		if (!(state & PAGE_PRESENT))
			return (struct sim_entry){ .place = SIM_ZERO };
		return (struct sim_entry){ .place = SIM_WINDOW, .frame = page, .readers = 2 };
	}
	version = version_find(entry, sim->snap.epoch);
	if (!version)
		return (struct sim_entry){ .place = SIM_ZERO };
	return kept(&parent->space, atomic_load(&version->content));
}

static bool reads_window(const struct sim *sim, unsigned page)
{
	return sim->has_child &&
	       !(state_of(find_entry(&sim->machines[SIM_CHILD], page)) & PAGE_PRESENT) &&
	       look_through_snapshot(sim, page).place == SIM_WINDOW;
}

static struct sim_entry look_at_parent(const struct sim *sim, unsigned page)
{
	if (!(state_of(find_entry(&sim->machines[SIM_PARENT], page)) & PAGE_PRESENT))
		return (struct sim_entry){ .place = SIM_ZERO };
	return (struct sim_entry){
		.place = SIM_WINDOW,
		.frame = page,
		.readers = reads_window(sim, page) ? 2 : 1,
	};
}

static struct sim_entry look_at_child(const struct sim *sim, unsigned page)
{
	if (!(state_of(find_entry(&sim->machines[SIM_CHILD], page)) & PAGE_PRESENT))
		return look_through_snapshot(sim, page);
	return (struct sim_entry){ .place = SIM_OWN, .frame = page, .readers = 1 };
}

int sim_look(const struct sim *sim, enum sim_who who, unsigned page, struct sim_entry *ret_entry)
{
	struct sim_entry entry;

	if (who == SIM_CHILD && !sim->has_child)
		return -ESRCH;
	if (page >= sim->pages)
		return -EFAULT;
	entry = who == SIM_CHILD ? look_at_child(sim, page) : look_at_parent(sim, page);
	entry.writable = soft_table_bits(&sim->machines[who].soft, page) & SOFT_WRITE;
	*ret_entry = entry;
	return 0;
}
