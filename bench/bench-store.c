/* SPDX-License-Identifier: MIT */
/*
 * Saving and restoring, beside what else writes and reads the same bytes on the same file system:
 * plain writes with fdatasync(), QEMU's tools, reflinks, and a save by fork().
 *
 * Every turn does both sides, one after the other, in turn first; a ratio is that of one turn. The
 * span printed with nine turns is at least the 96 % confidence interval of the median (its second
 * to its eighth value).
 */
#include "bench/bench-store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct bench_options options;
char scratch[4000];

size_t region_bytes(void)
{
	return options.quick ? 32 * MIB : 1024 * MIB;
}

static void fill_random(unsigned char *to, size_t bytes, uint64_t *random)
{
	for (size_t i = 0; i < bytes; i += 8) {
		uint64_t word = random_next(random);

		memcpy(to + i, &word, 8);
	}
}

struct cow_region *new_region(size_t bytes)
{
	struct cow_region_options how = COW_REGION_OPTIONS_INIT;
	uint64_t random = options.seed;
	struct cow_region *region;
	unsigned char *base;

	how.trap = COW_TRAP_EXPLICIT;
	check_errno(cow_region_new(bytes, &how, &region), "cow_region_new");
	base = cow_region_get_base(region);
	check_errno(cow_region_touch(region, base, bytes), "touch");
	fill_random(base, bytes, &random);
	return region;
}

static int by_number(const void *left, const void *right)
{
	size_t a = *(const size_t *)left, b = *(const size_t *)right;

	return (a > b) - (a < b);
}

/* A partial shuffle of all pages would cost memory: draw until all differ. */
static size_t *choose_pages(size_t pages, size_t count, uint64_t *random)
{
	unsigned char *taken = calloc(pages, 1);
	size_t *chosen = malloc(count * sizeof(chosen[0]));
	size_t drawn = 0;

	check(taken && chosen && count <= pages, "memory for the choice");
	while (drawn < count) {
		size_t page = random_next(random) % pages;

		if (!taken[page])
			chosen[drawn++] = page;
		taken[page] = 1;
	}
	free(taken);
	qsort(chosen, count, sizeof(chosen[0]), by_number);
	return chosen;
}

size_t *dirty_pages(struct cow_region *region, size_t count, uint64_t *random)
{
	unsigned char *base = cow_region_get_base(region);
	size_t *pages = choose_pages(cow_region_get_length(region) / PAGE, count, random);

	for (size_t i = 0; i < count; i++) {
		unsigned char *page = base + pages[i] * PAGE;

		check_errno(cow_region_touch(region, page, PAGE), "touch");
		fill_random(page, 64, random);
	}
	return pages;
}

struct cow_snapshot *take(struct cow_region *region)
{
	struct cow_snapshot *snapshot;

	check_errno(cow_region_snapshot(region, &snapshot), "snapshot");
	return snapshot;
}

/* --- files --- */

const char *path_of(const char *name)
{
	static char paths[8][4200];
	static unsigned next;
	char *path = paths[next++ % 8];

	snprintf(path, sizeof(paths[0]), "%s/%s", scratch, name);
	return path;
}

struct cow_store *open_store(const char *name, uint32_t flags)
{
	struct cow_store *store;

	check_errno(cow_store_open(path_of(name), flags, &store), "cow_store_open");
	return store;
}

void remove_tree(const char *path)
{
	char command[4300];

	snprintf(command, sizeof(command), "rm -rf -- '%s'", path);
	check(system(command) == 0, command);
}

uint64_t file_blocks(const char *path)
{
	struct stat status;

	check(stat(path, &status) == 0, path);
	return (uint64_t)status.st_blocks * 512;
}

void make_cold(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	check(fd >= 0, path);
	fdatasync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

void make_store_cold(const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	char name[5000];

	check(directory, path);
	while ((entry = readdir(directory)))
		if (entry->d_type == DT_REG) {
			snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
			make_cold(name);
		}
	closedir(directory);
}

double plain_write(const char *path, const unsigned char *bytes, size_t length)
{
	double start = now_us();
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	check(fd >= 0, path);
	for (size_t at = 0; at < length; at += MIB) {
		size_t some = length - at < MIB ? length - at : MIB;

		check(pwrite(fd, bytes + at, some, (off_t)at) == (ssize_t)some, "pwrite");
	}
	check(fdatasync(fd) == 0, "fdatasync");
	start = now_us() - start;
	close(fd);
	return start;
}

double run_command(const char *input, const char *format, ...)
{
	char command[9000];
	va_list arguments;
	double start;
	size_t length;

	length = (size_t)snprintf(command, sizeof(command), "exec <%s >/dev/null; ",
				  input ? input : "/dev/null");
	va_start(arguments, format);
	vsnprintf(command + length, sizeof(command) - length, format, arguments);
	va_end(arguments);
	start = now_us();
	check(system(command) == 0, command);
	return now_us() - start;
}

bool has_qemu(void)
{
	static int has = -1;

	if (has < 0)
		has = system("command -v qemu-img qemu-io >/dev/null 2>&1") == 0;
	if (!has)
		bench_note("qemu-img is not installed: nothing to compare with");
	return has;
}

/* --- ratios --- */

void ratio_add(struct ratio *ratio, double ours, double theirs)
{
	samples_add(&ratio->ours, ours);
	samples_add(&ratio->theirs, theirs);
	samples_add(&ratio->ratio, ours / theirs);
}

void ratio_free(struct ratio *ratio)
{
	samples_free(&ratio->ours);
	samples_free(&ratio->theirs);
	samples_free(&ratio->ratio);
}

static void make_scratch(void)
{
	char directory[PATH_MAX];

	/* QEMU takes a base's relative name for one beside the overlay. */
	check(realpath(options.directory, directory) != NULL, options.directory);
	check((size_t)snprintf(scratch, sizeof(scratch), "%s/cow-bench-store-XXXXXX", directory) <
		      sizeof(scratch),
	      "the directory's name is too long");
	check(mkdtemp(scratch) != NULL, scratch);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} parts[] = {
		{ "full", bench_full },       { "incremental", bench_incremental },
		{ "bytes", bench_bytes },     { "chain", bench_chain },
		{ "reflink", bench_reflink }, { "restore", bench_restore },
		{ "latency", bench_latency },
	};

	bench_begin("store", "snapshots saved as qcow2 layers, and restored", argc, argv, &options);
	make_scratch();
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (bench_wants(parts[i].name))
			parts[i].run();
	remove_tree(scratch);
	return bench_end();
}
