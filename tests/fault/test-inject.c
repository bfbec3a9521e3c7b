/* SPDX-License-Identifier: MIT */
/*
 * Failures injected at every kernel call and every allocation.
 *
 * Model
 * - A script of public calls uses everything the library has. It is run once for every N, with the
 *   Nth call through the seam (sys/sys.h) failing. Where one step makes many calls of one kind
 *   (reading a hundred spilled pages), a few of these stand for the rest; test-inject-long leaves
 *   out none.
 * - A public call that fails has to say so by an errno, and to change nothing: every region and
 *   snapshot is compared with what the script expects, the internal invariants are checked, and the
 *   same call is made again without the failure and has to succeed. A call that finds another way
 *   is fine, too.
 * - When a run has ended, no descriptor and no mapping is left behind.
 * - Pages are uniform: one byte says what a page holds.
 * - The test is built once for each trap. There, plain stores are steps as well: one that traps
 *   cannot be told of a failure, so whatever fails once has to be got over.
 *
 * munmap() is left out: memory that cannot be given back is lost, whatever the library does.
 */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "lib/internal.h"
#include "tests/tap.h"

/* The test is built once for each trap. */
#ifndef TEST_TRAP
#define TEST_TRAP COW_TRAP_EXPLICIT
#endif

#define PAGE  ((size_t)4096)
#define PAGES 100u

/* --- the injector --- */

/* Which errno each kind of call fails with; two ways each: some have a fallback for one of them. */
static const int errors[SYS_CALLS][2] = {
	[SYS_CALL_ALLOC] = { -ENOMEM, -ENOMEM },      [SYS_CALL_MAP] = { -ENOMEM, -ENOMEM },
	[SYS_CALL_PROTECT] = { -ENOMEM, -EACCES },    [SYS_CALL_ADVISE] = { -EINVAL, -ENOMEM },
	[SYS_CALL_MEMFD] = { -EMFILE, -ENFILE },      [SYS_CALL_TRUNCATE] = { -ENOSPC, -EFBIG },
	[SYS_CALL_OPEN] = { -EACCES, -EINVAL },       [SYS_CALL_STATFS] = { -EIO, -ENOSYS },
	[SYS_CALL_READ_AT] = { -EIO, -EIO },          [SYS_CALL_WRITE_AT] = { -EIO, -ENOSPC },
	[SYS_CALL_EVENTFD] = { -EMFILE, -ENFILE },    [SYS_CALL_EPOLL] = { -EMFILE, -ENOSPC },
	[SYS_CALL_USERFAULTFD] = { -EPERM, -ENOSYS }, [SYS_CALL_UFFD_IOCTL] = { -EINVAL, -ENOMEM },
	[SYS_CALL_THREAD] = { -EAGAIN, -EAGAIN },     [SYS_CALL_PAGEMAP] = { -EIO, -EACCES },
	[SYS_CALL_SIGACTION] = { -EINVAL, -EINVAL },
};

static struct {
	unsigned left; /* calls until the failure, 0: none */
	unsigned way;
	int only; /* a kind, -1: all */
	bool for_good;
	bool fired;
	enum sys_call what;
	unsigned kinds[SYS_CALLS];
} plan;

/* What a run without a failure calls, in order. */
#define CALLS_MAX 8192u
static struct {
	bool on;
	unsigned step, count;
	struct {
		unsigned step;
		enum sys_call call;
	} calls[CALLS_MAX];
} record;
static _Thread_local bool
	observed; /* the service threads of views are not: their calls come when they come */
static _Atomic bool storing; /* a store is under way, which threads of the library may serve */

static void record_call(enum sys_call call)
{
	assert(record.count < CALLS_MAX);
	record.calls[record.count].step = record.step;
	record.calls[record.count++].call = call;
}

static int inject(enum sys_call call)
{
	bool seen = observed || storing;

	if (record.on && seen && call != SYS_CALL_UNMAP)
		record_call(call);
	if (!seen || plan.left == 0 || call == SYS_CALL_UNMAP ||
	    (plan.only >= 0 && plan.only != (int)call))
		return 0;
	if (--plan.left > 0)
		return 0;
	plan.left = plan.for_good;
	plan.fired = true;
	plan.what = call;
	plan.kinds[call]++;
	assert(errors[call][plan.way] < 0);
	return errors[call][plan.way];
}

