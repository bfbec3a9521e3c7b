/* SPDX-License-Identifier: MIT */
#include "cli/walk/actors.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define HUGE_BYTES ((size_t)2 << 20)

enum order { ORDER_READY, ORDER_FORK, ORDER_WRITE, ORDER_REAP };

struct request {
	enum order order;
	enum walk_page page;
	unsigned char byte;
};

struct reply {
	int result; /* a PID, 0, or a negative errno */
	uint64_t faults, faults_again;
};

static void close_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* --- inside the processes --- */

static uint64_t minor_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)usage.ru_minflt;
}

/*
 * The fork has protected the stack, too: it is written first, so that its faults do not count. And
 * no load: of a page that is not mapped it would map another one, at the price of a fault. A
 * sanitizer would look at its shadow of the page, which is a fault more.
 */
__attribute__((noinline, no_sanitize("address", "thread", "undefined"))) static struct reply
write_twice(volatile unsigned char *page, unsigned char byte)
{
	volatile uint64_t counts[3] = { 0 };
	unsigned warm;

	for (warm = 0; warm < 3; warm++)
		counts[warm] = minor_faults();
	counts[0] = minor_faults();
	page[0] = byte;
	counts[1] = minor_faults();
	page[1] = byte;
	counts[2] = minor_faults();
	return (struct reply){
		.faults = counts[1] - counts[0],
		.faults_again = counts[2] - counts[1],
	};
}

static void store(volatile unsigned char *page)
{
	page[0] = 1;
}

static void load(const volatile unsigned char *page)
{
	(void)page[0];
}

static void prepare(const struct actors *actors)
{
	load(actors->pages[WALK_READ]);
	store(actors->pages[WALK_BOTH]);
	store(actors->pages[WALK_PARENT]);
	store(actors->pages[WALK_LAST]);
	load(actors->pages[WALK_SHARED]);
	load(actors->pages[WALK_PRIVATE]);
	if (!actors->huge)
		return;
	store(actors->pages[WALK_HUGE]);
	store(actors->pages[WALK_HUGE_NEXT]);
}

static _Noreturn void act(struct actors *actors, enum walk_who who);

static struct reply obey(struct actors *actors, const struct request *request)
{
	pid_t pid;

	switch (request->order) {
	case ORDER_FORK:
		pid = fork();
		if (pid == 0)
			act(actors, WALK_BY_CHILD);
		actors->pids[WALK_BY_CHILD] = pid;
		/* Else the child's end would not be seen. */
		close_end(&actors->sockets[WALK_BY_CHILD]);
		return (struct reply){ .result = pid < 0 ? -errno : pid };
	case ORDER_WRITE:
		return write_twice(actors->pages[request->page], request->byte);
	case ORDER_REAP:
		pid = waitpid(actors->pids[WALK_BY_CHILD], NULL, 0);
		return (struct reply){ .result = pid < 0 ? -errno : 0 };
	case ORDER_READY:
	default:
		return (struct reply){ 0 };
	}
}

/* Until told to end, or until nobody is there to tell. */
static _Noreturn void act(struct actors *actors, enum walk_who who)
{
	struct request request;
	struct reply reply;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, who == WALK_BY_CHILD ? "cow-walk-child" : "cow-walk-parent");
	if (who == WALK_BY_CHILD)
		close_end(&actors->sockets[WALK_BY_PARENT]);
	while (read(actors->sockets[who], &request, sizeof(request)) == sizeof(request)) {
		reply = obey(actors, &request);
		if (write(actors->sockets[who], &reply, sizeof(reply)) != sizeof(reply))
			break;
	}
	_exit(1);
}

static void stay_on_one_cpu(void)
{
	cpu_set_t one;
	int cpu = sched_getcpu();

	if (cpu < 0)
		return;
	CPU_ZERO(&one);
	CPU_SET((unsigned)cpu, &one);
	sched_setaffinity(0, sizeof(one), &one); /* where it fails, the walk may show a copy more */
}

/* --- outside --- */

static int tell(struct actors *actors, enum walk_who who, const struct request *request,
		struct reply *ret_reply)
{
	struct reply reply;
	ssize_t n;

	if (send(actors->sockets[who], request, sizeof(*request), MSG_NOSIGNAL) != sizeof(*request))
		return -errno;
	do
		n = read(actors->sockets[who], &reply, sizeof(reply));
	while (n < 0 && errno == EINTR);
	if (n != sizeof(reply))
		return n < 0 ? -errno : -ECHILD; /* it was killed */
	*ret_reply = reply;
	return reply.result < 0 ? reply.result : 0;
}

/* A page of its own area for each, so that nothing of a neighbour shows. */
static int map_small_pages(struct actors *actors, int file)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	unsigned char *at = actors->arena;
	unsigned i;

	if (madvise(at, WALK_SMALL_PAGES * page, MADV_NOHUGEPAGE) < 0 && errno != EINVAL)
		return -errno;
	for (i = 0; i < WALK_SMALL_PAGES; i++)
		actors->pages[i] = at + i * page;
	if (mmap(actors->pages[WALK_SHARED], page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		 file, 0) == MAP_FAILED ||
	    mmap(actors->pages[WALK_PRIVATE], page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED,
		 file, (off_t)page) == MAP_FAILED)
		return -errno;
	return 0;
}

