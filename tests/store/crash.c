/* SPDX-License-Identifier: MIT */
#include "tests/store/crash.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static void *grow(void *memory, size_t count, size_t *room, size_t bytes)
{
	if (count < *room)
		return memory;
	*room = *room ? 2 * *room : 64;
	memory = realloc(memory, *room * bytes);
	assert(memory);
	return memory;
}

/* --- the log --- */

static struct crash_op *add(struct crash_log *log, enum crash_kind kind)
{
	struct crash_op *op;

	log->ops = grow(log->ops, log->count, &log->room, sizeof(log->ops[0]));
	op = &log->ops[log->count++];
	memset(op, 0, sizeof(*op));
	op->kind = kind;
	return op;
}

static void set_name(char to[CRASH_NAME], const char *name)
{
	assert(strlen(name) < CRASH_NAME && !strchr(name, '/'));
	strcpy(to, name);
}

unsigned crash_create(struct crash_log *log, const char *name)
{
	struct crash_op *op = add(log, CRASH_CREATE);

	set_name(op->name, name);
	op->file = log->files++;
	return op->file;
}

void crash_write(struct crash_log *log, unsigned file, uint64_t offset, const void *data,
		 size_t length)
{
	struct crash_op *op = add(log, CRASH_WRITE);

	op->file = file;
	op->offset = offset;
	op->length = length;
	op->data = malloc(length ? length : 1);
	assert(op->data);
	memcpy(op->data, data, length);
}

void crash_truncate(struct crash_log *log, unsigned file, uint64_t size)
{
	struct crash_op *op = add(log, CRASH_TRUNCATE);

	op->file = file;
	op->length = size;
}

void crash_sync(struct crash_log *log, unsigned file)
{
	add(log, CRASH_SYNC)->file = file;
}

int crash_find(const struct crash_log *log, const char *name)
{
	int file = -1;

	for (size_t i = 0; i < log->count; i++) {
		const struct crash_op *op = &log->ops[i];

		if (op->kind == CRASH_CREATE && strcmp(op->name, name) == 0)
			file = (int)op->file;
		else if (op->kind == CRASH_RENAME && strcmp(op->other, name) == 0)
			file = (int)op->file;
		else if ((op->kind == CRASH_RENAME || op->kind == CRASH_UNLINK) &&
			 strcmp(op->name, name) == 0)
			file = -1;
	}
	return file;
}

void crash_rename(struct crash_log *log, const char *name, const char *other)
{
	int file = crash_find(log, name);
	struct crash_op *op = add(log, CRASH_RENAME);

	assert(file >= 0);
	op->file = (unsigned)file;
	set_name(op->name, name);
	set_name(op->other, other);
}

void crash_unlink(struct crash_log *log, const char *name)
{
	int file = crash_find(log, name);
	struct crash_op *op = add(log, CRASH_UNLINK);

	assert(file >= 0);
	op->file = (unsigned)file;
	set_name(op->name, name);
}

void crash_sync_directory(struct crash_log *log)
{
	add(log, CRASH_SYNC_DIRECTORY);
}

void crash_mark(struct crash_log *log, unsigned mark)
{
	add(log, CRASH_MARK)->mark = mark;
}

void crash_log_free(struct crash_log *log)
{
	for (size_t i = 0; i < log->count && !log->borrowed; i++)
		free(log->ops[i].data);
	free(log->ops);
	memset(log, 0, sizeof(*log));
}

const char *crash_op_text(const struct crash_op *op, char text[256])
{
	switch (op->kind) {
	case CRASH_CREATE:
		snprintf(text, 256, "create file %u as %s", op->file, op->name);
		break;
	case CRASH_WRITE:
		snprintf(text, 256, "write %llu bytes at %llu of file %u",
			 (unsigned long long)op->length, (unsigned long long)op->offset, op->file);
		break;
	case CRASH_TRUNCATE:
		snprintf(text, 256, "set the size of file %u to %llu", op->file,
			 (unsigned long long)op->length);
		break;
	case CRASH_SYNC:
		snprintf(text, 256, "sync file %u", op->file);
		break;
	case CRASH_RENAME:
		snprintf(text, 256, "rename %s to %s", op->name, op->other);
		break;
	case CRASH_UNLINK:
		snprintf(text, 256, "unlink %s", op->name);
		break;
	case CRASH_SYNC_DIRECTORY:
		snprintf(text, 256, "sync the directory");
		break;
	case CRASH_MARK:
		snprintf(text, 256, "mark %u", op->mark);
		break;
	}
	return text;
}

/* --- the world that a choice makes --- */

enum choice { ABSENT, WHOLE, TORN };

