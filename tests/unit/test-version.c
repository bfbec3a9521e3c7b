/* SPDX-License-Identifier: MIT */
/* Chains of versions, and the pairing heap that says which of them go with a snapshot. */
#include "core/version.h"
#include "tests/tap.h"

enum { COUNT = 3000 };

TEST(chains)
{
	struct version versions[4] = { { .from = 1 }, { .from = 3 }, { .from = 5 }, { .from = 8 } };
	struct entry entry = { 0 };

	ok(!version_find(&entry, 99), "an empty chain");
	for (size_t i = 0; i < 4; i++)
		version_link(&entry, &versions[i]);
	ok(!version_find(&entry, 0), "before all");
	ok(version_find(&entry, 1) == &versions[0], "the first");
	ok(version_find(&entry, 4) == &versions[1], "the one that covers");
	ok(version_find(&entry, 8) == &versions[3], "the newest");
	version_unlink(&versions[1]);
	ok(version_find(&entry, 4) == &versions[0], "without one in the middle");
	version_unlink(&versions[3]);
	ok(version_find(&entry, 9) == &versions[2], "without the newest");
	version_unlink(&versions[0]);
	ok(!version_find(&entry, 4), "without the oldest");
	version_unlink(&versions[2]);
	ok(!atomic_load(&entry.versions), "empty again");
}

static bool pops_in_order(struct bucket *heap, unsigned expected)
{
	uint64_t last = UINT64_MAX;
	struct bucket *top;
	unsigned count = 0;

	while (heap) {
		heap = heap_pop(heap, &top);
		if (top->from > last)
			return false;
		last = top->from;
		count++;
	}
	return count == expected;
}

TEST(heaps_pop_the_highest)
{
	static struct bucket buckets[COUNT];
	uint64_t random = 1;

	for (int kind = 0; kind < 4; kind++) {
		struct bucket *heap = NULL;

		for (unsigned i = 0; i < COUNT; i++) {
			random = random * 6364136223846793005u + 1442695040888963407u;
			buckets[i] = (struct bucket){
				.from = kind == 0 ? i :
					kind == 1 ? COUNT - i :
					kind == 2 ? random >> 50 :
						    7,
			};
			heap = heap_meld(heap, &buckets[i]);
		}
		ok(pops_in_order(heap, COUNT), "kind %d", kind);
	}
}

TEST(heaps_meld)
{
	static struct bucket buckets[COUNT];
	struct bucket *heaps[10] = { NULL }, *all = NULL, *top;

	ok(!heap_meld(NULL, NULL), "nothing and nothing");
	for (unsigned i = 0; i < COUNT; i++) {
		buckets[i].from = i * 2654435761u % 100003;
		heaps[i % 10] = heap_meld(&buckets[i], heaps[i % 10]);
	}
	for (unsigned i = 0; i < 10; i++) {
		heaps[i] = heap_pop(heaps[i], &top);
		heaps[i] = heap_meld(heaps[i], top); /* out and in again */
		all = heap_meld(all, heaps[i]);
	}
	ok(pops_in_order(all, COUNT), "all of them, in order");
}

TAP_MAIN(CASE(chains), CASE(heaps_pop_the_highest), CASE(heaps_meld))
