/* SPDX-License-Identifier: MIT */
/*
 * The parsers of /proc, each over the same bytes: none reads past them, a refusal leaves the result
 * alone, and what is accepted keeps its promises (an area has a start before its end, a printed
 * name has nothing in it that a terminal would obey).
 */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proc/areas.h"
#include "proc/name.h"
#include "proc/overlay.h"
#include "proc/process.h"
#include "proc/system.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_error(int error)
{
	assert(error == -EINVAL || error == -ERANGE || error == -ENODATA);
}

static void try_process(struct text text)
{
	struct proc_stat stat;
	struct proc_statm statm;
	struct proc_status status;
	struct proc_smaps smaps;
	int error;

	memset(&stat, 0x5a, sizeof(stat));
	error = proc_stat_parse(text, &stat);
	if (error) {
		check_error(error);
		assert(stat.pid == UINT64_C(0x5a5a5a5a5a5a5a5a));
	} else {
		assert(memchr(stat.command, '\0', sizeof(stat.command)));
	}
	error = proc_statm_parse(text, &statm);
	if (error)
		check_error(error);
	error = proc_status_parse(text, &status);
	if (error)
		check_error(error);
	error = proc_smaps_parse(text, &smaps);
	if (error)
		check_error(error);
}

static void try_areas(struct text text)
{
	struct text smaps = text, details;
	struct proc_area area;

	while (proc_area_next(&text, &area) > 0) {
		assert(area.start < area.end && (area.start | area.end) % 4096 == 0);
		assert(area.name.at <= area.name.end);
	}
	while (proc_smaps_area_next(&smaps, &area, &details) > 0)
		assert(area.start < area.end && details.at <= details.end);
}

static void try_zones(struct text text)
{
	uint64_t end = 0;

	if (proc_zoneinfo_end(text, &end) == 0)
		assert(end > 0 && end <= PAGEMAP_FRAME);
}

static void try_system(struct text text)
{
	struct proc_meminfo meminfo;
	struct proc_mount mount;
	struct text part;
	uint64_t bytes;
	int error = proc_meminfo_parse(text, &meminfo);

	if (error)
		check_error(error);
	if (proc_choice_parse(text, &part) == 0)
		assert(part.at < part.end && part.end <= text.end);
	if (proc_cgroup_find(text, "memory", &part) == 0)
		assert(*part.at == '/');
	if (proc_setting_find(text, "shared_buffers", &part) == 0)
		proc_setting_size(part, 8192, &bytes);
	while (proc_mount_next(&text, &mount) > 0)
		assert(mount.point.at < mount.point.end);
}

static void try_overlay(struct text text)
{
	char path[PROC_OVERLAY_PATH];
	enum proc_overlay_kind kind;
	struct proc_overlay overlay;
	int result;

	proc_overlay_begin(text, &overlay);
	while ((result = proc_overlay_next(&overlay, &kind, path)) > 0)
		assert(*path && strlen(path) < sizeof(path));
	assert(result == 0 || result == -EINVAL || result == -ENAMETOOLONG);
	result = proc_mount_path(text, path, sizeof(path));
	assert(result == 0 || result == -EINVAL || result == -ENAMETOOLONG);
}

static void try_name(const uint8_t *data, size_t size)
{
	char *name = malloc(size + 1), *escaped = malloc(PROC_NAME_ROOM(size));
	const char *at;

	assert(name && escaped);
	if (size)
		memcpy(name, data, size);
	name[size] = '\0';
	proc_name_escape(name, escaped, PROC_NAME_ROOM(size));
	for (at = escaped; *at; at++)
		assert((unsigned char)*at >= ' ' && *at != 0x7f);
	free(name);
	free(escaped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct text text = text_of((const char *)data, size);

	try_process(text);
	try_areas(text);
	try_zones(text);
	try_system(text);
	try_overlay(text);
	try_name(data, size);
	return 0;
}
