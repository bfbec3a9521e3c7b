/* SPDX-License-Identifier: MIT */
/*
 * COW_REGION_CHECK: finds who writes to a region without being noticed: through pinned pages, a
 * second mapping, memory that was replaced, or, under the explicit trap, outside a bracket. Such a
 * write changes every snapshot that reads the page from the live region.
 *
 * It stands between the core and the back end: a page's checksum is taken when a cut arms it, and
 * compared when it is opened, at the next cut, and when somebody asks. So what is found was written
 * since the last cut, or the last look.
 *
 *   sums[page]   0: open, or never armed      else: what an armed page has to be
 *
 * A sum is taken away before its page is opened, so a sum that is the same after a look as before
 * it was for a page that stayed armed all the while.
 *
 * Pages are known from the table: one that was never written is not looked at, but for windows that
 * held content before the first cut. A cut reads everything that was ever written; this is for
 * finding errors, not for production. Nothing is said in a trap: offsets wait for the next call.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdlib.h>

#include "lib/bypass.h"

#define NOTED_MAX 8u

struct bypass {
	struct mmu mmu; /* first */
	struct mmu *inner;
	struct cow_region *region;
	_Atomic uint64_t *sums;
	size_t bytes;
	bool whole; /* the window's content counts also where the table knows nothing of it */
	_Atomic uint64_t found;
	_Atomic uint64_t noted[NOTED_MAX]; /* offset + 1 of what is still to be said; 0: free */
	_Atomic uint64_t unsaid;           /* pages for which there was no place */
};

static struct bypass *bypass_of(struct mmu *mmu)
{
	return (struct bypass *)(void *)mmu;
}

static struct space *space_of(const struct bypass *bypass)
{
	return &bypass->region->space;
}

static uint64_t sum_of(const struct bypass *bypass, uint64_t page)
{
	struct space *space = space_of(bypass);

	return XXH3_64bits(space_page(space, page), space_page_size(space)) ?: 1;
}

static void note(struct bypass *bypass, uint64_t page)
{
	uint64_t offset = (page << space_of(bypass)->page_shift) + 1;

	atomic_fetch_add(&bypass->found, 1);
	for (unsigned i = 0; i < NOTED_MAX; i++) {
		uint64_t none = 0;

		if (atomic_compare_exchange_strong(&bypass->noted[i], &none, offset))
			return;
	}
	atomic_fetch_add(&bypass->unsaid, 1);
}

/* An armed page that stays armed. The exchange comes after the page was read. */
static void look(struct bypass *bypass, uint64_t page)
{
	uint64_t sum = atomic_load(&bypass->sums[page]), now;

	if (sum == 0)
		return;
	now = sum_of(bypass, page);
	if (now != sum && atomic_compare_exchange_strong(&bypass->sums[page], &sum, now))
		note(bypass, page);
}

static int look_at(uint64_t page, struct entry *entry, void *context)
{
	(void)entry;
	look(context, page);
	return 0;
}

static int take(uint64_t page, struct entry *entry, void *context)
{
	struct bypass *bypass = context;

	(void)entry;
	atomic_store(&bypass->sums[page], sum_of(bypass, page));
	return 0;
}

static void for_all(struct bypass *bypass, uint64_t since, table_visit_fn visit)
{
	struct space *space = space_of(bypass);

	if (bypass->whole && since == 0)
		for (uint64_t page = 0; page < space->pages; page++)
			visit(page, NULL, bypass);
	else
		table_walk(&space->table, 0, space->pages, since, visit, bypass);
}

/* --- as an mmu of the core --- */

static int protect_inner(struct bypass *bypass)
{
	const struct mmu_ops *ops = bypass->inner->ops;

	return ops->protect_open ? ops->protect_open(bypass->inner) : 0;
}

/* The gate is sealed. The first cut of a whole window takes all of it. */
static int check_and_protect(struct mmu *mmu)
{
	struct bypass *bypass = bypass_of(mmu);
	uint64_t epoch = atomic_load(&space_of(bypass)->epoch);
	bool first = space_of(bypass)->newest_snap == NULL && epoch == 1;
	int r;

	for_all(bypass, 0, look_at);
	r = protect_inner(bypass);
	if (r == 0)
		for_all(bypass, first ? 0 : epoch - 1, take);
	return r;
}

