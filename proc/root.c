/* SPDX-License-Identifier: MIT */
#include "proc/root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int proc_root_open(const char *path, struct proc_root *ret_root)
{
	int fd = open(path ? path : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	*ret_root = (struct proc_root){ .fd = fd, .captured = path != NULL };
	return 0;
}

void proc_root_close(struct proc_root *root)
{
	if (root->fd >= 0)
		close(root->fd);
	root->fd = -1;
}

/* openat2() came with Linux 5.6; a captured tree is not worth a way around its absence. */
static int open_beneath(int directory, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)flags,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	long fd = syscall(SYS_openat2, directory, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

static int open_at(const struct proc_root *root, int directory, const char *path, int flags)
{
	int fd;

	flags |= O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	if (root->captured)
		return open_beneath(directory, path, flags);
	fd = openat(directory, path, flags);
	if (fd < 0)
		return -errno;
	return fd;
}

/* Of a captured tree only regular files are read: a pipe would be waited for. */
static int open_regular(const struct proc_root *root, int directory, const char *path)
{
	struct stat status;
	int fd = open_at(root, directory, path, O_RDONLY);

	if (fd < 0 || !root->captured)
		return fd;
	if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
		return fd;
	close(fd);
	return -EINVAL;
}

int proc_root_open_file(const struct proc_root *root, const char *path)
{
	return open_regular(root, root->fd, path);
}

int proc_root_open_directory(const struct proc_root *root, const char *path)
{
	return open_at(root, root->fd, path, O_RDONLY | O_DIRECTORY);
}

int proc_root_open_process(const struct proc_root *root, pid_t pid)
{
	char path[32];

	snprintf(path, sizeof(path), "proc/%d", (int)pid);
	return proc_root_open_directory(root, path);
}

static int make_room(struct proc_buffer *buffer)
{
	size_t room = buffer->room ? 2 * buffer->room : 16384;
	char *bytes;

	if (buffer->length < buffer->room)
		return 0;
	if (room > PROC_FILE_LIMIT)
		return -EFBIG;
	bytes = realloc(buffer->bytes, room);
	if (!bytes)
		return -ENOMEM;
	buffer->bytes = bytes;
	buffer->room = room;
	return 0;
}

static int read_all(int fd, struct proc_buffer *buffer)
{
	ssize_t n;
	int error;

	buffer->length = 0;
	for (;;) {
		error = make_room(buffer);
		if (error)
			return error;
		n = read(fd, buffer->bytes + buffer->length, buffer->room - buffer->length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		buffer->length += (size_t)n;
	}
}

int proc_read_at(const struct proc_root *root, int directory, const char *path,
		 struct proc_buffer *buffer, struct text *ret_text)
{
	int fd = open_regular(root, directory, path), error;

	if (fd < 0)
		return fd;
	error = read_all(fd, buffer);
	close(fd);
	if (!error)
		*ret_text = text_of(buffer->bytes, buffer->length);
	return error;
}

int proc_root_read(const struct proc_root *root, const char *path, struct proc_buffer *buffer,
		   struct text *ret_text)
{
	return proc_read_at(root, root->fd, path, buffer, ret_text);
}

int proc_root_read_u64(const struct proc_root *root, const char *path, uint64_t *ret_value)
{
	struct proc_buffer buffer = { 0 };
	struct text text;
	int error = proc_root_read(root, path, &buffer, &text);

	if (!error)
		error = text_only_u64(text, ret_value);
	proc_buffer_free(&buffer);
	return error;
}

void proc_buffer_free(struct proc_buffer *buffer)
{
	free(buffer->bytes);
	*buffer = (struct proc_buffer){ 0 };
}

static int compare_pids(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

static int add_pid(pid_t **pids, size_t *count, size_t *room, pid_t pid)
{
	pid_t *grown;

	if (*count == *room) {
		*room = *room ? 2 * *room : 256;
		grown = realloc(*pids, *room * sizeof(**pids));
		if (!grown)
			return -ENOMEM;
		*pids = grown;
	}
	(*pids)[(*count)++] = pid;
	return 0;
}

static int list_directory(DIR *directory, pid_t **pids, size_t *count)
{
	const struct dirent *entry;
	size_t room = 0;
	uint64_t pid;
	int error;

	for (;;) {
		errno = 0;
		entry = readdir(directory);
		if (!entry)
			return -errno;
		if (text_only_u64(text_of_string(entry->d_name), &pid) < 0 || pid == 0 ||
		    pid > INT_MAX)
			continue;
		error = add_pid(pids, count, &room, (pid_t)pid);
		if (error)
			return error;
	}
}

int proc_root_list(const struct proc_root *root, pid_t **ret_pids, size_t *ret_count)
{
	int fd = proc_root_open_directory(root, "proc"), error;
	pid_t *pids = NULL;
	size_t count = 0;
	DIR *directory;

	if (fd < 0)
		return fd;
	directory = fdopendir(fd);
	if (!directory) {
		error = -errno;
		close(fd);
		return error;
	}
	error = list_directory(directory, &pids, &count);
	closedir(directory);
	if (error) {
		free(pids);
		return error;
	}
	if (count)
		qsort(pids, count, sizeof(*pids), compare_pids);
	*ret_pids = pids;
	*ret_count = count;
	return 0;
}