/* --- the world and the script --- */

struct state {
	unsigned char page[PAGES];
};

static struct {
	struct cow_region *regions[8];
	struct state live[8];
	struct cow_snapshot *snaps[8];
	struct state past[8];
	const unsigned char *views[8];
	void *adopted;
} world;

enum kind {
	NEW,
	ADOPT,
	WRITE,
	STORE,
	ARM,
	DISCARD,
	SNAP,
	MANY,
	READ,
	MAP,
	BRANCH,
	ROLLBACK,
	DIFF,
	MERGE,
	UNREF,
	FREE
};

static const char *const kind_names[] = {
	"new",  "adopt", "write",  "store",    "arm",  "discard", "snapshot", "snapshot_many",
	"read", "map",   "branch", "rollback", "diff", "merge",   "unref",    "free",
};

enum how { PLAIN, SPILLING, SHARED };

/* r and s say which region and snapshot; first, count and byte mean what the kind needs. */
static const struct step {
	enum kind kind;
	unsigned r, s, first, count, byte;
} script[] = {
	{ NEW, .r = 0, .byte = PLAIN },
	{ NEW, .r = 1, .byte = SPILLING },
	{ NEW, .r = 2, .byte = SHARED },
	{ ADOPT, .r = 3 },
	{ WRITE, .r = 0, .first = 10, .count = 60, .byte = 1 },
	{ WRITE, .r = 1, .first = 20, .count = 80, .byte = 1 },
	{ WRITE, .r = 2, .first = 0, .count = 20, .byte = 1 },
	{ WRITE, .r = 3, .first = 0, .count = 20, .byte = 1 },
	{ SNAP, .r = 0, .s = 0 },
	{ SNAP, .r = 1, .s = 1 },
	{ STORE, .r = 0, .first = 5, .count = 3, .byte = 5 },
	{ STORE, .r = 0, .first = 50, .count = 3, .byte = 6 },
	{ ARM, .r = 0 },
	{ STORE, .r = 0, .first = 4, .count = 2, .byte = 7 },
	{ WRITE, .r = 0, .first = 0, .count = 100, .byte = 2 },
	{ WRITE, .r = 1, .first = 0, .count = 100, .byte = 2 }, /* spills */
	{ MANY, .r = 0, .s = 2, .count = 4 }, /* regions 0 to 3: snapshots 2 to 5 */
	{ DISCARD, .r = 0, .first = 5, .count = 50 },
	{ DISCARD, .r = 2, .first = 5, .count = 50 },
	{ DISCARD, .r = 3, .first = 5, .count = 50 },
	{ STORE, .r = 2, .first = 2, .count = 1, .byte = 8 },
	{ STORE, .r = 3, .first = 20, .count = 1, .byte = 8 },
	{ WRITE, .r = 1, .first = 30, .count = 60, .byte = 3 }, /* spills */
	{ READ, .s = 1 },
	{ MAP, .s = 0, .byte = 0 },
	{ MAP, .s = 1, .byte = COW_MAP_POPULATE },
	{ MAP, .s = 2, .byte = COW_MAP_POPULATE },
	{ BRANCH, .s = 1, .r = 4, .byte = SPILLING },
	{ BRANCH, .s = 2, .r = 5, .byte = SHARED },
	{ WRITE, .r = 4, .first = 10, .count = 80, .byte = 4 },
	{ WRITE, .r = 5, .first = 10, .count = 20, .byte = 4 },
	{ STORE, .r = 5, .first = 60, .count = 1, .byte = 5 },
	{ SNAP, .r = 4, .s = 6 },
	{ STORE, .r = 4, .first = 12, .count = 1, .byte = 5 },
	{ DISCARD, .r = 4, .first = 15, .count = 70 },
	{ ROLLBACK, .r = 4, .s = 6 },
	{ ROLLBACK, .r = 0, .s = 0 },
	{ ROLLBACK, .r = 1, .s = 1 }, /* out of the file */
	{ ROLLBACK, .r = 2, .s = 4 },
	{ ROLLBACK, .r = 3, .s = 5 },
	{ DIFF, .r = 1, .s = 1 },
	{ MERGE, .r = 0 },
	{ MERGE, .r = 1 },
	{ UNREF, .s = 1 },
	{ FREE, .r = 1 },
	{ READ, .s = 3 },
};
#define STEPS (sizeof(script) / sizeof(script[0]))

