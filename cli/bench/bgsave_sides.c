/* SPDX-License-Identifier: MIT */
/*
 * The same save twice: memory of a given size is written to a file while one thread goes on writing
 * to it. By fork(): the child writes the file. By libcow: a thread reads a snapshot, whose kept
 * pages have a cap and go to a spill file beyond it.
 *
 * The sequence of writes is the same on both sides; the save is held until all of them are done, so
 * that the memory taken depends on the pages written and not on who was faster.
 */
#include <cow.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/bench/bgsave.h"
#include "cli/fd.h"

#define CHUNK ((size_t)1 << 20)
#define PAGE  ((size_t)4096)

/* --- what was saved --- */

/* Order matters, every byte counts, and it is as fast as memory. */
static uint64_t checksum(uint64_t sum, const void *bytes, size_t length)
{
	const uint64_t *words = bytes;
	size_t i;

	for (i = 0; i < length / sizeof(*words); i++)
		sum = (sum ^ words[i]) * UINT64_C(0x100000001b3);
	return sum;
}

static int open_image(const struct bench *bench, const struct bgsave_plan *plan)
{
	char path[4200] = "/dev/null";
	int fd;

	if (!plan->keep_in_memory &&
	    snprintf(path, sizeof(path), "%s/image", bench->directory) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	return fd;
}

/* --- the writer --- */

struct load {
	const struct bgsave_plan *plan;
	struct cow_region *region; /* NULL: plain memory */
	char *memory;
	uint32_t *ns; /* of each write */
	uint64_t seed;
	uint64_t took; /* ns, all of them */
	int error;
};

static uint64_t pick_page(const struct bgsave_plan *plan, uint64_t *state, uint64_t number)
{
	uint64_t pages = plan->bytes / PAGE;

	if (plan->all)
		return number % pages;
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state % pages;
}

static void write_load(struct load *load)
{
	uint64_t state = load->seed | 1, i, start, begun = bench_now(), ns;
	const uint64_t value[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	char *at;

	for (i = 0; i < load->plan->writes && !load->error; i++) {
		at = load->memory + pick_page(load->plan, &state, i) * PAGE;
		start = bench_now();
		if (load->region)
			load->error = cow_region_write_begin(load->region, at, sizeof(value));
		if (load->error)
			break;
		memcpy(at, value, sizeof(value));
		if (load->region)
			cow_region_write_end(load->region, at, sizeof(value));
		ns = bench_now() - start;
		load->ns[i] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
	}
	load->took = bench_now() - begun;
}

static int compare_ns(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void add_load(struct load *load, double *values)
{
	const uint64_t writes = load->plan->writes, rank = writes - 1 - writes / 100;

	qsort(load->ns, writes, sizeof(*load->ns), compare_ns);
	values[BGSAVE_PAUSE] = load->ns[writes - 1];
	values[BGSAVE_P99] = load->ns[rank];
	values[BGSAVE_WRITES] = (double)writes * 1e9 / (double)load->took;
}

/* Distinct pages of the sequence, by walking through it once more. */
static double count_distinct(const struct load *load)
{
	const uint64_t pages = load->plan->bytes / PAGE;
	unsigned char *seen = calloc(pages, 1);
	uint64_t state = load->seed | 1, i, page, count = 0;

	for (i = 0; seen && i < load->plan->writes; i++) {
		page = pick_page(load->plan, &state, i);
		count += !seen[page];
		seen[page] = 1;
	}
	free(seen);
	return (double)(count * PAGE);
}

static int prepare_load(struct load *load, const struct bench *bench,
			const struct bgsave_plan *plan, char *memory)
{
	*load = (struct load){ .plan = plan, .seed = bench->seed };
	load->memory = memory;
	load->ns = malloc(plan->writes * sizeof(*load->ns));
	if (!load->ns)
		return -ENOMEM;
	/* Its pages are there before anything is measured. */
	memset(load->ns, 0, plan->writes * sizeof(*load->ns));
	return 0;
}

static int enter_limit(const struct bgsave_plan *plan)
{
	char path[4300], text[32];
	int fd, error = 0;

	if (!plan->limit)
		return 0;
	snprintf(path, sizeof(path), "%s/cgroup.procs", plan->limit);
	snprintf(text, sizeof(text), "%d", (int)getpid());
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		error = -errno;
	close(fd);
	return error;
}

/* --- by fork() --- */

/* In the child: saves, tells the checksum, and stays until it is told to go. Ends with an errno. */
__attribute__((noreturn)) static void save_in_child(const struct bench *bench,
						    const struct bgsave_plan *plan,
						    const char *memory, int tell, int go)
{
	int fd = open_image(bench, plan), error = fd < 0 ? fd : 0;
	uint64_t sum = 0, at;
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* Saving takes longer than writing: the writer is through before the image is. */
	if (plan->all && read(go, &byte, 1) != 1)
		_exit(EPIPE);
	for (at = 0; error == 0 && at < plan->bytes; at += CHUNK) {
		sum = checksum(sum, memory + at, CHUNK);
		error = fd_write_all(fd, memory + at, CHUNK);
	}
	if (error == 0)
		error = fd_write_all(tell, &sum, sizeof(sum));
	if (error == 0 && read(go, &byte, 1) != 1)
		error = -EPIPE;
	_exit(-error);
}

/* Why nothing came from the child: what it ended with, or -ECHILD where it was killed. */
static int child_error(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) ? -WEXITSTATUS(status) : -ECHILD;
}

static void look_at_child(pid_t child, const struct bench_memory *before, double *values)
{
	struct bench_memory parent = { 0 }, saver = { 0 };
	uint64_t dirty = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)child);
	bench_read_number(path, "Private_Dirty:", &dirty);
	bench_memory(0, &parent);
	bench_memory(child, &saver);
	values[BGSAVE_COPIED] = (double)dirty * 1024;
	values[BGSAVE_EXTRA] = (double)parent.pss + (double)saver.pss - (double)before->pss;
	values[BGSAVE_RSS_PARENT] = (double)parent.rss - (double)before->rss;
	values[BGSAVE_RSS_CHILD_AFTER] = (double)saver.rss;
}

