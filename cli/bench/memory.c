/* SPDX-License-Identifier: MIT */
/* Memory to experiment on, and what the kernel says of it. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/bench/bench.h"
#include "cli/bench/run.h"
#include "cli/output.h"
#include "proc/areas.h"
#include "proc/root.h"
#include "proc/system.h"

#define MIB ((uint64_t)1 << 20)

uint64_t bench_fit(const struct bench *bench, uint64_t bytes, unsigned int copies)
{
	uint64_t most = bench->memory / (copies ? copies : 1) / MIB * MIB;

	return bytes < most ? bytes : most < MIB ? MIB : most;
}

void *bench_map(struct bench *bench, size_t bytes, bool huge)
{
	const size_t align = 2 * MIB;
	char *whole = mmap(NULL, bytes + align, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *memory;
	size_t before;

	if (whole == MAP_FAILED) {
		bench_fail(bench, -errno, "cannot map %zu bytes", bytes);
		return NULL;
	}
	/* A huge page begins at a multiple of its size. */
	before = (align - (uintptr_t)whole % align) % align;
	memory = whole + before;
	if (before)
		munmap(whole, before);
	if (align - before)
		munmap(memory + bytes, align - before);
	/* Where a kernel has none of either, the memory is what it is. */
	madvise(memory, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return memory;
}

void bench_fill(void *memory, size_t bytes, uint64_t seed)
{
	uint64_t *words = memory;
	size_t i;

	for (i = 0; i < bytes / sizeof(*words); i++)
		words[i] = (seed + i + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static int read_process(const struct proc_root *root, pid_t pid, const char *name,
			struct proc_buffer *buffer, struct text *ret_text)
{
	char path[64];

	if (pid)
		snprintf(path, sizeof(path), "proc/%d/%s", (int)pid, name);
	else
		snprintf(path, sizeof(path), "proc/self/%s", name);
	return proc_root_read(root, path, buffer, ret_text);
}

static uint64_t known(uint64_t value)
{
	return value == KEYED_ABSENT ? 0 : value;
}

int bench_memory(pid_t pid, struct bench_memory *ret_memory)
{
	struct proc_buffer buffer = { 0 };
	struct proc_status status;
	struct proc_smaps smaps;
	struct proc_root root;
	struct text text;
	int error = proc_root_open(NULL, &root);

	if (error)
		return error;
	error = read_process(&root, pid, "smaps_rollup", &buffer, &text);
	if (!error)
		error = proc_smaps_parse(text, &smaps);
	if (!error)
		error = read_process(&root, pid, "status", &buffer, &text);
	if (!error)
		error = proc_status_parse(text, &status);
	if (!error)
		*ret_memory = (struct bench_memory){
			.rss = smaps.rss_bytes,
			.pss = smaps.pss_bytes,
			.uss = smaps.private_clean_bytes + smaps.private_dirty_bytes,
			.anonymous = smaps.anonymous_bytes,
			.huge = known(smaps.huge_anon_bytes),
			.ksm = known(smaps.ksm_bytes),
			.page_tables = known(status.page_table_bytes),
		};
	proc_buffer_free(&buffer);
	proc_root_close(&root);
	return error;
}

/* --- page by page --- */

static int open_pagemap(pid_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	/* cppcheck-suppress resourceLeak ; it is the result */
	return fd < 0 ? -errno : fd;
}

static int read_words(int fd, uint64_t first, uint64_t *words, size_t count)
{
	ssize_t length = (ssize_t)(count * sizeof(*words));
	ssize_t n = pread(fd, words, (size_t)length, (off_t)(first * sizeof(*words)));

	return n == length ? 0 : n < 0 ? -errno : -EIO;
}

/* Without CAP_SYS_ADMIN all frames are 0. */
static bool is_diverged(uint64_t one, uint64_t other)
{
	if (!((one | other) & PAGEMAP_FRAME))
		return one & PAGEMAP_EXCLUSIVE;
	return (one & PAGEMAP_FRAME) != (other & PAGEMAP_FRAME);
}

static int compare_pages(int one, int other, uint64_t first, uint64_t pages, uint64_t *diverged,
			 uint64_t *shared)
{
	uint64_t words[2][512], done, i;
	size_t count;
	int error;

	for (done = 0; done < pages; done += count) {
		count = pages - done < 512 ? pages - done : 512;
		error = read_words(one, first + done, words[0], count);
		if (!error)
			error = read_words(other, first + done, words[1], count);
		if (error)
			return error;
		for (i = 0; i < count; i++) {
			/* fork() leaves out the entries of files: these have not diverged. */
			if (!(words[0][i] & words[1][i] & PAGEMAP_PRESENT))
				continue;
			if (is_diverged(words[0][i], words[1][i]))
				++*diverged;
			else
				++*shared;
		}
	}
	return 0;
}

int bench_diverged_pages(pid_t one, pid_t other, const void *address, size_t bytes,
			 uint64_t *ret_diverged, uint64_t *ret_shared)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), diverged = 0, shared = 0;
	int fds[2] = { open_pagemap(one), open_pagemap(other) };
	int error = fds[0] < 0 ? fds[0] : fds[1] < 0 ? fds[1] : 0;

	if (!error)
		error = compare_pages(fds[0], fds[1], (uintptr_t)address / page,
				      (bytes + page - 1) / page, &diverged, &shared);
	if (fds[0] >= 0)
		close(fds[0]);
	if (fds[1] >= 0)
		close(fds[1]);
	if (!error) {
		*ret_diverged = diverged;
		*ret_shared = shared;
	}
	return error;
}

