/* SPDX-License-Identifier: MIT */
/*
 * A heap with pointers in it that outlives its process: the words of a text in a binary tree. Each
 * call adds the words of its input, saves the heap, and prints what all calls together have seen.
 *
 *   heap DIRECTORY <TEXT
 *
 * Pointers stay valid because the region is restored at the address that it was saved from, which
 * the program chose itself: an address that the kernel chose may be taken the next time. Where the
 * tree begins is kept with the layer, as its state. What changed since the last call is all that
 * is saved; what this call does not look at is never read.
 */
#include <cow.h>
#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAP_ADDRESS ((void *)(uintptr_t)0x200000000000) /* far from what the kernel chooses */
#define HEAP_LENGTH  ((size_t)1 << 30)                   /* of addresses: memory follows use */

struct node {
	struct node *left, *right;
	unsigned long count;
	char word[];
};

struct heap {
	char *free; /* from here on */
	struct node *root;
};

static struct cow_region *region;
static struct heap *heap;

static void must(ssize_t result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "heap: %s: %s\n", what, strerror((int)-result));
	exit(1);
}

static void *allocate(size_t bytes)
{
	char *memory = heap->free;

	bytes = (bytes + 15) & ~(size_t)15;
	if (bytes > HEAP_LENGTH - (size_t)(memory - (char *)heap))
		must(-ENOMEM, "the heap");
	heap->free += bytes;
	return memory; /* was never used, so it is all zero */
}

static void count(const char *word)
{
	struct node **link = &heap->root;
	int order;

	while (*link && (order = strcmp(word, (*link)->word)) != 0)
		link = order < 0 ? &(*link)->left : &(*link)->right;
	if (!*link) {
		*link = allocate(sizeof(**link) + strlen(word) + 1);
		strcpy((*link)->word, word);
	}
	(*link)->count++;
}

static void print(const struct node *node)
{
	if (!node)
		return;
	print(node->left);
	printf("%7lu %s\n", node->count, node->word);
	print(node->right);
}

static void begin(void)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;

	options.address = HEAP_ADDRESS;
	must(cow_region_new(HEAP_LENGTH, &options, &region), "a region at the heap's address");
	heap = cow_region_get_base(region);
	heap->free = (char *)(heap + 1);
}

static void go_on(struct cow_store *store)
{
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;

	options.flags = COW_RESTORE_SAME_ADDRESS;
	must(cow_store_restore(store, NULL, &options, &region), "restore");
	must(cow_store_get_state(store, NULL, &heap, sizeof(heap)), "state");
}

static void save(struct cow_store *store)
{
	struct cow_save_options options = COW_SAVE_OPTIONS_INIT;
	struct cow_snapshot *snapshot;

	options.state = &heap;
	options.state_length = sizeof(heap);
	must(cow_region_snapshot(region, &snapshot), "snapshot");
	must(cow_store_save(store, snapshot, &options, NULL), "save");
	cow_snapshot_unref(snapshot);
}

int main(int argc, char **argv)
{
	struct cow_layer_info newest = COW_LAYER_INFO_INIT;
	char word[100];
	struct cow_store *store;
	int c, r;

	if (argc != 2) {
		fprintf(stderr, "usage: heap DIRECTORY <TEXT\n");
		return 2;
	}
	must(cow_store_open(argv[1], COW_STORE_CREATE, &store), argv[1]);
	r = cow_store_get_info(store, NULL, &newest);
	if (r == -ENOENT)
		begin(); /* nothing was saved yet */
	else
		must(r, argv[1]), go_on(store);
	for (size_t length = 0; (c = getchar()) != EOF || length > 0;) {
		if (c != EOF && isalnum(c) && length < sizeof(word) - 1) {
			word[length++] = (char)tolower(c);
			continue;
		}
		word[length] = '\0';
		if (length > 0)
			count(word);
		length = 0;
	}
	save(store);
	print(heap->root);
	cow_store_close(store);
	cow_region_free(region);
	return 0;
}
