/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "store/pipe.h"

#define BATCHES     3u
#define THREAD_FROM (3 * WRITER_BATCH) /* clusters: below it a thread costs more than it saves */

struct batch {
	unsigned count; /* clusters */
	uint64_t guest[WRITER_BATCH];
	const void *bytes[WRITER_BATCH]; /* NULL: zero */
	uint32_t crcs[WRITER_BATCH];
	unsigned char *copies; /* a cluster for each */
	bool full;             /* the writer's; else the reader's. Guarded by the pipe's mutex */
};

struct pipe {
	struct cow_snapshot *snapshot;
	struct writer *writer;
	struct space *space;
	unsigned per_page; /* clusters */
	bool threaded;
	pthread_t thread;
	struct batch batches[BATCHES];
	unsigned reading, writing; /* which is whose next */
	pthread_mutex_t mutex;     /* guards full, error and end */
	pthread_cond_t changed;
	int error;
	bool end;
};

static bool is_zero(const unsigned char *cluster)
{
	uint64_t first;

	memcpy(&first, cluster, sizeof(first));
	return first == 0 && memcmp(cluster, cluster + 8, CLUSTER - 8) == 0;
}

/* --- writing --- */

static int write_batch(struct pipe *pipe, struct batch *batch)
{
	uint64_t first;

	return batch->count == 0 ? 0 :
				   writer_write(pipe->writer, batch->guest, batch->bytes,
						batch->crcs, batch->count, &first);
}

static struct batch *wait_for_full(struct pipe *pipe)
{
	struct batch *batch = &pipe->batches[pipe->writing];

	while (!batch->full && !pipe->end)
		pthread_cond_wait(&pipe->changed, &pipe->mutex);
	return batch->full ? batch : NULL;
}

static void *write_batches(void *context)
{
	struct pipe *pipe = context;
	struct batch *batch;

	pthread_mutex_lock(&pipe->mutex);
	while ((batch = wait_for_full(pipe))) {
		int r = pipe->error;

		pthread_mutex_unlock(&pipe->mutex);
		if (r == 0)
			r = write_batch(pipe, batch);
		batch->count = 0;
		pthread_mutex_lock(&pipe->mutex);
		pipe->error = r;
		batch->full = false;
		pipe->writing = (pipe->writing + 1) % BATCHES;
		pthread_cond_broadcast(&pipe->changed);
	}
	pthread_mutex_unlock(&pipe->mutex);
	return NULL;
}

/* --- reading --- */

/* Hands the batch over; the next one is free when it returns. */
static int hand_over(struct pipe *pipe)
{
	struct batch *batch = &pipe->batches[pipe->reading];
	int r;

	if (!pipe->threaded) {
		r = write_batch(pipe, batch);
		batch->count = 0;
		return r;
	}
	pthread_mutex_lock(&pipe->mutex);
	batch->full = true;
	pipe->reading = (pipe->reading + 1) % BATCHES;
	pthread_cond_broadcast(&pipe->changed);
	while (pipe->batches[pipe->reading].full)
		pthread_cond_wait(&pipe->changed, &pipe->mutex);
	r = pipe->error;
	pthread_mutex_unlock(&pipe->mutex);
	return r;
}

static void add(struct pipe *pipe, uint64_t guest, const unsigned char *bytes)
{
	struct batch *batch = &pipe->batches[pipe->reading];
	unsigned at = batch->count++;

	batch->guest[at] = guest;
	batch->bytes[at] = is_zero(bytes) ? NULL : bytes;
	if (batch->bytes[at])
		batch->crcs[at] = crc32c(bytes, CLUSTER);
}

int pipe_put(struct pipe *pipe, uint64_t page)
{
	struct batch *batch = &pipe->batches[pipe->reading];
	unsigned char *copy;
	int r = 0;

	if (batch->count + pipe->per_page > WRITER_BATCH) {
		r = hand_over(pipe);
		batch = &pipe->batches[pipe->reading];
	}
	copy = batch->copies + (size_t)batch->count * CLUSTER;
	if (r == 0)
		r = snap_read(&pipe->snapshot->snap, page, 0, copy, space_page_size(pipe->space));
	for (unsigned i = 0; r == 0 && i < pipe->per_page; i++)
		add(pipe, page * pipe->per_page + i, copy + i * CLUSTER);
	return r;
}

int pipe_drain(struct pipe *pipe)
{
	int r = hand_over(pipe);

	if (!pipe->threaded)
		return r;
	pthread_mutex_lock(&pipe->mutex);
	for (unsigned i = 0; i < BATCHES; i++)
		while (pipe->batches[i].full)
			pthread_cond_wait(&pipe->changed, &pipe->mutex);
	r = pipe->error;
	pthread_mutex_unlock(&pipe->mutex);
	return r;
}

void pipe_free(struct pipe *pipe)
{
	if (!pipe)
		return;
	if (pipe->threaded) {
		pthread_mutex_lock(&pipe->mutex);
		pipe->end = true;
		pthread_cond_broadcast(&pipe->changed);
		pthread_mutex_unlock(&pipe->mutex);
		pthread_join(pipe->thread, NULL);
	}
	for (unsigned i = 0; i < BATCHES; i++)
		sys_free(pipe->batches[i].copies);
	pthread_mutex_destroy(&pipe->mutex);
	pthread_cond_destroy(&pipe->changed);
	sys_free(pipe);
}

int pipe_new(struct cow_snapshot *snapshot, struct writer *writer, uint64_t pages,
	     struct pipe **ret_pipe)
{
	struct pipe *pipe = sys_alloc(sizeof(*pipe));
	int r = 0;

	if (!pipe)
		return -ENOMEM;
	pipe->snapshot = snapshot;
	pipe->writer = writer;
	pipe->space = &snapshot->region->space;
	pipe->per_page = (unsigned)(space_page_size(pipe->space) / CLUSTER);
	pthread_mutex_init(&pipe->mutex, NULL);
	pthread_cond_init(&pipe->changed, NULL);
	for (unsigned i = 0; r == 0 && i < BATCHES; i++) {
		pipe->batches[i].copies = sys_alloc_array(WRITER_BATCH, CLUSTER);
		if (!pipe->batches[i].copies)
			r = -ENOMEM;
	}
	if (r == 0 && pages * pipe->per_page >= THREAD_FROM)
		pipe->threaded = sys_thread_start(&pipe->thread, write_batches, pipe) == 0;
	if (r < 0) {
		pipe_free(pipe);
		return r;
	}
	*ret_pipe = pipe;
	return 0;
}
