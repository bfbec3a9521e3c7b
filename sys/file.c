/* SPDX-License-Identifier: MIT */
/* Files: those without a name, and those that the store keeps. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "sys/injected.h"

/* --- without a name, or open --- */

int sys_memfd(const char *name, size_t length)
{
	int r = injected(SYS_CALL_MEMFD);
	int fd;

	if (r < 0)
		return r;
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	r = sys_truncate(fd, length);
	if (r < 0) {
		sys_close(fd);
		return r;
	}
	return fd;
}

int sys_seal(int fd)
{
	int r = injected(SYS_CALL_MEMFD);

	if (r < 0)
		return r;
	return fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) < 0 ? -errno : 0;
}

int sys_truncate(int fd, uint64_t length)
{
	int r = injected(SYS_CALL_TRUNCATE);

	if (r < 0)
		return r;
	return ftruncate(fd, (off_t)length) < 0 ? -errno : 0;
}

/* Where the file system knows no nameless files, one with a name that is gone at once. */
static int open_and_unlink(const char *directory, int flags)
{
	char path[PATH_MAX];
	int fd;

	if (snprintf(path, sizeof(path), "%s/.cow-XXXXXX", directory) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	unlink(path);
	/* Not at once: an open that refuses the flag may have made the file already. */
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | flags) < 0) {
		int r = -errno;

		sys_close(fd);
		return r;
	}
	return fd;
}

int sys_open_unlinked(const char *directory, int flags)
{
	int r = injected(SYS_CALL_OPEN);
	int fd;

	if (r < 0)
		return r;
	fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);
	if (fd >= 0)
		return fd;
	if (errno == EOPNOTSUPP || errno == EISDIR)
		return open_and_unlink(directory, flags);
	return -errno;
}

int sys_is_tmpfs(int fd)
{
	int r = injected(SYS_CALL_STATFS);
	struct statfs fs;

	if (r < 0)
		return r;
	if (fstatfs(fd, &fs) < 0)
		return -errno;
	return fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
}

