/* SPDX-License-Identifier: MIT */
/*
 * cow ps agrees with the kernel (smaps_rollup) to the kilobyte over memory of every kind, and
 * knows what the kernel does not tell: the distinct pages, and who else has them.
 */
#include "tests/tap.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/cli/ps-compare.h"

/* Enough that what a sanitizer adds to a process is less than half of it. */
#define PAGES        16000
#define MERGED_BYTES (2000 * (size_t)4096)
#define BYTES        (PAGES * (size_t)4096)
#define HUGE         ((size_t)2 << 20)

static char *anonymous(size_t bytes, int flags)
{
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);

	if (memory == MAP_FAILED)
		bail("out of memory");
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	return memory;
}

static void touch(char *memory, size_t from, size_t to)
{
	for (; from < to; from++)
		memory[from * 4096] = 1;
}

/* Starts a process that does its part and then waits for its end. */
static pid_t start(void (*prepare)(void *), void *context)
{
	int ready[2];
	char byte;
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC) < 0)
		bail("no pipe");
	pid = fork();
	if (pid < 0)
		bail("no process");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (prepare)
			prepare(context);
		if (write(ready[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		bail("a process did not get ready");
	close(ready[0]);
	return pid;
}

static void end(const pid_t *pids, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		kill(pids[i], SIGKILL);
	for (i = 0; i < count; i++)
		waitpid(pids[i], NULL, 0);
}

static struct ps_result result;

static bool agree(const pid_t *pids, size_t count, const char *what)
{
	return is_int(compare_with_kernel(pids, count, &result), 0, "%s: equal to smaps_rollup",
		      what);
}

static void write_some(void *memory)
{
	touch(memory, 0, 300);
}

TEST(fork_shares_until_somebody_writes)
{
	char *memory = anonymous(BYTES, MAP_PRIVATE);
	pid_t pids[3];

	touch(memory, 0, PAGES);
	pids[0] = start(NULL, NULL);
	pids[1] = start(write_some, memory);
	pids[2] = start(write_some, memory);
	agree(pids, 3, "three children");
	ok(result.totals.unique >= (PAGES + 600) * (uint64_t)4096, "their distinct pages");
	ok(result.totals.unique < (PAGES + PAGES / 2) * (uint64_t)4096, "but no more");
	/* This process has what the children have not written. */
	ok(result.totals.outside >= PAGES * (uint64_t)4096, "most of it is shared with the parent");
	ok(result.processes[0].inside >= (PAGES - 300) * (uint64_t)4096, "and among them");
	end(pids, 3);
	munmap(memory, BYTES);
}

/*
 * Three children with 16,000 pages each: budgets from a fifth of these to nearly all, where strata
 * are hardly longer than windows. An interval may be wrong once in a hundred times: twice as wide
 * it never is.
 */
TEST(a_sample_is_as_right_as_it_says)
{
	static const uint64_t budgets[] = { 10000, 24000, 36000, 47000 };
	char *memory = anonymous(BYTES, MAP_PRIVATE);
	struct ps_result all = { 0 }, sample = { 0 };
	struct ps_options how = { .threads = 2 };
	struct ps_totals *got = &sample.totals;
	uint64_t away;
	pid_t pids[3];
	size_t i;

	if (!is_errno(proc_root_open(NULL, &how.root), 0, "/"))
		return;
	touch(memory, 0, PAGES);
	pids[0] = start(NULL, NULL);
	pids[1] = start(write_some, memory);
	pids[2] = start(write_some, memory);
	is_errno(measure(&how.root, pids, 3, &all), 0, "everything");
	how.fast = true;
	for (i = 0; i < sizeof(budgets) / sizeof(budgets[0]); i++) {
		how.budget = budgets[i];
		how.seed = i + 1;
		is_errno(ps_select_pids(&how.root, pids, 3, &sample), 0, "selected");
		is_errno(ps_measure(&how, &sample), 0, "a sample of %d pages", (int)budgets[i]);
		ok(sample.sampled && sample.coverage > 0 && sample.coverage <= 1,
		   "its coverage is %.3f", sample.coverage);
		away = got->unique > all.totals.unique ? got->unique - all.totals.unique :
							 all.totals.unique - got->unique;
		ok(away <= 2 * got->unique_error, "distinct: %llu kB off, the interval is %llu kB",
		   (unsigned long long)away >> 10, (unsigned long long)got->unique_error >> 10);
		ps_result_free(&sample);
	}
	ps_result_free(&all);
	end(pids, 3);
	munmap(memory, BYTES);
	proc_root_close(&how.root);
}

static void read_zeroes(void *context)
{
	char *memory = anonymous(BYTES, MAP_PRIVATE);
	size_t i;

	for (i = 0; i < PAGES; i++)
		(void)((volatile char *)memory)[i * 4096];
	touch(memory, 0, 10);
}

TEST(the_zero_page_is_nobodys)
{
	pid_t pid = start(read_zeroes, NULL);

	agree(&pid, 1, "a process that reads zeroes");
	ok(result.processes[0].rss < BYTES, "they are not in RSS");
	end(&pid, 1);
}

struct file {
	int fd;
	int flags;
	bool twice;
};

static void map_file(void *context)
{
	const struct file *file = context;
	char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, file->flags, file->fd, 0);
	size_t i;

	if (memory == MAP_FAILED)
		_exit(1);
	for (i = 0; i < PAGES; i++)
		(void)((volatile char *)memory)[i * 4096];
	touch(memory, 0, 100);
	if (!file->twice)
		return;
	memory = mmap(NULL, BYTES, PROT_READ, MAP_SHARED | MAP_POPULATE, file->fd, 0);
	if (memory == MAP_FAILED)
		_exit(1);
}

static int make_file(const char *directory)
{
	int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char *bytes = calloc(1, BYTES);

	if (fd < 0 || write(fd, bytes, BYTES) != (ssize_t)BYTES)
		bail("cannot write a file in %s", directory);
	free(bytes);
	return fd;
}

static void try_files(int flags, bool twice, const char *what, uint64_t copied)
{
	struct file file = { .fd = make_file("/tmp"), .flags = flags, .twice = twice };
	pid_t pids[2] = { start(map_file, &file), start(map_file, &file) };

	agree(pids, 2, what);
	ok(result.processes[0].uss >= copied * 4096 &&
		   result.processes[0].uss < (copied + 100) * 4096,
	   "%s: %llu kB are its own", what, (unsigned long long)result.processes[0].uss >> 10);
	end(pids, 2);
	close(file.fd);
}

TEST(files)
{
	try_files(MAP_PRIVATE, false, "a private mapping", 100);
	try_files(MAP_SHARED, false, "a shared mapping", 0);
	try_files(MAP_SHARED, true, "a file mapped twice", 0);
}

static void use_shared(void *memory)
{
	touch(memory, 0, 1000);
}

TEST(shared_anonymous_memory)
{
	char *memory = anonymous(BYTES, MAP_SHARED);
	pid_t pids[2] = { start(use_shared, memory), start(use_shared, memory) };

	agree(pids, 2, "two that share");
	end(pids, 2);
	munmap(memory, BYTES);
}

static char *huge(void)
{
	char *memory = anonymous(8 * HUGE, MAP_PRIVATE);

	memory = (char *)(((uintptr_t)memory + HUGE - 1) / HUGE * HUGE);
	madvise(memory, 4 * HUGE, MADV_HUGEPAGE);
	touch(memory, 0, 4 * HUGE / 4096);
	return memory;
}

static void hold_huge(void *context)
{
	char *memory = huge();

	/* One is split by a write of its child, one loses a part. */
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	memory[HUGE] = 2;
	munmap(memory + 2 * HUGE, 4096);
}

TEST(huge_pages)
{
	pid_t pid = start(hold_huge, NULL);

	agree(&pid, 1, "huge pages: whole, written after a fork, cut");
	if (result.processes && !result.processes[0].thp)
		diag("there were none: is transparent_hugepage set to never?");
	end(&pid, 1);
}

static void reserve_much(void *context)
{
	char *memory = mmap(NULL, (size_t)1 << 40, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t i;

	if (memory == MAP_FAILED)
		_exit(1);
	for (i = 0; i < 300; i++)
		memory[i * (((size_t)1 << 30) + 123 * 4096)] = 1;
}

TEST(a_terabyte_of_which_little_is_used)
{
	pid_t pid = start(reserve_much, NULL);

	agree(&pid, 1, "a sparse area");
	end(&pid, 1);
}

/* --- what changes settings of the machine --- */

static bool may_tune(void)
{
	if (getenv("COW_TEST_ALLOW_TUNING"))
		return true;
	skip("it changes settings of the machine: set COW_TEST_ALLOW_TUNING=1");
	return false;
}

static int write_setting(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), error = 0;

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		error = -errno;
	if (fd >= 0)
		close(fd);
	return error;
}

static void read_setting(const char *path, char *value, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, value, room - 1);

	value[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		close(fd);
}

static void offer_equal_pages(void *context)
{
	char *memory = anonymous(MERGED_BYTES, MAP_PRIVATE);

	memset(memory, 7, MERGED_BYTES);
	madvise(memory, MERGED_BYTES, MADV_MERGEABLE);
}

#define KSM "/sys/kernel/mm/ksm/"

static void wait_for_merging(void)
{
	struct proc_root root;
	uint64_t sharing = 0;
	int i;

	if (proc_root_open(NULL, &root) < 0)
		return;
	for (i = 0; i < 400 && sharing < 2 * (MERGED_BYTES / 4096) - 100; i++) {
		usleep(50000);
		proc_root_read_u64(&root, "sys/kernel/mm/ksm/pages_sharing", &sharing);
	}
	proc_root_close(&root);
}

TEST(merged_pages)
{
	char running[16], pages[16];
	pid_t pids[2];

	if (!may_tune())
		return;
	if (access(KSM "run", W_OK) < 0) {
		skip("no KSM here, or no right to start it");
		return;
	}
	read_setting(KSM "run", running, sizeof(running));
	read_setting(KSM "pages_to_scan", pages, sizeof(pages));
	pids[0] = start(offer_equal_pages, NULL);
	pids[1] = start(offer_equal_pages, NULL);
	write_setting(KSM "pages_to_scan", "100000");
	write_setting(KSM "run", "1");
	wait_for_merging();
	write_setting(KSM "run", "0");
	agree(pids, 2, "merged pages");
	ok(result.totals.ksm >= MERGED_BYTES, "%llu kB merged",
	   (unsigned long long)result.totals.ksm >> 10);
	ok(result.totals.unique + MERGED_BYTES < result.totals.rss, "equal pages are one");
	end(pids, 2);
	/* Takes apart what was merged. */
	write_setting(KSM "run", "2");
	write_setting(KSM "pages_to_scan", pages);
	write_setting(KSM "run", running);
}

static void hold_huge_tlb(void *context)
{
	char *memory = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (memory == MAP_FAILED)
		return;
	memset(memory, 1, 2 * HUGE);
	/* cppcheck-suppress memleak ; the process holds it until it ends */
}

TEST(hugetlb_is_counted_apart)
{
	static const char path[] = "/proc/sys/vm/nr_hugepages";
	char before[16];
	pid_t pid;

	if (!may_tune())
		return;
	read_setting(path, before, sizeof(before));
	write_setting(path, "4");
	pid = start(hold_huge_tlb, NULL);
	agree(&pid, 1, "hugetlb pages");
	if (result.processes && result.processes[0].huge_tlb)
		is_u64(result.processes[0].huge_tlb, 2 * HUGE, "their size");
	else
		diag("the machine had no two huge pages to spare");
	end(&pid, 1);
	write_setting(path, before);
}

/* --- processes that do not stay --- */

TEST(a_process_that_has_ended_is_no_other)
{
	const struct ps_options options = { .threads = 1 };
	struct ps_options how = options;
	struct ps_result gone = { 0 };
	pid_t pid = start(NULL, NULL);

	if (!is_errno(proc_root_open(NULL, &how.root), 0, "/"))
		return;
	is_errno(ps_select_pids(&how.root, &pid, 1, &gone), 0, "selected while it lives");
	/* As if its PID had been given to a process that started later. */
	gone.processes[0].start_ticks--;
	is_errno(ps_measure(&how, &gone), 0, "measured");
	is_int(gone.processes[0].state, PS_VANISHED,
	       "another process of its PID is not taken for it");
	gone.processes[0].start_ticks++;
	gone.vanished = 0;
	end(&pid, 1);
	is_errno(ps_measure(&how, &gone), 0, "measured after its end");
	is_int(gone.processes[0].state, PS_VANISHED, "it has vanished");
	is_u64(gone.vanished, 1, "and is counted");
	ps_result_free(&gone);
	proc_root_close(&how.root);
}

TEST(processes_come_and_go)
{
	const int rounds = 20;
	struct ps_options how = { .threads = 2 };
	struct ps_result all;
	pid_t spawner;
	int i;

	if (!is_errno(proc_root_open(NULL, &how.root), 0, "/"))
		return;
	spawner = fork();
	if (spawner == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			pid_t child = fork();

			if (child == 0)
				_exit(0);
			waitpid(child, NULL, 0);
		}
	}
	for (i = 0; i < rounds; i++) {
		all = (struct ps_result){ 0 };
		is_errno(ps_select_all(&how.root, &all), 0, "selected");
		is_errno(ps_measure(&how, &all), 0, "measured");
		ok(all.measured > 0, "somebody was there");
		ps_result_free(&all);
	}
	end(&spawner, 1);
	proc_root_close(&how.root);
}

int main(int argc, char **argv)
{
	static const struct tap_case cases[] = {
		CASE(fork_shares_until_somebody_writes),
		CASE(a_sample_is_as_right_as_it_says),
		CASE(the_zero_page_is_nobodys),
		CASE(files),
		CASE(shared_anonymous_memory),
		CASE(huge_pages),
		CASE(a_terabyte_of_which_little_is_used),
		CASE(merged_pages),
		CASE(hugetlb_is_counted_apart),
		CASE(a_process_that_has_ended_is_no_other),
		CASE(processes_come_and_go),
	};
	struct proc_root root;
	int status;

	if (proc_root_open(NULL, &root) < 0 || !ps_can_see_frames(&root))
		skip_all("frame numbers need CAP_SYS_ADMIN");
	proc_root_close(&root);
	status = tap_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
	ps_result_free(&result);
	return status;
}
