/* SPDX-License-Identifier: MIT */
#include "cli/stat/live.h"

#include <errno.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "proc/process.h"
#include "proc/root.h"

const char *const vmstat_names[VMSTAT_COUNTERS] = {
	[VMSTAT_FAULTS] = "pgfault",
	[VMSTAT_MAJOR_FAULTS] = "pgmajfault",
	[VMSTAT_REUSED] = "pgreuse",
	[VMSTAT_PMD_SPLITS] = "thp_split_pmd",
	[VMSTAT_HUGE_FAULTS] = "thp_fault_alloc",
	[VMSTAT_KSM_COPIED] = "cow_ksm",
	[VMSTAT_SCANNED_KSWAPD] = "pgscan_kswapd",
	[VMSTAT_SCANNED_DIRECT] = "pgscan_direct",
	[VMSTAT_RECLAIMED_KSWAPD] = "pgsteal_kswapd",
	[VMSTAT_RECLAIMED_DIRECT] = "pgsteal_direct",
	[VMSTAT_SWAPPED_IN] = "pswpin",
	[VMSTAT_SWAPPED_OUT] = "pswpout",
	[VMSTAT_OOM_KILLS] = "oom_kill",
};

/* One buffer and one root for all looks: intervals read the same files again and again. */
static int read_text(const char *path, struct text *ret_text)
{
	static struct proc_buffer buffer;
	static struct proc_root root;
	static bool opened;
	int error;

	if (!opened) {
		error = proc_root_open(NULL, &root);
		if (error)
			return error;
		opened = true;
	}
	return proc_root_read(&root, path, &buffer, ret_text);
}

static int read_of(pid_t pid, const char *file, struct text *ret_text)
{
	char path[64];

	snprintf(path, sizeof(path), "proc/%d/%s", pid, file);
	return read_text(path, ret_text);
}

static int read_stat(pid_t pid, struct proc_stat *ret_stat)
{
	struct text text;
	int error = read_of(pid, "stat", &text);

	return error ? error : proc_stat_parse(text, ret_stat);
}

int live_faults(pid_t pid, uint64_t *ret_minor, uint64_t *ret_major)
{
	struct proc_stat stat;
	int error = read_stat(pid, &stat);

	if (error)
		return error;
	if (stat.minor_faults == KEYED_ABSENT || stat.major_faults == KEYED_ABSENT)
		return -ENODATA;
	*ret_minor = stat.minor_faults;
	*ret_major = stat.major_faults;
	return 0;
}

void live_identity(pid_t pid, char *command, size_t size, unsigned int *parent)
{
	struct proc_stat stat;

	if (read_stat(pid, &stat) != 0)
		return;
	snprintf(command, size, "%.*s", (int)size - 1, stat.command);
	*parent = (unsigned int)stat.ppid;
}

int live_threads(pid_t pid, pid_t **ret_threads, size_t *ret_count)
{
	size_t count = 0, room = 0;
	pid_t *threads = NULL;
	struct dirent *entry;
	char path[64];
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	directory = opendir(path);
	if (!directory)
		return errno == ENOENT ? -ESRCH : -errno;
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		if (count == room) {
			room = room ? 2 * room : 16;
			threads = output_realloc(threads, room * sizeof(*threads));
		}
		threads[count++] = (pid_t)strtol(entry->d_name, NULL, 10);
	}
	closedir(directory);
	*ret_threads = threads;
	*ret_count = count;
	return 0;
}

void sharing_add(struct sharing *sharing, pid_t pid)
{
	struct proc_smaps smaps = { 0 };
	struct text text;
	int error = read_of(pid, "smaps_rollup", &text);

	if (!error)
		error = proc_smaps_parse(text, &smaps);
	if (error == -EACCES || error == -EPERM)
		sharing->refused++;
	if (error || smaps.pss_bytes == KEYED_ABSENT || smaps.rss_bytes == KEYED_ABSENT ||
	    smaps.private_clean_bytes == KEYED_ABSENT || smaps.private_dirty_bytes == KEYED_ABSENT)
		return;
	sharing->processes++;
	sharing->rss_bytes += smaps.rss_bytes;
	sharing->pss_bytes += smaps.pss_bytes;
	sharing->uss_bytes += smaps.private_clean_bytes + smaps.private_dirty_bytes;
}

int vmstat_read(struct vmstat *ret_vmstat)
{
	struct keyed_field fields[VMSTAT_COUNTERS];
	struct vmstat vmstat;
	struct text text;
	size_t i;
	int error;

	for (i = 0; i < VMSTAT_COUNTERS; i++)
		fields[i] = (struct keyed_field){ vmstat_names[i], i * sizeof(uint64_t) };
	keyed_clear(fields, VMSTAT_COUNTERS, &vmstat);
	error = read_text("proc/vmstat", &text);
	if (error)
		return error;
	error = keyed_parse(text, fields, VMSTAT_COUNTERS, KEYED_FIRST, &vmstat);
	if (error < 0)
		return error;
	*ret_vmstat = vmstat;
	return 0;
}

bool vmstat_delta(const struct vmstat *from, const struct vmstat *to, enum vmstat_counter counter,
		  uint64_t *ret_delta)
{
	uint64_t before = from->value[counter], after = to->value[counter];

	if (before == KEYED_ABSENT || after == KEYED_ABSENT || after < before)
		return false;
	*ret_delta = after - before;
	return true;
}
