/* SPDX-License-Identifier: MIT */
/*
 * fork-exec: what is copied between fork() and exec(). The child counts its own faults up to the
 * moment before exec(), so what it copies of stack and C library is in the figure, too.
 */
#include <errno.h>
#include <math.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/bench/forks.h"

static struct {
	char *memory;
	size_t bytes;
	long *faults; /* shared with the child */
} work;

static const char *const program[] = { "true", NULL };

static void exec_program(void *context)
{
	struct rusage usage;

	(void)context;
	if (getrusage(RUSAGE_SELF, &usage) == 0)
		*work.faults = usage.ru_minflt;
	execve("/bin/true", (char *const *)program, environ);
	_exit(127);
}

static double measure_fork(struct bench *bench, const struct bench_subject *subject)
{
	struct fork_times times;

	write_pages(work.memory, subject->number);
	return fork_timed(bench, exec_program, NULL, &times) ? times.cycle_ns : NAN;
}

static double measure_spawn(struct bench *bench, const struct bench_subject *subject)
{
	uint64_t start;
	double ns;
	pid_t pid;
	int error;

	write_pages(work.memory, subject->number);
	start = bench_now();
	error = posix_spawn(&pid, "/bin/true", NULL, NULL, (char *const *)program, environ);
	if (error) {
		bench_fail(bench, -error, "cannot run /bin/true");
		return NAN;
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	ns = (double)bench_lap(start);
	return ns;
}

/* Faults of the child before exec(), in several forks. */
static double measure_faults(struct bench *bench, const struct bench_subject *subject)
{
	struct fork_times times;

	write_pages(work.memory, subject->number);
	*work.faults = -1;
	if (!fork_timed(bench, exec_program, NULL, &times) || *work.faults < 0)
		return NAN;
	return (double)*work.faults;
}

static void run(struct bench *bench)
{
	const size_t wanted = BENCH_BY_SCALE(bench, 8 * MIB, 256 * MIB, 512 * MIB, 1024 * MIB);

	work.bytes = bench_fit(bench, wanted, 2);
	work.memory = bench_map(bench, work.bytes, false);
	work.faults = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			   -1, 0);
	if (bench_over(bench) || work.faults == MAP_FAILED)
		return;
	bench_fill(work.memory, work.bytes, bench->seed);
	bench_add_value(bench, &(struct bench_row){ "parent", "the parent's memory", BENCH_BYTES },
			(double)work.bytes);
	bench_add_value(bench,
			&(struct bench_row){ "parent/pages", "the parent's pages", BENCH_PAGES },
			(double)work.bytes / (double)getpagesize());
	const struct bench_subject subjects[] = {
		{ { "fork-exec", "fork(), exec, exit, wait", BENCH_NS, NULL, "time" },
		  measure_fork,
		  work.bytes },
		{ { "spawn", "posix_spawn(), exit, wait", BENCH_NS, NULL, "time" },
		  measure_spawn,
		  work.bytes },
		{ { "copied", "faults of the child before exec: pages copied, at most", BENCH_PAGES,
		    "almost none" },
		  measure_faults,
		  work.bytes },
	};
	bench_take_turns_controlled(bench, subjects, sizeof(subjects) / sizeof(subjects[0]));
	bench_add_ratio(bench,
			&(struct bench_row){ "fork-exec/spawn", "fork and exec / posix_spawn" },
			"fork-exec", "spawn");
	bench_check(bench,
		    bench_max(bench, "copied") < 64 + 0.05 * bench_median(bench, "parent/pages"),
		    "exec() comes before the parent's memory is copied");
}

static void judge(struct bench *bench)
{
	double copied = bench_median(bench, "copied"),
	       ratio = bench_median(bench, "fork-exec/spawn");

	bench_judge(bench, "almost no memory is copied when exec() follows fork()",
		    copied < 0.01 * bench_median(bench, "parent/pages") || copied < 100 ?
			    BENCH_HOLDS :
			    BENCH_DOES_NOT_HOLD,
		    "%.0f pages of %s, of stack and C library", copied,
		    bench_figure(bench, BENCH_PAGES, bench_median(bench, "parent/pages")));
	bench_judge(bench, "so fork() and exec() are efficient, a pure win",
		    ratio < 1.25 ? BENCH_HOLDS :
		    ratio < 3    ? BENCH_HOLDS_IN_PART :
				   BENCH_DOES_NOT_HOLD,
		    "%s beside %s by posix_spawn(), which copies no page tables either",
		    bench_figure(bench, BENCH_NS, bench_median(bench, "fork-exec")),
		    bench_figure(bench, BENCH_NS, bench_median(bench, "spawn")));
}

static const struct bench_plot plots[] = {
	{ "time", "Running a program from a large process", NULL, "ns" },
	{ 0 },
};

const struct bench_experiment experiment_fork_exec = {
	.name = "fork-exec",
	.title = "What is copied when exec follows fork",
	.source = BENCH_SOURCE_COURSE "; " BENCH_SOURCE_ATLAS,
	.claim = "If fork() is immediately followed by exec(), almost no memory is copied: exec() "
		 "discards the child's address space before anything is written. fork()+exec() "
		 "barely touches the parent's memory and is a pure win.",
	.method = "A large parent, all of its pages written, runs /bin/true by fork() and exec(), "
		  "and by posix_spawn(), which shares the parent's memory until exec(). The child "
		  "counts its page faults up to exec(): each is a page copied, or less.",
	.plots = plots,
	.seconds = 15,
	.run = run,
	.judge = judge,
};
