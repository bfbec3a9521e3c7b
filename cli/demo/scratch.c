/* SPDX-License-Identifier: MIT */
#include "cli/demo/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cli/output.h"

enum { LONGEST_NAME = 32 /* of a file in it, so that demo_path() has room */ };

/* Not /tmp by default: it may be memory, which the files would take away from the measurement. */
static const char *choose_place(const struct demo *demo)
{
	const char *place = getenv("TMPDIR");

	if (demo->options->keep)
		return demo->options->keep;
	if (place && place[0])
		return place;
	return access("/var/tmp", W_OK) == 0 ? "/var/tmp" : "/tmp";
}

bool scratch_make(struct demo *demo)
{
	char real[PATH_MAX];
	int error;

	/* Absolute: the extension knows databases by their canonical path. */
	if (!realpath(choose_place(demo), real)) {
		complain_errno(-errno, "cannot use %s", choose_place(demo));
		return false;
	}
	if ((size_t)snprintf(demo->scratch, sizeof(demo->scratch), "%s/cow-demo.XXXXXX", real) +
		    LONGEST_NAME >
	    sizeof(demo->scratch)) {
		complain("%s is too long a path: use a shorter one", real);
		demo->scratch[0] = '\0';
		return false;
	}
	if (mkdtemp(demo->scratch))
		return true;
	error = -errno;
	demo->scratch[0] = '\0';
	complain_errno(error, "cannot make a directory in %s%s", real,
		       demo->options->keep ? "" : " (TMPDIR names another place)");
	return false;
}

bool scratch_has_room(struct demo *demo, uint64_t bytes)
{
	char need[UNIT_LENGTH], have[UNIT_LENGTH];
	struct statvfs status;
	uint64_t room;

	if (statvfs(demo->scratch, &status) < 0)
		return true;
	room = (uint64_t)status.f_bavail * status.f_frsize;
	if (room >= bytes)
		return true;
	complain("%s has room for %s, at least %s are needed; set TMPDIR, or --keep, to a place "
		 "with more room",
		 demo->scratch, format_bytes(have, room), format_bytes(need, bytes));
	return false;
}

static bool is_export(const char *name)
{
	return strncmp(name, "snap-", 5) == 0 || strcmp(name, "before.db") == 0 ||
	       strcmp(name, "restored.db") == 0 || strcmp(name, "stored.db") == 0 ||
	       strcmp(name, "store") == 0;
}

/* A file, or a directory of files: the store. */
static void remove_entry(int parent, const char *name)
{
	int fd;
	DIR *directory;
	struct dirent *entry;

	if (unlinkat(parent, name, 0) == 0 || (errno != EISDIR && errno != EPERM))
		return;
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	directory = fd < 0 ? NULL : fdopendir(fd);
	while (directory && (entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			unlinkat(dirfd(directory), entry->d_name, 0);
	if (directory)
		closedir(directory);
	unlinkat(parent, name, AT_REMOVEDIR);
}

void scratch_remove(struct demo *demo, bool keep_exports)
{
	struct dirent *entry;
	DIR *directory;

	if (!demo->scratch[0])
		return;
	directory = opendir(demo->scratch);
	while (directory && (entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
		    !(keep_exports && is_export(entry->d_name)))
			remove_entry(dirfd(directory), entry->d_name);
	if (directory)
		closedir(directory);
	if (!keep_exports && rmdir(demo->scratch) < 0 && errno != ENOENT)
		complain_errno(-errno, "cannot remove %s", demo->scratch);
}
