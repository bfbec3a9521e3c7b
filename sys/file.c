/* SPDX-License-Identifier: MIT */
/* Files with names: what the store asks of the kernel. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/sys.h"

static int injected(enum sys_call call)
{
	return sys_injector ? sys_injector(call) : 0;
}

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

int sys_random(void *buffer, size_t length)
{
	int r = injected(SYS_CALL_RANDOM);
	ssize_t n;

	if (r < 0)
		return r;
	do
		n = getrandom(buffer, length, 0);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (size_t)n == length ? 0 : -EIO;
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

int sys_map_at(void *address, size_t length, int protection, int flags, int fd, uint64_t offset,
	       void **ret_address)
{
	int r = injected(SYS_CALL_MAP);
	void *mapped;

	if (r < 0)
		return r;
	mapped = mmap(address, length, protection, flags, fd, (off_t)offset);
	if (mapped == MAP_FAILED)
		return -errno;
	*ret_address = mapped;
	return 0;
}

unsigned sys_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}
