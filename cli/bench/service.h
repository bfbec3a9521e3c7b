/* SPDX-License-Identifier: MIT */
/*
 * Real servers, started by an experiment: as an ordinary user where the experiment is root, in a
 * directory of their own, reached through sockets there. What is left of them when the experiment
 * ends, however it does, is killed.
 */
#ifndef CLI_BENCH_SERVICE_H
#define CLI_BENCH_SERVICE_H

#include "cli/bench/bench.h"

struct service {
	pid_t pid;
	const char *name; /* "nginx" */
	const char *directory, *log;
};

/*
 * Makes a directory for the server and for the user (the first of user and nobody that there is; as
 * another user than root: oneself).
 */
bool service_prepare(struct bench *bench, const char *name, const char *user,
		     struct service *ret_service);
/* argv[0] is a path. A tool of the server's, as its user, to its end: exit status or -errno. */
int service_run(struct bench *bench, const struct service *service, const char *const argv[],
		char **ret_output);
/* Starts the server; its output goes to the log. */
bool service_start(struct bench *bench, struct service *service, const char *const argv[]);
/* Waits until a socket of the directory takes connections; -1 after bench_fail(). */
int service_connect(struct bench *bench, const struct service *service, const char *socket);
/* Asks it to end, waits, and kills it where it does not. */
void service_stop(struct service *service);

/* Those that a process has started and that are alive; returns how many, of at most max. */
size_t service_children(pid_t parent, pid_t *ret_pids, size_t max);

/* Writes a text to a file of the directory. */
bool service_write(struct bench *bench, const struct service *service, const char *file,
		   const char *text);

/* Sends a request and reads until the answer ends with `end`, or the peer closes: 0 or -errno. */
int service_ask(int fd, const char *request, const char *end, char *ret_answer, size_t room);

#endif
