/* SPDX-License-Identifier: MIT */
/*
 * What a writer feels of a full save: the latency of single writes while the save runs, by libcow
 * and by fork(), and the memory that each takes for it.
 *
 * The writer writes 64 bytes to a random page every 20 us, as a server under load does; all sides
 * do the same for as long as their save takes. fork()'s extra memory are the pages that the
 * writer's process had to copy: its minor faults. libcow's is the peak of what its pool held.
 *
 * libcow saves once with COW_SAVE_CONSUME, as one does who only wants the file, as fork()'s child
 * does, and once so that the snapshot is kept. Without any save there are slow writes, too: what
 * the machine itself does to a writer, below which neither side can come.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench-store.h"

enum { PERIOD_US = 20, NO_SAVE_US = 450000, QUANTILES = 3 };
static const double shares[QUANTILES] = { 0.5, 0.99, 0.999 };

enum how { BY_FORK, CONSUMED, KEPT, NO_SAVE };

struct writer {
	struct cow_region *region; /* NULL: plain memory */
	unsigned char *base;
	size_t pages;
	uint64_t random;
	enum how how;
	struct samples latency; /* while recording */
	atomic_bool record, stop;
};

static void write_once(struct writer *writer)
{
	unsigned char *at = writer->base + random_next(&writer->random) % writer->pages * PAGE;

	if (writer->region)
		check_errno(cow_region_write_begin(writer->region, at, 64), "write_begin");
	memset(at, (int)writer->random, 64);
	if (writer->region)
		cow_region_write_end(writer->region, at, 64);
}

static void *write_on(void *context)
{
	struct writer *writer = context;
	double due = now_us();

	while (!atomic_load(&writer->stop)) {
		double start = now_us(), us;

		if (start < due)
			continue;
		/* What is late is not made up for; the wait was not the writer's. */
		due = start + PERIOD_US;
		write_once(writer);
		us = now_us() - start;
		if (atomic_load_explicit(&writer->record, memory_order_relaxed))
			samples_add(&writer->latency, us);
	}
	return NULL;
}

struct turn {
	double quantiles[QUANTILES], extra_mib, seconds;
};

static size_t peak_bytes;

static int watch_memory(uint64_t done, uint64_t total, void *context)
{
	struct cow_region_stats stats = COW_REGION_STATS_INIT;

	(void)done;
	(void)total;
	cow_region_get_stats(context, &stats);
	if (stats.preimage_bytes + stats.pool_bytes + stats.metadata_bytes > peak_bytes)
		peak_bytes = stats.preimage_bytes + stats.pool_bytes + stats.metadata_bytes;
	return 0;
}

static void save_ours(struct writer *writer)
{
	struct cow_save_options how = COW_SAVE_OPTIONS_INIT;
	struct cow_store *store = open_store("latency", COW_STORE_CREATE);
	struct cow_snapshot *snapshot;

	how.flags = COW_SAVE_FULL | (writer->how == CONSUMED ? COW_SAVE_CONSUME : 0);
	how.progress = watch_memory;
	how.context = writer->region;
	peak_bytes = 0;
	snapshot = take(writer->region);
	check_errno(cow_store_save(store, snapshot, &how, NULL), "cow_store_save");
	cow_snapshot_unref(snapshot);
	cow_store_close(store);
}

static void save_by_fork(struct writer *writer)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		plain_write(path_of("forked"), writer->base, writer->pages * PAGE);
		_exit(0);
	}
	check(child > 0 && waitpid(child, &status, 0) == child && status == 0, "fork");
}

static long minor_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

static void save(struct writer *writer)
{
	switch (writer->how) {
	case BY_FORK:
		save_by_fork(writer);
		break;
	case NO_SAVE:
		usleep(NO_SAVE_US);
		break;
	default:
		save_ours(writer);
	}
}

static struct turn measure(struct writer *writer, enum how how)
{
	struct turn turn;
	pthread_t thread;
	double start;
	long faults;

