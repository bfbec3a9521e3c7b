/* SPDX-License-Identifier: MIT */
#include "mmu/workers.h"

#include <errno.h>
#include <pthread.h>

#include "sys/sys.h"

#define WORKERS  4u
#define ASIDE    64u /* most faults that one thread has put aside */
#define ASIDE_MS 1

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static pthread_cond_t let_go = PTHREAD_COND_INITIALIZER;
static struct worker_client *clients;
static uint64_t last_id;
static int epoll = -1;
static unsigned started;
static int64_t process; /* whose threads they are */

/* --- clients: an event may be on its way for one that is gone, so it carries a number --- */

static struct worker_client **find(uint64_t id)
{
	struct worker_client **link = &clients;

	while (*link && (*link)->id != id)
		link = &(*link)->next;
	return link;
}

static struct worker_client *client_get(uint64_t id)
{
	struct worker_client *client;

	pthread_mutex_lock(&mutex);
	client = *find(id);
	if (client)
		client->users++;
	pthread_mutex_unlock(&mutex);
	return client;
}

static void client_put(struct worker_client *client)
{
	pthread_mutex_lock(&mutex);
	if (--client->users == 0)
		pthread_cond_broadcast(&let_go);
	pthread_mutex_unlock(&mutex);
}

static void client_ref(struct worker_client *client)
{
	pthread_mutex_lock(&mutex);
	client->users++;
	pthread_mutex_unlock(&mutex);
}

/* --- a thread --- */

struct fault {
	struct worker_client *client; /* a use of it */
	uintptr_t address;
	uint64_t deadline_ns;
};

struct worker {
	struct fault aside[ASIDE];
	unsigned count;
};

static void try_aside(struct worker *worker)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < worker->count; i++) {
		struct fault fault = worker->aside[i];

		if (fault.client->serve(fault.client, fault.address, &fault.deadline_ns) == -EBUSY)
			worker->aside[kept++] = fault;
		else
			client_put(fault.client);
	}
	worker->count = kept;
}

/* With no room to put anything aside the other threads have to do. */
static void serve_client(struct worker *worker, struct worker_client *client)
{
	struct fault fault = { .client = client };
	uint64_t address;

	while (worker->count < ASIDE && sys_uffd_read(client->uffd, &address) == 1) {
		fault.address = (uintptr_t)address;
		fault.deadline_ns = 0;
		if (client->serve(client, fault.address, &fault.deadline_ns) != -EBUSY)
			continue;
		client_ref(client);
		worker->aside[worker->count++] = fault;
	}
}

static void *work(void *context)
{
	struct worker worker = { .count = 0 };
	int events = (int)(intptr_t)context;

	for (;;) {
		struct worker_client *client;
		uint64_t id;
		int r = sys_epoll_wait(events, worker.count > 0 ? ASIDE_MS : -1, &id);

		if (r < 0)
			return NULL;
		try_aside(&worker);
		client = r > 0 ? client_get(id) : NULL;
		if (!client)
			continue;
		serve_client(&worker, client);
		client_put(client);
	}
}

/* --- the threads --- */

/* Locked. What a child of fork() has of its parent's is of no use. */
static void forget_parent(void)
{
	if (process == sys_process_id())
		return;
	sys_close(epoll);
	epoll = -1;
	started = 0;
	clients = NULL;
	process = sys_process_id();
}

/* Locked. One thread is enough to go on with. */
static int start(void)
{
	int r = 0;

	forget_parent();
	if (epoll < 0)
		r = epoll = sys_epoll_new();
	while (r >= 0 && started < WORKERS) {
		pthread_t thread;

		r = sys_thread_start(&thread, work, (void *)(intptr_t)epoll);
		if (r < 0)
			break;
		pthread_detach(thread);
		started++;
	}
	return started > 0 ? 0 : r;
}

int workers_add(struct worker_client *client)
{
	int r;

	pthread_mutex_lock(&mutex);
	r = start();
	if (r == 0) {
		client->id = ++last_id;
		client->users = 0;
		client->next = clients;
		clients = client;
		r = sys_epoll_add(epoll, client->uffd, client->id);
		if (r < 0) {
			clients = client->next;
			client->id = 0;
		}
	}
	pthread_mutex_unlock(&mutex);
	return r;
}

void workers_remove(struct worker_client *client)
{
	struct worker_client **link;

	if (client->id == 0)
		return;
	pthread_mutex_lock(&mutex);
	link = find(client->id);
	if (*link) {
		*link = client->next;
		sys_epoll_remove(epoll, client->uffd);
	}
	while (client->users > 0)
		pthread_cond_wait(&let_go, &mutex);
	client->id = 0;
	pthread_mutex_unlock(&mutex);
}

/* What the lock guards is forgotten with the first client. */
void workers_after_fork(void)
{
	pthread_mutex_init(&mutex, NULL);
	pthread_cond_init(&let_go, NULL);
}