struct content {
	unsigned char *data;
	uint64_t size, room;
};

struct entry {
	char name[CRASH_NAME];
	unsigned file;
};

struct world {
	const struct crash_log *log;
	const struct crash_options *options;
	crash_visit_fn visit;
	void *context;
	struct content *contents; /* by the file's number */
	struct entry *entries;
	size_t entry_count, entry_room;
	unsigned char *choice; /* an enum choice for each operation */
	size_t *pending;       /* operations that no sync covers */
	size_t pending_count;
	struct crash_file *files;
	size_t file_room;
	bool grown, garbage; /* of this state */
	uint64_t random;
	XXH128_hash_t *seen; /* open addressing; all zero: empty */
	size_t seen_count, seen_room;
	uint64_t states;
};

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static bool is_entry(const struct crash_op *op)
{
	return op->kind == CRASH_CREATE || op->kind == CRASH_RENAME || op->kind == CRASH_UNLINK;
}

static bool is_content(const struct crash_op *op)
{
	return op->kind == CRASH_WRITE || op->kind == CRASH_TRUNCATE;
}

static bool covers(const struct crash_op *sync, const struct crash_op *op)
{
	if (sync->kind == CRASH_SYNC)
		return is_content(op) && op->file == sync->file;
	return sync->kind == CRASH_SYNC_DIRECTORY && is_entry(op);
}

/* Everything that a sync covers is there; the rest is pending. */
static void find_pending(struct world *world, size_t after)
{
	const struct crash_op *ops = world->log->ops;

	world->pending_count = 0;
	for (size_t i = 0; i < after; i++) {
		bool durable = !is_entry(&ops[i]) && !is_content(&ops[i]);

		for (size_t j = i + 1; j < after && !durable; j++)
			durable = covers(&ops[j], &ops[i]);
		world->choice[i] = WHOLE;
		if (!durable)
			world->pending[world->pending_count++] = i;
	}
}

static void set_size(struct content *content, uint64_t size)
{
	if (size > content->room) {
		content->room = size + size / 2;
		content->data = realloc(content->data, content->room);
		assert(content->data);
	}
	if (size > content->size)
		memset(content->data + content->size, 0, size - content->size);
	content->size = size;
}

/* The size says that it is there, and it is not. A hole that nobody wrote is zero all the same. */
static void put_garbage(struct content *content, uint64_t from, uint64_t end)
{
	uint64_t before = content->size;

	if (end > before)
		set_size(content, end);
	for (uint64_t i = from > before ? from : before; i < end; i++)
		content->data[i] = (unsigned char)(i * 167 + 91);
}

static void put(struct content *content, const struct crash_op *op, uint64_t from, uint64_t end)
{
	if (op->offset + end > content->size)
		set_size(content, op->offset + end);
	memcpy(content->data + op->offset + from, op->data + from, end - from);
}

/* Sector by sector, as they lie in the file: some of them, or those before or behind a point. */
static void put_torn(struct world *world, struct content *content, const struct crash_op *op)
{
	uint64_t first = op->offset / CRASH_SECTOR;
	uint64_t sectors = (op->offset + op->length + CRASH_SECTOR - 1) / CRASH_SECTOR - first;
	uint64_t how = next_random(&world->random) % 4;
	uint64_t point = next_random(&world->random) % (sectors + 1);

	for (uint64_t s = 0; s < sectors; s++) {
		uint64_t at = (first + s) * CRASH_SECTOR, end = at + CRASH_SECTOR;
		bool there = how == 0 ? s < point :
			     how == 1 ? s >= point :
					next_random(&world->random) % 4 < how;

		at = at < op->offset ? op->offset : at;
		end = end > op->offset + op->length ? op->offset + op->length : end;
		if (there)
			put(content, op, at - op->offset, end - op->offset);
		else if (world->garbage)
			put_garbage(content, at, end);
	}
}

static struct entry *find_entry(struct world *world, const char *name)
{
	for (size_t i = 0; i < world->entry_count; i++)
		if (strcmp(world->entries[i].name, name) == 0)
			return &world->entries[i];
	return NULL;
}

static void remove_entry(struct world *world, const char *name, unsigned file)
{
	struct entry *entry = find_entry(world, name);

	if (entry && entry->file == file)
		*entry = world->entries[--world->entry_count];
}

static void set_entry(struct world *world, const char *name, unsigned file)
{
	struct entry *entry = find_entry(world, name);

	if (!entry) {
		world->entries = grow(world->entries, world->entry_count, &world->entry_room,
				      sizeof(world->entries[0]));
		entry = &world->entries[world->entry_count++];
		strcpy(entry->name, name);
	}
	entry->file = file;
}

