/* SPDX-License-Identifier: MIT */
/*
 * fork-methods: five ways to start a process, of a process with some memory, beside a cut of
 * libcow over as much.
 *
 * The naive copy is what fork() would be without copy-on-write: every page copied into frames of
 * the child's own before it runs. It is made of a copy into a shared mapping (which fork() leaves
 * alone) and a fork that leaves the original out. Between two measurements the parent writes all
 * of its pages, as one that is at work does: a second fork() of untouched pages finds them
 * protected already and is cheaper.
 */
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cow.h>

#include "cli/bench/forks.h"

static struct {
	char *memory;
	size_t bytes;
	void *copy; /* of the naive way, while its child lives */
	struct cow_region *region;
} work;

/* --- the ways --- */

/* Starts a child that stays until it is ended; *ret_ns is how long that took. */
typedef pid_t (*start_fn)(uint64_t *ret_ns);

static pid_t start_fork(uint64_t *ret_ns)
{
	uint64_t start = bench_now();
	pid_t pid = fork_idle();

	*ret_ns = bench_lap(start);
	return pid;
}

static pid_t start_naive(uint64_t *ret_ns)
{
	uint64_t start = bench_now();
	pid_t pid;

	work.copy = mmap(NULL, work.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			 0);
	if (work.copy == MAP_FAILED) {
		work.copy = NULL;
		return -errno;
	}
	memcpy(work.copy, work.memory, work.bytes);
	madvise(work.memory, work.bytes, MADV_DONTFORK);
	pid = fork_idle();
	*ret_ns = bench_lap(start);
	madvise(work.memory, work.bytes, MADV_DOFORK);
	return pid;
}

static void end_child(pid_t pid)
{
	end_idle(pid);
	if (work.copy)
		munmap(work.copy, work.bytes);
	work.copy = NULL;
}

/* Has the parent's memory and a stack of its own: no function that could touch either's TLS. */
static int wait_to_be_ended(void *context)
{
	for (;;)
		syscall(SYS_pause);
	return context != NULL;
}

static pid_t start_clone(uint64_t *ret_ns)
{
	static char stack[65536] __attribute__((aligned(64)));
	uint64_t start = bench_now();
	pid_t pid = clone(wait_to_be_ended, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);

	*ret_ns = bench_lap(start);
	return pid < 0 ? -errno : pid;
}

static double measure_idle(struct bench *bench, const struct bench_subject *subject)
{
	const start_fn *start = subject->context;
	uint64_t ns;
	pid_t pid;

	write_pages(work.memory, work.bytes);
	pid = (*start)(&ns);
	if (pid < 0) {
		bench_fail(bench, pid, "cannot start a process");
		return NAN;
	}
	end_child(pid);
	return (double)ns;
}

static double measure_vfork(struct bench *bench, const struct bench_subject *subject)
{
	uint64_t start, ns;
	pid_t pid;

	(void)subject;
	write_pages(work.memory, work.bytes);
	start = bench_now();
	/* NOLINTNEXTLINE(clang-analyzer-security.insecureAPI.vfork): what it costs is asked. */
	pid = vfork();
	if (pid == 0)
		_exit(0);
	ns = bench_lap(start);
	if (pid < 0) {
		bench_fail(bench, -errno, "cannot vfork");
		return NAN;
	}
	waitpid(pid, NULL, 0);
	return (double)ns;
}

static double measure_spawn(struct bench *bench, const struct bench_subject *subject)
{
	static const char *const argv[] = { "true", NULL };
	uint64_t start, ns;
	pid_t pid;
	int error;

	(void)subject;
	write_pages(work.memory, work.bytes);
	start = bench_now();
	error = posix_spawn(&pid, "/bin/true", NULL, NULL, (char *const *)argv, environ);
	ns = bench_lap(start);
	if (error) {
		bench_fail(bench, -error, "cannot run /bin/true");
		return NAN;
	}
	waitpid(pid, NULL, 0);
	return (double)ns;
}

