/* SPDX-License-Identifier: MIT */
/*
 * All processes of a selection, on several threads, since the time goes into the kernel's walks of
 * page tables. Processes are opened together as far as descriptors allow, then read by stripes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/fd.h"
#include "cli/ps/measure.h"
#include "cli/ps/threads.h"

/* What is read at a time of each process: the frames of so many pages fit the caches. */
#define STRIPE_PAGES (4 * LEAF_ENTRIES)

/* What is read in vain rather than by two calls, in pages. */
#define LARGEST_GAP 64

/* So many descriptors are left to the rest of the program. */
#define SPARE_DESCRIPTORS 64
#define MOST_OPEN         4096

static void *work(void *context)
{
	struct page_reader reader = { 0 };
	struct job *job = context;
	size_t number;

	for (;;) {
		number = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
		if (number >= job->end || __atomic_load_n(&job->error, __ATOMIC_RELAXED))
			break;
		job_inspect(job, &reader, number);
	}
	page_reader_free(&reader);
	return NULL;
}

/* --- reading page tables --- */

static void stop_reading(struct page_source *source, int error)
{
	int none = 0;

	__atomic_compare_exchange_n(&source->error, &none, error, false, __ATOMIC_RELAXED,
				    __ATOMIC_RELAXED);
}

/* The end of a row of areas side by side, as those of a library are: one read will do for them. */
static uint64_t end_of_neighbours(const struct job *job, size_t stripe,
				  const struct stripe_part *part)
{
	uint32_t source = part->source;
	uint64_t end = part->page;

	for (; part && part->source == source && part->page - end <= LARGEST_GAP;
	     part = stripes_next(job->stripes, stripe, part))
		end = part->page + part->count;
	return end;
}

static void read_stripe(struct job *job, struct page_reader *reader, size_t stripe)
{
	const struct stripe_part *part = NULL;
	struct page_source *source;
	int error;

	while ((part = stripes_next(job->stripes, stripe, part))) {
		source = &job->sources[part->source];
		if (__atomic_load_n(&source->error, __ATOMIC_RELAXED))
			continue;
		page_reader_expect(reader, part->page, end_of_neighbours(job, stripe, part));
		error = pages_read(job->world, reader, source, &source->ranges[part->range],
				   part->page, part->count);
		if (error)
			stop_reading(source, error);
	}
}

static int hand_over(struct pages *to, const struct pages *from)
{
	size_t i;
	int error = 0;

	for (i = 0; i < from->count && !error; i++)
		error = pages_append(to, &from->pieces[i]);
	return error;
}

static void *read_stripes(void *context)
{
	struct page_reader reader = { 0 };
	struct job *job = context;
	size_t stripe;
	int error;

	for (;;) {
		stripe = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
		if (stripe >= stripes_count(job->stripes) ||
		    __atomic_load_n(&job->error, __ATOMIC_RELAXED))
			break;
		read_stripe(job, &reader, stripe);
	}
	page_reader_finish(job->world, &reader);
	pthread_mutex_lock(&job->mutex);
	error = hand_over(&job->read, &reader.pages);
	pthread_mutex_unlock(&job->mutex);
	if (error)
		job_fail(job, error);
	page_reader_free(&reader);
	return NULL;
}

/* A sample's strata are not cut, where they are of addresses. */
static uint64_t stripe_pages(const struct page_world *world)
{
	uint64_t stratum = world->strata ? world->windows[AREA_ANON].stratum_pages : 1;

	return (STRIPE_PAGES + stratum - 1) / stratum * stratum;
}

/* What was read of each process, in the order in which it was. */
static int sort_pieces(struct job *job)
{
	const struct piece *piece;
	struct pages *pages;
	int error = 0;
	size_t i;

	for (i = 0; i < job->read.count; i++)
		job->pages[job->read.pieces[i].process].room++;
	for (i = job->first; i < job->end && !error; i++)
		error = pages_make_room(&job->pages[i]);
	if (error)
		return error;
	for (i = 0; i < job->read.count; i++) {
		piece = &job->read.pieces[i];
		pages = &job->pages[piece->process];
		pages->pieces[pages->count++] = *piece;
	}
	return 0;
}

