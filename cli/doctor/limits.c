/* SPDX-License-Identifier: MIT */
/* What copies have to fit into: RAM, the cgroups of a process; and what PostgreSQL reserves. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/doctor/doctor.h"
#include "cli/output.h"

void doctor_look_at_memory(struct doctor *doctor)
{
	const struct proc_meminfo *memory = &doctor->memory;
	char available[UNIT_LENGTH], total[UNIT_LENGTH];
	struct finding *finding;
	enum level level;

	if (memory->total == KEYED_ABSENT || memory->available == KEYED_ABSENT || !memory->total)
		return;
	level = memory->available < memory->total / 33 ? LEVEL_CRITICAL :
		memory->available < memory->total / 10 ? LEVEL_WARNING :
							 LEVEL_OK;
	finding = doctor_add(doctor, "memory", level, EVIDENCE_RULE);
	finding_value(finding, "%s of %s available", format_bytes(available, memory->available),
		      format_bytes(total, memory->total));
	finding_meaning(finding, "what the copies of a fork can take before something has to go");
	if (level != LEVEL_OK)
		finding_advice(
			finding,
			"cow doctor --pid PID says what a fork of a process may need at worst");
	finding_reason(finding, "MemAvailable is the kernel's own estimate");
}

/* --- cgroups --- */

/* "max", and what version 1 writes for no limit, are none. */
static uint64_t read_limit(struct doctor *doctor, const char *directory, const char *name)
{
	char path[PATH_MAX];
	struct text text;
	uint64_t bytes;

	if (snprintf(path, sizeof(path), "%s/%s", directory, name) >= (int)sizeof(path))
		return DOCTOR_UNKNOWN;
	if (!doctor_read(doctor, path, &text) || text_only_u64(text, &bytes) < 0)
		return DOCTOR_UNKNOWN;
	return bytes >= (uint64_t)INT64_MAX / 4096 * 4096 ? DOCTOR_UNKNOWN : bytes;
}

struct hierarchy {
	int version;
	const char *limit, *usage;
	char mount[512]; /* under the root, without a slash at its begin */
};

static void try_directory(struct doctor *doctor, const struct hierarchy *hierarchy,
			  const char *directory, struct cgroup_limit *tightest)
{
	uint64_t limit = read_limit(doctor, directory, hierarchy->limit);
	uint64_t usage = read_limit(doctor, directory, hierarchy->usage);

	if (limit == DOCTOR_UNKNOWN || usage == DOCTOR_UNKNOWN)
		return;
	if (tightest->version &&
	    limit - (usage < limit ? usage : limit) >=
		    tightest->limit -
			    (tightest->usage < tightest->limit ? tightest->usage : tightest->limit))
		return;
	tightest->limit = limit;
	tightest->usage = usage;
	tightest->version = hierarchy->version;
	snprintf(tightest->path, sizeof(tightest->path), "/%.*s", (int)sizeof(tightest->path) - 2,
		 directory);
}

/* A limit may be set at any level above: each is tried, from the process's own upwards. */
static void climb(struct doctor *doctor, const struct hierarchy *hierarchy, struct text path,
		  struct cgroup_limit *tightest)
{
	char directory[PATH_MAX];
	size_t top = strlen(hierarchy->mount);
	int length = snprintf(directory, sizeof(directory), "%s%.*s", hierarchy->mount,
			      (int)text_length(path), path.at);
	char *slash;

	/* A path with ".." leads out of what this process can see; the top is all there is then. */
	if (length < 0 || length >= (int)sizeof(directory) || strstr(directory, "/.."))
		directory[top] = '\0';
	for (;;) {
		try_directory(doctor, hierarchy, directory, tightest);
		slash = strrchr(directory, '/');
		if (strlen(directory) <= top || !slash || (size_t)(slash - directory) < top)
			return;
		*slash = '\0';
	}
}

static bool lists(struct text options, const char *wanted)
{
	char text[256];
	char *at, *rest;

	text_copy(options, text, sizeof(text));
	for (at = strtok_r(text, ",", &rest); at; at = strtok_r(NULL, ",", &rest))
		if (strcmp(at, wanted) == 0)
			return true;
	return false;
}

