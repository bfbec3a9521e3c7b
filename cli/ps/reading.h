/* SPDX-License-Identifier: MIT */
/*
 * What the parts of pages.h hand to each other while a process is read.
 *
 *	world.c    the machine's frames           source.c   a process -> ranges
 *	pages.c    ranges -> words                windows.c  ranges -> words, of a sample
 *	leaves.c   words -> pieces
 */
#ifndef CLI_PS_READING_H
#define CLI_PS_READING_H

#include <sys/types.h>

#include "cli/ps/pages.h"

struct reading {
	const struct page_world *world;
	struct page_reader *reader;
	const struct page_source *source;
};

/* Reads words at an index of a file: how many there were, or a negative errno. */
ssize_t page_words_read(int fd, uint64_t index, size_t count, uint64_t *words);

/*
 * Words of the source, at most a chunk: those that were read last, or read now; with `more`, as far
 * as page_reader_expect() said. -ESRCH where they end before.
 */
int reading_words(struct reading *reading, uint64_t page, size_t count, bool more,
		  const uint64_t **ret_words);

/* The words of a leaf. `page` is where it stands, `piece` tells where it belongs. */
int reading_leaf(struct reading *reading, uint64_t page, const uint64_t *words, size_t count,
		 struct piece piece);

/* The windows in a part of a range. */
int reading_windows(struct reading *reading, const struct page_range *range, uint64_t page,
		    uint64_t count);

/* A reader's memory of leaves, and of strata: one block each; NULL without memory. */
struct memo *memo_new(void);
struct recent_stratum *recent_strata_new(void);

#endif
