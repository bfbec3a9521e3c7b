/* SPDX-License-Identifier: MIT */
#include "cli/fd.h"

#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/output.h"

void fd_allow_many(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int fd_write_all(int fd, const void *bytes, size_t length)
{
	const char *at = bytes;
	ssize_t n;

	while (length) {
		n = write(fd, at, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		length -= (size_t)n;
	}
	return 0;
}

int fd_read_all(int fd, void *bytes, size_t length)
{
	char *at = bytes;
	ssize_t n;

	while (length) {
		n = read(fd, at, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		at += n;
		length -= (size_t)n;
	}
	return 0;
}

bool fd_take(int fd, struct fd_text *text)
{
	ssize_t n;

	if (text->room - text->length < 4096) {
		text->room = text->room ? 2 * text->room : 16384;
		text->text = output_realloc(text->text, text->room);
	}
	n = read(fd, text->text + text->length, text->room - text->length - 1);
	if (n > 0)
		text->length += (size_t)n;
	text->text[text->length] = '\0';
	return n > 0 || (n < 0 && errno == EINTR);
}
