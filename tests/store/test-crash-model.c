/* SPDX-License-Identifier: MIT */
/*
 * The enumerator of crash states on itself: a file replaced by the book is always its old or its
 * new content, each single mistake shows, and what the model says of single operations.
 */
#include "tests/store/crash.h"
#include "tests/tap.h"

#define LENGTH 3000u

static const struct crash_options thorough = { .seed = 1, .random = 400, .singles = 16 };

/* Each sector of each version is unlike any other. */
static void fill(unsigned char *content, unsigned char version)
{
	for (unsigned i = 0; i < LENGTH; i++)
		content[i] = (unsigned char)(version * 16 + i / CRASH_SECTOR);
}

/* A mark follows each version. */
static void replace(struct crash_log *log, unsigned char version)
{
	unsigned char content[LENGTH];
	unsigned file = crash_create(log, "data.new");

	fill(content, version);
	crash_write(log, file, 0, content, LENGTH / 2);
	crash_write(log, file, LENGTH / 2, content + LENGTH / 2, LENGTH - LENGTH / 2);
	crash_sync(log, file);
	crash_rename(log, "data.new", "data");
	crash_sync_directory(log);
	crash_mark(log, version);
}

static const struct crash_file *find(const struct crash_state *state, const char *name)
{
	for (size_t i = 0; i < state->count; i++)
		if (strcmp(state->files[i].name, name) == 0)
			return &state->files[i];
	return NULL;
}

/* 0: the content is that of the last mark, or of the next where something is under way. */
static int look(const struct crash_state *state, void *context)
{
	const struct crash_file *file = find(state, "data");
	unsigned char expected[LENGTH];
	unsigned version;

	(void)context;
	for (version = state->mark; version <= state->mark + state->between; version++) {
		if (version == 0 && !file)
			return 0;
		fill(expected, (unsigned char)version);
		if (version > 0 && file && file->size == LENGTH &&
		    memcmp(file->data, expected, LENGTH) == 0)
			return 0;
	}
	return 1;
}

TEST(a_file_replaced_by_the_book)
{
	struct crash_log log = { 0 };
	uint64_t states = 0;

	replace(&log, 1);
	replace(&log, 2);
	is_int(crash_each_state(&log, &thorough, look, NULL, &states), 0,
	       "every state is a whole version");
	ok(states > 60, "%" PRIu64 " states", states);
	crash_log_free(&log);
}

TEST(each_mistake_shows)
{
	struct crash_log log = { 0 }, mutant;
	unsigned count = 0;
	char name[256];
	size_t at;

	replace(&log, 1);
	replace(&log, 2);
	for (size_t n = 0; crash_mutant(&log, n, &mutant, &at, name); n++, count++) {
		ok(crash_each_state(&mutant, &thorough, look, NULL, NULL) == 1, "%s", name);
		crash_log_free(&mutant);
	}
	/* Two syncs of contents, two of the directory: left out, early, late (but the last one,
	 * which nothing waits for); and two renames in the wrong order. */
	is_u64(count, 4 + 4 + 3 + 1, "mutants");
	crash_log_free(&log);
}

/* Which of the things that may happen have been seen. */
struct seen {
	bool absent, whole, half, longer, garbage, other;
};

static int note(const struct crash_state *state, void *context)
{
	const struct crash_file *file = find(state, "f");
	struct seen *seen = context;
	unsigned ones = 0, zeros = 0;

	for (size_t i = 0; file && i < file->size; i++) {
		ones += file->data[i] == 1;
		zeros += file->data[i] == 0;
	}
	seen->absent |= !file;
	if (!file)
		return 0;
	seen->whole |= ones == 2048 && file->size == 2048;
	seen->half |= ones > 0 && ones < 2048 && ones % CRASH_SECTOR == 0;
	seen->longer |= file->size == 2048 && ones == 0;
	seen->garbage |= ones + zeros < file->size;
	seen->other |= file->size > 2048 || (file->size % CRASH_SECTOR != 0);
	return 0;
}

TEST(what_a_write_may_leave)
{
	struct crash_log log = { 0 };
	unsigned char content[2048];
	struct seen seen = { 0 };
	unsigned file;

	memset(content, 1, sizeof(content));
	file = crash_create(&log, "f");
	crash_write(&log, file, 0, content, sizeof(content));
	is_int(crash_each_state(&log, &thorough, note, &seen, NULL), 0, "visited");
	ok(seen.absent, "no entry");
	ok(seen.whole, "all of it");
	ok(seen.half, "some sectors");
	ok(seen.longer, "the size without the content");
	ok(seen.garbage, "garbage in place of content");
	ok(!seen.other, "nothing else");

	memset(&seen, 0, sizeof(seen));
	crash_sync(&log, file);
	crash_sync_directory(&log);
	is_int(crash_each_state(&log, &(struct crash_options){ .from = log.count }, note, &seen,
				NULL),
	       0, "visited");
	ok(seen.whole && !seen.absent && !seen.half && !seen.longer, "after both syncs: all");
	crash_log_free(&log);
}

static int count_entries(const struct crash_state *state, void *context)
{
	unsigned *bits = context;

	*bits |= 1u << ((find(state, "a") ? 1 : 0) + (find(state, "b") ? 2 : 0));
	return 0;
}

/* Two entries of one epoch come in any order; a rename is never half done. */
TEST(what_entries_may_leave)
{
	struct crash_log log = { 0 };
	unsigned bits = 0;

	crash_create(&log, "a");
	crash_create(&log, "b");
	crash_each_state(&log, &thorough, count_entries, &bits, NULL);
	is_u64(bits, 0xf, "each subset of two new files");
	crash_unlink(&log, "b");
	crash_sync_directory(&log);
	crash_rename(&log, "a", "b");
	bits = 0;
	crash_each_state(&log, &(struct crash_options){ .from = log.count - 1, .singles = 4 },
			 count_entries, &bits, NULL);
	is_u64(bits, 1u << 1 | 1u << 2, "a renamed file has one name");
	is_int(crash_find(&log, "b"), 0, "which is found");
	is_int(crash_find(&log, "a"), -1, "under that name alone");
	crash_log_free(&log);
}

TAP_MAIN(CASE(a_file_replaced_by_the_book), CASE(each_mistake_shows), CASE(what_a_write_may_leave),
	 CASE(what_entries_may_leave))
