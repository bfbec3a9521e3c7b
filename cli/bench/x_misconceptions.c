/* SPDX-License-Identifier: MIT */
/*
 * misconceptions: the four that a text lists, each put to the test together with the text's own
 * correction of it. A verdict here is on what the text says, not on the misconception.
 *
 * The third says that copy-on-write can be disabled, by vm.overcommit_memory=2 and fork() with
 * CLONE_VM. The first is a limit on what may be promised; it is tried with a limit far above what
 * the machine has, so that nobody is refused memory meanwhile. The second makes a thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/bench/forks.h"

#define OVERCOMMIT "/proc/sys/vm/overcommit_"

static struct {
	char *memory;
	size_t bytes, pages;
} work;

struct counted {
	double diverged, shared, private_bytes;
};

static int write_some(void *context, int number)
{
	write_pages(context, (size_t)number * (size_t)getpagesize());
	return 0;
}

/* Forks; the child writes so many pages of a mapping; what do the two then have apart? */
static bool count(struct bench *bench, char *memory, int pages, struct counted *ret_counted)
{
	struct bench_worker child;
	struct bench_memory seen = { 0 };
	uint64_t diverged = 0, shared = 0;
	int error = bench_worker_begin(&child, write_some, memory);

	if (error) {
		bench_fail(bench, error, "cannot start a process");
		return false;
	}
	if (bench_worker_step(&child, pages) < 0)
		error = -EPIPE;
	if (!error)
		error = bench_diverged_pages(child.pid, getpid(), memory, work.bytes, &diverged,
					     &shared);
	if (!error)
		error = bench_memory(child.pid, &seen);
	bench_worker_end(&child);
	if (error)
		bench_fail(bench, error, "cannot look at a child");
	*ret_counted = (struct counted){ (double)diverged, (double)shared, (double)seen.uss };
	return !error;
}

static void add_pages(struct bench *bench, const char *key, const char *label, double pages,
		      const char *text)
{
	bench_add_value(bench, &(struct bench_row){ key, label, BENCH_PAGES, text }, pages);
}

/* 1: nothing is copied by fork() itself, then page by page. */
static void try_instant(struct bench *bench)
{
	struct counted none, some;

	if (!count(bench, work.memory, 0, &none) || !count(bench, work.memory, 7, &some))
		return;
	add_pages(bench, "fork/copied", "pages copied by fork()", none.diverged, "0");
	add_pages(bench, "fork/written", "pages copied after 7 were written", some.diverged,
		  "page by page");
	bench_check(bench, none.diverged < 0.5, "fork() copies no page");
	bench_check(bench, some.diverged > 6.5 && some.diverged < 7.5,
		    "as many pages diverge as are written");
}

