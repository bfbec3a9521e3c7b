/* SPDX-License-Identifier: MIT */
/*
 * Which files are looked at: those named, and with --recursive those below the directories named.
 * A file that has several names below one of those named counts once; below several of those named
 * (or in the lower layer of several overlays) it counts for each, as shared among them. Symbolic
 * links below a directory are not followed. Names that vanish meanwhile are passed over.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/file/file.h"
#include "cli/output.h"
#include "cli/progress.h"

/* Each level holds a descriptor and a frame of the stack. */
#define DEPTH 1024

struct walk {
	const struct file_options *options;
	struct file_result *result;
	uint32_t row;      /* that files are counted in, unless each has its own */
	uint64_t mount_id; /* of the directory that is being read */
};

/* --- one file under several names --- */

struct identity {
	uint32_t row;
	dev_t device;
	ino_t inode;
};

static void *seen; /* a tree of struct identity */

static int compare_identities(const void *a, const void *b)
{
	const struct identity *x = a, *y = b;

	if (x->row != y->row)
		return x->row < y->row ? -1 : 1;
	if (x->device != y->device)
		return x->device < y->device ? -1 : 1;
	return (x->inode > y->inode) - (x->inode < y->inode);
}

static bool was_seen(uint32_t row, const struct stat *status)
{
	struct identity *identity = output_realloc(NULL, sizeof(*identity));
	struct identity *const *found;

	*identity = (struct identity){ row, status->st_dev, status->st_ino };
	found = tsearch(identity, &seen, compare_identities);
	if (!found) {
		complain("out of memory");
		exit(EXIT_FAILURE);
	}
	if (*found == identity)
		return false;
	free(identity);
	return true;
}

/* --- rows --- */

static uint32_t add_row(struct file_result *result, const char *path, bool directory)
{
	const size_t size = strlen(path) + 1;
	struct file_row *row;

	result->rows = output_realloc(result->rows, (result->count + 1) * sizeof(*result->rows));
	row = &result->rows[result->count];
	*row = (struct file_row){ .directory = directory, .layer = -1 };
	row->path = memcpy(output_realloc(NULL, size), path, size);
	return (uint32_t)result->count++;
}

static void failed(struct walk *walk, const char *path, int error)
{
	progress_erase();
	complain_errno(error, "%s", path);
	walk->result->failed++;
}

/* --- files --- */

static uint64_t holes_of(const struct file_extent *list, size_t count, uint64_t size)
{
	uint64_t holes = 0, at = 0, start;
	size_t i;

	for (i = 0; i < count; i++) {
		start = list[i].logical < size ? list[i].logical : size;
		if (start > at)
			holes += start - at;
		if (list[i].logical + list[i].length > at)
			at = list[i].logical + list[i].length;
	}
	return size > at ? holes + (size - at) : holes;
}

/* Returns what of the file has extents, or blocks. */
static uint64_t count_extents(struct walk *walk, int fd, const struct stat *status, uint32_t row,
			      struct file_sums *sums)
{
	struct file_extents *extents = &walk->result->extents;
	uint32_t fs = file_fs_index(fd, status->st_dev);
	size_t first = extents->count, i;
	uint64_t before = sums->mapped;

	if (file_read_extents(fd, !walk->options->no_sync, extents) < 0) {
		sums->mapped += (uint64_t)status->st_blocks * 512;
		sums->blind += (uint64_t)status->st_blocks * 512;
		sums->blind_files++;
		return sums->mapped - before;
	}
	for (i = first; i < extents->count; i++) {
		extents->list[i].fs = fs;
		extents->list[i].row = row;
		extents->list[i].file = walk->result->files;
		file_sums_add_extent(sums, &extents->list[i]);
	}
	sums->holes += holes_of(extents->list + first, extents->count - first,
				(uint64_t)status->st_size);
	return sums->mapped - before;
}

static void count_overlay(const struct overlay_file *file, uint64_t bytes, struct file_sums *sums)
{
	sums->overlay.files++;
	switch (file->state) {
	case OVERLAY_UPPER:
		sums->overlay.upper += bytes;
		sums->overlay.upper_files++;
		break;
	case OVERLAY_COPIED_UP:
		sums->overlay.copied_up += bytes;
		sums->overlay.copied_up_files++;
		sums->overlay.hidden += file->hidden;
		break;
	case OVERLAY_METADATA_ONLY:
		sums->overlay.lower += bytes;
		sums->overlay.copied_up_files++;
		sums->overlay.metadata_only++;
		break;
	case OVERLAY_LOWER:
		sums->overlay.lower += bytes;
		sums->overlay.lower_files++;
		break;
	}
}

