/* SPDX-License-Identifier: MIT */
/*
 * Processes killed while they save, and a disk that is full.
 *
 * A child runs a workload (workload.h) on a store and notes in shared memory what it holds before
 * each call and what the call is to make of it. It is killed with SIGKILL at a random moment. The
 * store then holds one of the two, exactly; the next child goes on from there.
 *
 * The full disk is a small ext4 in a file, mounted for this process alone: saves until there is no
 * space, then deletions, then saves again. It needs root.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/store/crash.h"
#include "tests/store/workload.h"
#include "tests/tap.h"

#ifdef KILL_LONG
enum { KILLS = 400 };
#else
enum { KILLS = 20 };
#endif

static void make_directory(char path[256], const char *what)
{
	snprintf(path, 256, "%s/cow-%s-XXXXXX", getenv("BUILD_ROOT") ?: ".", what);
	if (!mkdtemp(path))
		bail("mkdtemp %s: %s", path, strerror(errno));
}

static void remove_directory(const char *path)
{
	static const struct crash_state nothing;

	crash_materialize(&nothing, path);
	if (rmdir(path) < 0)
		diag("rmdir %s: %s", path, strerror(errno));
}

/* --- SIGKILL --- */

/* What the call under way finds, and makes of it; filled while the other slot counts. */
static struct shared {
	struct slot {
		struct work_state before, after;
	} slots[2];
	_Atomic unsigned current;
	unsigned calls;
	int error; /* of a call that failed by itself */
	enum work_kind kind;
} * shared;

static struct work work;

/* Deletes often enough that there is always room for another layer. */
static void run_child(const char *directory, uint64_t seed)
{
	struct work_options options = { .seed = seed, .weight = { 4, 1, 1, 3, 1, 1, 1 } };
	int r = work_go_on(&work, directory, &options, &shared->slots[0].before);

	shared->error = r;
	while (r == 0) {
		struct slot *slot = &shared->slots[!shared->current];

		work_choose(&work);
		slot->before = work.state;
		work_preview(&work, &slot->after);
		shared->kind = work.kind;
		shared->current = !shared->current;
		r = work_call(&work);
		if (r == 0)
			work_done(&work);
		shared->error = r;
		shared->calls++;
	}
	_exit(1);
}

/* Which of the two it is, is what the next child knows. */
static bool settle(const char *directory, struct work_state *known, char why[256])
{
	struct slot *slot = &shared->slots[shared->current];
	struct work_state *const states[] = { &slot->before, &slot->after };
	int which = work_check(directory, states, 2, why);

	if (which >= 0)
		*known = *states[which];
	return which >= 0;
}

static void sleep_up_to(uint64_t *random, unsigned ms)
{
	struct timespec time = { 0 };

	*random = *random * UINT64_C(6364136223846793005) + 1442695040888963407u;
	time.tv_nsec = (long)((*random >> 33) % ((uint64_t)ms * 1000000));
	nanosleep(&time, NULL);
}

TEST(killed_at_any_moment)
{
	struct work_state *known = calloc(1, sizeof(*known));
	uint64_t random = (uint64_t)time(NULL);
	unsigned kills = 0, calls = 0, during[WORK_KINDS] = { 0 };
	char directory[256], why[256] = "", text[200] = "";

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED || !known)
		bail("no memory");
	make_directory(directory, "kill");
	diag("seed %" PRIu64, random);
	for (; kills < KILLS && !tap.failed; kills++) {
		int status = 0;
		pid_t child;

		memset(shared, 0, sizeof(*shared));
		shared->slots[0].before = shared->slots[0].after = *known;
		child = fork();
		if (child == 0)
			run_child(directory, random);
		sleep_up_to(&random, 120);
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		ok(WIFSIGNALED(status), "the child was killed, and did not end: %s in %s",
		   tap_errno_name(shared->error), work_kind_names[shared->kind]);
		calls += shared->calls;
		during[shared->kind]++;
		ok(settle(directory, known, why), "kill %u, in %s: %s", kills,
		   work_kind_names[shared->kind], why);
	}
	for (unsigned i = 0; i < WORK_KINDS; i++)
		if (during[i])
			snprintf(text + strlen(text), sizeof(text) - strlen(text), " %s %u",
				 work_kind_names[i], during[i]);
	diag("%u kills, %u calls; the last call was:%s", kills, calls, text);
	ok(calls > 0, "something was done");
	munmap(shared, sizeof(*shared));
	free(known);
	remove_directory(directory);
}

