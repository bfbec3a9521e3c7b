/* SPDX-License-Identifier: MIT */
/*
 * Where a file of an overlay mount really is.
 *
 * A merged directory is a stack of directories, one of each layer that has it. A name is looked up
 * from the top: a whiteout ends the search, a file is found, a directory joins the stack, and where
 * it is opaque those below do not. A directory that was renamed says in an extended attribute what
 * it is called below. These rules are the kernel's (Documentation/filesystems/overlayfs.rst); they
 * are followed here by paths, in the mount namespace of who asks.
 *
 * Limits: reading "trusted." attributes needs CAP_SYS_ADMIN. Without it a redirected directory is
 * taken for an opaque one, and a file whose metadata alone was copied up for one copied up whole.
 * Layers given by relative paths, or hidden by another mount, are not found: their files are
 * looked at through the overlay, and which layer they are of stays unknown.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cli/file/file.h"
#include "cli/output.h"
#include "proc/overlay.h"
#include "proc/root.h"
#include "proc/system.h"

/* The kernel's own bound is 500. */
#define LAYERS 512

struct layer {
	char *path;
	bool data_only;
};

struct overlay {
	struct overlay *next;
	uint64_t mount_id;
	char *root, *point; /* what of it is mounted, and where */
	struct layer layers[LAYERS];
	size_t count;
	bool has_upper; /* layers[0] is it */
	bool user_xattrs;
	bool usable; /* every layer is there */
};

struct overlay_place {
	const struct overlay *overlay;
	char *directories[]; /* of each layer; NULL where it takes no part */
};

/* Those met so far; a process looks at few. */
static struct overlay *known;

static char *copy_string(const char *from)
{
	size_t size = strlen(from) + 1;

	return memcpy(output_realloc(NULL, size), from, size);
}

static char *join(const char *directory, const char *name)
{
	size_t room = strlen(directory) + strlen(name) + 2;
	char *path = output_realloc(NULL, room);

	snprintf(path, room, "%s%s%s", directory, *name == '/' ? "" : "/", name);
	return path;
}

/* --- mounts --- */

bool overlay_is(int fd)
{
	struct statfs status;

	return fstatfs(fd, &status) == 0 && status.f_type == OVERLAYFS_SUPER_MAGIC;
}

uint64_t file_mount_id(int fd)
{
	struct statx status;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &status) < 0 ||
	    !(status.stx_mask & STATX_MNT_ID))
		return 0;
	return status.stx_mnt_id;
}

static bool add_layer(struct overlay *overlay, const char *path, enum proc_overlay_kind kind)
{
	struct stat status;
	size_t at = overlay->count;

	if (at == LAYERS || *path != '/' || stat(path, &status) < 0 || !S_ISDIR(status.st_mode))
		return false;
	/* It may stand anywhere among the options, and is the top. */
	if (kind == PROC_OVERLAY_UPPER) {
		memmove(overlay->layers + 1, overlay->layers, at * sizeof(*overlay->layers));
		overlay->has_upper = true;
		at = 0;
	}
	overlay->layers[at] = (struct layer){ copy_string(path), kind == PROC_OVERLAY_DATA };
	overlay->count++;
	return true;
}

static bool read_layers(struct overlay *overlay, struct text super_options)
{
	char path[PROC_OVERLAY_PATH];
	enum proc_overlay_kind kind;
	struct proc_overlay options;
	int result;

	overlay->user_xattrs = proc_overlay_has(super_options, "userxattr");
	proc_overlay_begin(super_options, &options);
	while ((result = proc_overlay_next(&options, &kind, path)) > 0)
		if (!add_layer(overlay, path, kind))
			return false;
	return result == 0 && overlay->count > 0;
}

static struct overlay *new_overlay(const struct proc_mount *mount)
{
	struct overlay *overlay = output_realloc(NULL, sizeof(*overlay));
	char root[PROC_OVERLAY_PATH], point[PROC_OVERLAY_PATH];

	memset(overlay, 0, sizeof(*overlay));
	overlay->mount_id = mount->id;
	overlay->usable = proc_mount_path(mount->root, root, sizeof(root)) == 0 &&
			  proc_mount_path(mount->point, point, sizeof(point)) == 0 &&
			  read_layers(overlay, mount->super_options);
	if (overlay->usable) {
		overlay->root = copy_string(root);
		overlay->point = copy_string(point);
	}
	overlay->next = known;
	known = overlay;
	return overlay;
}

static const struct overlay *find_overlay(uint64_t mount_id)
{
	struct proc_buffer buffer = { 0 };
	struct overlay *overlay;
	struct proc_mount mount;
	struct proc_root root;
	struct text text;

	for (overlay = known; overlay; overlay = overlay->next)
		if (overlay->mount_id == mount_id)
			return overlay;
	if (proc_root_open(NULL, &root) < 0)
		return NULL;
	if (proc_root_read(&root, "proc/self/mountinfo", &buffer, &text) == 0)
		while (!overlay && proc_mount_next(&text, &mount) > 0)
			if (mount.id == mount_id && text_is(mount.type, "overlay"))
				overlay = new_overlay(&mount);
	proc_buffer_free(&buffer);
	proc_root_close(&root);
	return overlay;
}

