/* SPDX-License-Identifier: MIT */
/*
 * The engine under the explicit trap: stall of a snapshot, cost of a first write, memory.
 *
 * The baseline is the kernel's own copy-on-write: a plain mapping of the same size in 4 KiB pages,
 * all rewritten before each fork(), whose child stays until the writes are done.
 */
#include <cow.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/cgroup.h"
#include "bench/harness.h"

#define PAGE 4096u
#define MIB  ((size_t)1 << 20)

static struct bench_options options;

static struct cow_region *new_region(size_t length, const struct cow_region_options *given)
{
	struct cow_region_options defaults = COW_REGION_OPTIONS_INIT;
	struct cow_region *region;

	defaults.trap = COW_TRAP_EXPLICIT;
	defaults.pool_limit = 2 * length; /* all frames are recycled, those of metadata too */
	check_errno(cow_region_new(length, given ? given : &defaults, &region), "cow_region_new");
	madvise(cow_region_get_base(region), length, MADV_NOHUGEPAGE);
	/* The baseline's fork() shall not see it: it would cost the baseline time, and then trap
	 * here. */
	madvise(cow_region_get_base(region), length, MADV_DONTFORK);
	return region;
}

static void fill_region(struct cow_region *region, unsigned char value)
{
	size_t length = cow_region_get_length(region);
	unsigned char *base = cow_region_get_base(region);

	check_errno(cow_region_touch(region, base, length), "touch");
	for (size_t at = 0; at < length; at += PAGE)
		memset(base + at, value, 64);
}

static struct cow_snapshot *snapshot(struct cow_region *region)
{
	struct cow_snapshot *snap;

	check_errno(cow_region_snapshot(region, &snap), "snapshot");
	return snap;
}

/* --- stall --- */

static void write_page(struct cow_region *region, size_t page)
{
	unsigned char *at = (unsigned char *)cow_region_get_base(region) + page * PAGE;

	check_errno(cow_region_write_begin(region, at, 1), "write_begin");
	(*at)++;
	cow_region_write_end(region, at, 1);
}

static void measure_stall(struct cow_region *region, size_t alive, struct samples *samples)
{
	size_t count = options.quick ? 200 : 20000, pages = cow_region_get_length(region) / PAGE;
	struct cow_snapshot **ring = calloc(alive, sizeof(ring[0]));
	uint64_t random = options.seed;

	check(ring, "out of memory");
	for (size_t i = 0; i < count + 2 * alive; i++) {
		double start;

		for (unsigned w = 0; w < 4; w++)
			write_page(region, random_next(&random) % pages);
		cow_snapshot_unref(ring[i % alive]);
		start = now_us();
		ring[i % alive] = snapshot(region);
		if (i >= 2 * alive)
			samples_add(samples, now_us() - start);
	}
	for (size_t i = 0; i < alive; i++)
		cow_snapshot_unref(ring[i]);
	free(ring);
}

static void bench_stall(void)
{
	size_t sizes[] = { 64 * MIB, options.quick ? 128 * MIB : 4096 * MIB };
	size_t alive[] = { 1, 1000 };

	bench_section("Stall: cow_region_snapshot(), 4 random pages written between two");
	for (unsigned s = 0; s < 2; s++) {
		unsigned char *memory = plain_memory(sizes[s]);
		struct cow_region *region = new_region(sizes[s], NULL);
		struct samples forks = { 0 };
		char name[100];

		memset(memory, 1, sizes[s]);
		for (unsigned i = 0; i < (options.quick ? 2u : 5u); i++)
			samples_add(&forks, rewrite_and_fork_us(memory, sizes[s]));
		munmap(memory, sizes[s]);
		fill_region(region, 1);
		for (unsigned a = 0; a < 2; a++) {
			struct samples stalls = { 0 };

			measure_stall(region, alive[a], &stalls);
			for (unsigned q = 0; q < 3; q++) {
				double share[] = { 0.5, 0.99, 0.999 };

				snprintf(name, sizeof(name), "%zu MiB, %zu alive, p%g",
					 sizes[s] / MIB, alive[a], share[q] * 100);
				bench_value(name, "us", samples_quantile(&stalls, share[q]),
					    q == 1 ? AT_MOST : BOUND_NONE, 20);
			}
			samples_free(&stalls);
		}
		snprintf(name, sizeof(name), "%zu MiB, fork() of a plain process", sizes[s] / MIB);
		bench_result(name, "us", &forks, BOUND_NONE, 0);
		samples_free(&forks);
		cow_region_free(region);
	}
}