/* Where the hierarchy of the memory controller is mounted. */
static bool find_mount(struct doctor *doctor, struct hierarchy *hierarchy)
{
	struct proc_mount mount;
	struct text text;
	bool fits;

	if (!doctor_read(doctor, "proc/self/mountinfo", &text))
		return false;
	while (proc_mount_next(&text, &mount) > 0) {
		fits = hierarchy->version == 2 ? text_is(mount.type, "cgroup2") :
						 text_is(mount.type, "cgroup") &&
							 lists(mount.super_options, "memory");
		if (!fits || !text_take(&mount.point, '/'))
			continue;
		text_copy(mount.point, hierarchy->mount, sizeof(hierarchy->mount));
		return true;
	}
	return false;
}

static void try_hierarchy(struct doctor *doctor, pid_t pid, struct hierarchy hierarchy,
			  struct cgroup_limit *tightest)
{
	struct proc_buffer buffer = { 0 };
	struct text text, path;
	char file[64];

	snprintf(file, sizeof(file), pid ? "proc/%d/cgroup" : "proc/self/cgroup", (int)pid);
	if (find_mount(doctor, &hierarchy) &&
	    proc_root_read(&doctor->root, file, &buffer, &text) == 0 &&
	    proc_cgroup_find(text, hierarchy.version == 2 ? "" : "memory", &path) == 0)
		climb(doctor, &hierarchy, path, tightest);
	proc_buffer_free(&buffer);
}

bool doctor_find_cgroup(struct doctor *doctor, pid_t pid, struct cgroup_limit *ret_limit)
{
	struct cgroup_limit tightest = { .limit = DOCTOR_UNKNOWN };

	try_hierarchy(doctor, pid,
		      (struct hierarchy){
			      .version = 2, .limit = "memory.max", .usage = "memory.current" },
		      &tightest);
	try_hierarchy(doctor, pid,
		      (struct hierarchy){ .version = 1,
					  .limit = "memory.limit_in_bytes",
					  .usage = "memory.usage_in_bytes" },
		      &tightest);
	*ret_limit = tightest;
	return tightest.version != 0;
}

void doctor_look_at_cgroups(struct doctor *doctor, pid_t pid)
{
	char limit[UNIT_LENGTH], usage[UNIT_LENGTH];
	struct cgroup_limit found;
	struct finding *finding;
	enum level level;

	if (!doctor_find_cgroup(doctor, pid, &found)) {
		finding = doctor_add(doctor, "cgroup", LEVEL_OK, EVIDENCE_RULE);
		finding_value(finding, "no memory limit");
		finding_meaning(finding, "only RAM and swap bound the copies of a fork");
		finding_reason(finding,
			       "no limit was found in versions 1 and 2, at this level or above");
		return;
	}
	level = found.usage > found.limit / 100 * 97 ? LEVEL_CRITICAL :
		found.usage > found.limit / 100 * 85 ? LEVEL_WARNING :
						       LEVEL_OK;
	finding = doctor_add(doctor, "cgroup", level, EVIDENCE_RULE);
	finding_value(finding, "%s of %s used (version %d)", format_bytes(usage, found.usage),
		      format_bytes(limit, found.limit), found.version);
	finding_meaning(
		finding,
		"the copies of a fork are charged to it; beyond the limit the OOM killer ends a "
		"member. The page cache is in what is used, and gives way");
	if (level != LEVEL_OK)
		finding_advice(
			finding,
			"raise the limit, or see cow doctor --pid PID for what a fork needs");
	finding_reason(finding, "%.200s", found.path);
}

/* --- PostgreSQL --- */

struct postgresql {
	uint64_t shared_buffers, effective_cache_size;
	size_t backends;
};

/* Later files win: what ALTER SYSTEM wrote is read last. */
static void read_settings(struct doctor *doctor, pid_t pid, struct postgresql *found)
{
	static const char *const files[] = { "postgresql.conf", "postgresql.auto.conf" };
	struct text text, value;
	char path[80];
	size_t i;

	for (i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(path, sizeof(path), "proc/%d/cwd/%s", (int)pid, files[i]);
		if (!doctor_read(doctor, path, &text))
			continue;
		if (proc_setting_find(text, "shared_buffers", &value) == 0)
			proc_setting_size(value, 8192, &found->shared_buffers);
		if (proc_setting_find(text, "effective_cache_size", &value) == 0)
			proc_setting_size(value, 8192, &found->effective_cache_size);
	}
}

