/* SPDX-License-Identifier: MIT */
/*
 * The one file of this folder that reads files: all paths hang from a root directory, "/" or a
 * captured tree (--sysroot), so that what was seen on another machine replays here.
 *
 * Paths are relative ("proc/meminfo"). In a captured tree no path leaves it: symbolic links that
 * point outside are refused, as are files that could block (pipes, devices).
 *
 * A directory of a process, once open, stays that process's: when it has ended, reads from it
 * fail with -ESRCH even if its PID has been given to another one.
 */
#ifndef PROC_ROOT_H
#define PROC_ROOT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "proc/text.h"

struct proc_root {
	int fd;
	bool captured; /* not this machine's */
};

/* path NULL: this machine. 0 or a negative errno. */
int proc_root_open(const char *path, struct proc_root *ret_root);
void proc_root_close(struct proc_root *root);

/* Opens a file or directory of the tree: a descriptor or a negative errno. */
int proc_root_open_file(const struct proc_root *root, const char *path);
int proc_root_open_directory(const struct proc_root *root, const char *path);
int proc_root_open_process(const struct proc_root *root, pid_t pid);

/* Memory that grows to what was read, used again for the next file; zero-initialised. */
struct proc_buffer {
	char *bytes;
	size_t length, room;
};

/*
 * Reads a whole file, of at most PROC_FILE_LIMIT bytes (-EFBIG), relative to a directory's
 * descriptor. The text is valid until the buffer is used again.
 */
#define PROC_FILE_LIMIT ((size_t)1 << 28)
int proc_read_at(const struct proc_root *root, int directory, const char *path,
		 struct proc_buffer *buffer, struct text *ret_text);
int proc_root_read(const struct proc_root *root, const char *path, struct proc_buffer *buffer,
		   struct text *ret_text);
int proc_root_read_u64(const struct proc_root *root, const char *path, uint64_t *ret_value);
void proc_buffer_free(struct proc_buffer *buffer);

/* The PIDs under proc/, ascending; the caller frees the list. */
int proc_root_list(const struct proc_root *root, pid_t **ret_pids, size_t *ret_count);

#endif
