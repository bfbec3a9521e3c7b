/* SPDX-License-Identifier: MIT */
#include "cli/bench/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cli/fd.h"

#define COPY_BYTES ((size_t)1 << 20)

/* --- images --- */

static const char *make_file_system(struct bench *bench, const char *type, const char *image)
{
	const char *program = bench_text(bench, "mkfs.%s", type);
	const char *argv[] = { program, strcmp(type, "xfs") == 0 ? "-fq" : "-q", image, NULL };
	/* The journal's default would be most of a small image; nothing is discarded in a hole. */
	const char *ext4[] = { program, "-q", "-F", "-E", "nodiscard", image, NULL };
	int status;

	if (!bench_find_program(bench, program))
		return bench_text(bench, "%s is not installed", program);
	status = bench_run(bench, strcmp(type, "ext4") == 0 ? ext4 : argv, NULL);
	if (status)
		return bench_text(bench, "%s: %s", program, bench_run_error(bench));
	return NULL;
}

/* Attaches an image to a free loop device; another process may be faster, then the next one. */
static int attach(int image, char device[24])
{
	struct loop_config config = {
		.fd = (uint32_t)image,
		.info = { .lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO },
	};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number, fd = -1, tries;
	char path[32];

	if (control < 0)
		return -errno;
	for (tries = 0; tries < 16; tries++) {
		number = ioctl(control, LOOP_CTL_GET_FREE);
		snprintf(device, 24, "loop%d", number);
		snprintf(path, sizeof(path), "/dev/%s", device);
		fd = number < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0 || ioctl(fd, LOOP_CONFIGURE, &config) == 0)
			break;
		close(fd);
		fd = -1;
		if (errno != EBUSY)
			break;
	}
	number = fd < 0 ? -errno : fd;
	close(control);
	return number;
}

static const char *mount_image(struct bench *bench, const char *type, const char *image,
			       struct disk *disk)
{
	const char *reason = NULL;
	int file = open(image, O_RDWR | O_CLOEXEC), loop = -1;
	char path[32];

	if (file >= 0)
		loop = attach(file, disk->device);
	if (loop < 0) {
		reason = bench_text(bench, "no loop device: %s",
				    strerror(file < 0 ? errno : -loop));
	} else {
		snprintf(path, sizeof(path), "/dev/%s", disk->device);
		if (mount(path, disk->mount, type, MS_NOATIME, NULL) < 0)
			reason = bench_text(bench, "cannot mount %s: %s", type, strerror(errno));
		close(loop);
	}
	if (file >= 0)
		close(file);
	return reason;
}

/* An image is sparse, but where its blocks run out the file system in it sees broken hardware. */
static const char *check_space(struct bench *bench, uint64_t bytes)
{
	struct statvfs status;
	uint64_t free_bytes;

	if (statvfs(bench->directory, &status) < 0)
		return NULL;
	free_bytes = (uint64_t)status.f_bavail * status.f_frsize;
	if (free_bytes >= bytes / 2)
		return NULL;
	return bench_text(bench, "%s has only %s free, %s are needed; give another --directory",
			  bench->directory, bench_figure(bench, BENCH_BYTES, (double)free_bytes),
			  bench_figure(bench, BENCH_BYTES, (double)bytes / 2));
}

const char *disk_make(struct bench *bench, const char *type, const char *name, uint64_t bytes,
		      struct disk *ret_disk)
{
	const char *image = bench_text(bench, "%s/%s.image", bench->directory, name), *reason;
	struct disk disk = { .type = type,
			     .mount = bench_text(bench, "%s/%s", bench->directory, name) };
	int fd;

	reason = check_space(bench, bytes);
	if (reason)
		return reason;
	fd = open(image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 || mkdir(disk.mount, 0755) < 0)
		reason = bench_text(bench, "cannot make an image of %s: %s",
				    bench_figure(bench, BENCH_BYTES, (double)bytes),
				    strerror(errno));
	else
		reason = make_file_system(bench, type, image);
	if (!reason)
		reason = mount_image(bench, type, image, &disk);
	if (fd >= 0)
		close(fd);
	/* Nobody needs its name any more; its blocks go with the mount. */
	unlink(image);
	if (!reason)
		*ret_disk = disk;
	return reason;
}

uint64_t disk_written(const struct disk *disk)
{
	unsigned long long sectors = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/block/%s/stat", disk->device);
	file = fopen(path, "re");
	if (!file)
		return 0;
	/* Reads, merged, sectors, time; writes, merged, sectors. */
	if (fscanf(file, "%*u %*u %*u %*u %*u %*u %llu", &sectors) != 1)
		sectors = 0;
	fclose(file);
	return 512 * (uint64_t)sectors;
}