/* --- first writes --- */

static size_t *page_order(size_t pages, bool at_random)
{
	size_t *order = calloc(pages, sizeof(order[0]));
	uint64_t random = options.seed;

	check(order, "out of memory");
	for (size_t i = 0; i < pages; i++)
		order[i] = i;
	for (size_t i = pages - 1; at_random && i > 0; i--) {
		size_t j = random_next(&random) % (i + 1), swap = order[i];

		order[i] = order[j];
		order[j] = swap;
	}
	return order;
}

static double first_writes_region(struct cow_region *region, const size_t *order, size_t pages)
{
	unsigned char *base = cow_region_get_base(region);
	struct cow_snapshot *snap = snapshot(region);
	double start = now_us();

	for (size_t i = 0; i < pages; i++) {
		unsigned char *at = base + order[i] * PAGE;

		cow_region_touch(region, at, 1);
		(*at)++;
	}
	start = now_us() - start;
	cow_snapshot_unref(snap);
	return start / (double)pages;
}

static double first_writes_kernel(unsigned char *memory, const size_t *order, size_t pages)
{
	double start;
	pid_t child;
	int hold[2];
	char end;

	for (size_t i = 0; i < pages; i++)
		memory[i * PAGE]++;
	check(pipe(hold) == 0, "pipe");
	child = fork();
	if (child == 0) {
		close(hold[1]);
		_exit(read(hold[0], &end, 1) != 0 ? 1 : 0);
	}
	start = now_us();
	for (size_t i = 0; i < pages; i++)
		memory[order[i] * PAGE]++;
	start = now_us() - start;
	close(hold[0]);
	close(hold[1]);
	waitpid(child, NULL, 0);
	return start / (double)pages;
}

static void bench_first_write_size(size_t size, bool at_random)
{
	size_t pages = size / PAGE, *order = page_order(pages, at_random);
	struct samples ours = { 0 }, fresh = { 0 }, kernel = { 0 }, ratio = { 0 },
		       fresh_ratio = { 0 }, control = { 0 };
	struct cow_region *region = new_region(size, NULL);
	unsigned char *memory = plain_memory(size);
	char name[100];

	fill_region(region, 1);
	memset(memory, 1, size);
	for (unsigned i = 0; i < options.runs + BENCH_WARM_UP; i++) {
		struct cow_region *new = new_region(size, NULL);
		double k, k2, o, f;

		fill_region(new, 1);
		o = first_writes_region(region, order, pages);
		k = first_writes_kernel(memory, order, pages);
		f = first_writes_region(new, order, pages);
		k2 = first_writes_kernel(memory, order, pages);
		cow_region_free(new);
		if (i < BENCH_WARM_UP)
			continue;
		samples_add(&ours, o);
		samples_add(&kernel, k);
		samples_add(&fresh, f);
		samples_add(&ratio, o / k);
		samples_add(&fresh_ratio, f / k2);
		samples_add(&control, k2 / k);
	}
	snprintf(name, sizeof(name), "%zu MiB %s: recycled frames", size / MIB,
		 at_random ? "random" : "sequential");
	bench_result(name, "us", &ours, BOUND_NONE, 0);
	bench_result("  kernel's COW fault after fork()", "us", &kernel, BOUND_NONE, 0);
	bench_result("  ratio, recycled frames", "", &ratio, AT_MOST, 0.35);
	bench_result("  ratio, fresh frames", "", &fresh_ratio, BOUND_NONE, 0);
	bench_result("  A/A control: kernel / kernel", "", &control, BOUND_NONE, 0);
	samples_free(&ours);
	samples_free(&fresh);
	samples_free(&kernel);
	samples_free(&ratio);
	samples_free(&fresh_ratio);
	samples_free(&control);
	cow_region_free(region);
	munmap(memory, size);
	free(order);
}