/* 2 and 4: a file, privately and shared. */
static void try_file(struct bench *bench)
{
	struct counted seen;
	char path[4200], byte = 0, *private, *shared;
	int fd, error;

	snprintf(path, sizeof(path), "%s/file", bench->directory);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) {
		bench_fail(bench, -errno, "cannot make a file");
		return;
	}
	if (ftruncate(fd, (off_t)work.bytes) < 0) {
		bench_fail(bench, -errno, "cannot make a file");
		close(fd);
		return;
	}
	private = mmap(NULL, work.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	shared = mmap(NULL, work.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (private == MAP_FAILED || shared == MAP_FAILED) {
		bench_fail(bench, -errno, "cannot map a file");
		close(fd);
		return;
	}
	write_pages(shared, work.bytes);
	read_pages(private, work.bytes);
	if (count(bench, private, 5, &seen))
		add_pages(bench, "private/copied",
			  "pages of a MAP_PRIVATE file mapping copied when 5 are written",
			  seen.diverged, "as anonymous memory");
	if (count(bench, shared, (int)work.pages, &seen))
		add_pages(bench, "shared/copied",
			  "pages of a MAP_SHARED mapping copied when all are written",
			  seen.diverged, "0: not eligible");
	private[0] = 77;
	error = pread(fd, &byte, 1, 0) == 1 ? 0 : -EIO;
	bench_add_value(bench,
			&(struct bench_row){ "file/changed",
					     "bytes of the file changed by a write to MAP_PRIVATE",
					     BENCH_COUNT, "0" },
			byte == 77 ? 1 : 0);
	bench_check(bench, !error && byte != 77, "a write to a MAP_PRIVATE page stays private");
	munmap(private, work.bytes);
	munmap(shared, work.bytes);
	close(fd);
}

/* --- 3: "disabling" --- */

static int idle_in_memory(void *context)
{
	for (;;)
		pause();
	return context != NULL;
}

/* What fork() with CLONE_VM takes and adds: it copies and protects nothing at all. */
static void try_clone(struct bench *bench)
{
	static char stack[65536] __attribute__((aligned(64)));
	struct bench_memory before = { 0 }, after = { 0 };
	struct bench_samples clones = { 0 }, forks = { 0 };
	unsigned int i;
	uint64_t start;
	pid_t pid;

	bench_memory(0, &before);
	for (i = 0; i < bench->runs + bench->warm_ups; i++) {
		write_pages(work.memory, work.bytes);
		start = bench_now();
		pid = clone(idle_in_memory, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);
		if (i >= bench->warm_ups)
			bench_samples_add(&clones, (double)bench_lap(start));
		bench_memory(0, &after);
		end_idle(pid);
		start = bench_now();
		pid = fork_idle();
		if (i >= bench->warm_ups)
			bench_samples_add(&forks, (double)bench_lap(start));
		end_idle(pid);
	}
	bench_add(bench,
		  &(struct bench_row){ "clone-vm", "clone(CLONE_VM)", BENCH_NS,
				       "dramatically more" },
		  &clones);
	bench_add(bench, &(struct bench_row){ "fork", "fork()", BENCH_NS }, &forks);
	bench_add_value(bench,
			&(struct bench_row){ "clone-vm/memory", "memory that CLONE_VM adds",
					     BENCH_BYTES, "dramatically more" },
			after.pss > before.pss ? (double)after.pss - (double)before.pss : 0);
	bench_samples_free(&clones);
	bench_samples_free(&forks);
}

/*
 * First the limit, to what nobody meets. It is one of two settings; writing either clears the
 * other, so that only the one in use may be touched.
 */
static int raise_limit(struct bench *bench)
{
	uint64_t kbytes = 0;

	bench_read_number(OVERCOMMIT "kbytes", NULL, &kbytes);
	return kbytes ? bench_tune(bench, OVERCOMMIT "kbytes", "4294967296") :
			bench_tune(bench, OVERCOMMIT "ratio", "100000");
}

static void try_overcommit(struct bench *bench)
{
	const struct bench_row row = { "overcommit-2/copied",
				       "pages copied by fork() under vm.overcommit_memory=2",
				       BENCH_PAGES, "all: disabled" };
	struct counted seen;
	int error;

	if (!bench->allow_tuning || geteuid() != 0) {
		bench_add_skipped(bench, &row, "needs root and --allow-tuning");
		return;
	}
	error = raise_limit(bench);
	if (!error)
		error = bench_tune(bench, OVERCOMMIT "memory", "2");
	if (error)
		bench_add_skipped(bench, &row, "cannot set it: %s", strerror(-error));
	else if (count(bench, work.memory, 0, &seen))
		add_pages(bench, row.key, row.label, seen.diverged, row.text);
}

static void run(struct bench *bench)
{
	work.bytes = bench_fit(bench, BENCH_BY_SCALE(bench, 2, 32, 64, 128) * MIB, 3);
	work.pages = work.bytes / (size_t)getpagesize();
	work.memory = bench_map(bench, work.bytes, false);
	if (!work.memory)
		return;
	bench_fill(work.memory, work.bytes, bench->seed);
	bench_add_value(bench, &(struct bench_row){ "memory", "memory of the parent", BENCH_BYTES },
			(double)work.bytes);
	bench_add_value(bench, &(struct bench_row){ "pages", "its pages", BENCH_PAGES },
			(double)work.pages);
	try_instant(bench);
	try_file(bench);
	try_clone(bench);
	try_overcommit(bench);
}

/* --- verdicts --- */

static void judge_instant(struct bench *bench)
{
	double copied = bench_median(bench, "fork/copied");

	bench_judge(bench, "1. fork() copies no user memory, only page tables; copies come by page",
		    copied < 1 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%.0f of %.0f pages copied by fork(), %.0f after 7 were written", copied,
		    bench_median(bench, "pages"), bench_median(bench, "fork/written"));
}

static void judge_files(struct bench *bench)
{
	double private = bench_median(bench, "private/copied");
	double shared = bench_median(bench, "shared/copied");
	double changed = bench_median(bench, "file/changed");

	bench_judge(bench, "2. file mappings benefit, too; MAP_SHARED is not eligible",
		    fabs(private - 5) < 0.5 && shared < 0.5 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%.0f pages of a MAP_PRIVATE mapping copied for 5 written, %.0f of MAP_SHARED",
		    private, shared);
	bench_judge(bench, "4. MAP_PRIVATE is copy-on-write already",
		    changed < 0.5 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    changed < 0.5 ? "a write to it is not in the file" :
				    "a write to it is in the file");
}

static void judge_disabling(struct bench *bench)
{
	double copied = bench_median(bench, "overcommit-2/copied");
	bool cheap = bench_median(bench, "clone-vm") < 2 * bench_median(bench, "fork") &&
		     bench_median(bench, "clone-vm/memory") < (double)MIB;

	if (isnan(copied))
		bench_judge(bench, "3. vm.overcommit_memory=2 disables copy-on-write",
			    BENCH_NOT_JUDGED, "not tried: it needs root and --allow-tuning");
	else
		bench_judge(bench, "3. vm.overcommit_memory=2 disables copy-on-write",
			    copied > 0.5 * bench_median(bench, "pages") ? BENCH_HOLDS :
									  BENCH_DOES_NOT_HOLD,
			    "%.0f pages are copied by fork() under it%s", copied,
			    copied > 0.5 ? "" :
					   ": it limits what may be promised, so that a fork may "
					   "be refused; one that is not shares as before");
	bench_judge(bench, "3. CLONE_VM instead increases memory use and latency dramatically",
		    cheap ? BENCH_DOES_NOT_HOLD : BENCH_HOLDS,
		    "it takes %s beside fork()'s %s and adds %s; parent and child then write the "
		    "same memory, so it takes the place of a thread, not of a fork",
		    bench_figure(bench, BENCH_NS, bench_median(bench, "clone-vm")),
		    bench_figure(bench, BENCH_NS, bench_median(bench, "fork")),
		    bench_figure(bench, BENCH_BYTES, bench_median(bench, "clone-vm/memory")));
}

static void judge(struct bench *bench)
{
	judge_instant(bench);
	judge_files(bench);
	judge_disabling(bench);
}

const struct bench_experiment experiment_misconceptions = {
	.name = "misconceptions",
	.title = "Four misconceptions about copy-on-write, and their corrections",
	.source = BENCH_SOURCE_FORK,
	.claim = "(1) \"It copies the whole address space instantly\": no, fork() copies only page "
		 "tables, data follows page by page. (2) \"It only works for anonymous memory\": "
		 "no, file-backed mappings benefit, too, but MAP_SHARED is not eligible. (3) "
		 "\"Disabling it improves security\": disabling it, by vm.overcommit_memory=2 and "
		 "fork() with CLONE_VM, dramatically increases memory use and latency. (4) \"It "
		 "interferes with mmap()\": no, MAP_PRIVATE is copy-on-write already.",
	.method = "For each, parent and child are compared page by page after a fork: of anonymous "
		  "memory, of a file mapped privately and shared; under vm.overcommit_memory=2 "
		  "(needs root and --allow-tuning; put back); and clone(CLONE_VM) is timed beside "
		  "fork().",
	.seconds = 10,
	.run = run,
	.judge = judge,
};
