/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "mmu/uffd.h"
#include "sys/sys.h"

#define GRANULE_BYTES     ((size_t)2 << 20)
#define GRANULE_PAGES_MAX 512u

static struct uffd *uffd_of(struct trap *trap)
{
	return (struct uffd *)(void *)trap;
}

static uint64_t granule_pages(const struct trap *trap)
{
	return GRANULE_BYTES >> trap->space->page_shift;
}

static unsigned char *page_address(const struct trap *trap, uint64_t page)
{
	return trap->base + (page << trap->space->page_shift);
}

static size_t page_bytes(const struct trap *trap, uint64_t count)
{
	return (size_t)count << trap->space->page_shift;
}

int uffd_protect(struct trap *trap, uint64_t first, uint64_t count)
{
	return sys_uffd_protect(trap->uffd, page_address(trap, first), page_bytes(trap, count),
				true, false);
}

int uffd_unprotect(struct trap *trap, uint64_t first, uint64_t count)
{
	return sys_uffd_protect(trap->uffd, page_address(trap, first), page_bytes(trap, count),
				false, false);
}

static bool is_watched(const struct uffd *uffd, uint64_t granule)
{
	return atomic_load_explicit(&uffd->watched[granule], memory_order_acquire) != 0;
}

bool uffd_covers(struct trap *trap, uint64_t first, uint64_t end)
{
	uint64_t pages = granule_pages(trap);

	if (uffd_of(trap)->source.fill)
		return true;
	for (uint64_t granule = first / pages; granule <= (end - 1) / pages; granule++)
		if (!is_watched(uffd_of(trap), granule))
			return false;
	return true;
}

/* --- making a granule watched --- */

struct granule {
	uint64_t first, count; /* pages */
	unsigned char content[GRANULE_PAGES_MAX];
};

/* Adds the pages that have data in the file. */
static int scan_file(struct uffd *uffd, struct granule *granule)
{
	unsigned shift = uffd->trap.space->page_shift;
	uint64_t at = granule->first << shift, end = (granule->first + granule->count) << shift;
	uint64_t data, hole;

	for (; at < end; at = hole) {
		int r = sys_file_data(uffd->file, at, end, &data, &hole);

		if (r < 0)
			return r;
		for (uint64_t page = data >> shift; page << shift < hole; page++)
			granule->content[page - granule->first] = 1;
	}
	return 0;
}

static int scan(struct uffd *uffd, struct granule *granule)
{
	int r = sys_pagemap_read(uffd->pagemap, page_address(&uffd->trap, granule->first),
				 granule->count, granule->content);

	return r == 0 && uffd->file >= 0 ? scan_file(uffd, granule) : r;
}

/* What has content now was written in this epoch, or before anything was watched: it is open. */
static int discover(struct uffd *uffd, const struct granule *granule)
{
	for (uint64_t i = 0; i < granule->count; i++) {
		int r;

		if (!granule->content[i])
			continue;
		openset_add(&uffd->trap.open, granule->first + i);
		r = space_discover(uffd->trap.space, granule->first + i, false);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Protects the pages without content; those that have some stay open. */
static int protect_rest(struct uffd *uffd, const struct granule *granule)
{
	uint64_t i = 0;
	int r = 0;

	while (r == 0 && i < granule->count) {
		uint64_t start = i;

		while (i < granule->count && !granule->content[i])
			i++;
		if (i > start)
			r = uffd_protect(&uffd->trap, granule->first + start, i - start);
		while (i < granule->count && granule->content[i])
			i++;
	}
	return r;
}

/* Where each page got the zero page, only its bytes tell whether it was written; what was written
 * as zero reads like one that was not. */
static void look_at_contents(struct uffd *uffd, struct granule *granule)
{
	size_t words = space_page_size(uffd->trap.space) / sizeof(uint64_t);

	for (uint64_t i = 0; i < granule->count; i++) {
		const uint64_t *content = (const uint64_t *)(const void *)page_address(
			&uffd->trap, granule->first + i);

		for (size_t word = 0; word < words && !granule->content[i]; word++)
			granule->content[i] = content[word] != 0;
	}
}

/* A thread may have written a page between the look and the protection: then it has content, is
 * protected and not known. It is opened as if its writer had trapped. */
static int open_latecomers(struct uffd *uffd, struct granule *granule)
{
	unsigned char before[GRANULE_PAGES_MAX] = { 0 };
	int r = 0;

	for (uint64_t i = 0; i < granule->count; i++)
		before[i] = granule->content[i];
	if (uffd->trap.needs_content)
		look_at_contents(uffd, granule);
	else
		r = scan(uffd, granule);
	for (uint64_t i = 0; r == 0 && i < granule->count; i++)
		if (granule->content[i] && !before[i])
			r = fault(uffd->trap.space, granule->first + i, 0);
	return r;
}

/* Those that an attempt before this one found may be armed by now. Opened first, they lose nothing
 * when the registration goes. */
static int open_known(struct uffd *uffd, const struct granule *granule)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < granule->count; i++) {
		struct entry *entry = table_find(&uffd->trap.space->table, granule->first + i);

		if (entry && atomic_load_explicit(&entry->state, memory_order_acquire) != 0)
			r = fault(uffd->trap.space, granule->first + i, 0);
	}
	return r;
}

