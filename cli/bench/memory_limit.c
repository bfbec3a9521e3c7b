/* SPDX-License-Identifier: MIT */
#include "cli/bench/memory_limit.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNIFIED "/sys/fs/cgroup"
#define LEGACY  "/sys/fs/cgroup/memory"

static int write_file(const char *directory, const char *name, const char *text)
{
	char path[4300];
	int fd, error = 0;

	if (snprintf(path, sizeof(path), "%s/%s", directory, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		error = -errno;
	close(fd);
	return error;
}

static bool exists(const char *directory, const char *name)
{
	char path[4300];

	return snprintf(path, sizeof(path), "%s/%s", directory, name) < (int)sizeof(path) &&
	       access(path, F_OK) == 0;
}

/* In version 2 a group has the controller only where the one above hands it down. */
static const char *find_parent(bool *ret_unified)
{
	*ret_unified = exists(UNIFIED, "cgroup.controllers");
	if (*ret_unified)
		write_file(UNIFIED, "cgroup.subtree_control", "+memory");
	return *ret_unified ? UNIFIED : LEGACY;
}

static int set_limit(const struct memory_limit *limit, uint64_t bytes)
{
	char text[32];
	int error;

	snprintf(text, sizeof(text), "%" PRIu64, bytes);
	error = write_file(limit->directory,
			   limit->unified ? "memory.max" : "memory.limit_in_bytes", text);
	if (error)
		return error;
	/* Absent where there is no swap, or where it is not counted. */
	if (limit->unified)
		write_file(limit->directory, "memory.swap.max", "0");
	else
		write_file(limit->directory, "memory.memsw.limit_in_bytes", text);
	return 0;
}

const char *memory_limit_make(struct bench *bench, uint64_t bytes, struct memory_limit *ret_limit)
{
	struct memory_limit limit;
	const char *parent = find_parent(&limit.unified);
	int error;

	limit.directory = bench_text(bench, "%s/cow-bench-%d", parent, (int)getpid());
	if (mkdir(limit.directory, 0755) < 0 && errno != EEXIST)
		return bench_text(bench, "cannot make a memory cgroup in %s: %s", parent,
				  strerror(errno));
	error = set_limit(&limit, bytes);
	if (error) {
		rmdir(limit.directory);
		return bench_text(bench, "cannot limit a memory cgroup in %s: %s", parent,
				  strerror(-error));
	}
	*ret_limit = limit;
	return NULL;
}

int memory_limit_enter(const struct memory_limit *limit)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", (int)getpid());
	return write_file(limit->directory, "cgroup.procs", text);
}

static uint64_t read_number(const struct memory_limit *limit, const char *file, const char *name)
{
	uint64_t number = 0;
	char path[4300];

	if (snprintf(path, sizeof(path), "%s/%s", limit->directory, file) < (int)sizeof(path) &&
	    bench_read_number(path, name, &number) < 0)
		number = 0;
	return number;
}

uint64_t memory_limit_kills(const struct memory_limit *limit)
{
	return read_number(limit, limit->unified ? "memory.events" : "memory.oom_control",
			   "oom_kill");
}

uint64_t memory_limit_peak(const struct memory_limit *limit)
{
	return read_number(limit, limit->unified ? "memory.peak" : "memory.max_usage_in_bytes",
			   NULL);
}

void memory_limit_remove(const struct memory_limit *limit)
{
	int tries;

	/* A process that has ended may still be on its way out. */
	for (tries = 0; tries < 200 && rmdir(limit->directory) < 0 && errno == EBUSY; tries++)
		usleep(10000);
}