/* All at once, by a process alone: another moment than that of the others, but whole. */
static int read_alone(struct job *job, struct page_reader *reader, size_t number)
{
	struct page_source *source = &job->sources[number - job->first];
	int error = 0;
	size_t i;

	for (i = 0; i < source->count && !error; i++)
		error = pages_read(job->world, reader, source, &source->ranges[i],
				   source->ranges[i].page, source->ranges[i].count);
	page_reader_finish(job->world, reader);
	if (!error)
		error = hand_over(&job->pages[number], &reader->pages);
	else
		pages_withdraw(job->world, &reader->pages);
	return error;
}

/* exec replaces the address space under the reader: once more, with the new one. */
static void retry(struct job *job, size_t number)
{
	struct page_source *source = &job->sources[number - job->first];
	struct page_reader reader = { 0 };

	pages_withdraw(job->world, &job->pages[number]);
	job->pages[number].count = 0;
	if (source->error == -ESRCH) {
		pages_close(source);
		source->error = 0;
		job_inspect(job, &reader, number);
		if (job->result->processes[number].state == PS_MEASURED)
			job_settle(job, number, read_alone(job, &reader, number));
	} else {
		job_settle(job, number, source->error);
	}
	page_reader_free(&reader);
}

static int read_batch(struct job *job)
{
	int error;
	size_t i;

	job->stripes = stripes_new(job->sources, job->end - job->first, stripe_pages(job->world),
				   page_world_shift(job->world));
	if (!job->stripes)
		return -ENOMEM;
	job->next = 0;
	run_on_threads(job->options->threads, read_stripes, job);
	stripes_free(job->stripes);
	error = job->error ? job->error : sort_pieces(job);
	pages_free(&job->read);
	for (i = job->first; i < job->end && !error; i++)
		if (job->sources[i - job->first].error)
			retry(job, i);
	return error ? error : job->error;
}

/* --- batches --- */

static size_t most_open(void)
{
	struct rlimit limit;

	fd_allow_many(); /* nothing that is run from here inherits it */
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur <= SPARE_DESCRIPTORS)
		return 1;
	return limit.rlim_cur - SPARE_DESCRIPTORS < MOST_OPEN ?
		       (size_t)(limit.rlim_cur - SPARE_DESCRIPTORS) :
		       MOST_OPEN;
}

/*
 * A table of descriptors that grows while there are threads waits for each CPU (synchronize_rcu),
 * some milliseconds at a time: grow it before.
 */
static void make_room_for_descriptors(size_t count)
{
	int low = open("/", O_PATH | O_CLOEXEC), high;

	if (low < 0)
		return;
	high = fcntl(low, F_DUPFD_CLOEXEC, (int)count + SPARE_DESCRIPTORS - 1);
	if (high >= 0)
		close(high);
	close(low);
}

static int measure_batch(struct job *job)
{
	size_t count = job->end - job->first, i;
	int error;

	for (i = 0; i < count; i++)
		job->sources[i] = (struct page_source){ .pagemap = -1 };
	job->next = job->first;
	run_on_threads(job->options->threads, work, job);
	error = job->error;
	if (!error && job->world)
		error = job_plan_sample(job);
	if (!error && job->world)
		error = read_batch(job);
	for (i = 0; i < count; i++)
		pages_close(&job->sources[i]);
	return error;
}

int job_measure_all(struct job *job)
{
	size_t most = job->world ? most_open() : job->result->count;
	int error = 0;

	if (most > job->result->count)
		most = job->result->count;
	job->sources = calloc(most + 1, sizeof(*job->sources));
	if (!job->sources)
		return -ENOMEM;
	pthread_mutex_init(&job->mutex, NULL);
	if (job->world)
		make_room_for_descriptors(most);
	for (job->first = 0; job->first < job->result->count && !error; job->first = job->end) {
		job->end = job->first + most;
		if (job->end > job->result->count)
			job->end = job->result->count;
		error = measure_batch(job);
	}
	pthread_mutex_destroy(&job->mutex);
	free(job->sources);
	return error;
}
