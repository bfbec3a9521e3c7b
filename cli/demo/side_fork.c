/* SPDX-License-Identifier: MIT */
/*
 * The side of fork(): see sides.h.
 *
 * The database is one range of private anonymous memory, every page of it written by this process,
 * and its child writes that range to a file without another copy: fork() at its best. The memory
 * has room for what the load adds, so that SQLite never moves it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/demo/dataset.h"
#include "cli/demo/measure.h"
#include "cli/demo/sides.h"
#include "cli/demo/sql.h"
#include "cli/demo/worker.h"

enum { CHUNK = 256 * 1024 }; /* of a write, as cow_export() does it */

struct forks {
	struct demo *demo;
	struct load *load;
	sqlite3 *connection;
};

static int write_chunks(int fd, const unsigned char *memory, size_t size)
{
	ssize_t n;

	while (size) {
		n = write(fd, memory, size < CHUNK ? size : CHUNK);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		memory += n;
		size -= (size_t)n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/* In the child, which has this thread only: nothing but system calls, and the look at SQLite's
 * memory, which no thread was changing. */
static int write_copy(struct forks *forks, const char *path)
{
	sqlite3_int64 size = 0;
	const unsigned char *memory;
	int fd, error;

	memory = sqlite3_serialize(forks->connection, "main", &size, SQLITE_SERIALIZE_NOCOPY);
	if (!memory)
		return demo_fail(forks->demo, "the child found no database in its memory");
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	error = fd < 0 ? -errno : write_chunks(fd, memory, (size_t)size);
	if (fd >= 0)
		close(fd);
	if (error)
		return demo_fail(forks->demo, "cannot write %s: %s%s", path, strerror(-error),
				 error == -ENOSPC ? "; set TMPDIR, or --keep, to a place with more "
						    "room" :
						    "");
	return 0;
}

static pid_t take(struct forks *forks, struct cut *cut)
{
	pid_t parent = getpid(), pid;
	uint64_t begin;

	load_watch_begin(forks->load);
	load_close_gate(forks->load);
	cut->low = cut->high = atomic_load(&forks->load->committed);
	begin = now_ns();
	pid = fork();
	if (pid == 0) {
		worker_follow_parent(parent);
		_exit(write_copy(forks, cut->path) == 0 ? 0 : 1);
	}
	cut->stall_ns = now_ns() - begin;
	if (pid > 0)
		atomic_store(&forks->demo->shared->copier, pid);
	load_open_gate(forks->load);
	load_watch_end(forks->load);
	if (pid < 0)
		demo_fail(forks->demo, "fork(): %s", strerror(errno));
	return pid;
}

static int cut_fork(void *context, struct cut *cut)
{
	struct forks *forks = context;
	uint64_t begin;
	int status;
	pid_t pid;

	pid = take(forks, cut);
	if (pid < 0)
		return -1;
	begin = now_ns();
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return demo_fail(forks->demo, "waiting for the child: %s", strerror(errno));
	cut->export_ns = now_ns() - begin;
	atomic_store(&forks->demo->shared->copier, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return demo_fail(forks->demo, "the child of fork() failed");
	return 0;
}

static int read_file(struct demo *demo, const char *path, unsigned char *memory, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t done = 0;
	ssize_t n = 1;

	if (fd < 0)
		return demo_fail(demo, "cannot open %s: %s", path, strerror(errno));
	while (done < size && n > 0) {
		n = read(fd, memory + done, size - done);
		if (n > 0)
			done += (size_t)n;
	}
	close(fd);
	return done == size ? 0 : demo_fail(demo, "cannot read %s", path);
}

/* For what the load adds; SQLite's allocator gives 2 GiB at most. */
static uint64_t memory_room(uint64_t size)
{
	uint64_t room = size + size / 2 + (UINT64_C(256) << 20);

	return room < SIDE_FORK_MOST ? room : SIDE_FORK_MOST;
}

static int load_memory(struct demo *demo, sqlite3 *connection)
{
	uint64_t size = demo->shared->data.bytes, room = memory_room(size);
	sqlite3_int64 limit = INT64_MAX;
	char path[DEMO_PATH_LENGTH];
	unsigned char *memory;

	memory = sqlite3_malloc64(room);
	if (!memory)
		return demo_fail(demo, "out of memory");
	if (!demo_path(demo, DATASET_FILE, path) || read_file(demo, path, memory, size) < 0) {
		sqlite3_free(memory);
		return -1;
	}
	/* Takes the memory over, also on failure. */
	if (sqlite3_deserialize(
		    connection, "main", memory, (sqlite3_int64)size, (sqlite3_int64)room,
		    SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_RESIZEABLE) != SQLITE_OK)
		return sql_failed(demo, connection, "cannot load the database into memory");
	sqlite3_file_control(connection, "main", SQLITE_FCNTL_SIZE_LIMIT, &limit);
	return 0;
}

int side_fork(struct demo *demo)
{
	struct forks forks = { .demo = demo };
	struct load load = { 0 };
	int result = -1;

	if (sql_begin(demo, false) < 0 ||
	    sql_open(demo, ":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
		     &forks.connection) < 0)
		return -1;
	if (load_memory(demo, forks.connection) < 0 || load_init(&load, demo, forks.connection) < 0)
		goto out;
	forks.load = &load;
	result = window_run(demo, SIDE_FORK, &load, cut_fork, &forks);
out:
	load_done(&load);
	sqlite3_close(forks.connection);
	return result;
}
