/* SPDX-License-Identifier: MIT */
/*
 * What the kernel tells of a file's place on disk: its extents, its file system, and on btrfs the
 * subvolume.
 */
#include <errno.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "cli/file/file.h"
#include "cli/output.h"

/* Extents asked for at once: 28 KiB, a stretch that no kernel minds. */
#define BATCH 512

static void append(struct file_extents *extents, const struct fiemap_extent *from)
{
	uint64_t length = from->fe_length, end;

	if (extents->count == extents->room) {
		extents->room = extents->room ? 2 * extents->room : 64;
		extents->list = output_realloc(extents->list,
					       extents->room * sizeof(*extents->list));
	}
	/* No end is beyond 64 bits, whoever answered. */
	if (__builtin_add_overflow(from->fe_physical, length, &end))
		length = UINT64_MAX - from->fe_physical;
	extents->list[extents->count++] = (struct file_extent){
		.logical = from->fe_logical,
		.physical = from->fe_physical,
		.length = length,
		.flags = from->fe_flags,
	};
}

/* Returns where to go on, 0 at the end, or a negative errno. */
static int64_t take_batch(struct fiemap *map, struct file_extents *extents)
{
	const struct fiemap_extent *last;
	uint64_t end;
	uint32_t i;

	if (map->fm_mapped_extents == 0)
		return 0;
	last = &map->fm_extents[map->fm_mapped_extents - 1];
	for (i = 0; i < map->fm_mapped_extents; i++)
		append(extents, &map->fm_extents[i]);
	if (last->fe_flags & FIEMAP_EXTENT_LAST)
		return 0;
	/* Never the same question twice, whatever the answer was. */
	if (__builtin_add_overflow(last->fe_logical, last->fe_length, &end) ||
	    end <= map->fm_start || end > INT64_MAX)
		return -EIO;
	return (int64_t)end;
}

static bool means_unsupported(int error)
{
	return error == EOPNOTSUPP || error == ENOTTY || error == EINVAL || error == ENOSYS ||
	       error == EBADR;
}

int file_read_extents(int fd, bool sync, struct file_extents *extents)
{
	size_t before = extents->count;
	struct fiemap *map = output_realloc(NULL,
					    sizeof(*map) + BATCH * sizeof(struct fiemap_extent));
	int64_t next = 0;

	do {
		*map = (struct fiemap){
			.fm_start = (uint64_t)next,
			.fm_length = FIEMAP_MAX_OFFSET - (uint64_t)next,
			/* Once: what is written meanwhile is another moment's. */
			.fm_flags = sync && next == 0 ? FIEMAP_FLAG_SYNC : 0,
			.fm_extent_count = BATCH,
		};
		if (ioctl(fd, FS_IOC_FIEMAP, map) < 0) {
			next = means_unsupported(errno) && next == 0 ? -EOPNOTSUPP : -errno;
			break;
		}
		next = take_batch(map, extents);
	} while (next > 0);
	free(map);
	if (next < 0)
		extents->count = before;
	return (int)next;
}

/* --- file systems --- */

struct fs_identity {
	uint8_t bytes[BTRFS_FSID_SIZE];
};

static struct {
	struct fs_identity *list;
	uint32_t count, room;
} file_systems;

uint32_t file_fs_index(int fd, dev_t device)
{
	struct btrfs_ioctl_fs_info_args info = { 0 };
	struct fs_identity identity = { 0 };
	struct statfs status;
	uint32_t i;

	if (fstatfs(fd, &status) == 0 && status.f_type == BTRFS_SUPER_MAGIC &&
	    ioctl(fd, BTRFS_IOC_FS_INFO, &info) == 0)
		memcpy(identity.bytes, info.fsid, sizeof(identity.bytes));
	else
		memcpy(identity.bytes, &device, sizeof(device));
	for (i = 0; i < file_systems.count; i++)
		if (memcmp(&file_systems.list[i], &identity, sizeof(identity)) == 0)
			return i;
	if (file_systems.count == file_systems.room) {
		file_systems.room = file_systems.room ? 2 * file_systems.room : 8;
		file_systems.list = output_realloc(file_systems.list,
						   file_systems.room * sizeof(*file_systems.list));
	}
	file_systems.list[file_systems.count] = identity;
	return file_systems.count++;
}

const char *file_fs_name(int fd)
{
	static const struct {
		uint32_t magic;
		const char *name;
	} names[] = {
		{ BTRFS_SUPER_MAGIC, "btrfs" },
		{ XFS_SUPER_MAGIC, "xfs" },
		{ EXT4_SUPER_MAGIC, "ext4" },
		{ OVERLAYFS_SUPER_MAGIC, "overlay" },
		{ TMPFS_MAGIC, "tmpfs" },
		{ F2FS_SUPER_MAGIC, "f2fs" },
		{ NFS_SUPER_MAGIC, "nfs" },
		{ MSDOS_SUPER_MAGIC, "vfat" },
		{ V9FS_MAGIC, "9p" },
		{ FUSE_SUPER_MAGIC, "fuse" },
		{ PROC_SUPER_MAGIC, "proc" },
		{ SYSFS_MAGIC, "sysfs" },
		{ SQUASHFS_MAGIC, "squashfs" },
		{ EROFS_SUPER_MAGIC_V1, "erofs" },
		{ HUGETLBFS_MAGIC, "hugetlbfs" },
		{ 0x2fc12fc1, "zfs" },
		{ 0xca451a4e, "bcachefs" },
	};
	struct statfs status;
	size_t i;

	if (fstatfs(fd, &status) < 0)
		return "unknown";
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].magic == (uint32_t)status.f_type)
			return names[i].name;
	return "other";
}

bool file_is_pseudo(int fd)
{
	static const uint32_t magics[] = {
		PROC_SUPER_MAGIC,   SYSFS_MAGIC,         DEBUGFS_MAGIC,      TRACEFS_MAGIC,
		CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, SECURITYFS_MAGIC,   BPF_FS_MAGIC,
		PSTOREFS_MAGIC,     EFIVARFS_MAGIC,      DEVPTS_SUPER_MAGIC, SELINUX_MAGIC,
	};
	struct statfs status;
	size_t i;

	if (fstatfs(fd, &status) < 0)
		return false;
	for (i = 0; i < sizeof(magics) / sizeof(magics[0]); i++)
		if (magics[i] == (uint32_t)status.f_type)
			return true;
	return false;
}

bool file_read_subvolume(int fd, const struct stat *status, struct file_subvolume *ret_subvolume)
{
	struct btrfs_ioctl_get_subvol_info_args info = { 0 };
	struct statfs fs;

	if (status->st_ino != BTRFS_FIRST_FREE_OBJECTID || fstatfs(fd, &fs) < 0 ||
	    fs.f_type != BTRFS_SUPER_MAGIC || ioctl(fd, BTRFS_IOC_GET_SUBVOL_INFO, &info) < 0)
		return false;
	*ret_subvolume = (struct file_subvolume){
		.id = info.treeid,
		.read_only = (info.flags & BTRFS_ROOT_SUBVOL_RDONLY) != 0,
	};
	memcpy(ret_subvolume->name, info.name, sizeof(ret_subvolume->name) - 1);
	memcpy(ret_subvolume->uuid, info.uuid, sizeof(ret_subvolume->uuid));
	memcpy(ret_subvolume->parent, info.parent_uuid, sizeof(ret_subvolume->parent));
	return true;
}

bool file_is_snapshot(const struct file_subvolume *subvolume)
{
	static const uint8_t none[sizeof(subvolume->parent)];

	return memcmp(subvolume->parent, none, sizeof(none)) != 0;
}
