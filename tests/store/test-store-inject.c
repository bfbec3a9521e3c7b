/* SPDX-License-Identifier: MIT */
/*
 * The store when a call of the kernel fails, for every one of them.
 *
 * A workload (workload.h) runs step by step. For each step, and each call through the seam
 * (sys/sys.h) that it makes, the workload runs up to the step and makes it with that call failing:
 * with an error of its kind, in two ways. The step succeeds all the same, or says an errno; then
 * the store, as it is open and as a newcomer opens it, holds exactly what it held before the step,
 * or what the step makes of it (where all that failed was to be sure of it). Made again, the step
 * succeeds. No file of the failed attempt is left, no descriptor either.
 *
 * Writes that are done in part only, through the table of file operations (store/io.h), change
 * nothing at all.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "store/io.h"
#include "store/rewrite.h"
#include "sys/sys.h"
#include "tests/resources.h"
#include "tests/store/workload.h"
#include "tests/tap.h"

#ifdef INJECT_LONG
enum { STEPS = 14, SEEDS = 4, FIRST_FEW = 1000000 };
#else
enum { STEPS = 9, SEEDS = 2, FIRST_FEW = 2 };
#endif

/* --- the injector --- */

static const int errors[SYS_CALLS][2] = {
	[SYS_CALL_ALLOC] = { -ENOMEM, -ENOMEM },   [SYS_CALL_MAP] = { -ENOMEM, -ENODEV },
	[SYS_CALL_PROTECT] = { -ENOMEM, -EACCES }, [SYS_CALL_ADVISE] = { -EINVAL, -ENOMEM },
	[SYS_CALL_MEMFD] = { -EMFILE, -ENFILE },   [SYS_CALL_TRUNCATE] = { -ENOSPC, -EIO },
	[SYS_CALL_OPEN] = { -EMFILE, -EACCES },    [SYS_CALL_STATFS] = { -EIO, -ENOSYS },
	[SYS_CALL_READ_AT] = { -EIO, -EINTR },     [SYS_CALL_WRITE_AT] = { -ENOSPC, -EIO },
	[SYS_CALL_THREAD] = { -EAGAIN, -EAGAIN },  [SYS_CALL_SYNC] = { -EIO, -ENOSPC },
	[SYS_CALL_RENAME] = { -EIO, -ENOSPC },     [SYS_CALL_UNLINK] = { -EIO, -EROFS },
	[SYS_CALL_LOCK] = { -EINTR, -ENOLCK },     [SYS_CALL_CLONE_RANGE] = { -EOPNOTSUPP, -EIO },
	[SYS_CALL_RANDOM] = { -ENOSYS, -EINTR },
};

enum { CALLS_MAX = 4096 };

static struct {
	bool armed;
	unsigned made; /* calls so far, in this step; atomic: a save has a thread of its own */
	unsigned fail; /* this one fails; 0: none */
	unsigned way;
	enum sys_call what;
	int error; /* that was injected; 0: not reached */
	unsigned char kinds[CALLS_MAX];
	unsigned done[SYS_CALLS];
} plan;

static int inject(enum sys_call call)
{
	unsigned n;

	if (!plan.armed || call == SYS_CALL_UNMAP)
		return 0;
	n = __atomic_add_fetch(&plan.made, 1, __ATOMIC_SEQ_CST);
	if (n < CALLS_MAX)
		plan.kinds[n] = (unsigned char)call;
	if (n != plan.fail || errors[call][plan.way] == 0)
		return 0;
	plan.what = call;
	plan.error = errors[call][plan.way];
	plan.done[call]++;
	return plan.error;
}

static int armed_call(struct work *work, unsigned fail, unsigned way)
{
	int r;

	plan.made = 0;
	plan.fail = fail;
	plan.way = way;
	plan.error = 0;
	plan.armed = true;
	r = work_call(work);
	plan.armed = false;
	return r;
}

/* --- what is left behind --- */