/* --- extended attributes --- */

/* The length of an attribute's value, which is cut to the room and ends with a zero; -1: none. */
static ssize_t read_mark(const struct overlay *overlay, const char *path, const char *name,
			 char *value, size_t room)
{
	char full[64];
	ssize_t length;

	snprintf(full, sizeof(full), "%s.overlay.%s", overlay->user_xattrs ? "user" : "trusted",
		 name);
	length = lgetxattr(path, full, value, room - 1);
	if (length < 0)
		return -1;
	value[length] = '\0';
	return length;
}

static bool has_mark(const struct overlay *overlay, const char *path, const char *name)
{
	char value[PROC_OVERLAY_PATH];

	return read_mark(overlay, path, name, value, sizeof(value)) >= 0;
}

/* "x": merged, and some of its whiteouts are plain files with a mark (Linux 6.7). */
static bool is_opaque(const struct overlay *overlay, const char *path)
{
	char value[8];

	return read_mark(overlay, path, "opaque", value, sizeof(value)) >= 0 && value[0] == 'y';
}

static bool is_whiteout(const struct overlay *overlay, const char *path, const struct stat *status)
{
	if (S_ISCHR(status->st_mode))
		return status->st_rdev == 0;
	return S_ISREG(status->st_mode) && status->st_size == 0 &&
	       has_mark(overlay, path, "whiteout");
}

/* --- places --- */

static struct overlay_place *new_place(const struct overlay *overlay)
{
	struct overlay_place *place =
		output_realloc(NULL, sizeof(*place) + overlay->count * sizeof(char *));
	size_t i;

	place->overlay = overlay;
	for (i = 0; i < overlay->count; i++)
		place->directories[i] = NULL;
	return place;
}

void overlay_place_free(struct overlay_place *place)
{
	size_t i;

	if (!place)
		return;
	for (i = 0; i < place->overlay->count; i++)
		free(place->directories[i]);
	free(place);
}

static struct overlay_place *root_place(const struct overlay *overlay)
{
	struct overlay_place *place = new_place(overlay);
	size_t i;

	for (i = 0; i < overlay->count; i++)
		if (!overlay->layers[i].data_only)
			place->directories[i] = copy_string(overlay->layers[i].path);
	return place;
}

/*
 * Where the layers below are to look for what is at path: under another name, or elsewhere; NULL
 * for under its own.
 */
static char *read_redirect(const struct overlay *overlay, const char *path)
{
	char value[PROC_OVERLAY_PATH];

	if (read_mark(overlay, path, "redirect", value, sizeof(value)) <= 0)
		return NULL;
	return copy_string(value);
}

static char *path_below(const struct overlay_place *place, size_t layer, const char *name)
{
	if (*name == '/')
		return join(place->overlay->layers[layer].path, name);
	return place->directories[layer] ? join(place->directories[layer], name) : NULL;
}

struct overlay_place *overlay_place_enter(const struct overlay_place *place, const char *name)
{
	const struct overlay *overlay = place->overlay;
	struct overlay_place *entered = new_place(overlay);
	char *wanted = copy_string(name), *path, *redirect;
	struct stat status;
	size_t i;

	for (i = 0; i < overlay->count && !overlay->layers[i].data_only; i++) {
		path = path_below(place, i, wanted);
		if (!path || lstat(path, &status) < 0) {
			free(path);
			continue;
		}
		if (!S_ISDIR(status.st_mode)) {
			free(path);
			break;
		}
		entered->directories[i] = path;
		if (is_opaque(overlay, path))
			break;
		redirect = read_redirect(overlay, path);
		if (redirect) {
			free(wanted);
			wanted = redirect;
		}
	}
	free(wanted);
	return entered;
}

/* The part of an absolute path behind a mount point; NULL where it is not below it. */
static const char *below_point(const char *path, const char *point)
{
	size_t length = strcmp(point, "/") == 0 ? 0 : strlen(point);

	if (strncmp(path, point, length) != 0 || (path[length] && path[length] != '/'))
		return NULL;
	return path + length;
}

/* Enters each component; the last one, of a file, is given back by name. */
static struct overlay_place *descend(struct overlay_place *place, char *path, bool directory,
				     char *ret_name)
{
	struct overlay_place *entered;
	char *rest, *word, *next;

	for (word = strtok_r(path, "/", &rest); word; word = next) {
		next = strtok_r(NULL, "/", &rest);
		if (!next && !directory) {
			snprintf(ret_name, 256, "%s", word);
			break;
		}
		entered = overlay_place_enter(place, word);
		overlay_place_free(place);
		place = entered;
	}
	return place;
}

