/* SPDX-License-Identifier: MIT */
/*
 * cow file: what files have on disk, and with whom they share it.
 *
 *	walk.c     which files, each once however many names it has
 *	overlay.c  where a file of an overlay mount really is: which layer, copied up or not
 *	extents.c  the stretches of a file (FIEMAP), and what a file system is called
 *	sharing.c  who shares with whom: arithmetic over stretches, without a system call
 *	print.c    text and JSON
 *
 * Model
 * - A file is a list of extents: so many bytes from an offset in the file lie at a place of the
 *   file system. Two extents share where their places overlap, whatever files they belong to. A
 *   place counts within its file system alone; on btrfs the file system is told by its identity,
 *   since each subvolume has a device number of its own.
 * - "Shared" is the file system's word: somebody else, seen or not, refers to the same place.
 *   "Inside" is found here: more than one extent of the selection refers to it.
 * - Extents without a place of their own are counted and share with nobody: data within metadata
 *   (inline), data not yet allocated. A compressed extent is a unit: its place is known, its
 *   length there is not, so two share when they begin at the same place.
 *
 * Limits: it is not one moment; FIEMAP tells bytes before compression; snapshots' metadata is not
 * counted; the real layers of an overlay must be visible to who asks.
 */
#ifndef CLI_FILE_FILE_H
#define CLI_FILE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define FILE_NO_FS UINT32_MAX

struct file_extent {
	uint64_t logical, physical, length; /* bytes */
	uint32_t flags;                     /* FIEMAP_EXTENT_... */
	uint32_t fs;                        /* index; FILE_NO_FS: it has no place */
	uint32_t row;
	uint32_t file; /* running number of its file */
};

struct file_extents {
	struct file_extent *list;
	size_t count, room;
};

/* What a row, or all of them, add up to; bytes. */
struct file_sums {
	uint64_t files, extents;
	uint64_t size;      /* as ls tells it */
	uint64_t mapped;    /* has extents, or blocks where there is no FIEMAP */
	uint64_t shared;    /* of mapped: the file system calls it shared */
	uint64_t inside;    /* of mapped: refers to a place that the selection has more than once */
	uint64_t exclusive; /* of mapped: neither; not known of what is blind */
	uint64_t holes;     /* of size: without an extent */
	uint64_t unwritten; /* of mapped: allocated, reads as zero */
	uint64_t in_line;   /* of mapped: within the metadata */
	uint64_t compressed; /* of mapped; before compression */
	uint64_t unplaced;   /* of mapped: written, not yet allocated */
	uint64_t blind;      /* of mapped: of files without FIEMAP */
	uint64_t blind_files;
	uint64_t hard_links; /* further names of files that were counted before */
	uint64_t skipped;    /* neither file nor directory; mounts of the kernel's own */
	uint64_t directories, subvolumes, snapshots;
	struct {                    /* mapped bytes */
		uint64_t upper;     /* of files that only the upper layer has */
		uint64_t copied_up; /* of files of the upper layer that a lower one has, too */
		uint64_t lower;     /* of files that the upper layer has not */
		uint64_t hidden;    /* blocks of lower files behind those copied up */
		uint64_t files, upper_files, copied_up_files, lower_files;
		uint64_t metadata_only; /* of copied_up_files: their data is in a lower layer */
		uint64_t whiteouts, opaque, redirected;
		uint64_t unknown; /* files whose layers could not be looked at */
	} overlay;
};

struct file_subvolume {
	uint64_t id;
	char name[256];
	uint8_t uuid[16], parent[16]; /* parent: zero where it is no snapshot */
	bool read_only;
};

struct file_row {
	char *path;
	struct file_sums sums;
	char file_system[16]; /* its type, of the row's first file */
	bool directory;
	int layer; /* of a file in an overlay: 0 the upper one; -1: none, or unknown */
	bool is_subvolume;
	struct file_subvolume subvolume;
};

struct file_totals {
	struct file_sums sums;
	uint64_t unique;  /* each place once, and what has no place */
	uint64_t outside; /* of unique: at least so much is shared with others than the selection */
	uint64_t set_shared; /* of unique: places that the selection has more than once */
};

struct file_result {
	struct file_row *rows;
	size_t count;
	struct file_extents extents;
	struct file_totals totals;
	uint32_t files;
	size_t failed; /* what could not be looked at, each after a message */
};

struct file_options {
	bool recursive, every_file, one_file_system;
	bool no_sync; /* do not have data written out that has no place yet */
};

/* --- walk.c --- */

/* Looks at what a path names and adds rows for it; failures are told and counted. */
void file_add(const struct file_options *options, const char *path, struct file_result *result);
/* After the last file_add(). */
void file_finish(struct file_result *result);
void file_result_free(struct file_result *result);

/* --- extents.c --- */

/* Appends a file's extents, in the order of their offsets; -EOPNOTSUPP where there is no FIEMAP. */
int file_read_extents(int fd, bool sync, struct file_extents *extents);
/* The number of the file system that a descriptor belongs to; the same for all its subvolumes. */
uint32_t file_fs_index(int fd, dev_t device);
const char *file_fs_name(int fd);
/* A file system whose files are the kernel's interfaces: /proc, /sys and the like. */
bool file_is_pseudo(int fd);
/* What a directory's subvolume is; false where it is not the root of one. */
bool file_read_subvolume(int fd, const struct stat *status, struct file_subvolume *ret_subvolume);
bool file_is_snapshot(const struct file_subvolume *subvolume);

/* --- sharing.c --- */
void file_sums_add_extent(struct file_sums *sums, const struct file_extent *extent);
void file_find_sharing(struct file_result *result);

/* --- overlay.c --- */
struct overlay_place; /* a directory of an overlay mount, with those it is merged of */

enum overlay_state { OVERLAY_UPPER, OVERLAY_COPIED_UP, OVERLAY_METADATA_ONLY, OVERLAY_LOWER };

struct overlay_file {
	enum overlay_state state;
	int layer;       /* that has the data; 0: the upper one */
	uint64_t hidden; /* blocks of the lower file behind one that was copied up; bytes */
};

/* The place of an open directory, or of the one that an open file lies in (whose name it gives). */
int overlay_place_of(int fd, bool directory, struct overlay_place **ret_place, char ret_name[256]);
struct overlay_place *overlay_place_enter(const struct overlay_place *place, const char *name);
void overlay_place_free(struct overlay_place *place);
/* Opens the file that holds the data: a descriptor or a negative errno. */
int overlay_open(const struct overlay_place *place, const char *name,
		 struct overlay_file *ret_file);
/* Counts what a merged directory hides. */
void overlay_count(const struct overlay_place *place, struct file_sums *sums);
bool overlay_is(int fd);
uint64_t file_mount_id(int fd); /* 0: unknown */

/* --- print.c --- */
void file_print_text(const struct file_result *result, bool extents);
bool file_print_json(const struct file_result *result, bool extents);

#endif