static unsigned leftovers(const char *path, bool remove)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	unsigned count = 0;

	while (directory && (entry = readdir(directory))) {
		size_t length = strlen(entry->d_name);

		count += length > 4 && strcmp(entry->d_name + length - 4, ".new") == 0;
		if (remove)
			unlinkat(dirfd(directory), entry->d_name, 0);
	}
	if (directory)
		closedir(directory);
	return count;
}

static void make_directory(char path[256])
{
	const char *root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("BUILD_ROOT") ?: ".";

	snprintf(path, 256, "%s/cow-inject-XXXXXX", root);
	if (!mkdtemp(path))
		bail("mkdtemp %s: %s", path, strerror(errno));
}

static void remove_directory(const char *path)
{
	leftovers(path, true);
	if (rmdir(path) < 0)
		diag("rmdir %s: %s", path, strerror(errno));
}

/* --- one failure --- */

static struct work work;

/* A newcomer sees it as it was, or as it is to become. Which, or -1. */
static int look(const char *directory, const struct work_state *after, char why[256])
{
	struct work_state *before = malloc(sizeof(*before)), *then = malloc(sizeof(*then));
	struct work_state *const states[] = { before, then };
	struct cow_store *store = work.store;
	int which;

	if (!before || !then)
		bail("out of memory");
	*before = work.state;
	*then = *after;
	/* There is one writer: the store is closed meanwhile, and opened again. */
	cow_store_close(store);
	work.store = NULL;
	which = work_check(directory, states, 2, why);
	if (cow_store_open(directory, 0, &work.store) < 0)
		which = -1;
	free(before);
	free(then);
	return which;
}

static bool is_known(int r)
{
	return r == plan.error || r == -ENOMEM || r == -EIO || r == -ENOSPC;
}

/* Whether the step has to be made again; where it has come to pass for a newcomer, it is not. */
static bool check_failure(const char *directory, int r, bool *ret_again)
{
	struct work_state *after = malloc(sizeof(*after));
	const char *kind = work_kind_names[work.kind];
	char why[256] = "";
	bool unlinks = plan.what == SYS_CALL_UNLINK;
	int which;

	if (!after)
		bail("out of memory");
	work_preview(&work, after);
	ok(is_known(r), "%s gives %s when %s fails with %s", kind, tap_errno_name(r),
	   sys_call_name(plan.what), tap_errno_name(plan.error));
	if (work.store && !unlinks)
		is_u64(leftovers(directory, false), 0, "%s left files behind when %s failed", kind,
		       sys_call_name(plan.what));
	which = look(directory, after, why);
	free(after);
	if (!ok(which >= 0, "%s, %s failed: %s", kind, sys_call_name(plan.what), why))
		return false;
	*ret_again = which == 0;
	return ok(which == 0 || plan.what == SYS_CALL_SYNC, "%s did it, and says that %s failed",
		  kind, sys_call_name(plan.what));
}

static unsigned compressed; /* layers, at the end of runs */

/* A bit of everything; every second time many compactions that compress. */
static struct work_options options_of(uint64_t seed)
{
	struct work_options options = { .seed = seed };

	if (seed % 2 == 0) {
		options.compress = true;
		options.pages = 40;
		options.weight[WORK_SAVE] = 3;
		options.weight[WORK_DELETE] = 1;
		options.weight[WORK_COMPACT] = 3;
	}
	return options;
}

/* Whether the call was reached. */
static bool run(uint64_t seed, unsigned step, unsigned fail, unsigned way)
{
	struct work_options options = options_of(seed);
	char directory[256], why[256] = "";
	bool reached = false, again = true;
	int r;

	make_directory(directory);
	r = work_open(&work, directory, &options);
	for (unsigned i = 0; i < step && r == 0; i++)
		r = work_step(&work);
	if (!is_errno(r, 0, "up to step %u", step))
		goto out;
	work_choose(&work);
	r = armed_call(&work, fail, way);
	reached = plan.error != 0;
	if (r < 0 && (!reached || !check_failure(directory, r, &again)))
		again = ok(reached, "%s fails by itself: %s", work_kind_names[work.kind],
			   tap_errno_name(r));
	if (r < 0 && again)
		r = work_call(&work);
	if (again && is_errno(r, 0, "%s, made again after %s failed", work_kind_names[work.kind],
			      reached ? sys_call_name(plan.what) : "nothing")) {
		work_done(&work);
		ok(work_holds(&work, why), "after %s failed in %s: %s",
		   reached ? sys_call_name(plan.what) : "nothing", work_kind_names[work.kind], why);
	}
	compressed += work_compressed(&work);
out:
	work_close(&work);
	remove_directory(directory);
	return reached;
}