/* --- numbers out of files --- */

static bool line_number(char *line, const char *name, uint64_t *ret_number)
{
	char *at = line, *end;
	size_t length = name ? strlen(name) : 0;

	if (name && (strncmp(line, name, length) != 0 || !strchr(": \t", line[length])))
		return false;
	at += length + strspn(at + length, ": \t");
	*ret_number = strtoull(at, &end, 10);
	return end != at;
}

int bench_read_number(const char *path, const char *name, uint64_t *ret_number)
{
	FILE *file = fopen(path, "re");
	char line[512];
	int error = -ENODATA;

	if (!file)
		return -errno;
	while (error && fgets(line, sizeof(line), file))
		if (line_number(line, name, ret_number))
			error = 0;
	fclose(file);
	return error;
}

/* --- how much there is --- */

/* What a cgroup and those above it leave; path is cut shorter on the way up. */
static uint64_t cgroup_room(const char *mount, char *path, const char *limit_name,
			    const char *usage_name)
{
	uint64_t room = UINT64_MAX, limit = 0, usage = 0;
	char file[PATH_MAX];
	char *slash;

	do {
		if (snprintf(file, sizeof(file), "%s%s/%s", mount, path, limit_name) <
			    (int)sizeof(file) &&
		    bench_read_number(file, NULL, &limit) == 0 &&
		    snprintf(file, sizeof(file), "%s%s/%s", mount, path, usage_name) <
			    (int)sizeof(file) &&
		    bench_read_number(file, NULL, &usage) == 0) {
			limit = limit > usage ? limit - usage : 0;
			room = limit < room ? limit : room;
		}
		slash = strrchr(path, '/');
		if (slash)
			*slash = '\0';
	} while (slash);
	return room;
}

static uint64_t cgroups_room(const struct proc_root *root, struct proc_buffer *buffer)
{
	uint64_t room = UINT64_MAX, other;
	struct text text, found;
	char path[PATH_MAX / 2];

	if (proc_root_read(root, "proc/self/cgroup", buffer, &text) < 0)
		return room;
	if (proc_cgroup_find(text, "", &found) == 0) {
		text_copy(found, path, sizeof(path));
		room = cgroup_room("/sys/fs/cgroup", path, "memory.max", "memory.current");
	}
	if (proc_cgroup_find(text, "memory", &found) == 0) {
		text_copy(found, path, sizeof(path));
		other = cgroup_room("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes",
				    "memory.usage_in_bytes");
		room = other < room ? other : room;
	}
	return room;
}

uint64_t bench_available_memory(void)
{
	struct proc_buffer buffer = { 0 };
	struct proc_meminfo memory;
	uint64_t available = 256 * MIB, room;
	struct proc_root root;
	struct text text;

	if (proc_root_open(NULL, &root) < 0)
		return available;
	if (proc_root_read(&root, "proc/meminfo", &buffer, &text) == 0 &&
	    proc_meminfo_parse(text, &memory) == 0 && memory.available != KEYED_ABSENT)
		available = memory.available;
	room = cgroups_room(&root, &buffer);
	proc_buffer_free(&buffer);
	proc_root_close(&root);
	return room < available ? room : available;
}