static struct cow_region_options options_for(enum how how)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;

	options.trap = TEST_TRAP;
	if (how == SHARED)
		options.flags = COW_REGION_SHARED | COW_REGION_HUGE_PAGES;
	if (how == SPILLING) {
		options.preimage_limit = COW_PREIMAGE_LIMIT_MIN;
		options.spill_directory = getenv("BUILD_ROOT") ?: ".";
		options.limit_timeout_ns = 1;
	}
	return options;
}

static int count_range(size_t offset, size_t length, void *context)
{
	size_t *pages = context;

	(void)offset;
	*pages += length / PAGE;
	return 0;
}

static int write_pages(const struct step *step)
{
	static unsigned char content[PAGES * PAGE];

	memset(content, (int)step->byte, step->count * PAGE);
	return cow_region_write(world.regions[step->r], step->first * PAGE, content,
				step->count * PAGE);
}

/* Under the explicit trap a store is a bracket's. */
static int store_pages(const struct step *step)
{
	unsigned char *base = cow_region_get_base(world.regions[step->r]);

	if (TEST_TRAP == COW_TRAP_EXPLICIT)
		return write_pages(step);
	storing = true;
	for (unsigned page = step->first; page < step->first + step->count; page++)
		memset(base + page * PAGE, (int)step->byte, PAGE);
	storing = false;
	return 0;
}

static int read_all(const struct step *step)
{
	static unsigned char content[PAGES * PAGE];

	return cow_snapshot_read(world.snaps[step->s], 0, content, sizeof(content));
}

static int map_view(const struct step *step)
{
	const void *view = NULL;
	int r = cow_snapshot_map(world.snaps[step->s], step->byte, &view);

	if (r == 0)
		world.views[step->s] = view;
	return r;
}

static int call(const struct step *step)
{
	struct cow_region_options options = options_for(step->kind == ADOPT ? PLAIN :
									      (enum how)step->byte);
	size_t pages = 0;

	switch (step->kind) {
	case NEW:
		return cow_region_new(PAGES * PAGE, &options, &world.regions[step->r]);
	case ADOPT:
		return cow_region_adopt(world.adopted, PAGES * PAGE, &options,
					&world.regions[step->r]);
	case WRITE:
		return write_pages(step);
	case STORE:
		return store_pages(step);
	case ARM:
		return cow_region_arm(world.regions[step->r]);
	case DISCARD:
		return cow_region_discard(world.regions[step->r], step->first * PAGE,
					  step->count * PAGE);
	case SNAP:
		return cow_region_snapshot(world.regions[step->r], &world.snaps[step->s]);
	case MANY:
		return cow_region_snapshot_many(&world.regions[step->r], step->count,
						&world.snaps[step->s]);
	case READ:
		return read_all(step);
	case MAP:
		return map_view(step);
	case BRANCH:
		return cow_snapshot_branch(world.snaps[step->s], &options, &world.regions[step->r]);
	case ROLLBACK:
		return cow_region_rollback(world.regions[step->r], world.snaps[step->s]);
	case DIFF:
		return cow_snapshot_diff(world.snaps[step->s], NULL, count_range, &pages);
	case MERGE:
		return cow_region_merge(world.regions[step->r], NULL);
	case UNREF:
		world.snaps[step->s] = cow_snapshot_unref(world.snaps[step->s]);
		world.views[step->s] = NULL;
		return 0;
	case FREE:
		cow_region_free(world.regions[step->r]);
		world.regions[step->r] = NULL;
		return 0;
	}
	return -ENOSYS;
}