/* Few of each kind stand for the rest. */
static bool is_chosen(unsigned n)
{
	unsigned before = 0;

	for (unsigned i = 1; i < n; i++)
		before += plan.kinds[i] == plan.kinds[n];
	return before < FIRST_FEW || before % 64 == 63;
}

/* After each failure, so that it is known whose the lost ones are. */
static unsigned files;

static void check_files(void)
{
	unsigned now = open_files();

	is_u64(now, files, "descriptors after %s in which %s failed with %s",
	       work_kind_names[work.kind], sys_call_name(plan.what), tap_errno_name(plan.error));
	files = now;
}

static unsigned fail_each(uint64_t seed, unsigned step)
{
	unsigned char kinds[CALLS_MAX];
	unsigned made, failed = 0;

	run(seed, step, 0, 0);
	made = plan.made < CALLS_MAX ? plan.made : CALLS_MAX - 1;
	memcpy(kinds, plan.kinds, sizeof(kinds));
	for (unsigned n = 1; n <= made && tap.failed < 10; n++) {
		memcpy(plan.kinds, kinds, sizeof(kinds));
		if (!is_chosen(n))
			continue;
		for (unsigned way = 0; way < 2; way++) {
			failed += run(seed, step, n, way);
			check_files();
		}
	}
	return failed;
}

static void report(void)
{
	char text[600] = "";

	for (unsigned i = 0; i < SYS_CALLS; i++)
		if (plan.done[i])
			snprintf(text + strlen(text), sizeof(text) - strlen(text), " %s %u",
				 sys_call_name((enum sys_call)i), plan.done[i]);
	diag("failures injected:%s", text);
}

TEST(every_call_fails_once)
{
	unsigned failed = 0;

	rewrite_pack_from = 1; /* however small */
	sys_injector = inject;
	run(1, STEPS, 0, 0); /* what is kept for good by then */
	files = open_files();
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		for (unsigned step = 0; step < STEPS && tap.failed < 10; step++)
			failed += fail_each(seed, step);
	sys_injector = NULL;
	report();
	diag("%u compressed layers", compressed);
	ok(failed > 100, "%u failures", failed);
	ok(plan.done[SYS_CALL_SYNC] && plan.done[SYS_CALL_RENAME] && plan.done[SYS_CALL_WRITE_AT] &&
		   plan.done[SYS_CALL_OPEN],
	   "among them syncs, renames, writes, openings");
}

/* --- short writes --- */

static ssize_t write_short(int fd, const struct iovec *pieces, int count, uint64_t offset)
{
	static unsigned turn;
	struct iovec first = pieces[0];

	(void)count;
	/* From one byte up to half of the first piece. */
	first.iov_len = turn++ % 3 ? (first.iov_len + 1) / 2 : 1 + turn % first.iov_len;
	return io_system.write(fd, &first, 1, offset);
}

TEST(writes_are_short)
{
	struct work_options options = { .seed = 5 };
	struct io_ops table = io_system;
	char directory[256], why[256];
	int r;

	table.write = write_short;
	io_table = &table;
	make_directory(directory);
	r = work_open(&work, directory, &options);
	for (unsigned i = 0; i < 12 && r == 0; i++)
		r = work_step(&work);
	is_errno(r, 0, "steps with short writes");
	ok(work_holds(&work, why), "holds what it should: %s", why);
	work_close(&work);
	io_table = &io_system;
	remove_directory(directory);
}

TAP_MAIN(CASE(writes_are_short), CASE(every_call_fails_once))
