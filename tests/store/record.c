/* SPDX-License-Identifier: MIT */
#include "tests/store/record.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/io.h"

#define FILES_MAX 4096

static struct {
	pthread_mutex_t mutex;
	struct crash_log *log;
	int file[FILES_MAX]; /* by descriptor: the file's number plus one; 0: not known */
} recorder = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static unsigned file_of(int fd)
{
	assert(fd >= 0 && fd < FILES_MAX && recorder.file[fd]);
	return (unsigned)recorder.file[fd] - 1;
}

/* Opened with O_CREAT: a new file, unless the name was there. */
static void note_create(const struct io_record *record)
{
	int file = crash_find(recorder.log, record->name);

	assert(record->fd < FILES_MAX);
	if (file < 0)
		file = (int)crash_create(recorder.log, record->name);
	recorder.file[record->fd] = file + 1;
}

static void note_write(const struct io_record *record)
{
	unsigned char *data = malloc(record->length + 1);
	uint64_t done = 0;

	assert(data);
	for (int i = 0; i < record->count && done < record->length; i++) {
		uint64_t some = record->pieces[i].iov_len;

		if (some > record->length - done)
			some = record->length - done;
		memcpy(data + done, record->pieces[i].iov_base, some);
		done += some;
	}
	crash_write(recorder.log, file_of(record->fd), record->offset, data, done);
	free(data);
}

static void note_clone(const struct io_record *record)
{
	unsigned char *data = malloc(record->length + 1);
	ssize_t n;

	assert(data);
	n = pread(record->from, data, record->length, (off_t)record->from_offset);
	assert(n == (ssize_t)record->length);
	crash_write(recorder.log, file_of(record->fd), record->offset, data, record->length);
	free(data);
}

static void note_locked(const struct io_record *record)
{
	switch (record->kind) {
	case IO_CREATE:
		note_create(record);
		break;
	case IO_CLOSE:
		if (record->fd < FILES_MAX)
			recorder.file[record->fd] = 0;
		break;
	case IO_WRITE:
		note_write(record);
		break;
	case IO_TRUNCATE:
		crash_truncate(recorder.log, file_of(record->fd), record->length);
		break;
	case IO_SYNC_DATA:
		crash_sync(recorder.log, file_of(record->fd));
		break;
	case IO_SYNC_DIR:
		crash_sync_directory(recorder.log);
		break;
	case IO_RENAME:
		crash_rename(recorder.log, record->name, record->to);
		break;
	case IO_UNLINK:
		crash_unlink(recorder.log, record->name);
		break;
	case IO_CLONE:
		note_clone(record);
		break;
	}
}

static void note(const struct io_record *record, void *context)
{
	(void)context;
	pthread_mutex_lock(&recorder.mutex);
	note_locked(record);
	pthread_mutex_unlock(&recorder.mutex);
}

void record_start(struct crash_log *log)
{
	memset(recorder.file, 0, sizeof(recorder.file));
	recorder.log = log;
	io_recorder = note;
}

void record_stop(void)
{
	io_recorder = NULL;
}