static void bench_first_write(void)
{
	size_t sizes[] = { 4 * MIB, 64 * MIB, 512 * MIB };

	bench_section("First write to a page after a snapshot, per page");
	for (unsigned i = 0; i < (options.quick ? 1u : 3u); i++) {
		bench_first_write_size(sizes[i], false);
		bench_first_write_size(sizes[i], true);
	}
}

static void bench_many_alive(void)
{
	size_t size = 16 * MIB, pages = size / PAGE, *order = page_order(pages, true);
	struct cow_region *one = new_region(size, NULL), *many = new_region(size, NULL);
	struct cow_region *twin = new_region(size, NULL);
	struct cow_snapshot *alive[999];
	struct samples ratio = { 0 }, control = { 0 };

	bench_section("First write with 1,000 snapshots alive [1 alive]");
	fill_region(one, 1);
	fill_region(many, 1);
	fill_region(twin, 1);
	for (unsigned i = 0; i < 999; i++) {
		write_page(many, i);
		alive[i] = snapshot(many);
	}
	for (unsigned i = 0; i < 3 * options.runs + BENCH_WARM_UP; i++) {
		double a = first_writes_region(one, order, pages);
		double b = first_writes_region(many, order, pages);
		double c = first_writes_region(twin, order, pages);

		if (i < BENCH_WARM_UP)
			continue;
		samples_add(&ratio, b / a);
		samples_add(&control, c / a);
	}
	bench_result("1,000 alive / 1 alive", "", &ratio, AT_MOST, 1.2);
	bench_result("A/A control: 1 alive / 1 alive", "", &control, BOUND_NONE, 0);
	samples_free(&ratio);
	samples_free(&control);
	for (unsigned i = 0; i < 999; i++)
		cow_snapshot_unref(alive[i]);
	cow_region_free(one);
	cow_region_free(many);
	cow_region_free(twin);
	free(order);
}

/* --- memory --- */

struct growth {
	double pss_start, pss_end, cgroup_start, cgroup_peak; /* bytes */
	double metadata_per_page;
	uint64_t refused, dropped, spilled;
};

struct memory_case {
	const char *name;
	bool limited;
	enum cow_limit_policy policy;
};

static void rewrite_all(struct cow_region *region, struct growth *growth)
{
	unsigned char *base = cow_region_get_base(region);
	size_t length = cow_region_get_length(region);

	for (size_t at = 0; at < length; at += PAGE) {
		int r = cow_region_write_begin(region, base + at, PAGE);

		if (r == -EAGAIN) {
			growth->refused++;
			continue;
		}
		check_errno(r, "write_begin");
		memset(base + at, 7, PAGE);
		cow_region_write_end(region, base + at, PAGE);
	}
}

/* In a process, and where possible a memory cgroup, of its own. */
static void run_memory_case(const struct memory_case *what, size_t size, const char *directory,
			    struct growth *growth)
{
	struct cow_region_options o = COW_REGION_OPTIONS_INIT;
	struct cow_region_stats stats = COW_REGION_STATS_INIT;
	struct cow_region *region;
	struct cow_snapshot *snap;

	o.trap = COW_TRAP_EXPLICIT;
	o.limit_policy = what->policy;
	o.limit_timeout_ns = 1000000; /* nobody will make room */
	o.preimage_limit = what->limited ? size / 10 : 0;
	o.spill_directory = directory;
	region = new_region(size, &o);
	fill_region(region, 1);
	check_errno(cow_region_get_stats(region, &stats), "stats");
	growth->metadata_per_page = (double)stats.metadata_bytes / (double)stats.pages;
	growth->pss_start = (double)pss_bytes();
	growth->cgroup_start = (double)cgroup_usage();
	cgroup_reset_peak();
	snap = snapshot(region);
	rewrite_all(region, growth);
	growth->pss_end = (double)pss_bytes();
	growth->cgroup_peak = (double)cgroup_peak();
	check_errno(cow_region_get_stats(region, &stats), "stats");
	growth->dropped = stats.dropped_snapshots;
	growth->spilled = stats.spilled_pages;
	cow_snapshot_unref(snap);
	cow_region_free(region);
}

static struct growth fork_memory_case(const struct memory_case *what, size_t size)
{
	struct growth *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct growth growth;
	int status;
	pid_t child;