ssize_t sys_read_at(int fd, void *buffer, size_t length, uint64_t offset)
{
	int r = injected(SYS_CALL_READ_AT);
	ssize_t n;

	if (r < 0)
		return r;
	do
		n = pread(fd, buffer, length, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t sys_write_some_at(int fd, const struct iovec *pieces, int count, uint64_t offset)
{
	int r = injected(SYS_CALL_WRITE_AT);
	ssize_t n;

	if (r < 0)
		return r;
	do
		n = pwritev(fd, pieces, count, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int sys_write_at(int fd, const struct iovec *pieces, int count, uint64_t offset)
{
	ssize_t n = sys_write_some_at(fd, pieces, count, offset);
	size_t length = 0;

	if (n < 0)
		return (int)n;
	for (int i = 0; i < count; i++)
		length += pieces[i].iov_len;
	return (size_t)n == length ? 0 : -ENOSPC;
}

void sys_drop_cache(int fd, uint64_t offset, size_t length)
{
	if (sync_file_range(fd, (off_t)offset, (off_t)length,
			    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				    SYNC_FILE_RANGE_WAIT_AFTER) == 0)
		posix_fadvise(fd, (off_t)offset, (off_t)length, POSIX_FADV_DONTNEED);
}

void sys_close(int fd)
{
	if (fd >= 0)
		close(fd);
}

int sys_file_data(int fd, uint64_t offset, uint64_t end, uint64_t *ret_data, uint64_t *ret_hole)
{
	int r = injected(SYS_CALL_PAGEMAP);
	off_t data, hole;

	if (r < 0)
		return r;
	*ret_data = *ret_hole = end;
	data = lseek(fd, (off_t)offset, SEEK_DATA);
	if (data < 0)
		return errno == ENXIO ? 0 : -errno;
	if ((uint64_t)data >= end)
		return 0;
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	*ret_data = (uint64_t)data;
	*ret_hole = (uint64_t)hole < end ? (uint64_t)hole : end;
	return 0;
}

/* --- in a directory --- */

int sys_make_directory(const char *path)
{
	int r = injected(SYS_CALL_OPEN);

	if (r < 0)
		return r;
	return mkdir(path, 0777) < 0 && errno != EEXIST ? -errno : 0;
}

int sys_open_directory(const char *path)
{
	return sys_open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
}

int sys_open_at(int directory, const char *name, int flags, unsigned mode)
{
	int r = injected(SYS_CALL_OPEN);
	int fd;

	if (r < 0)
		return r;
	do
		fd = openat(directory, name, flags | O_CLOEXEC, mode);
	while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}

/* Not repeated, whatever it says: after a failure the kernel may have marked the pages clean. */
int sys_sync_data(int fd)
{
	int r = injected(SYS_CALL_SYNC);

	if (r < 0)
		return r;
	return fdatasync(fd) < 0 ? -errno : 0;
}

int sys_sync(int fd)
{
	int r = injected(SYS_CALL_SYNC);

	if (r < 0)
		return r;
	return fsync(fd) < 0 ? -errno : 0;
}

int sys_rename_at(int directory, const char *from, const char *to)
{
	int r = injected(SYS_CALL_RENAME);

	if (r < 0)
		return r;
	return renameat(directory, from, directory, to) < 0 ? -errno : 0;
}

int sys_unlink_at(int directory, const char *name)
{
	int r = injected(SYS_CALL_UNLINK);

	if (r < 0)
		return r;
	return unlinkat(directory, name, 0) < 0 ? -errno : 0;
}

int sys_lock(int fd, uint64_t byte, int kind)
{
	struct flock lock = {
		.l_type = (short)kind,
		.l_whence = SEEK_SET,
		.l_start = (off_t)byte,
		.l_len = 1,
	};
	int r = injected(SYS_CALL_LOCK);

	if (r < 0)
		return r;
	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

int sys_clone_range(int to, uint64_t to_offset, int from, uint64_t from_offset, uint64_t length)
{
	struct file_clone_range range = {
		.src_fd = from,
		.src_offset = from_offset,
		.src_length = length,
		.dest_offset = to_offset,
	};
	int r = injected(SYS_CALL_CLONE_RANGE);

	if (r < 0)
		return r;
	return ioctl(to, FICLONERANGE, &range) < 0 ? -errno : 0;
}

int sys_file_size(int fd, uint64_t *ret_bytes, uint64_t *ret_links)
{
	int r = injected(SYS_CALL_STATFS);
	struct stat status;

	if (r < 0)
		return r;
	if (fstat(fd, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode))
		return S_ISDIR(status.st_mode) ? -EISDIR : -EINVAL;
	*ret_bytes = (uint64_t)status.st_size;
	*ret_links = (uint64_t)status.st_nlink;
	return 0;
}

void sys_start_writeback(int fd, uint64_t offset, uint64_t length)
{
	(void)sync_file_range(fd, (off_t)offset, (off_t)length, SYNC_FILE_RANGE_WRITE);
}

int sys_list_directory(int directory, int (*visit)(const char *name, void *context), void *context)
{
	int r = injected(SYS_CALL_OPEN);
	struct dirent *entry;
	DIR *stream;
	int fd;

	if (r < 0)
		return r;
	/* A descriptor of its own: its position is not shared, and closedir() closes it. */
	fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	stream = fdopendir(fd);
	if (!stream) {
		r = -errno;
		close(fd);
		return r;
	}
	for (;;) {
		errno = 0;
		entry = readdir(stream);
		if (!entry) {
			r = -errno;
			break;
		}
		if (entry->d_name[0] == '.' &&
		    (!entry->d_name[1] || (entry->d_name[1] == '.' && !entry->d_name[2])))
			continue;
		r = visit(entry->d_name, context);
		if (r != 0)
			break;
	}
	closedir(stream);
	return r;
}
