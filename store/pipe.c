/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "core/copy.h"
#include "lib/helper.h"
#include "store/layer.h"
#include "store/pipe.h"

#define BATCHES     3u
#define THREAD_FROM (3 * WRITER_BATCH) /* clusters: below it a thread costs more than it saves */
/* With fewer, reading and writing at once would take the CPU from the program's own writers: their
 * slowest writes take three times as long then, and the save a quarter less. */
#define CPUS_FOR_THREAD 3u

struct batch {
	unsigned count; /* clusters */
	uint64_t guest[WRITER_BATCH];
	const void *bytes[WRITER_BATCH]; /* NULL: zero */
	uint64_t states[WRITER_BATCH];   /* of borrowed pages, 0: a copy */
	uint32_t crcs[WRITER_BATCH];
	unsigned char *copies; /* a cluster for each */
	bool full;             /* the writer's; else the reader's. Guarded by the pipe's mutex */
};

struct pipe {
	struct pipe_config config;
	struct chain *parent; /* opened when it is needed */
	struct cow_snapshot *snapshot;
	bool consume;
	unsigned char *mending; /* a page, of whoever writes */
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

/* --- writing --- */

static int read_page(struct pipe *pipe, uint64_t page, void *buffer)
{
	struct snap *snap = &pipe->snapshot->snap;

	if (pipe->consume)
		return consume_read(snap, page, buffer);
	return snap_read(snap, page, 0, buffer, space_page_size(pipe->space));
}

/* The clusters of a page that was written by somebody while its bytes went to the file. */
static int mend_page(struct pipe *pipe, const struct batch *batch, unsigned at, uint64_t first)
{
	int r = read_page(pipe, batch->guest[at] / pipe->per_page, pipe->mending);

	for (unsigned i = 0; r == 0 && i < pipe->per_page; i++)
		if (batch->bytes[at + i])
			r = writer_mend(pipe->writer, first++, pipe->mending + i * CLUSTER);
	return r;
}

/* Zeroes are not borrowed: they were looked at again at once. */
static int mend_batch(struct pipe *pipe, const struct batch *batch, uint64_t first)
{
	int r = 0;

	for (unsigned at = 0; r == 0 && at < batch->count; at += pipe->per_page) {
		uint64_t page = batch->guest[at] / pipe->per_page;

		if (batch->states[at] &&
		    !snap_is_intact(&pipe->snapshot->snap, page, batch->states[at]))
			r = mend_page(pipe, batch, at, first);
		for (unsigned i = 0; i < pipe->per_page; i++)
			first += batch->bytes[at + i] != NULL;
	}
	return r;
}

static int write_batch(struct pipe *pipe, struct batch *batch)
{
	uint64_t first;
	int r;

	if (batch->count == 0)
		return 0;
	r = writer_write(pipe->writer, batch->guest, batch->bytes, batch->crcs, batch->count,
			 &first);
	if (r == 0)
		r = mend_batch(pipe, batch, first);
	if (r == 0 && pipe->consume)
		consume_advance(pipe->space, &pipe->snapshot->snap,
				batch->guest[batch->count - 1] / pipe->per_page + 1);
	return r;
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

	/* Writers keep copies meanwhile. Without a frame that is there already it is they who have
	 * it faulted in, and the others wait for them. */
	bring_frames(pipe->snapshot->region);
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

/* true: some of it is zero. */
static bool add_page(struct pipe *pipe, uint64_t page, const unsigned char *bytes, uint64_t state)
{
	struct batch *batch = &pipe->batches[pipe->reading];
	bool zeroes = false;

	for (unsigned i = 0; i < pipe->per_page; i++, bytes += CLUSTER) {
		unsigned at = batch->count + i;
		bool zero = page_is_zero(bytes, CLUSTER);

		batch->guest[at] = page * pipe->per_page + i;
		batch->bytes[at] = zero ? NULL : bytes;
		batch->states[at] = state;
		batch->crcs[at] = zero ? 0 : crc32c(bytes, CLUSTER);
		zeroes |= zero;
	}
	return zeroes;
}

/* What is zero gets no place in the file, so that has to be sure at once: a page with zeroes in it
 * is borrowed only if nobody has written it meanwhile; else it is copied. */
static bool add_borrowed(struct pipe *pipe, uint64_t page)
{
	struct snap *snap = &pipe->snapshot->snap;
	uint64_t state;
	const void *bytes = snap_borrow(snap, page, &state);

	return bytes && (!add_page(pipe, page, bytes, state) || snap_is_intact(snap, page, state));
}

/* The page that was added last, by the checksums: as it was when it was saved before? */
static bool looks_known(struct pipe *pipe)
{
	const struct batch *batch = &pipe->batches[pipe->reading];
	bool same = true;

	if (!pipe->config.known)
		return false;
	for (unsigned i = batch->count; i < batch->count + pipe->per_page; i++)
		same &= known_swap(pipe->config.known, batch->guest[i],
				   batch->bytes[i] ? batch->crcs[i] : crc32c_of_zero_cluster());
	return same && pipe->config.parent;
}

static bool reads_as_parent(struct pipe *pipe, unsigned at)
{
	const struct batch *batch = &pipe->batches[pipe->reading];
	unsigned char cluster[CLUSTER];

	if (chain_read(pipe->parent, batch->guest[at] * CLUSTER, cluster, CLUSTER, CHECKED) < 0)
		return false;
	return batch->bytes[at] ? memcmp(cluster, batch->bytes[at], CLUSTER) == 0 :
				  page_is_zero(cluster, CLUSTER);
}

/* In full, and from what the snapshot has: then it need not be written. */
static bool is_unchanged(struct pipe *pipe, uint64_t page)
{
	const struct batch *batch = &pipe->batches[pipe->reading];
	unsigned at = batch->count;

	if (!looks_known(pipe))
		return false;
	if (!pipe->parent && chain_open(pipe->config.store, pipe->config.parent, &pipe->parent) < 0)
		return false;
	for (unsigned i = 0; i < pipe->per_page; i++)
		if (!reads_as_parent(pipe, at + i))
			return false;
	return batch->states[at] == 0 ||
	       snap_is_intact(&pipe->snapshot->snap, page, batch->states[at]);
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
	if (r < 0)
		return r;
	if (!add_borrowed(pipe, page)) {
		r = read_page(pipe, page, copy);
		if (r < 0)
			return r;
		add_page(pipe, page, copy, 0);
	}
	if (!is_unchanged(pipe, page))
		batch->count += pipe->per_page;
	return 0;
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
	chain_close(pipe->parent);
	sys_free(pipe->mending);
	pthread_mutex_destroy(&pipe->mutex);
	pthread_cond_destroy(&pipe->changed);
	sys_free(pipe);
}

int pipe_new(const struct pipe_config *config, struct pipe **ret_pipe)
{
	struct pipe *pipe = sys_alloc(sizeof(*pipe));
	uint64_t pages = config->pages;
	int r = 0;

	if (!pipe)
		return -ENOMEM;
	pipe->config = *config;
	pipe->snapshot = config->snapshot;
	pipe->writer = config->writer;
	pipe->consume = config->consume;
	pipe->space = &config->snapshot->region->space;
	pipe->per_page = (unsigned)(space_page_size(pipe->space) / CLUSTER);
	pthread_mutex_init(&pipe->mutex, NULL);
	pthread_cond_init(&pipe->changed, NULL);
	for (unsigned i = 0; r == 0 && i < BATCHES; i++) {
		pipe->batches[i].copies = sys_alloc_array(WRITER_BATCH, CLUSTER);
		if (!pipe->batches[i].copies)
			r = -ENOMEM;
	}
	pipe->mending = sys_alloc_page(sys_page_size());
	if (!pipe->mending)
		r = -ENOMEM;
	if (r == 0 && pages * pipe->per_page >= THREAD_FROM && sys_cpus() >= CPUS_FOR_THREAD)
		pipe->threaded = sys_thread_start(&pipe->thread, write_batches, pipe) == 0;
	if (r < 0) {
		pipe_free(pipe);
		return r;
	}
	*ret_pipe = pipe;
	return 0;
}