static int watch_pages(struct uffd *uffd, struct granule *granule)
{
	unsigned char *address = page_address(&uffd->trap, granule->first);
	size_t bytes = page_bytes(&uffd->trap, granule->count);
	int r;

	r = open_known(uffd, granule);
	if (r < 0)
		return r;
	/* A registration for missing pages is not taken back by one without: it has to go first. */
	r = sys_uffd_unregister(uffd->trap.uffd, address, bytes);
	if (r == 0)
		r = sys_uffd_register(uffd->trap.uffd, address, bytes, false);
	if (r == 0)
		r = scan(uffd, granule);
	if (r == 0)
		r = discover(uffd, granule);
	if (r == 0 && uffd->trap.needs_content)
		r = sys_advise(address, bytes, MADV_POPULATE_READ);
	if (r == 0)
		r = protect_rest(uffd, granule);
	if (r == 0)
		r = open_latecomers(uffd, granule);
	return r;
}

#define ATTEMPTS 4u /* at what may fail for a moment only: no store can be told */

/* Where it cannot be watched it is empty again, so that nothing in it is touched unseen. */
static int watch_or_empty(struct uffd *uffd, struct granule *granule)
{
	unsigned char *address = page_address(&uffd->trap, granule->first);
	size_t bytes = page_bytes(&uffd->trap, granule->count);
	int r = -ENOMEM;

	for (unsigned i = 0; i < ATTEMPTS && r < 0; i++)
		r = watch_pages(uffd, granule);
	for (unsigned i = 0; i < ATTEMPTS && r < 0; i++)
		if (sys_uffd_register(uffd->trap.uffd, address, bytes, true) == 0)
			break;
	return r;
}

void trap_set_source(struct trap *trap, const struct trap_source *source)
{
	uffd_of(trap)->source = *source;
}

/* Everything is protected, whether it is there yet or not: it maps a file, and of those the kernel
 * remembers that (5.19). */
static int start_with_source(struct trap *trap)
{
	int r = sys_uffd_register(trap->uffd, trap->base, trap->length, true);

	return r < 0 ? r : uffd_protect(trap, 0, trap->space->pages);
}

/* Bytes of the file, for all that share it. Not of the window: its pages stay protected. */
static int fill_granule(struct uffd *uffd, const struct granule *granule)
{
	return uffd->source.fill(uffd->source.context,
				 granule->first << uffd->trap.space->page_shift,
				 page_bytes(&uffd->trap, granule->count));
}

/* Inside the gate: what is discovered belongs to this epoch. */
static int watch(struct uffd *uffd, uint64_t index)
{
	struct granule granule = { .first = index * granule_pages(&uffd->trap) };
	uint64_t left = uffd->trap.space->pages - granule.first;
	int r = 0;

	granule.count = left < granule_pages(&uffd->trap) ? left : granule_pages(&uffd->trap);
	lock_take(&uffd->convert_lock);
	if (!is_watched(uffd, index)) {
		r = uffd->source.fill ? fill_granule(uffd, &granule) :
					watch_or_empty(uffd, &granule);
		if (r == 0)
			atomic_store_explicit(&uffd->watched[index], 1, memory_order_release);
	}
	lock_drop(&uffd->convert_lock);
	return r;
}

