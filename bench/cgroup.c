/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/cgroup.h"

static const struct hierarchy {
	const char *root, *probe, *usage, *peak;
} hierarchies[] = {
	{ "/sys/fs/cgroup/memory", "memory.usage_in_bytes", "memory.usage_in_bytes",
	  "memory.max_usage_in_bytes" },
	{ "/sys/fs/cgroup", "cgroup.controllers", "memory.current", "memory.peak" },
};

static const struct hierarchy *find_hierarchy(void)
{
	char path[256];

	for (unsigned i = 0; i < sizeof(hierarchies) / sizeof(hierarchies[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", hierarchies[i].root, hierarchies[i].probe);
		if (access(path, F_OK) == 0)
			return &hierarchies[i];
	}
	return NULL;
}

static void file_of(pid_t member, const char *name, char *path, size_t room)
{
	const struct hierarchy *hierarchy = find_hierarchy();

	snprintf(path, room, "%s/cow-bench-%d%s%s", hierarchy ? hierarchy->root : "", (int)member,
		 name ? "/" : "", name ? name : "");
}

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}

static uint64_t read_number(const char *name)
{
	unsigned long long number = 0;
	char path[256];
	FILE *file;

	if (!name)
		return 0;
	file_of(getpid(), name, path, sizeof(path));
	file = fopen(path, "re");
	if (file && fscanf(file, "%llu", &number) != 1)
		number = 0;
	if (file)
		fclose(file);
	return number;
}

bool cgroup_enter(void)
{
	char path[256], pid[32];

	if (!find_hierarchy())
		return false;
	file_of(getpid(), NULL, path, sizeof(path));
	if (mkdir(path, 0755) < 0)
		return false;
	file_of(getpid(), "cgroup.procs", path, sizeof(path));
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	return write_text(path, pid) && cgroup_usage() > 0;
}

void cgroup_remove(pid_t member)
{
	char path[256];

	if (!find_hierarchy())
		return;
	file_of(member, NULL, path, sizeof(path));
	rmdir(path);
}

uint64_t cgroup_usage(void)
{
	const struct hierarchy *hierarchy = find_hierarchy();

	return hierarchy ? read_number(hierarchy->usage) : 0;
}

uint64_t cgroup_peak(void)
{
	const struct hierarchy *hierarchy = find_hierarchy();

	return hierarchy ? read_number(hierarchy->peak) : 0;
}

/* Where the kernel cannot (version 2 before 6.12), the peak still is that of the whole run. */
void cgroup_reset_peak(void)
{
	const struct hierarchy *hierarchy = find_hierarchy();
	char path[256];

	if (!hierarchy)
		return;
	file_of(getpid(), hierarchy->peak, path, sizeof(path));
	write_text(path, "0");
}