static void apply(struct world *world, const struct crash_op *op, enum choice choice)
{
	struct content *content = &world->contents[op->file];

	if (choice == ABSENT) {
		if (world->grown && op->kind == CRASH_WRITE &&
		    op->offset + op->length > content->size) {
			if (world->garbage)
				put_garbage(content, op->offset, op->offset + op->length);
			else
				set_size(content, op->offset + op->length);
		}
		return;
	}
	switch (op->kind) {
	case CRASH_WRITE:
		if (choice == TORN)
			put_torn(world, content, op);
		else
			put(content, op, 0, op->length);
		break;
	case CRASH_TRUNCATE:
		set_size(content, op->length);
		break;
	case CRASH_CREATE:
		set_entry(world, op->name, op->file);
		break;
	case CRASH_RENAME:
		remove_entry(world, op->name, op->file);
		set_entry(world, op->other, op->file);
		break;
	case CRASH_UNLINK:
		remove_entry(world, op->name, op->file);
		break;
	default:
		break;
	}
}

static int by_name(const void *left, const void *right)
{
	return strcmp(((const struct entry *)left)->name, ((const struct entry *)right)->name);
}

static void build(struct world *world, size_t after, struct crash_state *state)
{
	for (unsigned i = 0; i < world->log->files; i++)
		world->contents[i].size = 0;
	world->entry_count = 0;
	state->mark = 0;
	state->between = false;
	for (size_t i = 0; i < after; i++) {
		const struct crash_op *op = &world->log->ops[i];

		state->between = op->kind != CRASH_MARK;
		if (op->kind == CRASH_MARK)
			state->mark = op->mark;
		else
			apply(world, op, world->choice[i]);
	}
	if (world->entry_count)
		qsort(world->entries, world->entry_count, sizeof(world->entries[0]), by_name);
	if (world->entry_count > world->file_room) {
		world->file_room = 2 * world->entry_count;
		world->files = realloc(world->files, world->file_room * sizeof(world->files[0]));
		assert(world->files);
	}
	for (size_t i = 0; i < world->entry_count; i++) {
		const struct content *content = &world->contents[world->entries[i].file];

		world->files[i] = (struct crash_file){ world->entries[i].name, content->data,
						       content->size };
	}
	state->after = after;
	state->files = world->files;
	state->count = world->entry_count;
}

/* --- states seen before --- */

static XXH128_hash_t hash_state(const struct crash_state *state)
{
	XXH3_state_t hash;

	XXH3_128bits_reset(&hash);
	XXH3_128bits_update(&hash, &state->mark, sizeof(state->mark));
	XXH3_128bits_update(&hash, &state->between, sizeof(state->between));
	for (size_t i = 0; i < state->count; i++) {
		const struct crash_file *file = &state->files[i];

		XXH3_128bits_update(&hash, file->name, strlen(file->name) + 1);
		XXH3_128bits_update(&hash, &file->size, sizeof(file->size));
		if (file->size)
			XXH3_128bits_update(&hash, file->data, file->size);
	}
	return XXH3_128bits_digest(&hash);
}

static XXH128_hash_t *seen_slot(const struct world *world, XXH128_hash_t hash)
{
	size_t i = hash.low64 & (world->seen_room - 1);

	while ((world->seen[i].low64 || world->seen[i].high64) &&
	       !XXH128_isEqual(world->seen[i], hash))
		i = (i + 1) & (world->seen_room - 1);
	return &world->seen[i];
}

static void enlarge_seen(struct world *world)
{
	XXH128_hash_t *before = world->seen;
	size_t room = world->seen_room;

	world->seen_room = room ? 2 * room : 4096;
	world->seen = calloc(world->seen_room, sizeof(world->seen[0]));
	assert(world->seen);
	for (size_t i = 0; i < room; i++)
		if (before[i].low64 || before[i].high64)
			*seen_slot(world, before[i]) = before[i];
	free(before);
}

static bool is_new(struct world *world, const struct crash_state *state)
{
	XXH128_hash_t hash = hash_state(state), *slot;

	if (2 * world->seen_count >= world->seen_room)
		enlarge_seen(world);
	slot = seen_slot(world, hash);
	if (slot->low64 || slot->high64)
		return false;
	*slot = hash;
	world->seen_count++;
	return true;
}

static bool is_enough(const struct world *world)
{
	return world->options->most && world->states >= world->options->most;
}

static int visit(struct world *world, size_t after, const char *how)
{
	struct crash_state state = { .how = how };

	if (is_enough(world))
		return 0;
	build(world, after, &state);
	if (!is_new(world, &state))
		return 0;
	world->states++;
	return world->visit(&state, world->context);
}

