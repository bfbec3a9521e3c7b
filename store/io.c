/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>

#include "store/io.h"
#include "sys/sys.h"

/* The kernel takes no more at a time. */
#define PIECES_MAX 1024

const struct io_ops io_system = {
	.open = sys_open_at,
	.close = sys_close,
	.read = sys_read_at,
	.write = sys_write_some_at,
	.truncate = sys_truncate,
	.sync_data = sys_sync_data,
	.sync_dir = sys_sync,
	.rename = sys_rename_at,
	.unlink = sys_unlink_at,
	.lock = sys_lock,
	.clone = sys_clone_range,
};

const struct io_ops *io_table = &io_system;
void (*io_recorder)(const struct io_record *record, void *context);
void *io_recorder_context;

static void record(const struct io_record *record)
{
	if (io_recorder)
		io_recorder(record, io_recorder_context);
}

int io_open(int directory, const char *name, int flags)
{
	int fd = io_table->open(directory, name, flags, 0666);

	if (fd >= 0 && (flags & O_CREAT))
		record(&(struct io_record){ .kind = IO_CREATE, .fd = fd, .name = name });
	return fd;
}

void io_close(int fd)
{
	if (fd < 0)
		return;
	record(&(struct io_record){ .kind = IO_CLOSE, .fd = fd });
	io_table->close(fd);
}

int io_read(int fd, void *buffer, size_t length, uint64_t offset)
{
	unsigned char *to = buffer;

	while (length > 0) {
		ssize_t n = io_table->read(fd, to, length, offset);

		if (n < 0)
			return (int)n;
		if (n == 0)
			return -EUCLEAN;
		to += n;
		offset += (uint64_t)n;
		length -= (size_t)n;
	}
	return 0;
}

/* What is left of the pieces after n bytes; how many pieces that are. */
static int advance(struct iovec **pieces, int count, size_t n)
{
	while (count > 0 && n >= (*pieces)->iov_len) {
		n -= (*pieces)->iov_len;
		++*pieces;
		count--;
	}
	if (n > 0) {
		(*pieces)->iov_base = (char *)(*pieces)->iov_base + n;
		(*pieces)->iov_len -= n;
	}
	return count;
}

int io_write(int fd, struct iovec *pieces, int count, uint64_t offset)
{
	count = advance(&pieces, count, 0); /* no empty ones at the front */
	while (count > 0) {
		int some = count < PIECES_MAX ? count : PIECES_MAX;
		ssize_t n = io_table->write(fd, pieces, some, offset);

		if (n < 0)
			return (int)n;
		if (n == 0)
			return -ENOSPC;
		record(&(struct io_record){
			.kind = IO_WRITE,
			.fd = fd,
			.offset = offset,
			.length = (uint64_t)n,
			.pieces = pieces,
			.count = some,
		});
		offset += (uint64_t)n;
		count = advance(&pieces, count, (size_t)n);
	}
	return 0;
}

int io_write_bytes(int fd, const void *bytes, size_t length, uint64_t offset)
{
	struct iovec piece = { (void *)(uintptr_t)bytes, length };

	return io_write(fd, &piece, 1, offset);
}

int io_truncate(int fd, uint64_t length)
{
	int r = io_table->truncate(fd, length);

	if (r == 0)
		record(&(struct io_record){ .kind = IO_TRUNCATE, .fd = fd, .length = length });
	return r;
}

int io_sync_data(int fd)
{
	int r = io_table->sync_data(fd);

	if (r == 0)
		record(&(struct io_record){ .kind = IO_SYNC_DATA, .fd = fd });
	return r;
}

int io_sync_dir(int directory)
{
	int r = io_table->sync_dir(directory);

	if (r == 0)
		record(&(struct io_record){ .kind = IO_SYNC_DIR, .fd = directory });
	return r;
}

int io_rename(int directory, const char *from, const char *to)
{
	int r = io_table->rename(directory, from, to);

	if (r == 0)
		record(&(struct io_record){
			.kind = IO_RENAME, .fd = directory, .name = from, .to = to });
	return r;
}

int io_unlink(int directory, const char *name)
{
	int r = io_table->unlink(directory, name);

	if (r == 0)
		record(&(struct io_record){ .kind = IO_UNLINK, .fd = directory, .name = name });
	return r;
}

int io_lock(int fd, uint64_t byte, int kind)
{
	return io_table->lock(fd, byte, kind);
}

int io_clone(int to, uint64_t to_offset, int from, uint64_t from_offset, uint64_t length)
{
	int r = io_table->clone(to, to_offset, from, from_offset, length);

	if (r == 0)
		record(&(struct io_record){
			.kind = IO_CLONE,
			.fd = to,
			.offset = to_offset,
			.length = length,
			.from = from,
			.from_offset = from_offset,
		});
	return r;
}