/* "-c name=value" and "-cname=value" of the command line win over the files. */
static void read_arguments(struct doctor *doctor, pid_t pid, struct postgresql *found)
{
	struct text text, argument;
	const char *end;
	char path[40];

	snprintf(path, sizeof(path), "proc/%d/cmdline", (int)pid);
	if (!doctor_read(doctor, path, &text))
		return;
	while (text.at < text.end) {
		end = memchr(text.at, '\0', text_length(text));
		argument = (struct text){ .at = text.at, .end = end ? end : text.end };
		text.at = end ? end + 1 : text.end;
		if (text_begins(argument, "-c"))
			argument.at += 2;
		if (text_begins(argument, "shared_buffers=")) {
			argument.at += strlen("shared_buffers=");
			proc_setting_size(argument, 8192, &found->shared_buffers);
		} else if (text_begins(argument, "effective_cache_size=")) {
			argument.at += strlen("effective_cache_size=");
			proc_setting_size(argument, 8192, &found->effective_cache_size);
		}
	}
}

static void report_postgresql(struct doctor *doctor, pid_t pid, const struct postgresql *found)
{
	uint64_t total = doctor->memory.total, tables = found->shared_buffers / 512;
	char size[UNIT_LENGTH], cache[UNIT_LENGTH], each[UNIT_LENGTH], all[UNIT_LENGTH];
	bool large = total != KEYED_ABSENT && found->shared_buffers > total / 2;
	bool boast = total != KEYED_ABSENT && found->effective_cache_size > total;
	struct finding *finding;

	finding = doctor_add(doctor, "postgresql",
			     large ? LEVEL_WARNING :
			     boast ? LEVEL_NOTE :
				     LEVEL_OK,
			     EVIDENCE_RULE);
	finding_value(finding, "%d: shared_buffers %s, effective_cache_size %s, %zu backends",
		      (int)pid, format_bytes(size, found->shared_buffers),
		      format_bytes(cache, found->effective_cache_size), found->backends);
	finding_meaning(
		finding,
		"shared_buffers is shared memory, never copied; a backend that has touched all of "
		"it has page tables of %s for it, %s for all (512 times less with huge_pages)%s",
		format_bytes(each, tables), format_bytes(all, tables * found->backends),
		boast ? ". effective_cache_size is more than the RAM" : "");
	if (large)
		finding_advice(
			finding,
			"more than half of RAM leaves little for the page cache and the backends' "
			"own memory: lower shared_buffers, or measure");
	else if (boast)
		finding_advice(
			finding,
			"set effective_cache_size to what the page cache holds; it only guides the "
			"planner");
	finding_reason(finding,
		       "8 bytes for each 4 KiB; the best share of RAM was not measured here");
}

static size_t count_children(struct doctor *doctor, pid_t parent, const pid_t *pids, size_t count)
{
	struct proc_stat stat;
	size_t children = 0, i;
	struct text text;
	char path[40];

	for (i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "proc/%d/stat", (int)pids[i]);
		if (proc_root_read(&doctor->root, path, &doctor->buffer, &text) == 0 &&
		    proc_stat_parse(text, &stat) == 0)
			children += stat.ppid == (uint64_t)parent;
	}
	return children;
}

static bool is_postmaster(struct doctor *doctor, pid_t pid)
{
	struct proc_stat stat, parent;
	struct text text;
	char path[40];

	snprintf(path, sizeof(path), "proc/%d/stat", (int)pid);
	if (proc_root_read(&doctor->root, path, &doctor->buffer, &text) < 0 ||
	    proc_stat_parse(text, &stat) < 0 ||
	    (strcmp(stat.command, "postgres") != 0 && strcmp(stat.command, "postmaster") != 0))
		return false;
	snprintf(path, sizeof(path), "proc/%llu/stat", (unsigned long long)stat.ppid);
	return proc_root_read(&doctor->root, path, &doctor->buffer, &text) < 0 ||
	       proc_stat_parse(text, &parent) < 0 || strcmp(parent.command, stat.command) != 0;
}

void doctor_look_at_postgresql(struct doctor *doctor)
{
	struct postgresql found;
	size_t count, i;
	pid_t *pids;

	if (proc_root_list(&doctor->root, &pids, &count) < 0)
		return;
	for (i = 0; i < count; i++) {
		if (!is_postmaster(doctor, pids[i]))
			continue;
		/* Its own defaults. */
		found = (struct postgresql){
			.shared_buffers = UINT64_C(128) << 20,
			.effective_cache_size = UINT64_C(4) << 30,
			.backends = count_children(doctor, pids[i], pids, count),
		};
		read_settings(doctor, pids[i], &found);
		read_arguments(doctor, pids[i], &found);
		report_postgresql(doctor, pids[i], &found);
	}
	free(pids);
}