/* fd is the file that has the data; overlay NULL: of no overlay, or of one that cannot be seen. */
static void measure(struct walk *walk, const char *path, int fd, const struct stat *named,
		    const struct overlay_file *overlay)
{
	struct file_row *row;
	struct stat status;
	uint64_t bytes;
	uint32_t at;

	if (fstat(fd, &status) < 0) {
		failed(walk, path, -errno);
		return;
	}
	if (was_seen(walk->row, &status)) {
		walk->result->rows[walk->row].sums.hard_links++;
		return;
	}
	at = walk->options->every_file && walk->result->rows[walk->row].directory ?
		     add_row(walk->result, path, false) :
		     walk->row;
	row = &walk->result->rows[at];
	row->sums.files++;
	/* Of a file whose metadata alone was copied up, the name has the size. */
	row->sums.size += (uint64_t)named->st_size;
	if (!*row->file_system)
		snprintf(row->file_system, sizeof(row->file_system), "%s", file_fs_name(fd));
	bytes = count_extents(walk, fd, &status, at, &row->sums);
	if (overlay) {
		count_overlay(overlay, bytes, &row->sums);
		row->layer = row->directory ? -1 : overlay->layer;
	}
	walk->result->files++;
	progress_update(walk->result->files);
}

/* Of an overlay: the file of the layer. */
static void measure_file(struct walk *walk, const char *path, int fd, const struct stat *status,
			 const struct overlay_place *place, const char *name)
{
	struct overlay_file file;
	int real;

	if (!place) {
		if (overlay_is(fd)) {
			walk->result->rows[walk->row].sums.overlay.files++;
			walk->result->rows[walk->row].sums.overlay.unknown++;
		}
		measure(walk, path, fd, status, NULL);
		return;
	}
	real = overlay_open(place, name, &file);
	if (real < 0) {
		walk->result->rows[walk->row].sums.overlay.files++;
		walk->result->rows[walk->row].sums.overlay.unknown++;
		measure(walk, path, fd, status, NULL);
		return;
	}
	measure(walk, path, real, status, &file);
	close(real);
}

/* --- directories --- */

static void walk_directory(struct walk *walk, int fd, const char *path, struct overlay_place *place,
			   unsigned int depth);

static char *join(const char *directory, const char *name)
{
	size_t length = strlen(directory), room = length + strlen(name) + 2;
	char *path = output_realloc(NULL, room);

	snprintf(path, room, "%s%s%s", directory, length && directory[length - 1] == '/' ? "" : "/",
		 name);
	return path;
}

static struct overlay_place *place_of_directory(int fd)
{
	struct overlay_place *place = NULL;
	char name[256];

	if (overlay_is(fd))
		overlay_place_of(fd, true, &place, name);
	return place;
}

static void enter(struct walk *walk, int fd, const char *path, const char *name,
		  const struct overlay_place *place, unsigned int depth)
{
	uint64_t above = walk->mount_id, here = file_mount_id(fd);
	struct overlay_place *entered;

	if (depth == DEPTH) {
		complain("%s: more than %d directories deep; what is below is left out", path,
			 DEPTH);
		walk->result->failed++;
		close(fd);
		return;
	}
	if (here != above && walk->options->one_file_system) {
		close(fd);
		return;
	}
	/* To open a file of the kernel's own can be an act. */
	if (here != above && file_is_pseudo(fd)) {
		walk->result->rows[walk->row].sums.skipped++;
		close(fd);
		return;
	}
	entered = here == above && place ? overlay_place_enter(place, name) : NULL;
	if (here != above)
		entered = place_of_directory(fd);
	walk->mount_id = here;
	walk_directory(walk, fd, path, entered, depth + 1);
	walk->mount_id = above;
	overlay_place_free(entered);
}

/* Types that may block or act when they are opened are not. */
static bool may_open(int directory, const struct dirent *entry, struct walk *walk)
{
	struct stat status;

	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
		return false;
	if (fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))
		return true;
	walk->result->rows[walk->row].sums.skipped++;
	return false;
}