	writer->how = how;
	atomic_store(&writer->stop, false);
	atomic_store(&writer->record, false);
	check(pthread_create(&thread, NULL, write_on, writer) == 0, "pthread_create");
	usleep(20000);
	start = now_us();
	faults = minor_faults();
	atomic_store(&writer->record, true);
	save(writer);
	atomic_store(&writer->record, false);
	turn.seconds = (now_us() - start) / 1e6;
	turn.extra_mib = writer->region ? (double)peak_bytes / MIB :
					  (double)(minor_faults() - faults) * PAGE / MIB;
	atomic_store(&writer->stop, true);
	pthread_join(thread, NULL);
	for (unsigned q = 0; q < QUANTILES; q++)
		turn.quantiles[q] = samples_quantile(&writer->latency, shares[q]);
	samples_free(&writer->latency);
	memset(&writer->latency, 0, sizeof(writer->latency));
	remove_tree(path_of("latency"));
	unlink(path_of("forked"));
	return turn;
}

struct beside {
	struct ratio quantiles[QUANTILES], memory, seconds;
};

static void add(struct beside *beside, const struct turn *ours, const struct turn *theirs)
{
	for (unsigned q = 0; q < QUANTILES; q++)
		ratio_add(&beside->quantiles[q], ours->quantiles[q], theirs->quantiles[q]);
	ratio_add(&beside->memory, ours->extra_mib, theirs->extra_mib);
	ratio_add(&beside->seconds, ours->seconds, theirs->seconds);
}

static void print(struct beside *beside, const char *what, enum bench_bound bound)
{
	char name[80];

	for (unsigned q = 0; q < QUANTILES; q++) {
		snprintf(name, sizeof(name), "write during the save, %s, p%g", what,
			 shares[q] * 100);
		bench_result(name, "us", &beside->quantiles[q].ours, BOUND_NONE, 0);
		bench_result("  during fork()'s", "us", &beside->quantiles[q].theirs, BOUND_NONE,
			     0);
		bench_result("  ratio", "", &beside->quantiles[q].ratio,
			     q == QUANTILES - 1 ? bound : BOUND_NONE, 0.5);
	}
	bench_result("peak extra memory", "MiB", &beside->memory.ours, BOUND_NONE, 0);
	bench_result("  fork(): pages copied", "MiB", &beside->memory.theirs, BOUND_NONE, 0);
	bench_result("the save takes", "s", &beside->seconds.ours, BOUND_NONE, 0);
	bench_result("  fork()'s", "s", &beside->seconds.theirs, BOUND_NONE, 0);
}

static void forget(struct beside *beside)
{
	for (unsigned q = 0; q < QUANTILES; q++)
		ratio_free(&beside->quantiles[q]);
	ratio_free(&beside->memory);
	ratio_free(&beside->seconds);
}

void bench_latency(void)
{
	size_t bytes = region_bytes();
	struct writer ours = { .region = new_region(bytes), .pages = bytes / PAGE };
	/* Of its own: the frames that it leaves idle are not to be the other's. */
	struct writer keeping = { .region = new_region(bytes), .pages = bytes / PAGE };
	struct writer theirs = { .base = plain_memory(bytes), .pages = bytes / PAGE };
	struct beside consumed = { 0 }, kept = { 0 };
	struct samples floor = { 0 };

	bench_section("A writer beside a full save of %zu MiB, a write every %d us", bytes / MIB,
		      PERIOD_US);
	ours.base = cow_region_get_base(ours.region);
	keeping.base = cow_region_get_base(keeping.region);
	memcpy(theirs.base, ours.base, bytes);
	/* Neither side's fork() is to pay for the other's memory. */
	madvise(ours.base, bytes, MADV_DONTFORK);
	madvise(keeping.base, bytes, MADV_DONTFORK);
	/* The slowest writes of a turn are few, so more turns than elsewhere. */
	for (unsigned i = 0; i < 2 * options.runs + BENCH_WARM_UP; i++) {
		struct turn fork = measure(&theirs, BY_FORK);
		struct turn without = measure(&ours, NO_SAVE);
		struct turn by_consume = measure(&ours, CONSUMED);
		struct turn by_keeping = measure(&keeping, KEPT);

		if (i < BENCH_WARM_UP)
			continue;
		samples_add(&floor, without.quantiles[QUANTILES - 1]);
		add(&consumed, &by_consume, &fork);
		add(&kept, &by_keeping, &fork);
	}
	bench_result("write without any save, p99.9", "us", &floor, BOUND_NONE, 0);
	print(&consumed, "consumed", AT_MOST);
	print(&kept, "kept", BOUND_NONE); /* more than fork() does */
	forget(&consumed);
	forget(&kept);
	samples_free(&floor);
	cow_region_free(ours.region);
	cow_region_free(keeping.region);
	munmap(theirs.base, bytes);
}
