/* SPDX-License-Identifier: MIT */
/* Reads ranges: which words at a time, and in one call with what is wanted next. */
#include "cli/ps/pages.h"

#include <errno.h>
#include <stdlib.h>

#include "cli/ps/reading.h"

/* The words of so many leaves are read at once: the kernel lets go of mmap_lock between them. */
#define CHUNK_PAGES (64 * LEAF_ENTRIES)

static int take_leaves(struct reading *reading, uint64_t page, const uint64_t *words, size_t count)
{
	size_t taken;
	int error = 0;

	for (; count && !error; words += taken, page += taken, count -= taken) {
		taken = LEAF_ENTRIES - page % LEAF_ENTRIES;
		if (taken > count)
			taken = count;
		error = reading_leaf(reading, page, words, taken, (struct piece){ 0 });
	}
	return error;
}

/* More than a library has. */
#define MOST_EXPECTED (4 * LEAF_ENTRIES)

void page_reader_expect(struct page_reader *reader, uint64_t page, uint64_t end)
{
	reader->expected_end = end - page <= MOST_EXPECTED ? end : page;
}

int reading_words(struct reading *reading, uint64_t page, size_t count, bool more,
		  const uint64_t **ret_words)
{
	struct page_reader *reader = reading->reader;
	size_t wanted = count;
	ssize_t n;

	if (reader->source != reading->source || page < reader->first ||
	    page + count > reader->end) {
		if (more && reader->expected_end > page + count)
			wanted = (size_t)(reader->expected_end - page);
		reader->source = NULL;
		n = page_words_read(reading->source->pagemap, page, wanted, reader->words);
		if (n < 0)
			return (int)n;
		/* Nothing more: the address space has gone with its process, or by exec. */
		if ((size_t)n < count)
			return -ESRCH;
		reader->source = reading->source;
		reader->first = page;
		reader->end = page + (uint64_t)n;
	}
	*ret_words = reader->words + (page - reader->first);
	return 0;
}

static int read_range(struct reading *reading, uint64_t page, uint64_t count)
{
	const uint64_t *words = NULL;
	size_t wanted;
	int error = 0;

	for (; count && !error; page += wanted, count -= wanted) {
		/* Chunks end with a leaf, so that siblings cut theirs at the same places. */
		wanted = CHUNK_PAGES - page % LEAF_ENTRIES;
		if (wanted > count)
			wanted = (size_t)count;
		error = reading_words(reading, page, wanted, true, &words);
		if (!error)
			error = take_leaves(reading, page, words, wanted);
	}
	return error;
}

int pages_read(const struct page_world *world, struct page_reader *reader,
	       const struct page_source *source, const struct page_range *range, uint64_t page,
	       uint64_t count)
{
	struct reading reading = { .world = world, .reader = reader, .source = source };

	if (!reader->words)
		reader->words = malloc(CHUNK_PAGES * sizeof(*reader->words));
	if (!reader->memo)
		reader->memo = memo_new();
	if (!reader->strata)
		reader->strata = recent_strata_new();
	if (!reader->words || !reader->memo || !reader->strata)
		return -ENOMEM;
	if (world->strata)
		return reading_windows(&reading, range, page, count);
	return read_range(&reading, page, count);
}

void page_reader_free(struct page_reader *reader)
{
	free(reader->words);
	free(reader->memo);
	free(reader->strata);
	pages_free(&reader->pages);
	proc_buffer_free(&reader->text);
	*reader = (struct page_reader){ 0 };
}
