/* SPDX-License-Identifier: MIT */
/*
 * fault-contention: copying faults on several threads of one process at once, which share its
 * memory descriptor and so its locks; beside the same in as many processes, which share nothing;
 * and beside a thread that maps and unmaps without end, which takes the lock of the whole address
 * space for writing.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/bench/forks.h"

#define THREADS_MAX 64

static struct {
	char *memory;
	size_t bytes; /* of a thread */
	pthread_barrier_t barrier;
	bool mapper_wanted; /* atomic */
} work;

static void *write_part(void *context)
{
	char *part = context;

	pthread_barrier_wait(&work.barrier);
	write_pages(part, work.bytes);
	return NULL;
}

static void *map_and_unmap(void *context)
{
	void *memory;

	(void)context;
	while (__atomic_load_n(&work.mapper_wanted, __ATOMIC_RELAXED)) {
		memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			      0);
		if (memory != MAP_FAILED)
			munmap(memory, MIB);
	}
	return NULL;
}

static double faults_per_second(size_t count, uint64_t start)
{
	return (double)(count * work.bytes) / (double)getpagesize() * 1e9 /
	       (double)bench_lap(start);
}

static double run_threads(struct bench *bench, size_t count)
{
	pthread_t threads[THREADS_MAX] = { 0 };
	size_t started, i;
	uint64_t start;

	pthread_barrier_init(&work.barrier, NULL, (unsigned int)count + 1);
	for (started = 0; started < count; started++)
		if (pthread_create(&threads[started], NULL, write_part,
				   work.memory + started * work.bytes) != 0)
			break;
	if (started < count) {
		/* Those that wait at the barrier go with this process. */
		bench_fail(bench, 0, "cannot start %zu threads", count);
		return NAN;
	}
	start = bench_now();
	pthread_barrier_wait(&work.barrier);
	for (i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&work.barrier);
	return faults_per_second(count, start);
}

/* A process of this subject's own: it and an idle child share all pages, then its threads write. */
static double measure_threads(struct bench *bench, const struct bench_subject *subject)
{
	size_t count = subject->number;
	const bool mapper = subject->context != NULL;
	pthread_t thread;
	double rate = NAN;
	pid_t pid;

	work.memory = bench_map(bench, count * work.bytes, false);
	if (!work.memory)
		return NAN;
	bench_fill(work.memory, count * work.bytes, bench->seed);
	pid = fork_idle();
	work.mapper_wanted = true;
	if (pid > 0 && (!mapper || pthread_create(&thread, NULL, map_and_unmap, NULL) == 0)) {
		rate = run_threads(bench, count);
		__atomic_store_n(&work.mapper_wanted, false, __ATOMIC_RELAXED);
		if (mapper)
			pthread_join(thread, NULL);
	}
	end_idle(pid);
	return rate;
}

/* As many processes, each copying its own part of what the parent and all of them share. */
static double measure_processes(struct bench *bench, const struct bench_subject *subject)
{
	size_t count = subject->number, i;
	uint64_t *times = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			       0);
	pid_t pids[THREADS_MAX];
	double rate = 0;
	volatile uint64_t *go;

	work.memory = bench_map(bench, count * work.bytes, false);
	if (!work.memory || times == MAP_FAILED)
		return NAN;
	bench_fill(work.memory, count * work.bytes, bench->seed);
	go = &times[THREADS_MAX];
	for (i = 0; i < count; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			uint64_t start;

			while (!*go)
				usleep(100);
			start = bench_now();
			write_pages(work.memory + i * work.bytes, work.bytes);
			times[i] = bench_lap(start);
			for (;;)
				pause();
		}
	}
	*go = 1;
	for (i = 0; i < count; i++) {
		while (pids[i] > 0 && !((volatile uint64_t *)times)[i])
			usleep(200);
		if (pids[i] > 0)
			rate += (double)work.bytes / (double)getpagesize() * 1e9 / (double)times[i];
	}
	for (i = 0; i < count; i++)
		end_idle(pids[i]);
	return rate > 0 ? rate : NAN;
}