static int run_fork(struct bench *bench, const struct bgsave_plan *plan, struct load *load,
		    uint64_t expected, double *values)
{
	int tell[2], go[2], status = 0;
	struct bench_memory before, child;
	uint64_t sum = 0, start;
	pid_t pid;

	if (pipe2(tell, O_CLOEXEC) < 0 || pipe2(go, O_CLOEXEC) < 0 || bench_memory(0, &before) < 0)
		return -errno;
	start = bench_now();
	pid = fork();
	if (pid == 0) {
		close(tell[0]);
		close(go[1]);
		save_in_child(bench, plan, load->memory, tell[1], go[0]);
	}
	values[BGSAVE_STALL] = (double)bench_lap(start);
	if (pid < 0)
		return -errno;
	close(tell[1]);
	close(go[0]);
	values[BGSAVE_RSS_CHILD] = bench_memory(pid, &child) == 0 ? (double)child.rss : 0;
	write_load(load);
	if (plan->all && write(go[1], "", 1) != 1)
		return -EPIPE;
	if (read(tell[0], &sum, sizeof(sum)) != (ssize_t)sizeof(sum))
		return child_error(pid);
	look_at_child(pid, &before, values);
	if (write(go[1], "", 1) != 1)
		return -EPIPE;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	values[BGSAVE_SOUND] = sum == expected && status == 0;
	return 0;
}

int bgsave_by_fork(struct bench *bench, void *context, double *ret_values)
{
	const struct bgsave_plan *plan = context;
	struct load load;
	uint64_t expected;
	char *memory;
	int error = enter_limit(plan);

	memory = error ? NULL : bench_map(bench, plan->bytes, false);
	if (!memory)
		return error ? error : -ENOMEM;
	bench_fill(memory, plan->bytes, bench->seed);
	expected = checksum(0, memory, plan->bytes);
	error = prepare_load(&load, bench, plan, memory);
	if (!error)
		error = run_fork(bench, plan, &load, expected, ret_values);
	if (!error) {
		add_load(&load, ret_values);
		ret_values[BGSAVE_DISTINCT] = count_distinct(&load);
	}
	free(load.ns);
	munmap(memory, plan->bytes);
	return error;
}

/* --- by libcow --- */

struct saver {
	struct bench *bench;
	const struct bgsave_plan *plan;
	struct cow_snapshot *snapshot;
	uint64_t sum;
	int error;
	pthread_mutex_t mutex; /* guards may_go */
	pthread_cond_t condition;
	bool may_go;
};

static void wait_for_writer(struct saver *saver)
{
	if (!saver->plan->all)
		return;
	pthread_mutex_lock(&saver->mutex);
	while (!saver->may_go)
		pthread_cond_wait(&saver->condition, &saver->mutex);
	pthread_mutex_unlock(&saver->mutex);
}

