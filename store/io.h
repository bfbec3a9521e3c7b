/* SPDX-License-Identifier: MIT */
/*
 * The one table of file operations: everything that the store does to its files goes through it.
 *
 * Each entry is bound to a function of sys/, where its failure can be injected. Tests put a table
 * of their own in its place: one that drops or reorders what the crash protocol needs, or that
 * writes short. What succeeded and changed something is told to the recorder, in order, from which
 * a test makes up every state that a crash may leave.
 *
 *   data     write, truncate, clone     until sync_data of the same file: may be on disk or not,
 *                                       in any order, in pieces of a sector
 *   names    open with O_CREAT, rename, until sync_dir: likewise, each whole
 *            unlink
 */
#ifndef COW_STORE_IO_H
#define COW_STORE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* All return a negative errno on failure. Names are relative to the directory's descriptor. */
struct io_ops {
	int (*open)(int directory, const char *name, int flags, unsigned mode);
	void (*close)(int fd);
	ssize_t (*read)(int fd, void *buffer, size_t length, uint64_t offset);
	/* May write less than it was given, as the kernel may. */
	ssize_t (*write)(int fd, const struct iovec *pieces, int count, uint64_t offset);
	int (*truncate)(int fd, uint64_t length);
	int (*sync_data)(int fd);
	int (*sync_dir)(int directory);
	int (*rename)(int directory, const char *from, const char *to);
	int (*unlink)(int directory, const char *name);
	int (*lock)(int fd, uint64_t byte, int kind); /* F_RDLCK, F_WRLCK, F_UNLCK; -EBUSY */
	int (*clone)(int to, uint64_t to_offset, int from, uint64_t from_offset, uint64_t length);
};

extern const struct io_ops io_system;
extern const struct io_ops *io_table; /* &io_system, but in tests */

enum io_kind {
	IO_CREATE, /* name, fd: opened with O_CREAT */
	IO_CLOSE,  /* fd */
	IO_WRITE,  /* fd, offset, length, pieces: as far as it was written */
	IO_TRUNCATE,
	IO_SYNC_DATA,
	IO_SYNC_DIR,
	IO_RENAME, /* name, to */
	IO_UNLINK, /* name */
	IO_CLONE,  /* fd, offset, length; from, from_offset */
};

struct io_record {
	enum io_kind kind;
	int fd; /* of the file, or of the directory */
	const char *name, *to;
	uint64_t offset, length;
	const struct iovec *pieces; /* valid during the call; may hold more than length bytes */
	int count;
	int from;
	uint64_t from_offset;
};

/* NULL in production. Called by the thread that did it. */
extern void (*io_recorder)(const struct io_record *record, void *context);
extern void *io_recorder_context;

int io_open(int directory, const char *name, int flags);
void io_close(int fd); /* -1: nothing */
/* All of it: -EUCLEAN where the file ends before. */
int io_read(int fd, void *buffer, size_t length, uint64_t offset);
/* All of it; a short write goes on where it ended. Changes pieces. */
int io_write(int fd, struct iovec *pieces, int count, uint64_t offset);
int io_write_bytes(int fd, const void *bytes, size_t length, uint64_t offset);
int io_truncate(int fd, uint64_t length);
int io_sync_data(int fd);
int io_sync_dir(int directory);
int io_rename(int directory, const char *from, const char *to);
int io_unlink(int directory, const char *name);
int io_lock(int fd, uint64_t byte, int kind);
int io_clone(int to, uint64_t to_offset, int from, uint64_t from_offset, uint64_t length);

#endif