static void run(struct bench *bench)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct bench_subject subjects[32];
	size_t count = 0, n;
	static const char with_mapper;

	work.bytes = bench_fit(bench, BENCH_BY_SCALE(bench, 1, 16, 32, 64) * MIB, 16);
	bench_add_value(bench, &(struct bench_row){ "cpus", "processors", BENCH_COUNT },
			(double)cpus);
	for (n = 1; n <= THREADS_MAX && (n == 1 || n <= 2 * (size_t)cpus) && count < 24; n *= 2) {
		subjects[count++] = (struct bench_subject){
			.row = { .key = bench_text(bench, "threads/%zu", n),
				 .label = bench_text(bench, "%zu thread%s of one process", n,
						     n > 1 ? "s" : ""),
				 .unit = BENCH_PER_SECOND,
				 .plot = "rate",
				 .series = "threads",
				 .x = (double)n },
			.measure = measure_threads,
			.number = n,
			.in_child = true,
		};
		subjects[count++] = (struct bench_subject){
			.row = { .key = bench_text(bench, "processes/%zu", n),
				 .label = bench_text(bench, "%zu process%s", n, n > 1 ? "es" : ""),
				 .unit = BENCH_PER_SECOND,
				 .plot = "rate",
				 .series = "processes",
				 .x = (double)n },
			.measure = measure_processes,
			.number = n,
			.in_child = true,
		};
	}
	subjects[count++] = (struct bench_subject){
		.row = { .key = "mapper/1",
			 .label = "1 thread, beside one that maps and unmaps",
			 .unit = BENCH_PER_SECOND,
			 .text = "reduced contention (RCU look-ups)" },
		.measure = measure_threads,
		.number = 1,
		.context = &with_mapper,
		.in_child = true,
	};
	bench_take_turns_controlled(bench, subjects, count);
	bench_add_ratio(bench, &(struct bench_row){ "scaling/threads", "2 threads / 1 thread" },
			"threads/2", "threads/1");
	bench_add_ratio(bench,
			&(struct bench_row){ "scaling/processes", "2 processes / 1 process" },
			"processes/2", "processes/1");
	bench_add_ratio(bench, &(struct bench_row){ "mapper", "beside a mapping thread / alone" },
			"mapper/1", "threads/1");
	bench_check(bench, bench_min(bench, "threads/1") > 0, "threads write their parts");
}

static void judge(struct bench *bench)
{
	double cpus = bench_median(bench, "cpus"), two = bench_median(bench, "scaling/threads");
	double mapper = bench_median(bench, "mapper");

	if (cpus < 2) {
		bench_judge(bench, "faults of several threads do not stand in each other's way",
			    BENCH_NOT_JUDGED, "one processor");
		return;
	}
	bench_judge(bench, "faults of several threads do not stand in each other's way",
		    two > 1.5 ? BENCH_HOLDS :
		    two > 1.1 ? BENCH_HOLDS_IN_PART :
				BENCH_DOES_NOT_HOLD,
		    "two threads do %s as many as one (two processes: %s)",
		    bench_figure(bench, BENCH_RATIO, two),
		    bench_figure(bench, BENCH_RATIO, bench_median(bench, "scaling/processes")));
	bench_judge(bench, "nor does a thread that changes the address space meanwhile",
		    mapper > 0.75 ? BENCH_HOLDS :
		    mapper > 0.4  ? BENCH_HOLDS_IN_PART :
				    BENCH_DOES_NOT_HOLD,
		    "%s of the rate alone", bench_figure(bench, BENCH_RATIO, mapper));
}

static const struct bench_plot plots[] = {
	{ "rate", "Copying faults on several threads", "threads or processes", "faults a second" },
	{ 0 },
};

const struct bench_experiment experiment_fault_contention = {
	.name = "fault-contention",
	.title = "Copying faults on several threads at once",
	.source = BENCH_SOURCE_PRODUCTION,
	.claim = "Later kernels make copy-on-write faults cheaper by reduced lock contention on "
		 "mmap_sem, thanks to RCU-based look-ups of areas introduced in 6.1. (Locks by "
		 "area, which make a fault independent of mmap_lock, came with 6.4.)",
	.method = "1 to twice as many threads as processors, each writing its own part of memory "
		  "that an idle child shares; as many processes beside it; and one thread beside "
		  "another that maps and unmaps without end. Each in a process of its own, in "
		  "turns.",
	.plots = plots,
	.seconds = 20,
	.run = run,
	.judge = judge,
};