/* A cut takes less than a microsecond: many at a time. */
static double measure_cut(struct bench *bench, const struct bench_subject *subject)
{
	enum { TIMES = 200 };
	struct cow_snapshot *snapshot;
	uint64_t start;
	int i, error = 0;

	(void)subject;
	error = cow_region_touch(work.region, cow_region_get_base(work.region), work.bytes);
	start = bench_now();
	for (i = 0; i < TIMES && !error; i++) {
		error = cow_region_snapshot(work.region, &snapshot);
		if (!error)
			cow_snapshot_unref(snapshot);
	}
	if (error) {
		bench_fail(bench, error, "cannot take a snapshot");
		return NAN;
	}
	return (double)bench_lap(start) / TIMES;
}

/* --- memory --- */

/* What there is more of while the child lives: both processes' shares, and page tables. */
static double added_memory(struct bench *bench, start_fn start, bool has_memory_of_its_own)
{
	struct bench_memory before = { 0 }, after = { 0 }, child = { 0 };
	uint64_t ns;
	pid_t pid;
	int error;

	write_pages(work.memory, work.bytes);
	error = bench_memory(0, &before);
	pid = start(&ns);
	if (pid < 0 || error) {
		bench_fail(bench, pid < 0 ? pid : error, "cannot look at a process");
		return NAN;
	}
	error = bench_memory(0, &after);
	if (!error && has_memory_of_its_own)
		error = bench_memory(pid, &child);
	end_child(pid);
	if (error)
		bench_fail(bench, error, "cannot read /proc/PID/smaps_rollup");
	return (double)after.pss + (double)child.pss + (double)child.page_tables -
	       (double)before.pss;
}

static void add_memory_rows(struct bench *bench)
{
	const struct {
		const char *key, *label, *text;
		start_fn start;
		bool own;
	} kinds[] = {
		{ "memory/naive", "memory added by the naive copy", "~120 MiB", start_naive, true },
		{ "memory/fork", "memory added by fork(), page tables included", "~0.2 MiB",
		  start_fork, true },
		{ "memory/clone-vm", "memory added by clone(CLONE_VM)", "~0 (shared)", start_clone,
		  false },
	};
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && !bench_over(bench); i++)
		bench_add_value(bench,
				&(struct bench_row){ .key = kinds[i].key,
						     .label = kinds[i].label,
						     .unit = BENCH_BYTES,
						     .text = kinds[i].text,
						     .plot = "memory" },
				added_memory(bench, kinds[i].start, kinds[i].own));
}

/* --- the experiment --- */

static void take_turns(struct bench *bench)
{
	static const start_fn by_fork = start_fork, by_copy = start_naive, by_clone = start_clone;
	const struct bench_subject subjects[] = {
		{ { "fork", "fork()", BENCH_NS, "~45 us", "latency" }, measure_idle, 0, &by_fork },
		{ { "naive", "naive copy", BENCH_NS, "~12,400 us", "latency" },
		  measure_idle,
		  0,
		  &by_copy },
		{ { "clone-vm", "clone(CLONE_VM)", BENCH_NS, "~30 us", "latency" },
		  measure_idle,
		  0,
		  &by_clone },
		{ { "vfork", "vfork(), until the child has ended", BENCH_NS, NULL, "latency" },
		  measure_vfork },
		{ { "posix-spawn", "posix_spawn() of /bin/true", BENCH_NS, NULL, "latency" },
		  measure_spawn },
		{ { "libcow", "libcow: snapshot of as much, and its release", BENCH_NS, NULL,
		    "latency" },
		  measure_cut },
	};

	bench_take_turns_controlled(bench, subjects, sizeof(subjects) / sizeof(subjects[0]));
	bench_add_ratio(bench,
			&(struct bench_row){ "naive/fork", "naive copy / fork()",
					     .text = "~276 x (two orders of magnitude)" },
			"naive", "fork");
	bench_add_ratio(bench, &(struct bench_row){ "fork/libcow", "fork() / libcow's snapshot" },
			"fork", "libcow");
}

static void run(struct bench *bench)
{
	work.bytes = bench_fit(bench,
			       BENCH_BY_SCALE(bench, 8 * MIB, 120 * MIB, 120 * MIB, 120 * MIB), 4);
	work.region = region_filled(bench, work.bytes);
	work.memory = bench_map(bench, work.bytes, false);
	if (bench_over(bench))
		return;
	/* A fork that had the region to copy, too, would not be the one that is asked about. */
	madvise(cow_region_get_base(work.region), work.bytes, MADV_DONTFORK);
	bench_fill(work.memory, work.bytes, bench->seed);
	bench_add_value(bench, &(struct bench_row){ "parent", "the parent's memory", BENCH_BYTES },
			(double)work.bytes);
	take_turns(bench);
	add_memory_rows(bench);
	bench_check(bench, bench_median(bench, "memory/fork") < 0.5 * (double)work.bytes,
		    "fork() copies none of the parent's pages");
	bench_check(bench, bench_median(bench, "memory/naive") > 0.9 * (double)work.bytes,
		    "the naive copy copies all of them");
}