void uffd_await(struct trap *trap)
{
	lock_take(&uffd_of(trap)->convert_lock);
	lock_drop(&uffd_of(trap)->convert_lock);
}

int uffd_convert(struct trap *trap, uint64_t page)
{
	struct uffd *uffd = uffd_of(trap);
	uint64_t granule = page / granule_pages(trap);
	int r;

	if (is_watched(uffd, granule))
		return 0;
	r = watch(uffd, granule);
	return r < 0 ? r : 1;
}

/* --- the start --- */

static int change_scratch(void *context, void *address, size_t bytes, bool protect)
{
	const struct trap *trap = context;

	return sys_uffd_protect(trap->uffd, address, bytes, protect, false);
}

/* Ends with the memory. */
static int register_scratch(struct trap *trap, void *memory, size_t bytes)
{
	return sys_uffd_register(trap->uffd, memory, bytes, false);
}

/* The first granule at or after *granule with content in it. */
static int find_content(struct uffd *uffd, uint64_t *granule)
{
	const unsigned char *end = uffd->trap.base + uffd->trap.length;
	uint64_t offset = *granule * GRANULE_BYTES, data, hole;
	const void *found;
	int r;

	r = sys_pagemap_find(uffd->pagemap, uffd->trap.base + offset, end, &found);
	if (r < 0)
		return r;
	data = (uint64_t)((const unsigned char *)found - uffd->trap.base);
	if (uffd->file >= 0) {
		uint64_t mapped = data;

		r = sys_file_data(uffd->file, offset, uffd->trap.length, &data, &hole);
		if (data > mapped)
			data = mapped;
	}
	*granule = data >= uffd->trap.length ? uffd->granules : data / GRANULE_BYTES;
	return r;
}

/* Everything is registered as empty first: from then on nothing is touched for the first time
 * unseen. */
static int watch_contents(struct trap *trap)
{
	struct uffd *uffd = uffd_of(trap);
	int r = sys_uffd_register(trap->uffd, trap->base, trap->length, true);

	for (uint64_t granule = 0; r == 0; granule++) {
		if (granule < uffd->granules)
			r = find_content(uffd, &granule);
		if (r < 0 || granule >= uffd->granules)
			break;
		gate_enter(&trap->space->gate, host_shard(), trap->policy.is_nested());
		r = watch(uffd, granule);
		gate_leave(&trap->space->gate, host_shard());
	}
	return r;
}

/* Where it fails the window is plain memory again: no trap would find whose it is. */
int uffd_start(struct trap *trap)
{
	struct uffd *uffd = uffd_of(trap);
	int r;

	trap_measure_cost(trap, TRAP_COST_UFFD, register_scratch, change_scratch);
	r = uffd->source.fill ? start_with_source(trap) : watch_contents(trap);
	if (r < 0) {
		(void)sys_uffd_unregister(trap->uffd, trap->base, trap->length);
		for (uint64_t granule = 0; granule < uffd->granules; granule++)
			atomic_store(&uffd->watched[granule], 0);
	}
	return r;
}

int uffd_init(struct uffd *uffd, const struct trap_ops *ops, bool deliver_signal,
	      struct space *space, const struct trap_policy *policy, int file)
{
	int r;

	*uffd = (struct uffd){ .pagemap = -1, .file = file };
	r = trap_init(&uffd->trap, ops, space, policy);
	if (r < 0)
		return r;
	uffd->granules = (uffd->trap.length + GRANULE_BYTES - 1) / GRANULE_BYTES;
	uffd->watched = host_map(uffd->granules, 4096);
	if (!uffd->watched)
		return -ENOMEM;
	r = uffd->pagemap = sys_pagemap_open();
	if (r >= 0)
		r = uffd->trap.uffd = sys_uffd_write_protect_new(
			deliver_signal, &uffd->kernel_faults, &uffd->features);
	uffd->trap.needs_content = file < 0 && !(uffd->features & SYS_UFFD_UNPOPULATED);
	return r < 0 ? r : 0;
}

void uffd_destroy(struct trap *trap)
{
	struct uffd *uffd = uffd_of(trap);

	sys_close(trap->uffd);
	sys_close(uffd->pagemap);
	if (uffd->watched)
		host_unmap(uffd->watched, uffd->granules);
}
