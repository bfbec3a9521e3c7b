/* SPDX-License-Identifier: MIT */
/*
 * Which pages one trap opens. A trap costs several times what keeping a page does, so pages that
 * are likely to be written next are opened with the one that was; each of them costs a kept copy if
 * it is not written after all. What was opened since the last cut tells the two apart:
 *
 *   a run of open pages ends here,
 *   and there are no others near it   a writer goes through memory in order: twice as far as it
 *                                     came, in its direction
 *   a quarter open of the 64 KiB
 *   around it                         all of them: most will be written
 *   one open of the 16 KiB around it  those
 *   none                              the page alone
 *   in a space of huge pages, none    the huge page, so that the kernel need not split it
 *
 * Scattered writes to one page in a hundred keep 1.1 pages each so, one in ten 1.4; writes to all
 * of memory in any order trap about four times in sixteen pages. Everything is read without a
 * claim: the answer is a guess, and fault_around() takes what it can get.
 */
#include "core/space.h"

#define GROUP_PAGES 16u

struct neighbourhood {
	struct space *space;
	uint64_t page, epoch;
	struct block leaf; /* pages whose entries lie beside this one's */
	struct entry *entry;
};

static bool is_recent(const struct neighbourhood *at, uint64_t page)
{
	const struct entry *entry = at->entry + ((int64_t)page - (int64_t)at->page);

	return state_epoch(atomic_load_explicit(&entry->state, memory_order_relaxed)) == at->epoch;
}

/* How many open pages lie side by side, from the page on in a direction (-1, 1). */
static uint64_t run_length(const struct neighbourhood *at, int direction, uint64_t most)
{
	uint64_t room = direction < 0 ? at->page - at->leaf.first : at->leaf.end - at->page - 1;
	uint64_t length = 0;

	if (most > room)
		most = room;
	while (length < most && is_recent(at, at->page + (uint64_t)direction * (length + 1)))
		length++;
	return length;
}

static struct block aligned_block(const struct neighbourhood *at, uint64_t pages)
{
	struct block block = { .first = at->page & ~(pages - 1) };

	block.end = block.first + pages;
	if (block.end > at->leaf.end)
		block.end = at->leaf.end;
	return block;
}

static unsigned count_recent(const struct neighbourhood *at, struct block block)
{
	unsigned recent = 0;

	for (uint64_t page = block.first; page < block.end; page++)
		recent += is_recent(at, page);
	return recent;
}

static struct block along(const struct neighbourhood *at, uint64_t below, uint64_t above,
			  uint64_t most)
{
	struct block block = { .first = at->page, .end = at->page + 1 };

	if (below > 0)
		block.end = at->page + (2 * below < most ? 2 * below : most);
	else
		block.first = at->page + 1 - (2 * above < most ? 2 * above : most);
	if (block.end > at->leaf.end)
		block.end = at->leaf.end;
	if ((int64_t)block.first < (int64_t)at->leaf.first)
		block.first = at->leaf.first;
	return block;
}

static struct block choose(const struct neighbourhood *at, uint64_t most)
{
	struct block group = aligned_block(at, most < GROUP_PAGES ? most : GROUP_PAGES);
	struct block quarter = aligned_block(at, most < GROUP_PAGES / 4 ? most : GROUP_PAGES / 4);
	uint64_t below = run_length(at, -1, most), above = below ? 0 : run_length(at, 1, most);
	unsigned recent = count_recent(at, group);

	if (below + above > 0 && below + above >= recent)
		return along(at, below, above, most);
	if (recent >= GROUP_PAGES / 4)
		return group;
	if (recent > 0 && count_recent(at, quarter) > 0)
		return quarter;
	return at->space->huge && recent == 0 ? at->leaf : aligned_block(at, 1);
}

struct block block_around(struct space *space, uint64_t page)
{
	struct neighbourhood at = {
		.space = space,
		.page = page,
		.epoch = atomic_load_explicit(&space->epoch, memory_order_relaxed),
		.leaf = { .first = page & ~(uint64_t)(TABLE_FANOUT - 1) },
		.entry = space->block_pages > 1 ? table_find(&space->table, page) : NULL,
	};

	at.leaf.end = at.leaf.first + TABLE_FANOUT;
	if (at.leaf.end > space->pages)
		at.leaf.end = space->pages;
	if (at.entry)
		return choose(&at, space->block_pages);
	return space->huge ? at.leaf : (struct block){ page, page + 1 };
}
