/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <errno.h>

#include "mmu/soft.h"

static struct soft_mmu *soft_of(struct mmu *mmu)
{
	return (struct soft_mmu *)(void *)mmu; /* its first member */
}

/* Between two instructions of the CPU. Never taken twice by a thread, never held across a step of
 * the model checker, so there it is always free. */
static void cpu_hold(struct soft_cpu *cpu)
{
	while (atomic_exchange_explicit(&cpu->held, 1, memory_order_acquire) != 0)
		host_pause();
}

static void cpu_let_go(struct soft_cpu *cpu)
{
	atomic_store_explicit(&cpu->held, 0, memory_order_release);
}

static void soft_protect(struct mmu *mmu, uint64_t page)
{
	struct soft_mmu *soft = soft_of(mmu);

	count(&soft->counts.protects);
	atomic_fetch_and(&soft->table[page], (unsigned char)~SOFT_WRITE);
}

static void soft_unprotect(struct mmu *mmu, uint64_t first, uint64_t pages)
{
	struct soft_mmu *soft = soft_of(mmu);

	count(&soft->counts.unprotects);
	for (uint64_t page = first; page < first + pages; page++)
		atomic_fetch_or(&soft->table[page], SOFT_PRESENT | SOFT_WRITE);
}

/* One CPU after the other: in between, those that are flushed trap and the others still store. */
static void soft_flush(struct mmu *mmu)
{
	struct soft_mmu *soft = soft_of(mmu);

	count(&soft->counts.flushes);
	for (unsigned i = 0; i < soft->cpus; i++) {
		struct soft_cpu *cpu = &soft->cpu[i];

		STEP("mmu: flush");
		if (i > 0 && MUTANT("flush-one-cpu"))
			break;
		cpu_hold(cpu);
		for (uint64_t page = 0; page < soft->pages; page++)
			atomic_store_explicit(&cpu->tlb[page], 0, memory_order_relaxed);
		cpu_let_go(cpu);
	}
}

static const struct mmu_ops soft_ops = {
	.name = "soft",
	.protect = soft_protect,
	.unprotect = soft_unprotect,
	.flush = soft_flush,
};

void soft_init(struct soft_mmu *soft, struct space *space, void *memory, unsigned cpus,
	       uint64_t pages, enum base_kind base)
{
	_Atomic unsigned char *bytes = memory;

	assert(cpus <= SOFT_CPUS);
	*soft = (struct soft_mmu){
		.mmu = { .ops = &soft_ops },
		.space = space,
		.pages = pages,
		.cpus = cpus,
		.table = bytes,
	};
	for (unsigned i = 0; i < cpus; i++)
		soft->cpu[i].tlb = bytes + (i + 1) * pages;
	for (uint64_t page = 0; page < pages; page++)
		atomic_init(&soft->table[page], base == BASE_SOURCE ? 0 : SOFT_PRESENT);
}

unsigned soft_table_bits(const struct soft_mmu *soft, uint64_t page)
{
	return atomic_load(&soft->table[page]);
}

unsigned soft_cached_bits(const struct soft_mmu *soft, unsigned cpu, uint64_t page)
{
	return atomic_load(&soft->cpu[cpu].tlb[page]);
}

/* The CPU is held. Whether the access is allowed; where it is not, the entry is forgotten. */
static bool translate(struct soft_mmu *soft, struct soft_cpu *cpu, uint64_t page, unsigned wanted)
{
	unsigned char bits = atomic_load_explicit(&cpu->tlb[page], memory_order_relaxed);

	if (bits == 0) {
		count(&soft->counts.misses);
		bits = atomic_load(&soft->table[page]);
	}
	if ((bits & wanted) != wanted)
		bits = 0;
	atomic_store_explicit(&cpu->tlb[page], bits, memory_order_relaxed);
	return bits != 0;
}

static unsigned char *byte_at(struct soft_mmu *soft, uint64_t address)
{
	return soft->space->window + address;
}

static bool try_store(struct soft_mmu *soft, struct soft_cpu *cpu, uint64_t address,
		      unsigned char byte)
{
	bool done;

	STEP("store");
	cpu_hold(cpu);
	done = translate(soft, cpu, address >> soft->space->page_shift, SOFT_PRESENT | SOFT_WRITE);
	if (done)
		__atomic_store_n(byte_at(soft, address), byte, __ATOMIC_RELAXED);
	cpu_let_go(cpu);
	return done;
}

static int trap(struct soft_mmu *soft, uint64_t page)
{
	unsigned shard = host_shard();
	int r;

	count(&soft->counts.traps);
	gate_enter(&soft->space->gate, shard, false);
	r = fault(soft->space, page, 0);
	gate_leave(&soft->space->gate, shard);
	return r;
}

int soft_store(struct soft_mmu *soft, unsigned cpu, uint64_t address, unsigned char byte)
{
	uint64_t page = address >> soft->space->page_shift;

	if (page >= soft->pages)
		return -EFAULT;
	while (!try_store(soft, &soft->cpu[cpu], address, byte)) {
		int r = trap(soft, page);

		if (r < 0)
			return r;
	}
	return 0;
}

int soft_load(struct soft_mmu *soft, unsigned cpu, uint64_t address, unsigned char *ret_byte)
{
	uint64_t page = address >> soft->space->page_shift;
	uint64_t offset = address & (space_page_size(soft->space) - 1);
	bool present;

	if (page >= soft->pages)
		return -EFAULT;
	STEP("load");
	cpu_hold(&soft->cpu[cpu]);
	present = translate(soft, &soft->cpu[cpu], page, SOFT_PRESENT);
	if (present)
		*ret_byte = __atomic_load_n(byte_at(soft, address), __ATOMIC_RELAXED);
	cpu_let_go(&soft->cpu[cpu]);
	return present ? 0 : space_read(soft->space, page, offset, ret_byte, 1);
}