/* A file of two pages, one for each mapping, with content. */
static int make_file(int *ret_file)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int file = memfd_create("cow-walk", MFD_CLOEXEC), error = 0;

	if (file < 0)
		return -errno;
	if (pwrite(file, "shared", 6, 0) != 6 || pwrite(file, "private", 7, (off_t)page) != 7 ||
	    ftruncate(file, (off_t)(2 * page)) < 0)
		error = errno ? -errno : -EIO;
	if (error)
		close(file);
	else
		*ret_file = file;
	return error;
}

static void map_huge_page(struct actors *actors)
{
	uintptr_t after = (uintptr_t)actors->arena + HUGE_BYTES;
	unsigned char *aligned = (unsigned char *)(after & ~(HUGE_BYTES - 1));

	/* Where there are none the pages are small ones, and the observer will see it. */
	(void)madvise(aligned, HUGE_BYTES, MADV_HUGEPAGE);
	actors->pages[WALK_HUGE] = aligned;
	actors->pages[WALK_HUGE_NEXT] = aligned + sysconf(_SC_PAGESIZE);
}

/* Mapped here, touched by the actors alone: at the same place in all three. */
static int map_arena(struct actors *actors)
{
	void *arena;
	int file = -1, error;

	/* The small pages, and two huge ones, in which an aligned one fits. */
	actors->arena_bytes = 3 * HUGE_BYTES;
	arena = mmap(NULL, actors->arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0);
	if (arena == MAP_FAILED)
		return -errno;
	actors->arena = arena;
	error = make_file(&file);
	if (error)
		return error;
	error = map_small_pages(actors, file);
	close(file);
	if (actors->huge)
		map_huge_page(actors);
	return error;
}

static void close_pair(const int pair[2])
{
	close(pair[0]);
	close(pair[1]);
}

static int start_parent(struct actors *actors)
{
	int pairs[WALK_ACTORS][2], i, error;
	pid_t pid;

	for (i = 0; i < WALK_ACTORS; i++) {
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pairs[i]) < 0) {
			error = -errno;
			if (i)
				close_pair(pairs[0]);
			return error;
		}
	}
	pid = fork();
	error = pid < 0 ? -errno : 0;
	for (i = 0; i < WALK_ACTORS; i++) {
		close(pairs[i][pid == 0 ? 0 : 1]);
		actors->sockets[i] = pairs[i][pid == 0 ? 1 : 0];
	}
	if (error)
		return error;
	if (pid == 0) {
		stay_on_one_cpu();
		prepare(actors);
		act(actors, WALK_BY_PARENT);
	}
	actors->pids[WALK_BY_PARENT] = pid;
	return 0;
}

int actors_start(bool huge, struct actors *actors)
{
	struct request request = { .order = ORDER_READY };
	struct reply reply = { 0 };
	int error;

	*actors = (struct actors){ .sockets = { -1, -1 }, .huge = huge };
	error = map_arena(actors);
	if (!error)
		error = start_parent(actors);
	if (!error)
		error = tell(actors, WALK_BY_PARENT, &request, &reply);
	if (error)
		actors_stop(actors);
	return error;
}

void actors_stop(struct actors *actors)
{
	/* Each ends when nobody holds the other end; the child is the parent's to wait for. */
	close_end(&actors->sockets[WALK_BY_CHILD]);
	close_end(&actors->sockets[WALK_BY_PARENT]);
	if (actors->pids[WALK_BY_PARENT] > 0)
		waitpid(actors->pids[WALK_BY_PARENT], NULL, 0);
	if (actors->arena)
		munmap(actors->arena, actors->arena_bytes);
	*actors = (struct actors){ .sockets = { -1, -1 } };
}

int actors_fork(struct actors *actors)
{
	struct request request = { .order = ORDER_FORK };
	struct reply reply = { 0 };
	int error = tell(actors, WALK_BY_PARENT, &request, &reply);

	if (error)
		return error;
	actors->pids[WALK_BY_CHILD] = reply.result;
	/* It has begun, and named itself. */
	request.order = ORDER_READY;
	return tell(actors, WALK_BY_CHILD, &request, &reply);
}

int actors_exit(struct actors *actors)
{
	struct request request = { .order = ORDER_REAP };
	struct reply reply = { 0 };

	close_end(&actors->sockets[WALK_BY_CHILD]);
	actors->pids[WALK_BY_CHILD] = 0;
	return tell(actors, WALK_BY_PARENT, &request, &reply);
}

int actors_write(struct actors *actors, enum walk_who who, enum walk_page page,
		 uint64_t *ret_faults, uint64_t *ret_faults_again)
{
	struct request request = {
		.order = ORDER_WRITE,
		.page = page,
		.byte = who == WALK_BY_CHILD ? 'c' : 'p',
	};
	struct reply reply = { 0 };
	int error = tell(actors, who, &request, &reply);

	if (error)
		return error;
	*ret_faults = reply.faults;
	*ret_faults_again = reply.faults_again;
	return 0;
}