static void let_go(struct saver *saver)
{
	pthread_mutex_lock(&saver->mutex);
	saver->may_go = true;
	pthread_cond_signal(&saver->condition);
	pthread_mutex_unlock(&saver->mutex);
}

static void *save_in_thread(void *context)
{
	struct saver *saver = context;
	char *buffer = malloc(CHUNK);
	int fd = open_image(saver->bench, saver->plan);
	uint64_t at;

	if (fd < 0 || !buffer)
		saver->error = fd < 0 ? fd : -ENOMEM;
	wait_for_writer(saver);
	for (at = 0; at < saver->plan->bytes && !saver->error; at += CHUNK) {
		saver->error = cow_snapshot_read(saver->snapshot, at, buffer, CHUNK);
		if (saver->error)
			break;
		saver->sum = checksum(saver->sum, buffer, CHUNK);
		saver->error = fd_write_all(fd, buffer, CHUNK);
	}
	if (fd >= 0)
		close(fd);
	free(buffer);
	return NULL;
}

static int look_at_region(struct cow_region *region, const struct bench_memory *before,
			  double *values)
{
	struct cow_region_stats stats = COW_REGION_STATS_INIT;
	struct bench_memory after;
	int error = cow_region_get_stats(region, &stats);

	if (error || bench_memory(0, &after) < 0)
		return error ? error : -ESRCH;
	values[BGSAVE_COPIED] = (double)(stats.preimage_bytes + stats.spilled_bytes);
	values[BGSAVE_SPILLED] = (double)stats.spilled_bytes;
	values[BGSAVE_EXTRA] = (double)after.pss - (double)before->pss;
	values[BGSAVE_RSS_PARENT] = (double)after.rss - (double)before->rss;
	return 0;
}

static int run_libcow(struct bench *bench, const struct bgsave_plan *plan, struct load *load,
		      uint64_t expected, double *values)
{
	struct saver saver = { .bench = bench,
			       .plan = plan,
			       .mutex = PTHREAD_MUTEX_INITIALIZER,
			       .condition = PTHREAD_COND_INITIALIZER };
	struct bench_memory before;
	pthread_t thread;
	uint64_t start;
	int error = bench_memory(0, &before);

	if (error)
		return error;
	start = bench_now();
	error = cow_region_snapshot(load->region, &saver.snapshot);
	/* Below what can be timed one by one without the clock: see the experiment engine. */
	values[BGSAVE_STALL] = (double)(bench_now() - start);
	if (error)
		return error;
	error = -pthread_create(&thread, NULL, save_in_thread, &saver);
	if (!error) {
		write_load(load);
		let_go(&saver);
		pthread_join(thread, NULL);
		error = load->error ? load->error : saver.error;
	}
	if (!error)
		error = look_at_region(load->region, &before, values);
	values[BGSAVE_SOUND] = saver.sum == expected;
	cow_snapshot_unref(saver.snapshot);
	return error;
}

int bgsave_by_libcow(struct bench *bench, void *context, double *ret_values)
{
	const struct bgsave_plan *plan = context;
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_region *region;
	struct load load = { 0 };
	uint64_t expected;
	char *memory;
	int error = enter_limit(plan);

	options.trap = COW_TRAP_EXPLICIT;
	options.preimage_limit = plan->cap;
	options.limit_policy = COW_LIMIT_SPILL;
	if (plan->cap)
		options.spill_directory = bench->directory;
	if (!error)
		error = cow_region_new(plan->bytes, &options, &region);
	if (error)
		return error;
	memory = cow_region_get_base(region);
	/* As plain memory on the other side: pages of 4 KiB. */
	madvise(memory, plan->bytes, MADV_NOHUGEPAGE);
	error = cow_region_write_begin(region, memory, plan->bytes);
	if (!error) {
		bench_fill(memory, plan->bytes, bench->seed);
		cow_region_write_end(region, memory, plan->bytes);
		expected = checksum(0, memory, plan->bytes);
		error = prepare_load(&load, bench, plan, memory);
		load.region = region;
	}
	if (!error)
		error = run_libcow(bench, plan, &load, expected, ret_values);
	if (!error) {
		add_load(&load, ret_values);
		ret_values[BGSAVE_DISTINCT] = count_distinct(&load);
	}
	free(load.ns);
	cow_region_free(region);
	return error;
}

int bgsave_by_libcow_freely(struct bench *bench, void *context, double *ret_values)
{
	struct bgsave_plan plan = *(const struct bgsave_plan *)context;

	plan.cap = 0;
	return bgsave_by_libcow(bench, &plan, ret_values);
}