/* --- which subsets are tried --- */

static void choose_all(struct world *world, enum choice choice)
{
	for (size_t i = 0; i < world->pending_count; i++)
		world->choice[world->pending[i]] = (unsigned char)choice;
}

/* The i-th of those singled out: all, where there are few, else spread evenly. */
static size_t single(const struct world *world, size_t i, size_t count)
{
	return count == world->pending_count ? i : i * world->pending_count / count;
}

static int try_singles(struct world *world, size_t after)
{
	size_t count = world->pending_count;
	int r = 0;

	if (count > world->options->singles)
		count = world->options->singles;
	for (size_t i = 0; i < count && r == 0; i++) {
		unsigned char *choice = &world->choice[world->pending[single(world, i, count)]];

		choose_all(world, ABSENT);
		*choice = WHOLE;
		r = visit(world, after, "one alone");
		if (r)
			break;
		*choice = TORN;
		r = visit(world, after, "one alone, torn");
		if (r)
			break;
		choose_all(world, WHOLE);
		*choice = ABSENT;
		r = visit(world, after, "all but one");
		if (r)
			break;
		*choice = TORN;
		r = visit(world, after, "all, one torn");
	}
	return r;
}

static int try_random(struct world *world, size_t after)
{
	int r = 0;

	for (unsigned i = 0; i < world->options->random && r == 0; i++) {
		uint64_t share = 1 + next_random(&world->random) % 7;

		for (size_t p = 0; p < world->pending_count; p++) {
			bool there = next_random(&world->random) % 8 < share;
			bool torn = next_random(&world->random) % 3 == 0;

			world->choice[world->pending[p]] = !there ? ABSENT : torn ? TORN : WHOLE;
		}
		world->grown = next_random(&world->random) % 2;
		world->garbage = next_random(&world->random) % 4 == 0;
		r = visit(world, after, "a random subset");
		world->grown = world->garbage = false;
	}
	return r;
}

static int try_point(struct world *world, size_t after)
{
	int r;

	find_pending(world, after);
	r = visit(world, after, "everything");
	if (r || world->pending_count == 0)
		return r;
	choose_all(world, ABSENT);
	r = visit(world, after, "what was synced");
	if (r)
		return r;
	world->grown = true;
	r = visit(world, after, "what was synced, and sizes");
	world->grown = false;
	r = r ? r : try_singles(world, after);
	return r ? r : try_random(world, after);
}

/* Syncs, marks, entries, and what stands right before them, are never passed over. */
static bool is_chosen(const struct world *world, size_t after)
{
	const struct crash_log *log = world->log;
	size_t every = world->options->every ? world->options->every : 1;

	if (after < world->options->from)
		return false;
	if (after % every == 0 || after == log->count || after == 0)
		return true;
	return !is_content(&log->ops[after - 1]) || !is_content(&log->ops[after]);
}

int crash_each_state(const struct crash_log *log, const struct crash_options *options,
		     crash_visit_fn visit_state, void *context, uint64_t *ret_states)
{
	struct world world = { .log = log,
			       .options = options,
			       .visit = visit_state,
			       .context = context,
			       .random = options->seed };
	int r = 0;

	world.contents = calloc(log->files + 1, sizeof(world.contents[0]));
	world.choice = calloc(log->count + 1, 1);
	world.pending = calloc(log->count + 1, sizeof(world.pending[0]));
	assert(world.contents && world.choice && world.pending);
	for (size_t after = 0; after <= log->count && r == 0; after++)
		if (is_chosen(&world, after))
			r = try_point(&world, after);
	for (unsigned i = 0; i < log->files; i++)
		free(world.contents[i].data);
	free(world.contents);
	free(world.choice);
	free(world.pending);
	free(world.entries);
	free(world.files);
	free(world.seen);
	if (ret_states)
		*ret_states = world.states;
	return r;
}

/* --- on a real file system --- */

static int empty_directory(const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;

	if (!directory)
		return -errno;
	while ((entry = readdir(directory)))
		if (entry->d_name[0] != '.' ||
		    (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0))
			unlinkat(dirfd(directory), entry->d_name, 0);
	closedir(directory);
	return 0;
}

static int write_file(const char *directory, const struct crash_file *file)
{
	char path[4096];
	uint64_t done = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, file->name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		return -errno;
	while (done < file->size) {
		ssize_t n = write(fd, file->data + done, file->size - done);

		if (n < 0) {
			close(fd);
			return -errno;
		}
		done += (uint64_t)n;
	}
	close(fd);
	return 0;
}

