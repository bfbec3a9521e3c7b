/* SPDX-License-Identifier: MIT */
#include "cli/ps/threads.h"

#include <pthread.h>
#include <sched.h>

#define MOST_THREADS 64

void run_on_threads(unsigned int count, void *(*part)(void *context), void *context)
{
	pthread_t threads[MOST_THREADS];
	unsigned int started = 0;

	while (started + 1 < count && started < MOST_THREADS &&
	       pthread_create(&threads[started], NULL, part, context) == 0)
		started++;
	part(context);
	while (started)
		pthread_join(threads[--started], NULL);
}

unsigned int threads_available(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned int)CPU_COUNT(&set) : 1;
}
