/* SPDX-License-Identifier: MIT */
/*
 * Many threads: cuts are consistent, readers get what was there, whoever writes, frees, merges or
 * spills meanwhile.
 *
 * Model
 * - Causality: each writer owns a page with a counter, and writes beside it what it last saw of the
 *   other counters. A cut is consistent if no page has seen more of another one than that one has
 *   in the same cut. The checker is tried on fork(), whose child is a consistent cut by itself and
 *   must pass, and on a writer that stores outside its bracket, which must not.
 * - Storm: one writer puts the same number on every page within one bracket; so every snapshot
 *   holds one number only. Snapshots hang in a few slots, from which readers take references; the
 *   last one to let go frees.
 *
 * The live memory is accessed by atomics here, as a program with several writers has to; what the
 * library does with it is for ThreadSanitizer to judge.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "lib/internal.h"
#include "tests/tap.h"

/* The test is built once for each trap. */
#ifndef TEST_TRAP
#define TEST_TRAP COW_TRAP_EXPLICIT
#endif

#define PAGE    ((size_t)4096)
#define WRITERS 3u

static struct cow_region_options explicit_options(void)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;

	options.trap = TEST_TRAP;
	options.cut_timeout_ns = patience(60) * UINT64_C(1000000000); /* there are few processors */
	return options;
}

static struct cow_region *new_region(size_t pages, const struct cow_region_options *options)
{
	struct cow_region *region = NULL;
	int r = cow_region_new(pages * PAGE, options, &region);

	if (r < 0)
		bail("a region: %s", strerror(-r));
	return region;
}