int crash_materialize(const struct crash_state *state, const char *directory)
{
	int r = empty_directory(directory);

	for (size_t i = 0; i < state->count && r == 0; i++)
		r = write_file(directory, &state->files[i]);
	return r;
}

/* --- mutants --- */

static void copy_log(const struct crash_log *log, struct crash_log *ret_copy)
{
	*ret_copy = *log;
	ret_copy->room = log->count + 1;
	ret_copy->ops = malloc(ret_copy->room * sizeof(log->ops[0]));
	assert(ret_copy->ops);
	memcpy(ret_copy->ops, log->ops, log->count * sizeof(log->ops[0]));
	ret_copy->borrowed = true;
}

/* Operation `from` comes to stand where `to` stood; those in between move up or down. */
static void move(struct crash_log *log, size_t from, size_t to)
{
	struct crash_op op = log->ops[from];

	if (from < to)
		memmove(&log->ops[from], &log->ops[from + 1], (to - from) * sizeof(op));
	else
		memmove(&log->ops[to + 1], &log->ops[to], (from - to) * sizeof(op));
	log->ops[to] = op;
}

static bool guards(const struct crash_op *sync, const struct crash_op *op)
{
	if (op->kind != CRASH_RENAME && op->kind != CRASH_UNLINK)
		return false;
	return sync->kind == CRASH_SYNC_DIRECTORY || op->file == sync->file;
}

/* What a sync follows on purpose, and what waits for it; log->count: nothing. */
static size_t covered_before(const struct crash_log *log, size_t sync)
{
	for (size_t i = sync; i-- > 0;)
		if (covers(&log->ops[sync], &log->ops[i]) && log->ops[i].kind != CRASH_CREATE)
			return i;
	return log->count;
}

static size_t guarded_after(const struct crash_log *log, size_t sync)
{
	for (size_t i = sync + 1; i < log->count; i++)
		if (guards(&log->ops[sync], &log->ops[i]))
			return i;
	return log->count;
}

static size_t next_rename(const struct crash_log *log, size_t rename)
{
	for (size_t i = rename + 1; i < log->count; i++)
		if (log->ops[i].kind == CRASH_RENAME)
			return i;
	return log->count;
}

enum mutation { LEFT_OUT, TOO_EARLY, TOO_LATE, EXCHANGED, MUTATIONS };

/* Where the operation goes; log->count: this mutation does not exist for it. */
static size_t target(const struct crash_log *log, size_t i, enum mutation mutation)
{
	bool sync = log->ops[i].kind == CRASH_SYNC || log->ops[i].kind == CRASH_SYNC_DIRECTORY;

	switch (mutation) {
	case LEFT_OUT:
		return sync ? i : log->count;
	case TOO_EARLY:
		return sync ? covered_before(log, i) : log->count;
	case TOO_LATE:
		return sync ? guarded_after(log, i) : log->count;
	case EXCHANGED:
		return log->ops[i].kind == CRASH_RENAME ? next_rename(log, i) : log->count;
	default:
		return log->count;
	}
}

static void name_mutant(const struct crash_log *log, size_t i, size_t to, enum mutation mutation,
			char name[256])
{
	char one[256], other[256];

	crash_op_text(&log->ops[i], one);
	crash_op_text(&log->ops[to], other);
	if (mutation == LEFT_OUT)
		snprintf(name, 256, "operation %zu left out: %.100s", i, one);
	else
		snprintf(name, 256, "operation %zu %s: %.100s, %.100s", i,
			 mutation == TOO_EARLY ? "too early" :
			 mutation == TOO_LATE  ? "too late" :
						 "exchanged",
			 one, other);
}

static void mutate(struct crash_log *log, size_t i, size_t to, enum mutation mutation)
{
	struct crash_op swap;

	switch (mutation) {
	case LEFT_OUT:
		move(log, i, log->count - 1);
		log->count--;
		break;
	case EXCHANGED:
		swap = log->ops[i];
		log->ops[i] = log->ops[to];
		log->ops[to] = swap;
		break;
	default:
		move(log, i, to);
	}
}

bool crash_mutant(const struct crash_log *log, size_t n, struct crash_log *ret_mutant,
		  size_t *ret_at, char name[256])
{
	for (unsigned m = 0; m < MUTATIONS; m++)
		for (size_t i = 0; i < log->count; i++) {
			size_t to = target(log, i, (enum mutation)m);

			if (to == log->count || n-- > 0)
				continue;
			copy_log(log, ret_mutant);
			name_mutant(log, i, to, (enum mutation)m, name);
			mutate(ret_mutant, i, to, (enum mutation)m);
			*ret_at = i < to ? i : to;
			return true;
		}
	return false;
}
