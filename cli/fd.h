/* SPDX-License-Identifier: MIT */
/* Descriptors: all of what is to be read or written, whatever the kernel does at once. */
#ifndef CLI_FD_H
#define CLI_FD_H

#include <stdbool.h>
#include <stddef.h>

/* As many at once as the system lets this process have, not only what a shell begins with. */
void fd_allow_many(void);

/* 0 or a negative errno; -EPIPE where the other end is there no more. */
int fd_write_all(int fd, const void *bytes, size_t length);
int fd_read_all(int fd, void *bytes, size_t length);

/* A text that grows as it comes in, with a zero behind it; zero-initialised, and freed by the
 * caller. */
struct fd_text {
	char *text; /* NULL: nothing has come */
	size_t length, room;
};
/* Takes what there is; false at the end. */
bool fd_take(int fd, struct fd_text *text);

#endif
