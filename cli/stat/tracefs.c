/* SPDX-License-Identifier: MIT */
#include "cli/stat/tracefs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define DIRECTORY (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

/* Linux 5.2; fails with EPERM without CAP_SYS_ADMIN. */
static int mount_privately(void)
{
	int context, mounted, events, error = 0;

	context = fsopen("tracefs", FSOPEN_CLOEXEC);
	if (context < 0)
		return -errno;
	mounted = -1;
	if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		mounted = fsmount(context, FSMOUNT_CLOEXEC, 0);
	if (mounted < 0)
		error = -errno;
	close(context);
	if (error)
		return error;
	events = openat(mounted, "events", DIRECTORY);
	if (events < 0)
		events = -errno;
	close(mounted);
	return events;
}

int tracefs_open(void)
{
	static const char *const places[] = { "/sys/kernel/tracing/events",
					      "/sys/kernel/debug/tracing/events" };
	size_t i;
	int fd;

	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		fd = open(places[i], DIRECTORY);
		if (fd >= 0 || errno == EACCES)
			return fd >= 0 ? fd : -errno;
	}
	return mount_privately();
}

static int read_file(int events, const char *tracepoint, const char *name, char *text, size_t size)
{
	char path[128];
	ssize_t length;
	int fd, error = 0;

	snprintf(path, sizeof(path), "%s/%s", tracepoint, name);
	fd = openat(events, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	length = read(fd, text, size - 1);
	if (length < 0)
		error = -errno;
	else
		text[length] = '\0';
	close(fd);
	return error;
}

int tracefs_id(int events, const char *tracepoint)
{
	char text[32], *end;
	long id;
	int error;

	error = read_file(events, tracepoint, "id", text, sizeof(text));
	if (error)
		return error;
	id = strtol(text, &end, 10);
	return end != text && id > 0 && id <= UINT16_MAX ? (int)id : -EPROTO;
}

int tracefs_offset(int events, const char *tracepoint, const char *field)
{
	char text[4096], wanted[64];
	const char *at;
	int error, offset;

	error = read_file(events, tracepoint, "format", text, sizeof(text));
	if (error)
		return error;
	snprintf(wanted, sizeof(wanted), " %s;", field);
	at = strstr(text, wanted);
	if (at)
		at = strstr(at, "offset:");
	if (!at)
		return -ENOENT;
	offset = (int)strtol(at + strlen("offset:"), NULL, 10);
	return offset > 0 && offset < 4096 ? offset : -EPROTO;
}