static void judge_latency(struct bench *bench)
{
	double ratio = bench_median(bench, "naive/fork"), fork_ns = bench_median(bench, "fork");

	bench_judge(bench, "fork() is two orders of magnitude faster than a naive copy",
		    ratio >= 100 ? BENCH_HOLDS :
		    ratio >= 10  ? BENCH_HOLDS_IN_PART :
				   BENCH_DOES_NOT_HOLD,
		    "%s here: %s beside %s, for %s of memory",
		    bench_figure(bench, BENCH_RATIO, ratio), bench_figure(bench, BENCH_NS, fork_ns),
		    bench_figure(bench, BENCH_NS, bench_median(bench, "naive")),
		    bench_figure(bench, BENCH_BYTES, bench_median(bench, "parent")));
	bench_judge(bench, "fork() takes about 45 us",
		    fork_ns < 90e3   ? BENCH_HOLDS :
		    fork_ns < 1000e3 ? BENCH_HOLDS_IN_PART :
				       BENCH_DOES_NOT_HOLD,
		    "%s: it copies an entry for each page (see fork-size)",
		    bench_figure(bench, BENCH_NS, fork_ns));
}

static void judge_memory(struct bench *bench)
{
	double added = bench_median(bench, "memory/fork"), all = bench_median(bench, "parent");

	bench_judge(bench, "the memory that fork() adds is negligible",
		    added < 0.01 * all ? BENCH_HOLDS :
		    added < 0.1 * all  ? BENCH_HOLDS_IN_PART :
					 BENCH_DOES_NOT_HOLD,
		    "%s of %s, as long as nobody writes", bench_figure(bench, BENCH_BYTES, added),
		    bench_figure(bench, BENCH_BYTES, all));
}

static void judge_clone(struct bench *bench)
{
	bool faster = bench_is_above(bench, "fork", "clone-vm");

	bench_judge(bench, "clone() with CLONE_VM is faster than fork(), and adds nothing",
		    faster && bench_median(bench, "memory/clone-vm") <
					    0.01 * bench_median(bench, "parent") ?
			    BENCH_HOLDS :
			    BENCH_DOES_NOT_HOLD,
		    "%s beside %s; %s more memory",
		    bench_figure(bench, BENCH_NS, bench_median(bench, "clone-vm")),
		    bench_figure(bench, BENCH_NS, bench_median(bench, "fork")),
		    bench_figure(bench, BENCH_BYTES, bench_median(bench, "memory/clone-vm")));
}

static void judge(struct bench *bench)
{
	judge_latency(bench);
	judge_memory(bench);
	judge_clone(bench);
}

static const struct bench_plot plots[] = {
	{ "latency", "Starting a process", NULL, "ns", .log_y = true },
	{ "memory", "Memory added", NULL, "bytes" },
	{ 0 },
};

const struct bench_experiment experiment_fork_methods = {
	.name = "fork-methods",
	.title = "Ways to start a process: naive copy, fork, clone, vfork, posix_spawn",
	.source = BENCH_SOURCE_FORK,
	.claim = "On an 8-core machine with Linux 6.6, a naive copy of a process takes ~12,400 us "
		 "and adds ~120 MiB; fork() with copy-on-write ~45 us and ~0.2 MiB; clone() with "
		 "CLONE_VM ~30 us and nothing: copy-on-write reduces the latency of a fork by "
		 "roughly two orders of magnitude, from milliseconds to microseconds.",
	.method = "A parent with 120 MiB in 4 KiB pages, all written before each measurement, "
		  "starts a child in each of the ways, in turns; timed is the call in the parent. "
		  "The naive copy copies every page before the child runs. Added memory is the sum "
		  "of both PSS and the child's page tables, less what the parent had. libcow's "
		  "snapshot of a region of the same size stands beside.",
	.plots = plots,
	.seconds = 15,
	.run = run,
	.judge = judge,
};