int overlay_place_of(int fd, bool directory, struct overlay_place **ret_place, char ret_name[256])
{
	const struct overlay *overlay = find_overlay(file_mount_id(fd));
	char link[40], path[PROC_OVERLAY_PATH], *whole;
	const char *below;
	ssize_t length;

	if (!overlay || !overlay->usable)
		return -ENOENT;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path) - 1);
	if (length <= 0 || length == sizeof(path) - 1)
		return -ENAMETOOLONG;
	path[length] = '\0';
	below = below_point(path, overlay->point);
	if (!below)
		return -ENOENT;
	whole = join(overlay->root, below);
	*ret_place = descend(root_place(overlay), whole, directory, ret_name);
	free(whole);
	return 0;
}

/* --- files --- */

/* From a layer on: the first that has a file of this name, unless it is hidden. */
static char *find_file(const struct overlay_place *place, size_t first, const char *name,
		       size_t *ret_layer, struct stat *ret_status)
{
	const struct overlay *overlay = place->overlay;
	struct stat status;
	char *path;
	size_t i;

	for (i = first; i < overlay->count; i++) {
		/* Layers of data are asked for whole paths alone. */
		if (overlay->layers[i].data_only && *name != '/')
			continue;
		path = path_below(place, i, name);
		if (path && lstat(path, &status) == 0) {
			if (!S_ISREG(status.st_mode) || is_whiteout(overlay, path, &status)) {
				free(path);
				return NULL;
			}
			*ret_layer = i;
			*ret_status = status;
			return path;
		}
		free(path);
	}
	return NULL;
}

/* Replaces a file without data of its own by the one below that has it. */
static char *follow_metadata(const struct overlay_place *place, char *path, const char *name,
			     size_t *layer, struct stat *status)
{
	char *wanted = copy_string(name), *redirect, *below;

	while (path && has_mark(place->overlay, path, "metacopy")) {
		redirect = read_redirect(place->overlay, path);
		if (redirect) {
			free(wanted);
			wanted = redirect;
		}
		below = find_file(place, *layer + 1, wanted, layer, status);
		free(path);
		path = below;
	}
	free(wanted);
	return path;
}

/* Whether a lower layer has what lies in the upper one; its name there may be another one. */
static bool look_below(const struct overlay_place *place, const char *path, const char *name,
		       uint64_t *ret_hidden)
{
	char *redirect = read_redirect(place->overlay, path), *below;
	struct stat status;
	size_t layer;

	below = find_file(place, 1, redirect ? redirect : name, &layer, &status);
	free(redirect);
	*ret_hidden = below ? (uint64_t)status.st_blocks * 512 : 0;
	free(below);
	/* Renamed since: the mark tells that it came from below. */
	return *ret_hidden > 0 || below || has_mark(place->overlay, path, "origin");
}

int overlay_open(const struct overlay_place *place, const char *name, struct overlay_file *ret_file)
{
	struct overlay_file file = { .state = OVERLAY_LOWER };
	struct stat status;
	size_t layer = 0, first;
	char *path = find_file(place, 0, name, &layer, &status);
	int fd;

	if (!path)
		return -ENOENT;
	first = layer;
	if (layer == 0 && place->overlay->has_upper)
		file.state = look_below(place, path, name, &file.hidden) ? OVERLAY_COPIED_UP :
									   OVERLAY_UPPER;
	path = follow_metadata(place, path, name, &layer, &status);
	if (!path)
		return -ENOENT;
	if (layer != first && file.state != OVERLAY_LOWER) {
		file.state = OVERLAY_METADATA_ONLY;
		file.hidden = 0;
	}
	/* The upper layer is number 0 also where there is none. */
	file.layer = (int)layer + (place->overlay->has_upper ? 0 : 1);
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	free(path);
	if (fd < 0)
		return -errno;
	*ret_file = file;
	return fd;
}

void overlay_count(const struct overlay_place *place, struct file_sums *sums)
{
	const struct overlay *overlay = place->overlay;
	const char *directory = overlay->has_upper ? place->directories[0] : NULL;
	const struct dirent *entry;
	struct stat status;
	char *path;
	DIR *stream;

	if (!directory)
		return;
	sums->overlay.opaque += is_opaque(overlay, directory);
	sums->overlay.redirected += has_mark(overlay, directory, "redirect");
	stream = opendir(directory);
	while (stream && (entry = readdir(stream))) {
		if (entry->d_type != DT_CHR && entry->d_type != DT_REG &&
		    entry->d_type != DT_UNKNOWN)
			continue;
		path = join(directory, entry->d_name);
		if (lstat(path, &status) == 0)
			sums->overlay.whiteouts += is_whiteout(overlay, path, &status);
		free(path);
	}
	if (stream)
		closedir(stream);
}
