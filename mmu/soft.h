/* SPDX-License-Identifier: MIT */
/*
 * The software MMU: simulated CPUs that reach a space's window through a page table and a TLB each,
 * so that a forgotten flush or a wrong order shows up in a deterministic run instead of once a
 * month.
 *
 * Model
 * - The page table has a present and a write bit for each page. A CPU that misses its TLB walks the
 *   table and caches what it finds; from then on the table does not matter to it. protect() changes
 *   the table alone: a CPU with a cached translation goes on storing until flush(). unprotect()
 *   leaves read-only entries behind, as the kernel does: a spurious fault. A CPU that faults
 *   forgets its entry for that page, as x86 does, so a spurious fault comes once.
 * - A store is translated and done in one piece. On hardware there is a gap between the two, but a
 *   shoot- down waits until each CPU has acknowledged, which it does between instructions; and a
 *   store that was translated earlier and is done before its CPU is flushed is the same as one
 *   translated then through the same cached entry. flush() therefore excludes each CPU in turn, and
 *   the gap needs no states of its own.
 * - No dirty bit. x86 looks at the page table again at the first store through a clean entry, so
 *   fewer stale stores get through there than here. What is right here is right there.
 * - A store without permission traps as the trap back ends do: gate_enter(), fault(), gate_leave(),
 *   and the instruction starts again. A load of a page that is not present (one that a branch has
 *   not brought in) is read through to what lies below.
 *
 * Limits: page sizes of the space only, no huge pages; forget() does not reach the page table, so
 * it is for spaces without trap. One thread runs a CPU at a time.
 */
#ifndef COW_MMU_SOFT_H
#define COW_MMU_SOFT_H

#include "core/space.h"

#define SOFT_CPUS 8u

#define SOFT_PRESENT 0x1u
#define SOFT_WRITE   0x2u

struct soft_cpu {
	_Atomic uint32_t held; /* by the CPU's own instruction, or by a shoot-down */
	_Atomic unsigned char
		*tlb; /* a byte for each page: its bits in the table when it was cached, or 0 */
};

struct soft_counts {
	_Atomic uint64_t misses, traps, protects, unprotects, flushes;
};

struct soft_mmu {
	struct mmu mmu;
	struct space *space;
	uint64_t pages;
	unsigned cpus;
	_Atomic unsigned char *table; /* a byte for each page */
	struct soft_cpu cpu[SOFT_CPUS];
	struct soft_counts counts;
};

/* How much zeroed memory soft_init() is to be given. */
static inline size_t soft_bytes(unsigned cpus, uint64_t pages)
{
	return (size_t)(cpus + 1) * pages;
}

/* The space is initialised afterwards, with &soft->mmu as its mmu. Every page is armed. */
void soft_init(struct soft_mmu *soft, struct space *space, void *memory, unsigned cpus,
	       uint64_t pages, enum base_kind base);

/* One instruction of a CPU. 0, or what fault() gave: then nothing was stored. Not inside the
 * gate. */
int soft_store(struct soft_mmu *soft, unsigned cpu, uint64_t address, unsigned char byte);
int soft_load(struct soft_mmu *soft, unsigned cpu, uint64_t address, unsigned char *ret_byte);

/* The bits of a page: in the table, and as a CPU has them cached. */
unsigned soft_table_bits(const struct soft_mmu *soft, uint64_t page);
unsigned soft_cached_bits(const struct soft_mmu *soft, unsigned cpu, uint64_t page);

#endif
