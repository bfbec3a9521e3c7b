/* SPDX-License-Identifier: MIT */
/*
 * What a directory may hold after a crash, enumerated from a log of file operations.
 *
 * Model
 * - One directory of plain files. A log holds what was done to it, in order: contents of files
 *   (write, size, clone) and entries of the directory (create, rename, remove), the syncs between
 *   them, and marks: the point where a call returned and so promised something.
 * - A crash comes after any number of operations. What a sync covered by then is on the disk: a
 *   file's sync covers the contents of that file, a directory's sync the entries. Of everything
 *   else any subset may be on the disk, in any order: entries of the directory are not ordered
 *   among each other, nor against contents, which is less than most file systems promise. Each
 *   operation on an entry is atomic. A write is torn at sectors of 512 bytes; a sector is old or
 *   new.
 * - What was never written reads as zeroes within a file's size; a write of which a part is on the
 *   disk may or may not have grown the file to its full length. Sectors of a file system that does
 *   not promise zeroes read as garbage: states of that kind are made, too.
 * - Between two syncs there are more subsets than can be tried. At each crash point these are: the
 *   empty one, everything, each one alone, all but one, a few at random, and these torn. States
 *   that are equal (same names, same bytes, same mark) are visited once.
 *
 * A mutant is a log with one sync left out, or two neighbours exchanged: what a library with that
 * mistake would have done. It has to be caught by the same visitor.
 *
 * Not modelled: operations that fail, subdirectories, a disk that lies about flushes or loses what
 * it had once.
 */
#ifndef TESTS_STORE_CRASH_H
#define TESTS_STORE_CRASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CRASH_NAME   80u
#define CRASH_SECTOR 512u

enum crash_kind {
	CRASH_CREATE,   /* name -> a new, empty file */
	CRASH_WRITE,    /* contents; a clone of a range is a write of what it held then */
	CRASH_TRUNCATE, /* size */
	CRASH_SYNC,     /* a file's contents */
	CRASH_RENAME,   /* name -> other, replacing it */
	CRASH_UNLINK,   /* name */
	CRASH_SYNC_DIRECTORY,
	CRASH_MARK, /* a call returned: what was asked for must be there from now on */
};

struct crash_op {
	enum crash_kind kind;
	unsigned file; /* the file's number; of RENAME and UNLINK that of name */
	char name[CRASH_NAME], other[CRASH_NAME];
	uint64_t offset, length; /* WRITE; TRUNCATE: length is the size */
	unsigned char *data;     /* WRITE; owned by the log */
	unsigned mark;           /* MARK */
};

struct crash_log {
	struct crash_op *ops;
	size_t count, room;
	unsigned files;
	bool borrowed; /* a mutant: the data is another's */
};

/* A file is named by the number that its creation returned. Adding copies name and data. */
unsigned crash_create(struct crash_log *log, const char *name);
void crash_write(struct crash_log *log, unsigned file, uint64_t offset, const void *data,
		 size_t length);
void crash_truncate(struct crash_log *log, unsigned file, uint64_t size);
void crash_sync(struct crash_log *log, unsigned file);
void crash_rename(struct crash_log *log, const char *name, const char *other);
void crash_unlink(struct crash_log *log, const char *name);
void crash_sync_directory(struct crash_log *log);
void crash_mark(struct crash_log *log, unsigned mark);
void crash_log_free(struct crash_log *log);

/* Which file stands under a name once everything has been done; -1: none. */
int crash_find(const struct crash_log *log, const char *name);

/* "write 3 +4096 (8192)", for messages. */
const char *crash_op_text(const struct crash_op *op, char text[256]);

struct crash_file {
	const char *name;
	const unsigned char *data;
	uint64_t size;
};

struct crash_state {
	size_t after;    /* operations done when it crashed */
	const char *how; /* which of them are there */
	unsigned mark;   /* the last one reached, 0: none */
	bool between;    /* operations were under way after that mark */
	const struct crash_file *files;
	size_t count;
};

struct crash_options {
	uint64_t seed;
	unsigned random;  /* random subsets for each crash point */
	unsigned singles; /* at most so many "this alone" and "all but this" for each crash point */
	size_t from;      /* the first crash point */
	size_t every;     /* each so many-th crash point, and those around syncs and marks; 0: 1 */
	uint64_t most;    /* states; 0: no bound */
};

/* Non-zero stops, and is returned. What state points to lasts for the call. */
typedef int (*crash_visit_fn)(const struct crash_state *state, void *context);
int crash_each_state(const struct crash_log *log, const struct crash_options *options,
		     crash_visit_fn visit, void *context, uint64_t *ret_states);

/* Empties a directory of plain files and puts a state into it. 0 or a negative errno. */
int crash_materialize(const struct crash_state *state, const char *directory);

/* The n-th mutant of a log: each sync left out, then each ordering swapped (a sync, or an entry,
 * and its neighbour of another kind). False where there are no more. name says what it is,
 * *ret_at which operation is the first that differs. */
bool crash_mutant(const struct crash_log *log, size_t n, struct crash_log *ret_mutant,
		  size_t *ret_at, char name[256]);

#endif
