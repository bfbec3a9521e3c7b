/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <errno.h>

#include "core/table.h"

static_assert(sizeof(struct entry) == sizeof(struct inner_entry),
	      "leaf and inner nodes are of one size");

#define NODE_BYTES ((size_t)TABLE_FANOUT * sizeof(struct entry))
#ifdef COW_MODEL
#define ARENA_NODES 8u
#else
#define ARENA_NODES 64u
#endif

struct node_arena {
	struct node_arena *next;
};

/* The arena's own link takes the room of one node. */
#define ARENA_BYTES (ARENA_NODES * NODE_BYTES)

int table_init(struct table *table, uint64_t pages)
{
	*table = (struct table){ .pages = pages, .levels = 1 };
	for (uint64_t reach = TABLE_FANOUT; reach < pages; reach <<= TABLE_BITS)
		table->levels++;
	return 0;
}

void table_destroy(struct table *table)
{
	while (table->arenas) {
		struct node_arena *arena = table->arenas;

		table->arenas = arena->next;
		host_unmap(arena, ARENA_BYTES);
	}
}

size_t table_bytes(const struct table *table)
{
	return table->nodes * NODE_BYTES;
}

/* Under the table's lock. */
static void *node_new(struct table *table)
{
	if (!table->arenas || table->arena_used == ARENA_NODES) {
		struct node_arena *arena = host_map(ARENA_BYTES, NODE_BYTES);

		if (!arena)
			return NULL;
		arena->next = table->arenas;
		table->arenas = arena;
		table->arena_used = 1;
	}
	table->nodes++;
	return (char *)table->arenas + table->arena_used++ * NODE_BYTES;
}

static void *node_make(struct table *table, struct inner_entry *slot)
{
	void *node;

	lock_take(&table->lock);
	node = atomic_load_explicit(&slot->below, memory_order_relaxed);
	if (!node) {
		node = node_new(table);
		if (node)
			atomic_store_explicit(&slot->below, node, memory_order_release);
	}
	lock_drop(&table->lock);
	return node;
}

static unsigned index_at(uint64_t page, unsigned level)
{
	return (unsigned)(page >> (level * TABLE_BITS)) & (TABLE_FANOUT - 1);
}

struct entry *table_find(struct table *table, uint64_t page)
{
	struct inner_entry *slot = &table->root;

	for (unsigned level = table->levels; level-- > 0;) {
		void *node = atomic_load_explicit(&slot->below, memory_order_acquire);

		if (!node)
			return NULL;
		if (level == 0)
			return (struct entry *)node + index_at(page, 0);
		slot = (struct inner_entry *)node + index_at(page, level);
	}
	return NULL;
}

/* Writers of one epoch all store the same number, and no writer outlives its epoch: no compare
 * needed. */
static void raise_latest(struct inner_entry *slot, uint64_t epoch)
{
	if (atomic_load_explicit(&slot->latest, memory_order_relaxed) < epoch &&
	    !MUTANT("latest-not-raised"))
		atomic_store_explicit(&slot->latest, epoch, memory_order_relaxed);
}

struct entry *table_touch(struct table *table, uint64_t page, uint64_t epoch)
{
	struct inner_entry *slot = &table->root;

	for (unsigned level = table->levels; level-- > 0;) {
		void *node = atomic_load_explicit(&slot->below, memory_order_acquire);

		raise_latest(slot, epoch);
		if (!node)
			node = node_make(table, slot);
		if (!node)
			return NULL;
		if (level == 0)
			return (struct entry *)node + index_at(page, 0);
		slot = (struct inner_entry *)node + index_at(page, level);
	}
	return NULL;
}

struct walk {
	uint64_t first, end, since;
	table_visit_fn visit;
	void *context;
};

static int walk_leaf(const struct walk *walk, struct entry *leaf, uint64_t start)
{
	for (unsigned i = 0; i < TABLE_FANOUT; i++) {
		uint64_t page = start + i;
		uint64_t state;
		int r;

		if (page < walk->first)
			continue;
		if (page >= walk->end)
			break;
		state = atomic_load_explicit(&leaf[i].state, memory_order_acquire);
		if (state_epoch(state) <= walk->since)
			continue;
		r = walk->visit(page, &leaf[i], walk->context);
		if (r != 0)
			return r;
	}
	return 0;
}

/* A slot at this level covers pages [start, start + FANOUT^level). */
static int walk_slot(const struct walk *walk, struct inner_entry *slot, unsigned level,
		     uint64_t start)
{
	uint64_t span = (uint64_t)1 << ((level - 1) * TABLE_BITS);
	void *node = atomic_load_explicit(&slot->below, memory_order_acquire);

	if (!node || atomic_load_explicit(&slot->latest, memory_order_relaxed) <= walk->since)
		return 0;
	if (level == 1)
		return walk_leaf(walk, node, start);
	for (unsigned i = 0; i < TABLE_FANOUT; i++) {
		uint64_t page = start + i * span;
		int r;

		if (page + span <= walk->first)
			continue;
		if (page >= walk->end)
			break;
		r = walk_slot(walk, (struct inner_entry *)node + i, level - 1, page);
		if (r != 0)
			return r;
	}
	return 0;
}

int table_walk(struct table *table, uint64_t first, uint64_t end, uint64_t since,
	       table_visit_fn visit, void *context)
{
	struct walk walk = {
		.first = first,
		.end = end,
		.since = since,
		.visit = visit,
		.context = context,
	};

	return walk_slot(&walk, &table->root, table->levels, 0);
}
