/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of memory that any code writes, beside fork().
 *
 * The baseline is a plain process of the same size with every page rewritten before each fork(),
 * so that the page tables of neither side were left half done by the turn before. The bounds are
 * meant for the signal trap; the others are shown with fewer turns.
 *
 * Most memory in use at once: 10 GiB (4 GiB on either side and what copying adds).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "bench/bench-traps.h"

struct bench_options options;

unsigned turns_of(const struct variant *variant)
{
	return variant->binds ? options.runs : (options.runs + 2) / 3;
}

/* --- processes that take turns --- */

enum { READY = 'r', NOT_HERE = 'n', TURN = 't' };

static bool trap_is_here(const struct variant *variant)
{
	struct cow_region_options o = COW_REGION_OPTIONS_INIT;
	struct cow_region *region;
	int r;

	o.trap = variant->trap;
	r = cow_region_new(PAGE, &o, &region);
	if (r == -EOPNOTSUPP)
		return false;
	check_errno(r, "cow_region_new");
	cow_region_free(region);
	return true;
}

static void send_all(int fd, const void *bytes, size_t count)
{
	check(write(fd, bytes, count) == (ssize_t)count, "a process of the benchmark is gone");
}

static bool receive_all(int fd, void *bytes, size_t count)
{
	size_t got = 0;
	ssize_t r;

	while (got < count) {
		r = read(fd, (char *)bytes + got, count - got);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return false;
		got += (size_t)r;
	}
	return true;
}

static _Noreturn void serve(const struct job *job, int from, int to)
{
	char answer = READY, order;
	void *state;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (job->variant && job->variant->tune)
		setenv("COW_TUNE", job->variant->tune, 1);
	if (job->variant && !trap_is_here(job->variant)) {
		answer = NOT_HERE;
		send_all(to, &answer, 1);
		_exit(0);
	}
	state = job->prepare(job);
	send_all(to, &answer, 1);
	while (receive_all(from, &order, 1)) {
		double figures[FIGURES] = { 0 };

		job->turn(state, figures);
		send_all(to, figures, sizeof(figures));
	}
	_exit(0);
}

bool worker_start(struct worker *worker, const struct job *job)
{
	int there[2], back[2];
	char answer = 0;

	check(pipe(there) == 0 && pipe(back) == 0, "pipe");
	worker->pid = fork();
	check(worker->pid >= 0, "fork");
	if (worker->pid == 0) {
		close(there[1]);
		close(back[0]);
		serve(job, there[0], back[1]);
	}
	close(there[0]);
	close(back[1]);
	worker->to = there[1];
	worker->from = back[0];
	check(receive_all(worker->from, &answer, 1), "a process of the benchmark failed");
	if (answer == READY)
		return true;
	bench_note("%s: not to be had here", job->variant->name);
	worker_stop(worker);
	return false;
}

void worker_turn(struct worker *worker, double figures[FIGURES])
{
	char order = TURN;

	send_all(worker->to, &order, 1);
	check(receive_all(worker->from, figures, FIGURES * sizeof(figures[0])),
	      "a process of the benchmark failed");
}

/* Another process may hold its pipe's end, too, so it would not see that we close ours. */
void worker_stop(struct worker *worker)
{
	close(worker->to);
	close(worker->from);
	kill(worker->pid, SIGKILL);
	waitpid(worker->pid, NULL, 0);
}

/* --- in the process of a job --- */

struct cow_region *job_region(const struct job *job, size_t pool_limit)
{
	struct cow_region_options o = COW_REGION_OPTIONS_INIT;
	struct cow_region *region;

	o.trap = job->variant->trap;
	o.flags = job->flags | job->variant->flags;
	o.pool_limit = pool_limit;
	check_errno(cow_region_new(job->size, &o, &region), "cow_region_new");
	if (!(job->flags & COW_REGION_HUGE_PAGES))
		madvise(cow_region_get_base(region), job->size, MADV_NOHUGEPAGE);
	memset(cow_region_get_base(region), 1, job->size);
	return region;
}

/* With huge pages it begins at one, as a region does. */
unsigned char *job_memory(const struct job *job)
{
	size_t huge = 2 * MIB;
	unsigned char *memory = plain_memory(job->size + huge);

	memory += huge - (uintptr_t)memory % huge;
	if (job->flags & COW_REGION_HUGE_PAGES)
		madvise(memory, job->size, MADV_HUGEPAGE);
	memset(memory, 1, job->size);
	return memory;
}

struct cow_snapshot *job_snapshot(struct cow_region *region)
{
	struct cow_snapshot *snapshot;

	check_errno(cow_region_snapshot(region, &snapshot), "cow_region_snapshot");
	return snapshot;
}

double last_cut_us(struct cow_region *region)
{
	struct cow_region_stats stats = COW_REGION_STATS_INIT;

	check_errno(cow_region_get_stats(region, &stats), "cow_region_get_stats");
	return (double)stats.cut_ns_last / 1e3;
}

void back_memory(size_t bytes)
{
	unsigned char *memory = plain_memory(bytes);

	madvise(memory, bytes, MADV_HUGEPAGE);
	for (size_t at = 0; at < bytes; at += PAGE)
		memory[at] = 1;
	munmap(memory, bytes);
}

struct held hold_child(void)
{
	struct held held;
	int ends[2];
	char end;

	check(pipe(ends) == 0, "pipe");
	held.hold = ends[1];
	held.pid = fork();
	check(held.pid >= 0, "fork");
	if (held.pid == 0) {
		close(ends[1]);
		_exit(read(ends[0], &end, 1) != 0);
	}
	close(ends[0]);
	return held;
}

void release_child(struct held *held)
{
	close(held->hold);
	waitpid(held->pid, NULL, 0);
}

double rewrite_and_fork_us(unsigned char *memory, size_t size)
{
	double start, stall;
	pid_t child;

	for (size_t at = 0; at < size; at += PAGE)
		memory[at]++;
	start = now_us();
	child = fork();
	if (child == 0)
		_exit(0);
	stall = now_us() - start;
	check(child > 0, "fork");
	waitpid(child, NULL, 0);
	return stall;
}

size_t *page_order(size_t pages, bool at_random, uint64_t *random)
{
	size_t *order = calloc(pages, sizeof(order[0]));

	check(order, "out of memory");
	for (size_t i = 0; i < pages; i++)
		order[i] = i;
	for (size_t i = pages - 1; at_random && i > 0; i--) {
		size_t j = random_next(random) % (i + 1), swap = order[i];

		order[i] = order[j];
		order[j] = swap;
	}
	return order;
}

int main(int argc, char **argv)
{
	static const struct part {
		const char *name;
		void (*run)(void);
	} parts[] = {
		{ "cuts", bench_cuts },
		{ "cuts-size", bench_cuts_by_size },
		{ "cuts-writer", bench_cuts_beside_writer },
		{ "cuts-huge", bench_cuts_huge },
		{ "first-writes", bench_first_writes },
		{ "sparse", bench_sparse_writes },
		{ "copier", bench_copier },
		{ "latencies", bench_latencies },
		{ "open-writes", bench_open_writes },
		{ "rollback", bench_rollback },
		{ "branches", bench_branches },
	};

	bench_begin("bench-traps", "Snapshots under the traps beside fork().", argc, argv,
		    &options);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (bench_wants(parts[i].name))
			parts[i].run();
	return bench_end();
}