/* What a call that succeeded changes. */
static void expect(const struct step *step)
{
	switch (step->kind) {
	case NEW:
	case ADOPT:
		memset(&world.live[step->r], 0, sizeof(world.live[0]));
		break;
	case WRITE:
	case STORE:
		memset(world.live[step->r].page + step->first, (int)step->byte, step->count);
		break;
	case DISCARD:
		memset(world.live[step->r].page + step->first, 0, step->count);
		break;
	case SNAP:
		world.past[step->s] = world.live[step->r];
		break;
	case MANY:
		for (unsigned i = 0; i < step->count; i++)
			world.past[step->s + i] = world.live[step->r + i];
		break;
	case BRANCH:
	case ROLLBACK:
		world.live[step->r] = world.past[step->s];
		break;
	default:
		break;
	}
}

/* --- what has to hold after each call --- */

static bool is_uniform(const unsigned char *page, unsigned char byte)
{
	return page[0] == byte && memcmp(page, page + 1, PAGE - 1) == 0;
}

static unsigned wrong_pages(const unsigned char *content, const struct state *state)
{
	unsigned wrong = 0;

	for (unsigned page = 0; page < PAGES; page++)
		wrong += !is_uniform(content + page * PAGE, state->page[page]);
	return wrong;
}

static bool world_holds(void)
{
	static unsigned char content[PAGES * PAGE];
	bool holds = true;

	for (unsigned i = 0; i < 8; i++) {
		if (world.regions[i]) {
			space_validate(&world.regions[i]->space);
			holds &= ok(cow_region_read(world.regions[i], 0, content,
						    sizeof(content)) == 0 &&
					    wrong_pages(content, &world.live[i]) == 0,
				    "region %u holds what it should", i);
		}
		if (world.snaps[i])
			holds &= ok(cow_snapshot_read(world.snaps[i], 0, content,
						      sizeof(content)) == 0 &&
					    wrong_pages(content, &world.past[i]) == 0,
				    "snapshot %u holds what it should", i);
		if (world.views[i])
			holds &= ok(wrong_pages(world.views[i], &world.past[i]) == 0,
				    "view %u shows what it should", i);
	}
	return holds;
}

static void free_world(void)
{
	for (unsigned i = 0; i < 8; i++) {
		cow_snapshot_unref(world.snaps[i]);
		cow_region_free(world.regions[i]);
	}
	munmap(world.adopted, PAGES * PAGE);
	memset(&world, 0, sizeof(world));
}

static unsigned open_files(void)
{
	DIR *directory = opendir("/proc/self/fd");
	unsigned count = 0;

	while (directory && readdir(directory))
		count++;
	if (directory)
		closedir(directory);
	return count;
}

/* Bytes of mappings that are nobody's but the program's: not the heap, which comes and goes. */
static size_t mapped_bytes(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	size_t sum = 0, start, end;
	char line[600];

	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%zx-%zx", &start, &end) == 2 && !strstr(line, "[heap]") &&
		    !strstr(line, "[stack]"))
			sum += end - start;
	if (maps)
		fclose(maps);
	return sum;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNT_MAPPINGS false /* a sanitizer maps as it goes */
#else
#define COUNT_MAPPINGS true
#endif

/* --- running it --- */

static void set_up_world(void)
{
	world.adopted = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (world.adopted == MAP_FAILED)
		bail("mmap: %s", strerror(errno));
}

static bool known_errno(int r)
{
	return r == errors[plan.what][plan.way] || r == -ENOMEM || r == -EAGAIN || r == -EIO ||
	       r == -EOPNOTSUPP;
}

/* One call, with whatever the plan has for it, and again without where it failed. */
static bool run_step(const struct step *step, unsigned n)
{
	unsigned left;
	int r;

	plan.fired = false;
	observed = true;
	r = call(step);
	observed = false;
	if (r < 0) {
		if (!ok(plan.fired, "%s fails by itself: %s", kind_names[step->kind],
			tap_errno_name(r)))
			return false;
		ok(known_errno(r), "%s gives %s when %s fails with %s", kind_names[step->kind],
		   tap_errno_name(r), sys_call_name(plan.what),
		   tap_errno_name(errors[plan.what][plan.way]));
		left = plan.left;
		plan.left = 0;
		if (!world_holds()) {
			diag("after %s failed at call %u: %s", kind_names[step->kind], n,
			     sys_call_name(plan.what));
			return false;
		}
		r = call(step);
		plan.left = left;
		if (!is_errno(r, 0, "%s succeeds the second time, after %s had failed",
			      kind_names[step->kind], sys_call_name(plan.what)))
			return false;
	}
	expect(step);
	return true;
}

