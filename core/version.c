/* SPDX-License-Identifier: MIT */
#include "core/version.h"

void version_link(struct entry *entry, struct version *version)
{
	struct version *older = atomic_load_explicit(&entry->versions, memory_order_relaxed);

	atomic_init(&version->older, older);
	version->link = &entry->versions;
	if (older)
		older->link = &version->older;
	STEP("version: link");
	atomic_store_explicit(&entry->versions, version, memory_order_release);
}

void version_unlink(struct version *version)
{
	struct version *older = atomic_load_explicit(&version->older, memory_order_relaxed);

	if (older)
		older->link = version->link;
	atomic_store_explicit(version->link, older, memory_order_release);
}

struct version *version_find(struct entry *entry, uint64_t epoch)
{
	struct version *version = atomic_load_explicit(&entry->versions, memory_order_acquire);

	while (version && version->from > epoch) {
		STEP("version: older");
		version = atomic_load_explicit(&version->older, memory_order_acquire);
	}
	return version;
}

struct bucket *heap_meld(struct bucket *a, struct bucket *b)
{
	if (!a)
		return b;
	if (!b)
		return a;
	if (a->from < b->from) {
		struct bucket *swap = a;

		a = b;
		b = swap;
	}
	b->next = a->child;
	a->child = b;
	return a;
}

/* The two passes of a pairing heap, without recursion: children may be many. */
struct bucket *heap_pop(struct bucket *heap, struct bucket **ret_top)
{
	struct bucket *child = heap->child, *pairs = NULL, *rest = NULL;

	while (child) {
		struct bucket *a = child, *b = child->next, *pair;

		child = b ? b->next : NULL;
		a->next = NULL;
		if (b)
			b->next = NULL;
		pair = heap_meld(a, b);
		pair->next = pairs;
		pairs = pair;
	}
	while (pairs) {
		struct bucket *pair = pairs;

		pairs = pair->next;
		pair->next = NULL;
		rest = heap_meld(rest, pair);
	}
	heap->child = NULL;
	*ret_top = heap;
	return rest;
}