/* Who opened a page writes it only after this. */
static void check_and_unprotect(struct mmu *mmu, uint64_t first, uint64_t count)
{
	struct bypass *bypass = bypass_of(mmu);

	for (uint64_t page = first; page < first + count; page++) {
		uint64_t sum = atomic_exchange(&bypass->sums[page], 0);

		if (sum != 0 && sum_of(bypass, page) != sum)
			note(bypass, page);
	}
	if (bypass->inner->ops->unprotect)
		bypass->inner->ops->unprotect(bypass->inner, first, count);
}

/* What stays open has no checksum: it was taken away when the page was opened. */
static int keep_open_inner(struct mmu *mmu)
{
	struct mmu *inner = bypass_of(mmu)->inner;

	return inner->ops->keep_open ? inner->ops->keep_open(inner) : 0;
}

static const struct mmu_ops bypass_ops = {
	.name = "check",
	.protect_open = check_and_protect,
	.unprotect = check_and_unprotect,
	.keep_open = keep_open_inner,
};

/* --- setting it up --- */

bool bypass_is_wanted(uint32_t flags)
{
	const char *wish = secure_getenv("COW_CHECK");

	return (flags & COW_REGION_CHECK) || (wish && strcmp(wish, "1") == 0);
}

int bypass_new(struct cow_region *region)
{
	struct space *space = &region->space;
	struct bypass *bypass = sys_alloc(sizeof(*bypass));

	if (!bypass)
		return -ENOMEM;
	*bypass = (struct bypass){
		.mmu = { .ops = &bypass_ops, .traps = space->mmu->traps },
		.inner = space->mmu,
		.region = region,
		.bytes = space->pages * sizeof(bypass->sums[0]),
		.whole = space->base == BASE_WINDOW &&
			 (region->adopted || region->trap_kind == COW_TRAP_MPROTECT),
	};
	bypass->sums = host_map(bypass->bytes, sys_page_size());
	if (!bypass->sums) {
		sys_free(bypass);
		return -ENOMEM;
	}
	space->mmu = &bypass->mmu;
	region->bypass = bypass;
	return 0;
}

void bypass_free(struct bypass *bypass)
{
	if (!bypass)
		return;
	host_unmap(bypass->sums, bypass->bytes);
	sys_free(bypass);
}

/* --- what was found --- */

uint64_t bypass_count(const struct bypass *bypass)
{
	return bypass ? atomic_load(&bypass->found) : 0;
}

void bypass_report(struct bypass *bypass)
{
	uint64_t unsaid;

	if (!bypass)
		return;
	for (unsigned i = 0; i < NOTED_MAX; i++) {
		uint64_t offset = atomic_exchange(&bypass->noted[i], 0);

		if (offset != 0)
			log_message(LOG_WARNING,
				    "libcow: the page at offset %#" PRIx64 " of the region at %p "
				    "was written unnoticed: a pinned page, a second mapping, "
				    "replaced memory, or no bracket; snapshots that read it are "
				    "wrong: see the caveats in libcow(7)",
				    offset - 1, (void *)bypass->region->base);
	}
	unsaid = atomic_exchange(&bypass->unsaid, 0);
	if (unsaid > 0)
		log_message(LOG_WARNING, "libcow: %" PRIu64 " more pages were written unnoticed",
			    unsaid);
}

int cow_region_check(struct cow_region *region, uint64_t *ret_pages)
{
	uint64_t before;
	int r;

	r = check_region(region);
	if (r < 0)
		return r;
	if (!region->bypass)
		return -EOPNOTSUPP;
	before = bypass_count(region->bypass);
	r = bracket_enter(region);
	if (r < 0)
		return r;
	for_all(region->bypass, 0, look_at);
	bracket_leave(region);
	bypass_report(region->bypass);
	if (ret_pages)
		*ret_pages = bypass_count(region->bypass) - before;
	return 0;
}
