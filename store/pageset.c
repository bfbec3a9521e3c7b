/* SPDX-License-Identifier: MIT */
#include "store/format.h"
#include "store/pageset.h"

#define WORDS_PER_TOUCHED (4096u / 8)

static void add(struct pageset *set, uint64_t page)
{
	uint64_t word = page / 64, bit = (uint64_t)1 << page % 64;

	if (set->words[word] & bit)
		return;
	set->words[word] |= bit;
	set->touched[word / WORDS_PER_TOUCHED] = 1;
	set->count++;
}

struct collecting {
	struct pageset *set;
	struct snap *snap;
	uint64_t since;
};

/* A page that was opened later still may have had its content since before. */
static int visit(uint64_t page, struct entry *entry, void *context)
{
	struct collecting *collecting = context;
	uint64_t epoch = state_epoch(atomic_load_explicit(&entry->state, memory_order_acquire));

	if (epoch <= collecting->snap->epoch ||
	    snap_content_epoch(collecting->snap, page) > collecting->since)
		add(collecting->set, page);
	return 0;
}

/* Of a window with content from before: whatever the kernel has memory or data for. */
static int add_window(struct pageset *set, struct space *space)
{
	const unsigned char *end = space->window + (space->pages << space->page_shift);
	const unsigned char *at = space->window;
	int pagemap = sys_pagemap_open();
	int r = pagemap < 0 ? pagemap : 0;

	while (r == 0 && at < end) {
		const void *found;
		uint64_t page;

		r = sys_pagemap_find(pagemap, at, end, &found);
		if (r < 0 || found == end)
			break;
		page = (uint64_t)((const unsigned char *)found - space->window) >>
		       space->page_shift;
		add(set, page);
		at = space->window + ((page + 1) << space->page_shift);
	}
	sys_close(pagemap);
	return r;
}

static void add_all(struct pageset *set)
{
	for (uint64_t page = 0; page < set->pages; page++)
		add(set, page);
}

static int add_base(struct pageset *set, struct space *space, struct snap **ret_below)
{
	const struct cow_region *region =
		(const void *)((const char *)space - offsetof(struct cow_region, space));

	*ret_below = NULL;
	switch (space->base) {
	case BASE_ZERO:
		return 0;
	case BASE_SOURCE:
		*ret_below = space->source;
		return 0;
	case BASE_WINDOW:
		break;
	}
	if (region->memfd < 0 && !region->source && !region->has_content)
		return add_window(set, space);
	add_all(set);
	return 0;
}

static int collect(struct pageset *set, struct snap *snap, const struct pageset_since *since)
{
	int r = 0;

	while (r == 0 && snap) {
		bool last = since && snap == since->of;
		struct collecting collecting = { set, snap, last ? since->epoch : 0 };
		struct space *space = snap->space;
		struct snap *below = NULL;

		r = table_walk(&space->table, 0, space->pages, collecting.since, visit,
			       &collecting);
		if (r == 0 && !last)
			r = add_base(set, space, &below);
		snap = below;
	}
	return r;
}

static void count_slices(struct pageset *set, unsigned page_shift)
{
	uint64_t slice = UINT64_MAX, page = 0;

	for (; (page = pageset_next(set, page)) < set->pages; page++) {
		uint64_t bytes = (uint64_t)1 << page_shift;
		uint64_t first = (page << page_shift) / SLICE_BYTES;
		uint64_t last = ((page << page_shift) + bytes - 1) / SLICE_BYTES;

		set->slices += last - first + (first != slice);
		slice = last;
	}
}

int pageset_collect(struct pageset *set, struct snap *snap, const struct pageset_since *since)
{
	size_t words = (snap->space->pages + 63) / 64;
	int r;

	*set = (struct pageset){
		.pages = snap->space->pages,
		.bytes = (words * 8 + 4095) / 4096 * 4096,
	};
	set->words = host_map(set->bytes, 4096);
	set->touched = sys_alloc(set->bytes / 4096);
	r = set->words && set->touched ? collect(set, snap, since) : -ENOMEM;
	if (r < 0)
		pageset_free(set);
	else
		count_slices(set, snap->space->page_shift);
	return r;
}

void pageset_free(struct pageset *set)
{
	if (set->words)
		host_unmap(set->words, set->bytes);
	sys_free(set->touched);
	*set = (struct pageset){ 0 };
}

uint64_t pageset_next(const struct pageset *set, uint64_t page)
{
	uint64_t words = set->bytes / 8, word = page / 64, bits;

	if (page >= set->pages)
		return set->pages;
	bits = set->words[word] & ~(uint64_t)0 << page % 64;
	while (bits == 0) {
		word++;
		while (word < words && word % WORDS_PER_TOUCHED == 0 &&
		       !set->touched[word / WORDS_PER_TOUCHED])
			word += WORDS_PER_TOUCHED;
		if (word >= words)
			return set->pages;
		bits = set->words[word];
	}
	return word * 64 + (uint64_t)__builtin_ctzll(bits);
}