static void visit(struct walk *walk, int directory, const char *above, const struct dirent *entry,
		  const struct overlay_place *place, unsigned int depth)
{
	struct stat status;
	char *path;
	int fd;

	if (!may_open(directory, entry, walk))
		return;
	path = join(above, entry->d_name);
	fd = openat(directory, entry->d_name,
		    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status) < 0) {
		if (errno != ENOENT && errno != ELOOP)
			failed(walk, path, -errno);
		if (fd >= 0)
			close(fd);
	} else if (S_ISDIR(status.st_mode)) {
		enter(walk, fd, path, entry->d_name, place, depth);
	} else {
		if (S_ISREG(status.st_mode))
			measure_file(walk, path, fd, &status, place, entry->d_name);
		close(fd);
	}
	free(path);
}

static void count_directory(struct walk *walk, int fd, const struct overlay_place *place)
{
	struct file_subvolume subvolume;
	struct file_sums *sums = &walk->result->rows[walk->row].sums;
	struct stat status;

	sums->directories++;
	if (place)
		overlay_count(place, sums);
	if (fstat(fd, &status) == 0 && file_read_subvolume(fd, &status, &subvolume)) {
		sums->subvolumes++;
		sums->snapshots += file_is_snapshot(&subvolume);
	}
}

/* Takes the descriptor. */
static void walk_directory(struct walk *walk, int fd, const char *path, struct overlay_place *place,
			   unsigned int depth)
{
	DIR *stream = fdopendir(fd);
	const struct dirent *entry;

	if (!stream) {
		failed(walk, path, -errno);
		close(fd);
		return;
	}
	count_directory(walk, fd, place);
	for (;;) {
		errno = 0;
		entry = readdir(stream);
		if (!entry)
			break;
		visit(walk, fd, path, entry, place, depth);
	}
	if (errno)
		failed(walk, path, -errno);
	closedir(stream);
}

/* --- operands --- */

static void add_directory(struct walk *walk, int fd, const char *path, const struct stat *status)
{
	struct overlay_place *place;
	struct file_row *row;

	walk->row = add_row(walk->result, path, true);
	row = &walk->result->rows[walk->row];
	snprintf(row->file_system, sizeof(row->file_system), "%s", file_fs_name(fd));
	row->is_subvolume = file_read_subvolume(fd, status, &row->subvolume);
	walk->mount_id = file_mount_id(fd);
	place = place_of_directory(fd);
	progress_begin("files", 0);
	walk_directory(walk, fd, path, place, 0);
	progress_end();
	overlay_place_free(place);
}

static void add_file(struct walk *walk, int fd, const char *path, const struct stat *status)
{
	struct overlay_place *place = NULL;
	char name[256] = "";

	walk->row = add_row(walk->result, path, false);
	if (overlay_is(fd))
		overlay_place_of(fd, false, &place, name);
	measure_file(walk, path, fd, status, place, name);
	overlay_place_free(place);
	close(fd);
}

void file_add(const struct file_options *options, const char *path, struct file_result *result)
{
	struct walk walk = { .options = options, .result = result };
	struct stat status;
	int fd;

	if (stat(path, &status) < 0) {
		failed(&walk, path, -errno);
		return;
	}
	if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) {
		complain("%s: neither a regular file nor a directory", path);
		result->failed++;
		return;
	}
	if (S_ISDIR(status.st_mode) && !options->recursive) {
		complain("%s: a directory; give --recursive to look at what is below it", path);
		result->failed++;
		return;
	}
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status) < 0) {
		failed(&walk, path, -errno);
		if (fd >= 0)
			close(fd);
		return;
	}
	if (S_ISDIR(status.st_mode))
		add_directory(&walk, fd, path, &status);
	else
		add_file(&walk, fd, path, &status);
}

void file_finish(struct file_result *result)
{
	tdestroy(seen, free);
	seen = NULL;
	file_find_sharing(result);
}

void file_result_free(struct file_result *result)
{
	size_t i;

	for (i = 0; i < result->count; i++)
		free(result->rows[i].path);
	free(result->rows);
	free(result->extents.list);
	*result = (struct file_result){ 0 };
}
