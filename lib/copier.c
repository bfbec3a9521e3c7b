/* SPDX-License-Identifier: MIT */
#include "lib/copier.h"

#include "lib/process.h"

/* Guards what follows, and every region's copier_next and copier_due. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t due = PTHREAD_COND_INITIALIZER, let_go = PTHREAD_COND_INITIALIZER;
static struct cow_region *regions;
static struct cow_region *busy; /* the copier is at it */
static uint64_t running_in;     /* whose thread it is: a child of fork() has none */

static struct cow_region *next_due(void)
{
	for (struct cow_region *region = regions; region; region = region->copier_next)
		if (region->copier_due)
			return region;
	return NULL;
}

/* Locked. To the end of the list, so that each has its turn. */
static void move_to_end(struct cow_region *region)
{
	struct cow_region **link = &regions;

	while (*link && *link != region)
		link = &(*link)->copier_next;
	if (!*link)
		return;
	*link = region->copier_next;
	while (*link)
		link = &(*link)->copier_next;
	*link = region;
	region->copier_next = NULL;
}

static void *run(void *context)
{
	(void)context;
	pthread_mutex_lock(&mutex);
	for (;;) {
		int r;

		busy = next_due();
		if (!busy) {
			pthread_cond_wait(&due, &mutex);
			continue;
		}
		move_to_end(busy);
		busy->copier_due = false; /* a cut meanwhile sets it again */
		pthread_mutex_unlock(&mutex);
		r = ahead_step(busy->trap);
		pthread_mutex_lock(&mutex);
		if (r > 0)
			busy->copier_due = true;
		busy = NULL;
		pthread_cond_broadcast(&let_go);
	}
	return NULL;
}

/* Locked. In a child the lists are the parent's. */
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

int copier_add(struct cow_region *region)
{
	int r;

	pthread_mutex_lock(&mutex);
	r = start(region->process);
	if (r == 0) {
		region->copier_next = regions;
		regions = region;
	}
	pthread_mutex_unlock(&mutex);
	return r;
}

void copier_remove(struct cow_region *region)
{
	struct cow_region **link = &regions;

	pthread_mutex_lock(&mutex);
	while (busy == region)
		pthread_cond_wait(&let_go, &mutex);
	while (*link && *link != region)
		link = &(*link)->copier_next;
	if (*link)
		*link = region->copier_next;
	pthread_mutex_unlock(&mutex);
}

void copier_drain(struct cow_region *region)
{
	pthread_mutex_lock(&mutex);
	while (busy == region || region->copier_due)
		pthread_cond_wait(&let_go, &mutex);
	pthread_mutex_unlock(&mutex);
}

void copier_wake(struct cow_region *region)
{
	pthread_mutex_lock(&mutex);
	region->copier_due = true;
	pthread_cond_signal(&due);
	pthread_mutex_unlock(&mutex);
}
