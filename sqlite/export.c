/* SPDX-License-Identifier: MIT */
/*
 * Writing a snapshot to a real file: into a new file beside the target, synced, then renamed over
 * it, and the directory synced. On any failure the new file is removed and the target is as it was.
 *
 * A target beside which a journal or a log lies is refused: SQLite would apply it to the new file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "export.h"

enum { CHUNK = 256 * 1024, TRIES = 16 };

__attribute__((format(printf, 3, 4))) static int fail(char **ret_error, int rc, const char *format,
						      ...)
{
	va_list arguments;

	va_start(arguments, format);
	*ret_error = sqlite3_vmprintf(format, arguments);
	va_end(arguments);
	return *ret_error ? rc : SQLITE_NOMEM;
}

static int code_of_errno(int error)
{
	switch (error) {
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return SQLITE_FULL;
	case ENOMEM:
		return SQLITE_NOMEM;
	case ENOENT:
	case ENOTDIR:
	case EISDIR:
	case EACCES:
	case EROFS:
		return SQLITE_CANTOPEN;
	default:
		return SQLITE_IOERR;
	}
}

static int fail_errno(char **ret_error, const char *what, const char *path, int error)
{
	const char *hint = error == ENOSPC || error == EDQUOT ?
				   "; nothing was changed: free some space or export elsewhere" :
				   "";

	return fail(ret_error, code_of_errno(error), "%s %s: %s%s", what, path, strerror(error),
		    hint);
}

static int check_leftover(const char *path, const char *suffix, char **ret_error)
{
	char *name = sqlite3_mprintf("%s%s", path, suffix);
	struct stat status;
	int rc = SQLITE_OK;

	if (!name)
		return SQLITE_NOMEM;
	if (lstat(name, &status) == 0 && status.st_size > 0)
		rc = fail(
			ret_error, SQLITE_CANTOPEN,
			"%s exists: SQLite would apply it to the exported file; close the database "
			"at that path, or export elsewhere",
			name);
	sqlite3_free(name);
	return rc;
}

/* A new file with a name of its own beside path; the umask and the directory's defaults apply. */
static int create_beside(const char *path, char **ret_name, int *ret_fd, char **ret_error)
{
	unsigned long long random;
	char *name;
	int fd = -1, tries;

	for (tries = 0; tries < TRIES; tries++) {
		sqlite3_randomness(sizeof(random), &random);
		name = sqlite3_mprintf("%s.cow-%016llx", path, random);
		if (!name)
			return SQLITE_NOMEM;
		fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (fd >= 0) {
			*ret_name = name;
			*ret_fd = fd;
			return SQLITE_OK;
		}
		sqlite3_free(name);
		if (errno != EEXIST)
			break;
	}
	return fail_errno(ret_error, "cannot create a file beside", path, errno);
}

static int write_fully(int fd, const char *buffer, size_t length)
{
	while (length > 0) {
		ssize_t written = write(fd, buffer, length);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return written < 0 ? -errno : -EIO;
		buffer += written;
		length -= (size_t)written;
	}
	return 0;
}

static int copy_out(struct cow_snapshot *snapshot, sqlite3_int64 size, int fd)
{
	char *buffer = sqlite3_malloc(CHUNK);
	sqlite3_int64 offset;
	int result = buffer ? 0 : -ENOMEM;

	for (offset = 0; !result && offset < size; offset += CHUNK) {
		size_t length = size - offset < CHUNK ? (size_t)(size - offset) : CHUNK;

		result = cow_snapshot_read(snapshot, (size_t)offset, buffer, length);
		if (!result)
			result = write_fully(fd, buffer, length);
	}
	sqlite3_free(buffer);
	if (!result && fsync(fd))
		result = -errno;
	return result;
}

/* A file system that cannot sync directories has renamed all the same. */
static void sync_directory(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *directory = slash ? sqlite3_mprintf("%.*s", (int)(slash - path + 1), path) :
				  sqlite3_mprintf(".");
	int fd;

	if (!directory)
		return;
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	sqlite3_free(directory);
}

int export_snapshot(struct cow_snapshot *snapshot, sqlite3_int64 size, const char *path,
		    char **ret_error)
{
	char *name = NULL;
	int fd = -1, result, rc;

	rc = check_leftover(path, "-journal", ret_error);
	if (rc == SQLITE_OK)
		rc = check_leftover(path, "-wal", ret_error);
	if (rc == SQLITE_OK)
		rc = create_beside(path, &name, &fd, ret_error);
	if (!name)
		return rc;
	result = copy_out(snapshot, size, fd);
	if (close(fd) && !result)
		result = -errno;
	if (!result && rename(name, path))
		result = -errno;
	if (result) {
		unlink(name);
		rc = fail_errno(ret_error, "writing", path, -result);
	} else {
		sync_directory(path);
	}
	sqlite3_free(name);
	return rc;
}