/* Of a run that dies. */
static unsigned running;

static void say_where(int signal)
{
	char text[120];
	int length = snprintf(text, sizeof(text),
			      "# failure %u in way %u, step %u (%s), of %s: %s\n", running,
			      plan.way, record.step, kind_names[script[record.step].kind],
			      sys_call_name(plan.what), strsignal(signal));

	(void)!write(STDOUT_FILENO, text, (size_t)length);
	raise(signal);
}

/* Before the library has a handler of its own. */
static void watch_over(void)
{
	const int signals[] = { SIGABRT, SIGSEGV, SIGBUS };
	const struct sigaction action = { .sa_handler = say_where, .sa_flags = (int)SA_RESETHAND };

	for (unsigned i = 0; running == 0 && i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
}

/* Whether the failure was met. */
static bool run_script(unsigned n, unsigned way)
{
	bool met = false, good = true;

	set_up_world();
	running = n;
	plan.left = n;
	plan.way = way;
	for (size_t i = 0; good && i < STEPS; i++) {
		record.step = (unsigned)i;
		good = run_step(&script[i], n);
		met |= plan.fired;
		if (plan.fired && good)
			good = world_holds();
		if (!good)
			diag("step %zu, failure %u", i, n);
	}
	plan.left = 0;
	if (!met)
		ok(world_holds(), "the end of the script");
	free_world();
	return met && good;
}

static bool can_spill(void)
{
	struct cow_region_options options = options_for(SPILLING);
	struct cow_region *region;

	if (cow_region_new(PAGE, &options, &region) < 0)
		return false;
	cow_region_free(region);
	return true;
}

static void report_kinds(void)
{
	char text[600] = "";

	for (unsigned i = 0; i < SYS_CALLS; i++)
		if (plan.kinds[i])
			snprintf(text + strlen(text), sizeof(text) - strlen(text), " %s %u",
				 sys_call_name((enum sys_call)i), plan.kinds[i]);
	diag("failures injected:%s", text);
}

#ifdef INJECT_LONG
#define FIRST_FEW  UINT32_MAX
#define EVERY_READ true
#else
#define FIRST_FEW  2u
#define EVERY_READ false
#endif

/* Whether call n stands for itself, or for others of its kind in its step. */
static bool is_chosen(unsigned n)
{
	unsigned before = 0;

	for (unsigned i = n; i-- > 0 && record.calls[i].step == record.calls[n].step;)
		before += record.calls[i].call == record.calls[n].call;
	return before < FIRST_FEW || before % 32 == 31;
}

static void record_script(unsigned way)
{
	record.count = 0;
	record.on = true;
	run_script(0, way);
	record.on = false;
}

static void fail_each(unsigned way)
{
	size_t mapped;
	unsigned files, failed = 0;

	watch_over();
	if (!can_spill()) {
		skip("no directory on a disk");
		return;
	}
	sys_injector = inject;
	plan.only = -1;
	memset(plan.kinds, 0, sizeof(plan.kinds));
	for (unsigned i = 0; i < 3; i++)
		run_script(0, way); /* what is kept for good by then: stacks, the process's mark */
	record_script(way);
	files = open_files();
	mapped = mapped_bytes();
	for (unsigned n = 0; n < record.count && tap.failed < 20; n++) {
		const int *ways = errors[record.calls[n].call];

		if (!is_chosen(n) || (way > 0 && ways[way] == ways[0]))
			continue;
		failed++;
		/* Under a limit it is a matter of time what is spilled: the last ones may not
		 * come. */
		ok(run_script(n + 1, way) || n > record.count / 10 * 9, "failure %u is met", n);
		is_u64(open_files(), files, "descriptors after failure %u", n);
		if (COUNT_MAPPINGS)
			is_u64(mapped_bytes(), mapped, "mapped bytes after failure %u", n);
	}
	diag("%u calls, %u of them failed once", record.count, failed);
	report_kinds();
	ok(record.count > 100, "the script makes many calls");
	ok(plan.kinds[SYS_CALL_OPEN] && plan.kinds[SYS_CALL_WRITE_AT],
	   "among them those that spill");
	ok(plan.kinds[SYS_CALL_USERFAULTFD] && plan.kinds[SYS_CALL_EPOLL],
	   "and those that make views");
	sys_injector = NULL;
}

TEST(every_call_fails_once)
{
	fail_each(0);
}

TEST(every_call_fails_once_in_another_way)
{
	fail_each(1);
}

/* --- rollbacks and a disk that fails --- */

/* How often a step reads from the disk. */
static unsigned reads_of(size_t step)
{
	unsigned reads = 0;

	for (unsigned i = 0; i < record.count; i++)
		reads += record.calls[i].step == step && record.calls[i].call == SYS_CALL_READ_AT;
	return reads;
}

static unsigned next_read(unsigned n)
{
	return n < 3 || EVERY_READ ? n + 1 : n + 9;
}

/* The script up to a step, at whose nth read the disk fails, once or from then on. */
static bool fail_a_read(size_t step, unsigned n, bool for_good)
{
	bool good = true, met;

	set_up_world();
	for (size_t i = 0; good && i <= step; i++) {
		plan.left = i == step ? n : 0;
		plan.for_good = for_good;
		good = run_step(&script[i], n);
	}
	met = plan.fired;
	plan.left = 0;
	good = good && world_holds();
	if (!good)
		diag("step %zu, read %u%s", step, n, for_good ? " and all after it" : "");
	free_world();
	return good && met;
}

/* Everything is read once before anything changes: a disk that is broken by then changes nothing.
 * After that a single failure does not either; a disk that breaks for good at the second look is
 * beyond help, since what was there before may be on it, too. */
TEST(rollbacks_and_a_disk_that_fails)
{
	unsigned failed = 0;

	if (!can_spill()) {
		skip("no directory on a disk");
		return;
	}
	sys_injector = inject;
	plan.way = 0;
	plan.only = -1;
	record_script(0);
	plan.only = SYS_CALL_READ_AT;
	for (size_t i = 0; i < STEPS; i++) {
		unsigned reads = script[i].kind == ROLLBACK ? reads_of(i) : 0;

		for (unsigned n = 1; n <= reads && tap.failed < 10; n = next_read(n)) {
			ok(fail_a_read(i, n, n <= reads / 2), "step %zu, read %u of %u", i, n,
			   reads);
			failed++;
		}
	}
	plan.for_good = false;
	plan.only = -1;
	sys_injector = NULL;
	diag("%u reads failed", failed);
	ok(failed > 10, "rollbacks read from the disk");
}

/* Without userfaultfd a view is filled at once, which its size in memory shows. */
TEST(views_without_userfaultfd)
{
	struct cow_region_options options = options_for(PLAIN);
	struct cow_region *region = NULL;
	struct cow_snapshot *snapshot = NULL;
	unsigned char residency[PAGES];
	const void *view = NULL;
	unsigned there = 0;

	is_errno(cow_region_new(PAGES * PAGE, &options, &region), 0, "new");
	memset(residency, 9, sizeof(residency));
	is_errno(cow_region_write(region, 7 * PAGE, residency, 1), 0, "write");
	is_errno(cow_region_snapshot(region, &snapshot), 0, "snapshot");
	sys_injector = inject;
	plan.only = SYS_CALL_USERFAULTFD;
	plan.left = plan.for_good = 1; /* by whatever way */
	observed = true;
	is_errno(cow_snapshot_map(snapshot, 0, &view), 0, "map");
	observed = false;
	sys_injector = NULL;
	plan.only = -1;
	plan.left = plan.for_good = 0;
	mincore((void *)(uintptr_t)view, PAGES * PAGE, residency);
	for (unsigned i = 0; i < PAGES; i++)
		there += residency[i] & 1;
	is_u64(there, PAGES, "pages that are there already");
	is_int(((const unsigned char *)view)[7 * PAGE], 9, "with the snapshot's content");
	is_errno(cow_snapshot_map(snapshot, COW_MAP_POPULATE, &view), 0,
		 "populate has nothing to do");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

/* --- failures of a view's service thread --- */

static _Atomic int copies_to_fail;
static sigjmp_buf out;

static int fail_copies(enum sys_call call)
{
	if (call != SYS_CALL_UFFD_IOCTL || observed || copies_to_fail <= 0)
		return 0;
	copies_to_fail--;
	return -ENOMEM;
}

static void jump(int signal)
{
	siglongjmp(out, signal);
}

/* The byte, or minus the signal that reading it raised. */
static int look(const unsigned char *address)
{
	struct sigaction act = { .sa_handler = jump }, before;
	volatile int result = 0;

	sigaction(SIGBUS, &act, &before);
	if (sigsetjmp(out, 1) == 0)
		result = *(const volatile unsigned char *)address;
	else
		result = -SIGBUS;
	sigaction(SIGBUS, &before, NULL);
	return result;
}

TEST(a_service_thread_that_cannot_fill_a_page)
{
	struct cow_region_options options = options_for(PLAIN);
	struct cow_region *region = NULL;
	struct cow_snapshot *snapshot = NULL;
	unsigned char nine = 9;
	const void *view = NULL;
	const unsigned char *bytes;

	is_errno(cow_region_new(PAGES * PAGE, &options, &region), 0, "new");
	for (unsigned page = 0; page < PAGES; page++)
		is_errno(cow_region_write(region, page * PAGE, &nine, 1), 0, "write");
	is_errno(cow_region_snapshot(region, &snapshot), 0, "snapshot");
	observed = true;
	sys_injector = fail_copies;
	if (cow_snapshot_map(snapshot, 0, &view) < 0 || !snapshot->view || snapshot->view == NULL) {
		skip("no userfaultfd here");
	} else {
		bytes = view;
		copies_to_fail = 1;
		is_int(look(bytes), 9, "one failure is made good page by page");
		copies_to_fail = 2;
		is_int(look(bytes + 40 * PAGE), -SIGBUS,
		       "a page that cannot be filled raises SIGBUS");
		is_int(look(bytes + 41 * PAGE), 9, "its neighbour does not");
		is_int(look(bytes + 80 * PAGE), 9, "nor do others");
	}
	sys_injector = NULL;
	observed = false;
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

/* --- the process's first region --- */

static int first_region(unsigned n, unsigned way)
{
	struct cow_region_options options = options_for(PLAIN);
	struct cow_region *region = NULL;
	int r;

	sys_injector = inject;
	plan = (typeof(plan)){ .left = n, .way = way, .only = -1 };
	observed = true;
	r = cow_region_new(PAGE, &options, &region);
	observed = false;
	if (!plan.fired)
		return 2;
	if (r == 0 || region)
		return r == 0 && region ? 0 : 3;
	if (cow_region_new(PAGE, &options, &region) < 0)
		return 4;
	cow_region_free(region);
	return 0;
}

/* In a child that has not used the library, what is made once in a process is made again. */
TEST(the_first_region_of_a_process)
{
	for (unsigned way = 0; way < 2; way++)
		for (unsigned n = 1, status = 0; status == 0; n++) {
			int wait_status = 0;
			pid_t pid = fork();

			if (pid == 0)
				_exit(first_region(n, way));
			waitpid(pid, &wait_status, 0);
			status = (unsigned)wait_status;
			ok(status == 0 || (WIFEXITED(wait_status) &&
					   WEXITSTATUS(wait_status) == 2 && n > 2),
			   "failure %u: status %d", n, wait_status);
		}
}

TAP_MAIN(CASE(the_first_region_of_a_process), CASE(every_call_fails_once),
	 CASE(every_call_fails_once_in_another_way), CASE(rollbacks_and_a_disk_that_fails),
	 CASE(views_without_userfaultfd), CASE(a_service_thread_that_cannot_fill_a_page))