/* --- no space --- */

/* Everything big: layers of all pages. */
static const struct work_options filling = {
	.seed = 11, .weight = { [WORK_SAVE] = 1 }, .pages = 600, .named = true, .plain = true
};

static bool has_leftovers(const char *directory)
{
	char command[400];

	snprintf(command, sizeof(command), "ls '%s' | grep -q '\\.new$'", directory);
	return system(command) == 0;
}

/* Saves until it fails; then the store is as it was. The errno. */
static int fill_up(const char *directory, unsigned *saves)
{
	char why[256] = "";
	int r;

	do {
		r = work_step(&work);
	} while (r == 0 && ++*saves < WORK_LAYERS);
	if (r < 0) {
		ok(!has_leftovers(directory), "no file of the failed save is left");
		ok(work_holds(&work, why), "the store is as it was: %s", why);
	}
	return r;
}

/* HEAD again and again: its file goes at once, since nothing stands on it. */
static void delete_most(void)
{
	memset(work.options.weight, 0, sizeof(work.options.weight));
	work.options.weight[WORK_DELETE] = 1;
	while (work.state.count > 2 && !tap.failed) {
		is_errno(work_step(&work), 0, "a deletion on a full disk");
		if (!ok(work.kind == WORK_DELETE, "HEAD has a parent to go to"))
			return;
	}
}

static void fill_disk(const char *directory, int expected)
{
	unsigned saves = 0, more = 0;
	char why[256] = "";
	int r = work_open(&work, directory, &filling);

	if (!is_errno(r, 0, "open"))
		return;
	r = fill_up(directory, &saves);
	is_errno(r, expected, "after %u saves there is no space", saves);
	ok(saves > 0, "but there was for some");
	delete_most();
	work.options = filling;
	fill_up(directory, &more);
	diag("%u saves, deletions, %u saves", saves, more);
	ok(more > 0, "and there is room again");
	ok(work_holds(&work, why), "in the end: %s", why);
	work_close(&work);
}

static bool mount_small(const char *point)
{
	char command[2000];

	if (geteuid() != 0) {
		skip("mounting needs root");
		return false;
	}
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		skip("no mount namespace of its own: %s", strerror(errno));
		return false;
	}
	snprintf(command, sizeof(command),
		 "truncate -s 3M '%s.image' && mkfs.ext4 -q -m 0 -O ^has_journal '%s.image' && "
		 "mount -o loop '%s.image' '%s' && rmdir '%s/lost+found'",
		 point, point, point, point, point);
	if (system(command) == 0)
		return true;
	skip("no ext4 in a file can be mounted here");
	return false;
}

TEST(a_full_disk)
{
	char point[256], image[300];

	make_directory(point, "disk");
	snprintf(image, sizeof(image), "%s.image", point);
	if (mount_small(point)) {
		fill_disk(point, -ENOSPC);
		umount2(point, MNT_DETACH);
	}
	unlink(image);
	rmdir(point);
}

/* The same without privilege: no file may be longer than 64 KiB. */
TEST(a_file_that_may_not_grow)
{
	struct rlimit before, limit = { 64 << 10, RLIM_INFINITY };
	struct work_options options = { .seed = 3, .weight = { [WORK_SAVE] = 1 } };
	char directory[256], why[256] = "";
	unsigned done = 0, refused = 0;

	make_directory(directory, "limit");
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	limit.rlim_max = before.rlim_max;
	is_errno(work_open(&work, directory, &options), 0, "open");
	setrlimit(RLIMIT_FSIZE, &limit);
	for (unsigned i = 0; i < 9; i++) {
		int r;

		/* What was refused is dirty still: from then on every save is too long. */
		work.options.pages = i < 6 ? 2 : 600;
		r = work_step(&work);
		done += r == 0;
		refused += r == -EFBIG;
		ok(r == 0 || r == -EFBIG, "save: %s", tap_errno_name(r));
		ok(!has_leftovers(directory), "no file of a failed save is left");
	}
	setrlimit(RLIMIT_FSIZE, &before);
	ok(done >= 6 && refused > 0, "%u done, %u refused", done, refused);
	is_errno(work_step(&work), 0, "without the limit it is saved");
	ok(work_holds(&work, why), "in the end: %s", why);
	work_close(&work);
	remove_directory(directory);
}

TAP_MAIN(CASE(killed_at_any_moment), CASE(a_file_that_may_not_grow), CASE(a_full_disk))