static uint64_t draw(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

/* --- causality --- */

struct cause_page {
	uint64_t counter;
	uint64_t seen[WRITERS];
	uint64_t padding[400];
	uint64_t again; /* the counter a second time, far from the first */
	uint64_t rest[PAGE / 8 - WRITERS - 402];
};
_Static_assert(sizeof(struct cause_page) == PAGE, "a page");

static struct {
	struct cow_region *region; /* NULL: plain memory */
	struct cause_page *pages;
	_Atomic bool go;
	_Atomic unsigned failures;
} cause;

/* NOLINTNEXTLINE(readability-non-const-parameter): the builtin writes through it */
static void store(uint64_t *to, uint64_t value)
{
	__atomic_store_n(to, value, __ATOMIC_RELEASE);
}

static uint64_t load(const uint64_t *from)
{
	return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static void cause_step(unsigned self, unsigned other, uint64_t count)
{
	struct cause_page *mine = &cause.pages[self];
	uint64_t saw = load(&cause.pages[other].counter);

	if (cause.region && cow_region_write_begin(cause.region, mine, sizeof(*mine)) < 0) {
		cause.failures++;
		return;
	}
	store(&mine->counter, count);
	store(&mine->seen[other], saw);
	store(&mine->again, count);
	if (cause.region)
		cow_region_write_end(cause.region, mine, sizeof(*mine));
}

static void *cause_write(void *context)
{
	unsigned self = (unsigned)(uintptr_t)context;

	for (uint64_t count = 1; cause.go; count++)
		cause_step(self, (unsigned)((self + 1 + count % (WRITERS - 1)) % WRITERS), count);
	return NULL;
}

/* whole: nothing was half done in any page either. */
static bool is_consistent(const struct cause_page pages[WRITERS], bool whole)
{
	for (unsigned i = 0; i < WRITERS; i++) {
		if (whole && pages[i].counter != pages[i].again)
			return false;
		for (unsigned j = 0; j < WRITERS; j++)
			if (j != i && pages[i].seen[j] > pages[j].counter)
				return false;
	}
	return true;
}

static bool snapshot_is_consistent(struct cow_snapshot *snapshot)
{
	struct cause_page pages[WRITERS];

	return cow_snapshot_read(snapshot, 0, pages, sizeof(pages)) == 0 &&
	       is_consistent(pages, true);
}

static void start_writers(pthread_t threads[WRITERS])
{
	cause.go = true;
	for (uintptr_t i = 0; i < WRITERS; i++)
		pthread_create(&threads[i], NULL, cause_write, (void *)i);
}

/* Waits until each writer has written since: cuts that nothing falls between prove nothing. */
static void let_them_write(uint64_t last[WRITERS])
{
	for (unsigned i = 0; i < WRITERS; i++) {
		while (load(&cause.pages[i].counter) == last[i])
			sched_yield();
		last[i] = load(&cause.pages[i].counter);
	}
}

static void stop_writers(pthread_t threads[WRITERS])
{
	cause.go = false;
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
}

/* Each cut is looked at twice: while it is new, and when everything has been written again. */
TEST(every_snapshot_is_a_consistent_cut)
{
	enum { CUTS = 4000, HELD = 16 };
	struct cow_region_options options = explicit_options();
	struct cow_snapshot *held[HELD] = { NULL };
	unsigned torn = 0, changed = 0;
	uint64_t last[WRITERS] = { 0 };
	pthread_t threads[WRITERS];

	cause.region = new_region(WRITERS, &options);
	cause.pages = cow_region_get_base(cause.region);
	start_writers(threads);
	for (unsigned i = 0; i < CUTS; i++) {
		struct cow_snapshot **slot = &held[i % HELD];

		if (i % 16 == 0)
			let_them_write(last);
		changed += *slot && !snapshot_is_consistent(*slot);
		*slot = cow_snapshot_unref(*slot);
		if (!is_errno(cow_region_snapshot(cause.region, slot), 0, "cut %u", i))
			break;
		torn += !snapshot_is_consistent(*slot);
	}
	stop_writers(threads);
	for (unsigned i = 0; i < HELD; i++)
		cow_snapshot_unref(held[i]);
	diag("%d cuts, counters at %" PRIu64 " %" PRIu64 " %" PRIu64, CUTS, cause.pages[0].counter,
	     cause.pages[1].counter, cause.pages[2].counter);
	is_u64(torn, 0, "cuts that were torn");
	is_u64(changed, 0, "snapshots that changed");
	is_u64(cause.failures, 0, "writes that failed");
	ok(cause.pages[0].counter > 0 && cause.pages[2].counter > 0, "the writers wrote");
	space_validate(&cause.region->space);
	cow_region_free(cause.region);
}

TEST(control_fork_is_a_consistent_cut)
{
	enum { FORKS = 100 };
	uint64_t last[WRITERS] = { 0 };
	pthread_t threads[WRITERS];
	unsigned torn = 0;

	cause.region = NULL;
	cause.pages = mmap(NULL, sizeof(cause.pages[0]) * WRITERS, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	start_writers(threads);
	for (unsigned i = 0; i < FORKS; i++) {
		int status = 0;
		pid_t pid;

		let_them_write(last);
		pid = fork();

		if (pid == 0)
			_exit(is_consistent(cause.pages, false) ? 0 : 1);
		waitpid(pid, &status, 0);
		torn += status != 0;
	}
	stop_writers(threads);
	is_u64(torn, 0, "children that were torn: the checker would be wrong");
	munmap(cause.pages, sizeof(cause.pages[0]) * WRITERS);
}

static pthread_barrier_t broken_step;

/* Opens its page, and stores only after a cut and somebody else's write: what cow_region_touch() is
 * not for. */
static void *store_late(void *context)
{
	(void)context;
	if (cow_region_touch(cause.region, &cause.pages[0], PAGE) < 0)
		cause.failures++;
	pthread_barrier_wait(&broken_step);
	pthread_barrier_wait(&broken_step);
	store(&cause.pages[0].seen[1], load(&cause.pages[1].counter));
	return NULL;
}

TEST(control_a_store_without_a_bracket_is_seen)
{
	struct cow_region_options options = explicit_options();
	struct cow_snapshot *snapshot = NULL;
	pthread_t thread;

	cause.region = new_region(WRITERS, &options);
	cause.pages = cow_region_get_base(cause.region);
	pthread_barrier_init(&broken_step, NULL, 2);
	pthread_create(&thread, NULL, store_late, NULL);
	pthread_barrier_wait(&broken_step);
	is_errno(cow_region_snapshot(cause.region, &snapshot), 0,
		 "the cut falls between touch and store");
	ok(snapshot_is_consistent(snapshot), "it is consistent so far");
	cause_step(1, 2, 5);
	pthread_barrier_wait(&broken_step);
	pthread_join(thread, NULL);
	if (TEST_TRAP == COW_TRAP_EXPLICIT)
		ok(!snapshot_is_consistent(snapshot),
		   "the checker sees what the late store did to the snapshot");
	else
		ok(snapshot_is_consistent(snapshot), "a late store traps, like any other");
	cow_snapshot_unref(snapshot);
	cow_region_free(cause.region);
	pthread_barrier_destroy(&broken_step);
}

/* --- storm --- */

enum { SLOTS = 6, PAGES = 40, CUTS = 400 };

static struct {
	struct cow_region *region;
	struct slot {
		pthread_mutex_t mutex;
		struct cow_snapshot *snapshot;
	} slots[SLOTS];
	bool limited, drops, spills;
	_Atomic bool go;
	_Atomic uint64_t wrong, attempts, reads, stale, refused, branches, merged;
} storm;

/* In any thread. The first of them say where. */
static void went_wrong(int line)
{
	if (storm.wrong++ < 5)
		diag("line %d: not as expected", line);
}
#define expect(condition) ((condition) ? (void)0 : went_wrong(__LINE__))

static struct cow_snapshot *get_slot(uint64_t *seed)
{
	struct slot *slot = &storm.slots[draw(seed) % SLOTS];
	struct cow_snapshot *snapshot;

	pthread_mutex_lock(&slot->mutex);
	snapshot = cow_snapshot_ref(slot->snapshot);
	pthread_mutex_unlock(&slot->mutex);
	return snapshot;
}

static void put_slot(uint64_t *seed, struct cow_snapshot *snapshot)
{
	struct slot *slot = &storm.slots[draw(seed) % SLOTS];
	struct cow_snapshot *before;

	pthread_mutex_lock(&slot->mutex);
	before = slot->snapshot;
	slot->snapshot = snapshot;
	pthread_mutex_unlock(&slot->mutex);
	cow_snapshot_unref(before);
}

/* One number on every page, several times. */
static bool is_whole(const uint64_t *words, size_t pages)
{
	for (size_t i = 1; i < pages * PAGE / 8; i++)
		if (words[i] != words[0])
			return false;
	return true;
}

static void *storm_write(void *context)
{
	uint64_t *base = cow_region_get_base(storm.region);

	(void)context;
	for (uint64_t value = 1; storm.go; value++) {
		int r = cow_region_write_begin(storm.region, base, PAGES * PAGE);

		storm.attempts++;
		if (r == -EAGAIN) {
			storm.refused++;
			continue;
		}
		expect(r == 0);
		for (size_t i = 0; i < PAGES * PAGE / 8; i++)
			base[i] = value;
		cow_region_write_end(storm.region, base, PAGES * PAGE);
	}
	return NULL;
}

static bool stale_is_fine(int r)
{
	storm.stale += r == -ESTALE;
	return r == -ESTALE && storm.drops;
}

static void *storm_read(void *context)
{
	uint64_t seed = (uint64_t)(uintptr_t)context;
	uint64_t *content = malloc(PAGES * PAGE);

	while (storm.go) {
		struct cow_snapshot *snapshot = get_slot(&seed);
		int r;

		if (!snapshot)
			continue;
		r = cow_snapshot_read(snapshot, 0, content, PAGES * PAGE);
		expect(r == 0 ? is_whole(content, PAGES) : stale_is_fine(r));
		storm.reads++;
		cow_snapshot_unref(snapshot);
		usleep(20); /* few processors: the writer has to get one */
	}
	free(content);
	return NULL;
}

static int rewrite(struct cow_region *branch, uint64_t *content, uint64_t value)
{
	for (size_t i = 0; i < PAGES * PAGE / 8; i++)
		content[i] = value;
	return cow_region_write(branch, 0, content, PAGES * PAGE);
}

/* A branch has one number too, is written, cut, written again, and rolled back. */
static void try_branch(struct cow_region *branch, uint64_t *content)
{
	struct cow_snapshot *own = NULL;

	expect(cow_region_read(branch, 0, content, PAGES * PAGE) == 0 && is_whole(content, PAGES));
	expect(cow_region_touch(branch, cow_region_get_base(branch), PAGE) == 0);
	expect(rewrite(branch, content, 7) == 0);
	expect(cow_region_snapshot(branch, &own) == 0);
	expect(rewrite(branch, content, 8) == 0);
	expect(cow_region_rollback(branch, own) == 0);
	expect(cow_region_read(branch, 0, content, PAGES * PAGE) == 0 && content[PAGE] == 7);
	expect(is_whole(content, PAGES));
	cow_snapshot_unref(own);
	storm.branches++;
}

static void *storm_branch(void *context)
{
	uint64_t seed = (uint64_t)(uintptr_t)context;
	uint64_t *content = malloc(PAGES * PAGE);

	while (storm.go) {
		struct cow_region_options options = explicit_options();
		struct cow_snapshot *snapshot = get_slot(&seed);
		struct cow_region *branch = NULL;
		int r = snapshot ? cow_snapshot_branch(snapshot, &options, &branch) : -ENOENT;

		cow_snapshot_unref(snapshot);
		if (r == 0)
			try_branch(branch, content);
		else if (snapshot)
			expect(stale_is_fine(r));
		cow_region_free(branch);
		usleep(20);
	}
	free(content);
	return NULL;
}

/* What is merged needs no room: where there is a limit it has to be met all the same. */
static void *storm_merge(void *context)
{
	useconds_t pause = storm.limited ? patience(1) * 20000 : 20;

	(void)context;
	while (storm.go) {
		uint64_t bytes = 0;

		expect(cow_region_merge(storm.region, &bytes) == 0);
		storm.merged += bytes;
		usleep(pause);
	}
	return NULL;
}

/* Takes snapshots, maps some, compares some with what came before. */
static int any_range(size_t offset, size_t length, void *context)
{
	(void)context;
	return offset == 0 && length == PAGES * PAGE ? 0 : 1; /* all pages differ, or none */
}

static void look_at(struct cow_snapshot *snapshot, struct cow_snapshot *other, unsigned round)
{
	const void *view = NULL;
	int r;

	if (round % 16 == 0) { /* which pins it: not so often that nothing can be dropped */
		r = cow_snapshot_map(snapshot, round % 32 ? COW_MAP_POPULATE : 0, &view);
		expect(r == 0 ? is_whole(view, PAGES) : stale_is_fine(r));
	}
	if (round % 8 == 0 && other) {
		r = cow_snapshot_diff(other, snapshot, any_range, NULL);
		expect(r == 0 || stale_is_fine(r));
	}
}

static void cut_on(uint64_t *seed)
{
	for (unsigned i = 0; i < CUTS; i++) {
		struct cow_snapshot *snapshot = NULL, *other = get_slot(seed);

		for (uint64_t before = storm.attempts; storm.attempts == before;)
			usleep(10);
		expect(cow_region_snapshot(storm.region, &snapshot) == 0);
		look_at(snapshot, other, i);
		put_slot(seed, snapshot);
		cow_snapshot_unref(other);
	}
}

static void run_storm(const struct cow_region_options *options)
{
	static void *(*const roles[])(void *) = { storm_write, storm_read, storm_read, storm_branch,
						  storm_merge };
	enum { ROLES = sizeof(roles) / sizeof(roles[0]) };
	struct cow_region_stats stats = COW_REGION_STATS_INIT;
	pthread_t threads[ROLES] = { 0 };
	uint64_t seed = 1;

	memset(&storm, 0, sizeof(storm));
	storm.region = new_region(PAGES, options);
	storm.drops = options->limit_policy == COW_LIMIT_DROP;
	storm.limited = options->preimage_limit > 0;
	storm.spills = options->spill_directory != NULL;
	storm.go = true;
	for (unsigned i = 0; i < SLOTS; i++)
		pthread_mutex_init(&storm.slots[i].mutex, NULL);
	for (uintptr_t i = 0; i < ROLES; i++)
		pthread_create(&threads[i], NULL, roles[i], (void *)(i + 2));
	cut_on(&seed);
	storm.go = false;
	for (unsigned i = 0; i < ROLES; i++)
		pthread_join(threads[i], NULL);
	cow_region_get_stats(storm.region, &stats);
	diag("%d cuts, %" PRIu64 " reads, %" PRIu64 " branches, %" PRIu64 " stale, %" PRIu64
	     " refused, %" PRIu64 " KiB merged, %" PRIu64 " pages spilled",
	     CUTS, storm.reads, storm.branches, storm.stale, storm.refused, storm.merged >> 10,
	     stats.spilled_pages);
	space_validate(&storm.region->space);
	for (unsigned i = 0; i < SLOTS; i++)
		put_slot(&(uint64_t){ i }, NULL);
	for (unsigned i = 0; i < SLOTS; i++) {
		cow_snapshot_unref(storm.slots[i].snapshot);
		pthread_mutex_destroy(&storm.slots[i].mutex);
	}
	is_u64(storm.wrong, 0, "things that went wrong");
	ok(storm.reads > 0 && storm.branches > 0, "there was something to see");
	ok(storm.stale > 0 || !storm.drops, "snapshots were given up");
	ok(stats.spilled_pages > 0 || !storm.spills, "pages were spilled");
	ok(storm.refused > 0 || options->limit_policy != COW_LIMIT_BLOCK, "writers were refused");
	is_u64(storm.region->space.snap_count, 0, "no snapshot is left");
	space_validate(&storm.region->space);
	cow_region_free(storm.region);
}

TEST(storm_without_a_limit)
{
	struct cow_region_options options = explicit_options();

	run_storm(&options);
}

static void run_limited_storm(enum cow_limit_policy policy, const char *directory)
{
	struct cow_region_options options = explicit_options();

	options.preimage_limit = 2 * COW_PREIMAGE_LIMIT_MIN;
	options.limit_policy = policy;
	options.limit_timeout_ns = 1000000;
	options.spill_directory = directory;
	run_storm(&options);
}

TEST(storm_with_drops)
{
	run_limited_storm(COW_LIMIT_DROP, NULL);
}

TEST(storm_that_blocks)
{
	run_limited_storm(COW_LIMIT_BLOCK, NULL);
}

TEST(storm_that_spills)
{
	const char *directory = getenv("BUILD_ROOT") ?: ".";
	struct cow_region_options options = explicit_options();
	struct cow_region *region = NULL;

	options.spill_directory = directory;
	if (cow_region_new(PAGE, &options, &region) < 0) {
		skip("no directory on a disk");
		return;
	}
	cow_region_free(region);
	run_limited_storm(COW_LIMIT_SPILL, directory);
}

/* --- writers at the limit --- */

enum { CROWD = 4, CROWD_PAGES = 24 };

static void *write_own_pages(void *context)
{
	size_t first = (size_t)(uintptr_t)context * CROWD_PAGES;
	unsigned char content[PAGE];

	for (unsigned i = 0; storm.go; i++) {
		memset(content, (int)i, sizeof(content));
		content[i % PAGE] = (unsigned char)(uintptr_t)context;
		expect(cow_region_write(storm.region, (first + i % CROWD_PAGES) * PAGE, content,
					PAGE) == 0);
		storm.attempts++;
	}
	return NULL;
}

/* They wait for ever, so whoever makes room, by spilling or by freeing, has to wake those who found
 * none. */
static void run_crowd(enum cow_limit_policy policy, const char *directory)
{
	enum { ROUNDS = 150 };
	struct cow_region_options options = explicit_options();
	struct cow_snapshot *held[2] = { NULL };
	pthread_t threads[CROWD];

	memset(&storm, 0, sizeof(storm));
	options.preimage_limit = COW_PREIMAGE_LIMIT_MIN;
	options.limit_policy = policy;
	options.limit_timeout_ns = UINT64_MAX;
	options.spill_directory = directory;
	storm.region = new_region((size_t)CROWD * CROWD_PAGES, &options);
	storm.go = true;
	for (uintptr_t i = 0; i < CROWD; i++)
		pthread_create(&threads[i], NULL, write_own_pages, (void *)i);
	for (unsigned i = 0; i < ROUNDS; i++) {
		cow_snapshot_unref(held[i % 2]);
		expect(cow_region_snapshot(storm.region, &held[i % 2]) == 0);
		usleep(1000);
	}
	cow_snapshot_unref(held[0]);
	cow_snapshot_unref(held[1]);
	storm.go = false;
	for (unsigned i = 0; i < CROWD; i++)
		pthread_join(threads[i], NULL);
	diag("%" PRIu64 " writes", storm.attempts);
	is_u64(storm.wrong, 0, "writers were refused");
	ok(storm.attempts > 0, "they wrote");
	space_validate(&storm.region->space);
	cow_region_free(storm.region);
}

static pthread_barrier_t crowd_start;

static void *write_own_pages_once(void *context)
{
	unsigned char content[PAGE];

	memset(content, 1 + (int)(uintptr_t)context, sizeof(content));
	pthread_barrier_wait(&crowd_start);
	for (size_t page = 0; page < CROWD_PAGES; page++)
		expect(cow_region_write(storm.region, (page * CROWD + (uintptr_t)context) * PAGE,
					content, PAGE) == 0);
	return NULL;
}

/* All meet the limit together, one of them spills everything there is, and nothing is freed
 * afterwards. */
static void run_spilling_crowd(const char *directory)
{
	enum { ROUNDS = 40 };
	struct cow_region_options options = explicit_options();
	pthread_t threads[CROWD];
	unsigned char one = 1;

	options.preimage_limit = COW_PREIMAGE_LIMIT_MIN;
	options.limit_timeout_ns = UINT64_MAX;
	options.spill_directory = directory;
	pthread_barrier_init(&crowd_start, NULL, CROWD);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct cow_snapshot *snapshot = NULL;

		storm.region = new_region((size_t)CROWD * CROWD_PAGES, &options);
		for (size_t page = 0; page < (size_t)CROWD * CROWD_PAGES; page++)
			expect(cow_region_write(storm.region, page * PAGE, &one, 1) == 0);
		expect(cow_region_snapshot(storm.region, &snapshot) == 0);
		for (uintptr_t i = 0; i < CROWD; i++)
			pthread_create(&threads[i], NULL, write_own_pages_once, (void *)i);
		for (unsigned i = 0; i < CROWD; i++)
			pthread_join(threads[i], NULL);
		cow_snapshot_unref(snapshot);
		cow_region_free(storm.region);
	}
	pthread_barrier_destroy(&crowd_start);
	is_u64(storm.wrong, 0, "writers were refused");
}

TEST(writers_that_wait_for_ever_wake_each_other)
{
	struct cow_region_options options = explicit_options();
	struct cow_region *region = NULL;

	run_crowd(COW_LIMIT_BLOCK, NULL);
	options.spill_directory = getenv("BUILD_ROOT") ?: ".";
	if (cow_region_new(PAGE, &options, &region) == 0) {
		cow_region_free(region);
		run_crowd(COW_LIMIT_SPILL, options.spill_directory);
		run_spilling_crowd(options.spill_directory);
	}
}

/* --- unref from many threads --- */

enum { MANY = 128, UNREFFERS = 4 };
static struct cow_snapshot *many[MANY];

static void *unref_mine(void *context)
{
	uint64_t seed = (uint64_t)(uintptr_t)context;
	unsigned order[MANY / UNREFFERS] = { 0 };

	for (unsigned i = 0; i < MANY / UNREFFERS; i++) {
		unsigned at = (unsigned)(draw(&seed) % (i + 1));

		order[i] = order[at];
		order[at] = i * UNREFFERS + (unsigned)(uintptr_t)context;
	}
	for (unsigned i = 0; i < MANY / UNREFFERS; i++)
		many[order[i]] = cow_snapshot_unref(many[order[i]]);
	return NULL;
}

TEST(snapshots_freed_by_many_threads)
{
	enum { ROUNDS = 12 };
	struct cow_region_options options = explicit_options();

	for (uint64_t round = 0; round < ROUNDS; round++) {
		struct cow_region *region = new_region(PAGES, &options);
		uint64_t *base = cow_region_get_base(region), seed = round;
		pthread_t threads[UNREFFERS];
		unsigned failures = 0;

		for (unsigned i = 0; i < MANY; i++) {
			for (unsigned w = 0; w < 5; w++)
				failures += cow_region_write(region, draw(&seed) % PAGES * PAGE, &i,
							     sizeof(i)) != 0;
			failures += cow_region_snapshot(region, &many[i]) != 0;
		}
		for (uintptr_t i = 0; i < UNREFFERS; i++)
			pthread_create(&threads[i], NULL, unref_mine, (void *)i);
		for (unsigned i = 0; i < 500; i++)
			failures += cow_region_touch(region, base + i % PAGES * PAGE / 8, 8) != 0;
		for (unsigned i = 0; i < UNREFFERS; i++)
			pthread_join(threads[i], NULL);
		space_validate(&region->space);
		is_u64(failures, 0, "calls that failed");
		is_u64(region->space.snap_count + region->space.kept_frames, 0, "what is left");
		cow_region_free(region);
	}
}

TAP_MAIN(CASE(every_snapshot_is_a_consistent_cut), CASE(control_fork_is_a_consistent_cut),
	 CASE(control_a_store_without_a_bracket_is_seen), CASE(storm_without_a_limit),
	 CASE(storm_with_drops), CASE(storm_that_blocks), CASE(storm_that_spills),
	 CASE(writers_that_wait_for_ever_wake_each_other), CASE(snapshots_freed_by_many_threads))
