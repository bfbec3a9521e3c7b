/* SPDX-License-Identifier: MIT */
#include "lib/helper.h"

#include "lib/process.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards what follows, and the list */
static pthread_cond_t let_go = PTHREAD_COND_INITIALIZER;
static struct cow_region *regions; /* linked by helper_next */
static struct cow_region *busy;    /* the helper is at it */
static uint64_t running_in;        /* whose thread it is: a child of fork() has none */

static _Atomic uint32_t wakes; /* what the helper sleeps on: changes with every helper_wake() */

static struct cow_region **find(const struct cow_region *region)
{
	struct cow_region **link = &regions;

	while (*link && *link != region)
		link = &(*link)->helper_next;
	return link;
}

/* To the end of the list, so that each has its turn. */
static void move_to_end(struct cow_region *region)
{
	struct cow_region **link = find(region);

	*link = region->helper_next;
	region->helper_next = NULL;
	*find(NULL) = region;
}

static struct cow_region *next_due(void)
{
	struct cow_region *region = regions;

	while (region && atomic_load(&region->helper_tasks) == 0)
		region = region->helper_next;
	return region;
}

void bring_frames(struct cow_region *region)
{
	struct space *space = &region->space;
	struct chunk *chunk;
	bool taken;

	if (!atomic_load_explicit(&space->pool.wants_spare, memory_order_relaxed) ||
	    !atomic_exchange(&space->pool.wants_spare, false))
		return;
	chunk = pool_make_spare(&space->pool);
	if (!chunk)
		return;
	lock_take(&space->lock);
	taken = pool_give_spare(&space->pool, chunk);
	lock_drop(&space->lock);
	if (!taken)
		pool_discard_spare(&space->pool, chunk);
}

/* Frames first: a writer may be about to need them. */
static void help(struct cow_region *region)
{
	uint32_t tasks = atomic_exchange(&region->helper_tasks, 0);

	if (tasks & HELP_FRAMES)
		bring_frames(region);
	if ((tasks & HELP_COPIES) && ahead_step(region->trap) > 0)
		atomic_fetch_or(&region->helper_tasks, HELP_COPIES);
}

static void *run(void *context)
{
	(void)context;
	pthread_mutex_lock(&mutex);
	for (;;) {
		uint32_t seen = atomic_load(&wakes);

		busy = next_due();
		if (busy)
			move_to_end(busy);
		pthread_mutex_unlock(&mutex);
		if (busy)
			help(busy);
		else
			host_wait(&wakes, seen, 0);
		pthread_mutex_lock(&mutex);
		busy = NULL;
		pthread_cond_broadcast(&let_go);
	}
	return NULL;
}

/* Locked. In a child the list is the parent's. */
static int start(uint64_t process)
{
	pthread_t thread;
	int r;

	if (running_in == process)
		return 0;
	regions = busy = NULL;
	r = sys_thread_start(&thread, run, NULL);
	if (r == 0) {
		pthread_detach(thread);
		running_in = process;
	}
	return r;
}

int helper_add(struct cow_region *region)
{
	int r;

	if (region->helped)
		return 0;
	pthread_mutex_lock(&mutex);
	r = start(region->process);
	if (r == 0) {
		*find(NULL) = region;
		region->helped = true;
	}
	pthread_mutex_unlock(&mutex);
	return r;
}

void helper_remove(struct cow_region *region)
{
	struct cow_region **link;

	pthread_mutex_lock(&mutex);
	while (busy == region)
		pthread_cond_wait(&let_go, &mutex);
	link = find(region);
	if (*link)
		*link = region->helper_next;
	pthread_mutex_unlock(&mutex);
}

void helper_drain(struct cow_region *region)
{
	pthread_mutex_lock(&mutex);
	while (busy == region || (*find(region) && atomic_load(&region->helper_tasks) != 0))
		pthread_cond_wait(&let_go, &mutex);
	pthread_mutex_unlock(&mutex);
}

/* The task first, then the count, then the look: whoever goes to sleep in between sees one of
 * them. */
void helper_wake(struct cow_region *region, uint32_t tasks)
{
	if ((atomic_fetch_or(&region->helper_tasks, tasks) & tasks) == tasks)
		return; /* told already */
	atomic_fetch_add(&wakes, 1);
	host_wake(&wakes);
}

/* The list begins anew with the child's own thread. */
void helper_after_fork(void)
{
	pthread_mutex_init(&mutex, NULL);
	pthread_cond_init(&let_go, NULL);
}
