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
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench-traps.h"

struct bench_options options;

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
		_exit(read(ends[0], &end, 1) == 0 ? 0 : 1);
	}
	close(ends[0]);
	return held;
}

void release_child(struct held *held)
{
	close(held->hold);
	waitpid(held->pid, NULL, 0);
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
	for (size_t i = 0; i < COUNT_OF(parts); i++) {
		double start = now_us();

		if (!bench_wants(parts[i].name))
			continue;
		parts[i].run();
		bench_note("(--only %s: %.0f s)", parts[i].name, (now_us() - start) / 1e6);
	}
	return bench_end();
}
