/* SPDX-License-Identifier: MIT */
/* The page table: what was touched is found, walks visit exactly what was opened since, in
 * order. */
#include "core/table.h"
#include "tests/tap.h"

static void open_in(struct table *table, uint64_t page, uint64_t epoch)
{
	struct entry *entry = table_touch(table, page, epoch);

	if (!entry)
		bail("no memory");
	atomic_store(&entry->state, state_make(epoch, PAGE_PRESENT));
}

struct visits {
	uint64_t count, last, stop_at;
	uint64_t pages[64];
};

static int note(uint64_t page, struct entry *entry, void *context)
{
	struct visits *visits = context;

	ok(entry != NULL, "an entry");
	ok(visits->count == 0 || page > visits->last, "in ascending order");
	visits->last = page;
	if (visits->count < 64)
		visits->pages[visits->count] = page;
	visits->count++;
	return visits->stop_at != 0 && visits->count == visits->stop_at ? -7 : 0;
}

TEST(levels)
{
	static const struct {
		uint64_t pages;
		unsigned levels;
	} rows[] = { { 1, 1 },       { 512, 1 },           { 513, 2 },
		     { 1 << 18, 2 }, { (1 << 18) + 1, 3 }, { 1ull << 32, 4 } };
	struct table table;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		table_init(&table, rows[i].pages);
		is_u64(table.levels, rows[i].levels, "levels for %" PRIu64 " pages", rows[i].pages);
		open_in(&table, rows[i].pages - 1, 1);
		ok(table_find(&table, rows[i].pages - 1) != NULL, "its last page");
		table_destroy(&table);
	}
}

TEST(finding)
{
	struct table table;

	table_init(&table, 1ull << 30);
	ok(!table_find(&table, 5), "nothing in an empty table");
	is_u64(table_bytes(&table), 0, "which has no nodes");
	open_in(&table, 5, 3);
	ok(table_find(&table, 5) == table_touch(&table, 5, 4), "entries do not move");
	is_u64(state_epoch(atomic_load(&table_find(&table, 5)->state)), 3, "its epoch");
	ok(table_find(&table, 6) != NULL, "a neighbour has an entry");
	is_u64(atomic_load(&table_find(&table, 6)->state), 0, "that says: never written");
	ok(!table_find(&table, 1 << 20), "what is far away has none");
	table_destroy(&table);
}

TEST(walking)
{
	static const uint64_t pages[] = { 0, 511, 512, 100000, 100001, (1 << 27) - 1 };
	struct visits all = { 0 }, late = { 0 }, part = { 0 }, stopped = { .stop_at = 2 };
	struct table table;

	table_init(&table, 1 << 27);
	for (size_t i = 0; i < 6; i++)
		open_in(&table, pages[i], i + 1);
	is_int(table_walk(&table, 0, 1 << 27, 0, note, &all), 0, "all");
	ok(all.count == 6 && memcmp(all.pages, pages, sizeof(pages)) == 0, "exactly those");
	table_walk(&table, 0, 1 << 27, 3, note, &late);
	ok(late.count == 3 && late.pages[0] == 100000, "those since epoch 3");
	table_walk(&table, 511, 100001, 0, note, &part);
	ok(part.count == 3 && part.pages[0] == 511 && part.last == 100000, "those of a range");
	is_int(table_walk(&table, 0, 1 << 27, 0, note, &stopped), -7, "a walk that is stopped");
	is_u64(stopped.count, 2, "goes no further");
	table_destroy(&table);
}

/* Whole subtrees are passed over: a node's entry says when the last page below was opened. */
TEST(walks_skip_what_is_old)
{
	struct visits visits = { 0 };
	struct table table;

	table_init(&table, 1 << 20);
	for (uint64_t page = 0; page < 1 << 20; page += 64)
		open_in(&table, page, 1);
	open_in(&table, 777777, 9);
	is_int(table_walk(&table, 0, 1 << 20, 8, note, &visits), 0, "walk");
	ok(visits.count == 1 && visits.last == 777777, "the one new page");
	is_u64(table_bytes(&table) / (TABLE_FANOUT * sizeof(struct entry)), table.nodes,
	       "nodes are counted");
	table_destroy(&table);
}

TAP_MAIN(CASE(levels), CASE(finding), CASE(walking), CASE(walks_skip_what_is_old))
