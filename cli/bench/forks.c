/* SPDX-License-Identifier: MIT */
#include "cli/bench/forks.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cow.h>

static volatile char sink;

void write_pages(char *memory, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), i;
	volatile char *at = memory;

	for (i = 0; i < bytes; i += page)
		at[i]++;
}

void read_pages(const char *memory, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), i;

	for (i = 0; i < bytes; i += page)
		sink = memory[i];
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* The pages come in the order of a linear congruence, each once; a share of it is exact. */
void write_random_pages(char *memory, size_t bytes, double share, uint64_t seed)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = bytes / page;
	size_t count = (size_t)(share * (double)pages + 0.5), i, at;
	uint64_t state = seed * 2 + 0x9e3779b97f4a7c15;
	volatile char *to = memory;
	size_t step = 0;

	/* A step that shares no factor with the number visits every page. */
	while (pages > 1) {
		size_t a = pages, b, rest;

		step = b = next_random(&state) % pages;
		while (b) {
			rest = a % b;
			a = b;
			b = rest;
		}
		if (a == 1)
			break;
	}
	for (i = 0, at = 0; i < count; i++, at = (at + step) % pages)
		to[at * page]++;
}

struct cow_region *region_filled(struct bench *bench, size_t bytes)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_region *region;
	int error;

	options.trap = COW_TRAP_EXPLICIT;
	error = cow_region_new(bytes, &options, &region);
	if (!error) {
		error = cow_region_touch(region, cow_region_get_base(region), bytes);
		if (!error)
			bench_fill(cow_region_get_base(region), bytes, bench->seed);
		else
			cow_region_free(region);
	}
	if (error)
		bench_fail(bench, error, "cannot make a region of libcow");
	return error ? NULL : region;
}

bool fork_timed(struct bench *bench, child_fn child, void *context, struct fork_times *ret_times)
{
	uint64_t start = bench_now();
	int status = 0;
	pid_t pid;

	pid = fork();
	if (pid == 0) {
		if (child)
			child(context);
		_exit(0);
	}
	ret_times->fork_ns = (double)bench_lap(start);
	if (pid < 0) {
		bench_fail(bench, -errno, "cannot fork");
		return false;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	ret_times->cycle_ns = (double)bench_lap(start);
	if (status)
		bench_fail(bench, 0, "a child died: out of memory?");
	return !status;
}

pid_t fork_idle(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid < 0 ? -errno : pid;
}

void end_idle(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}
