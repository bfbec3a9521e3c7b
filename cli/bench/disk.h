/* SPDX-License-Identifier: MIT */
/*
 * File systems of an experiment's own: an image in its directory, made, attached and mounted there.
 *
 * The experiment's process has a mount namespace of its own, and a loop device lets go of its image
 * with the last mount: whatever happens, nothing is left when the process has gone. Images are
 * sparse and are read and written past the page cache of the file system below, where it allows
 * that, so that what is timed is not cached twice.
 */
#ifndef CLI_BENCH_DISK_H
#define CLI_BENCH_DISK_H

#include "cli/bench/bench.h"

struct disk {
	const char *type;  /* "btrfs" */
	const char *mount; /* where; in bench's memory */
	char device[24];   /* "loop3" */
};

/* NULL, or why there is none: a text in bench's memory. name is unique in the experiment. */
const char *disk_make(struct bench *bench, const char *type, const char *name, uint64_t bytes,
		      struct disk *ret_disk);
/* Bytes that were written to its device so far. */
uint64_t disk_written(const struct disk *disk);
/* Has all that was written brought to the device. */
void disk_sync(const struct disk *disk);
void disk_unmake(const struct disk *disk);

/* Mounts an overlay; base gets upper, work and merged. NULL, or the path of merged. */
const char *disk_overlay(struct bench *bench, const char *lower, const char *base);
/* Unmounts it and removes base. */
void disk_overlay_end(struct bench *bench, const char *base);

/* --- files; 0 or a negative errno --- */
int disk_fill_file(const char *path, uint64_t bytes, uint64_t seed);
int disk_copy_file(const char *from, const char *to);  /* by reading and writing */
int disk_clone_file(const char *from, const char *to); /* FICLONE */
int disk_remove_tree(const char *path);
/* How many extents a file has; 0 where that cannot be told. */
uint64_t disk_extents(const char *path);

#endif