	check(shared != MAP_FAILED, "out of memory");
	child = fork();
	if (child == 0) {
		bool inside = cgroup_enter();

		run_memory_case(what, size, options.directory, shared);
		if (!inside)
			shared->cgroup_peak = shared->cgroup_start = 0;
		_exit(0);
	}
	waitpid(child, &status, 0);
	check(status == 0, "a memory case failed");
	cgroup_remove(child);
	growth = *shared;
	munmap(shared, sizeof(*shared));
	return growth;
}

static void report_growth(const struct memory_case *what, size_t size, const struct growth *growth)
{
	double bound = what->limited ? 0.11 : 1.05;
	char name[120];

	snprintf(name, sizeof(name), "%s, PSS", what->name);
	bench_value(name, "", (growth->pss_end - growth->pss_start) / (double)size, AT_MOST, bound);
	snprintf(name, sizeof(name), "%s, cgroup's peak", what->name);
	if (growth->cgroup_peak > 0)
		bench_value(name, "", (growth->cgroup_peak - growth->cgroup_start) / (double)size,
			    AT_MOST, bound);
	else
		bench_note("%s: not measured, no memory cgroup can be made here", name);
	if (what->limited)
		bench_note(
			"%llu writes refused (-EAGAIN), %llu snapshots dropped, %llu pages spilled",
			(unsigned long long)growth->refused, (unsigned long long)growth->dropped,
			(unsigned long long)growth->spilled);
}

static void bench_memory(void)
{
	static const struct memory_case cases[] = {
		{ "no limit", false, COW_LIMIT_SPILL },
		{ "limit 10 %, SPILL", true, COW_LIMIT_SPILL },
		{ "limit 10 %, BLOCK", true, COW_LIMIT_BLOCK },
		{ "limit 10 %, DROP", true, COW_LIMIT_DROP },
	};
	size_t size = options.quick ? 32 * MIB : 512 * MIB;
	struct growth growth;

	bench_section("Extra memory of rewriting %zu MiB under a snapshot, as a share of it",
		      size / MIB);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		growth = fork_memory_case(&cases[i], size);
		report_growth(&cases[i], size, &growth);
		if (i == 0)
			bench_value("metadata without snapshots, per page", "B",
				    growth.metadata_per_page, AT_MOST, 20);
	}
}

/* --- what else users ask --- */

static void bench_reads(void)
{
	unsigned versions = options.quick ? 50 : 1000;
	struct cow_region *region = new_region(MIB, NULL);
	struct cow_snapshot **snaps = calloc(versions, sizeof(snaps[0]));
	struct samples live = { 0 }, newest = { 0 }, oldest = { 0 };
	unsigned char page[PAGE];

	check(snaps, "out of memory");
	bench_section("Reading one 4 KiB page that was rewritten after each of %u snapshots",
		      versions);
	fill_region(region, 1);
	for (unsigned i = 0; i < versions; i++) {
		snaps[i] = snapshot(region);
		write_page(region, 0);
	}
	for (unsigned i = 0; i < 100 * options.runs; i++) {
		double a = now_us(), b, c, d;

		cow_region_read(region, 0, page, PAGE);
		b = now_us();
		cow_snapshot_read(snaps[versions - 1], 0, page, PAGE);
		c = now_us();
		cow_snapshot_read(snaps[0], 0, page, PAGE);
		d = now_us();
		samples_add(&live, b - a);
		samples_add(&newest, c - b);
		samples_add(&oldest, d - c);
	}
	bench_result("live", "us", &live, BOUND_NONE, 0);
	bench_result("newest snapshot", "us", &newest, BOUND_NONE, 0);
	bench_result("oldest snapshot", "us", &oldest, BOUND_NONE, 0);
	for (unsigned i = 0; i < versions; i++)
		cow_snapshot_unref(snaps[i]);
	free(snaps);
	samples_free(&live);
	samples_free(&newest);
	samples_free(&oldest);
	cow_region_free(region);
}

int main(int argc, char **argv)
{
	bench_begin("bench-engine", "Snapshots under the explicit trap beside fork().", argc, argv,
		    &options);
	bench_stall();
	bench_first_write();
	bench_many_alive();
	bench_memory();
	bench_reads();
	return bench_end();
}