void disk_sync(const struct disk *disk)
{
	int fd = open(disk->mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	syncfs(fd);
	close(fd);
}

void disk_unmake(const struct disk *disk)
{
	if (umount2(disk->mount, 0) < 0)
		umount2(disk->mount, MNT_DETACH);
	rmdir(disk->mount);
}

/* --- overlays --- */

const char *disk_overlay(struct bench *bench, const char *lower, const char *base)
{
	static const char *const parts[] = { "", "/upper", "/work", "/merged" };
	const char *merged = bench_text(bench, "%s/merged", base), *options;
	size_t i;

	for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (mkdir(bench_text(bench, "%s%s", base, parts[i]), 0755) < 0) {
			bench_fail(bench, -errno, "cannot make %s%s", base, parts[i]);
			return NULL;
		}
	options = bench_text(bench, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, base,
			     base);
	if (mount("overlay", merged, "overlay", MS_NOATIME, options) < 0) {
		bench_fail(bench, -errno, "cannot mount an overlay");
		return NULL;
	}
	return merged;
}

void disk_overlay_end(struct bench *bench, const char *base)
{
	umount2(bench_text(bench, "%s/merged", base), MNT_DETACH);
	disk_remove_tree(base);
}

/* --- files --- */

int disk_fill_file(const char *path, uint64_t bytes, uint64_t seed)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), error = 0;
	char *buffer = malloc(COPY_BYTES);
	uint64_t part, at;

	if (fd < 0 || !buffer) {
		error = fd < 0 ? -errno : -ENOMEM;
		free(buffer);
		if (fd >= 0)
			close(fd);
		return error;
	}
	for (at = 0; at < bytes && !error; at += part) {
		part = bytes - at < COPY_BYTES ? bytes - at : COPY_BYTES;
		bench_fill(buffer, COPY_BYTES, seed + at);
		error = fd_write_all(fd, buffer, part);
	}
	/* Nothing that was put off may fall into what is measured next. */
	if (!error && fsync(fd) < 0)
		error = -errno;
	close(fd);
	free(buffer);
	return error;
}

static int copy_bytes(int from, int to)
{
	char *buffer = malloc(COPY_BYTES);
	int error = buffer ? 0 : -ENOMEM;
	ssize_t n = 1;

	while (!error && n > 0) {
		n = read(from, buffer, COPY_BYTES);
		if (n < 0)
			error = -errno;
		else
			error = fd_write_all(to, buffer, (size_t)n);
	}
	free(buffer);
	return error;
}

static int open_pair(const char *from, const char *to, int fds[2])
{
	int error;

	fds[0] = open(from, O_RDONLY | O_CLOEXEC);
	fds[1] = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fds[0] >= 0 && fds[1] >= 0)
		return 0;
	error = errno ? -errno : -EIO;
	if (fds[0] >= 0)
		close(fds[0]);
	if (fds[1] >= 0)
		close(fds[1]);
	return error;
}

int disk_copy_file(const char *from, const char *to)
{
	int fds[2] = { -1, -1 }, error = open_pair(from, to, fds);

	if (error)
		return error;
	error = copy_bytes(fds[0], fds[1]);
	if (!error && fsync(fds[1]) < 0)
		error = -errno;
	close(fds[0]);
	close(fds[1]);
	return error;
}

int disk_clone_file(const char *from, const char *to)
{
	int fds[2] = { -1, -1 }, error = open_pair(from, to, fds);

	if (error)
		return error;
	if (ioctl(fds[1], FICLONE, fds[0]) < 0)
		error = -errno;
	close(fds[0]);
	close(fds[1]);
	return error;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *ftw)
{
	/* A subvolume of btrfs is removed like an empty directory. */
	return remove(path) < 0 && errno != ENOENT ? -errno : 0;
}

int disk_remove_tree(const char *path)
{
	int error = nftw(path, remove_one, 64, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);

	return error < 0 && error != -1 ? error : error ? -errno : 0;
}

uint64_t disk_extents(const char *path)
{
	struct fiemap map = {
		.fm_length = FIEMAP_MAX_OFFSET,
		.fm_flags = FIEMAP_FLAG_SYNC,
	};
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	/* Room for none: the kernel counts. */
	if (ioctl(fd, FS_IOC_FIEMAP, &map) < 0)
		map.fm_mapped_extents = 0;
	close(fd);
	return map.fm_mapped_extents;
}
