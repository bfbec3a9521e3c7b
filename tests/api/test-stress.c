/* SPDX-License-Identifier: MIT */
/*
 * Stress: every snapshot is a consistent cut through what many threads write, for as long as one
 * cares to wait, under every trap.
 *
 * Model
 * - A writer has LINES cells, each on a page of its own; the pages of all writers are mixed. Its
 *   step n writes n into cell n % LINES, and what it saw of the writer before it into the same
 *   cell. So after step m its cells hold the last LINES numbers up to m, and nothing else: whatever
 *   is missing between the lowest and the highest was written before, or after, something that is
 *   there.
 * - A cut is consistent if that holds for every writer, and nobody has seen more of the writer
 *   before it than that one has in the same cut.
 * - Beside the writers pages are armed ahead; snapshots are held, looked at again, mapped, made
 *   branches, merged and given up at limits; the process forks; and from time to time the writers
 *   pause while the region is rolled back, and go on from what they find there.
 * - The checker is itself checked: children of fork(), which are consistent cuts of plain memory,
 *   have to pass, and copies made by memcpy() beside the writers must not.
 *
 * A round lasts half a second and has its own region, options and numbers, made from a seed. --seed
 * N begins with the round of that seed; --seconds N, --minutes N (or COW_STRESS_MINUTES) say how
 * long all traps together take.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "lib/helper.h"
#include "tests/tap.h"

#define PAGE        ((size_t)4096)
#define WRITERS_MAX 4u
#define LINES_MAX   300u
#define PAGES_MAX   (WRITERS_MAX * LINES_MAX)
#define HELD        8u

#ifdef STRESS_LONG
#define DEFAULT_SECONDS 3600u
#else
#define DEFAULT_SECONDS 8u
#endif

static unsigned seconds = DEFAULT_SECONDS;
static uint64_t first_seed;

static uint64_t draw(uint64_t *state, uint64_t below)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (*state >> 33) % below;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* --- what is written --- */

struct cell {
	uint64_t count, seen;
	uint64_t padding[300];
	uint64_t again; /* count a second time, far from the first, and stored after it */
	uint64_t rest[PAGE / 8 - 303];
};
_Static_assert(sizeof(struct cell) == PAGE, "a page");

static struct {
	uint64_t seed;
	struct cow_region *region; /* NULL: plain memory */
	struct cell *cells;
	unsigned writers, lines;
	unsigned place[WRITERS_MAX][LINES_MAX]; /* the page of a cell */
	bool explicit;
	_Atomic bool go, pause;
	_Atomic unsigned paused;
	_Atomic uint64_t steps, failures;
} s;

static size_t all_bytes(void)
{
	return (size_t)s.writers * s.lines * PAGE;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): the builtin writes through it */
static void store(uint64_t *to, uint64_t value)
{
	__atomic_store_n(to, value, __ATOMIC_RELEASE);
}

static uint64_t load(const uint64_t *from)
{
	return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static struct cell *cell_of(struct cell *cells, unsigned writer, uint64_t count)
{
	return &cells[s.place[writer][count % s.lines]];
}

/* A bracket is refused at the limit, and comes again. */
static bool enter(const struct cell *cell)
{
	int result;

	do
		result = cow_region_write_begin(s.region, cell, sizeof(*cell));
	while (result == -EAGAIN && s.go && !s.pause);
	s.failures += result < 0 && result != -EAGAIN;
	return result == 0;
}

static bool step(unsigned writer, uint64_t count, uint64_t *seed)
{
	unsigned before = (writer + s.writers - 1) % s.writers;
	struct cell *mine = cell_of(s.cells, writer, count);
	uint64_t saw = load(&cell_of(s.cells, before, draw(seed, s.lines))->count);

	if (s.explicit && !enter(mine))
		return false;
	store(&mine->seen, saw);
	store(&mine->count, count);
	store(&mine->again, count);
	if (s.explicit)
		cow_region_write_end(s.region, mine, sizeof(*mine));
	return true;
}

static uint64_t highest(struct cell *cells, unsigned writer)
{
	uint64_t most = 0;

	for (unsigned i = 0; i < s.lines; i++) {
		uint64_t count = load(&cell_of(cells, writer, i)->count);

		most = count > most ? count : most;
	}
	return most;
}

static void wait_out_the_pause(void)
{
	s.paused++;
	while (s.pause && s.go)
		sched_yield();
	s.paused--;
}

static void *write_on(void *context)
{
	unsigned writer = (unsigned)(uintptr_t)context;
	uint64_t seed = s.seed + writer;
	uint64_t count = highest(s.cells, writer);

	while (s.go) {
		if (s.pause) {
			wait_out_the_pause();
			count = highest(s.cells, writer);
		}
		count += step(writer, count + 1, &seed);
		if (count % 256 == 0)
			sched_yield(); /* few processors: who cuts has to get one */
		s.steps++;
	}
	return NULL;
}

/* --- the checker --- */

/* The number that a cell holds when its writer has come to most. */
static uint64_t due(unsigned line, uint64_t most)
{
	uint64_t back = (most + s.lines - line) % s.lines;

	return most < back ? 0 : most - back;
}

static bool writer_is_consistent(struct cell *cells, unsigned writer)
{
	uint64_t most = highest(cells, writer);
	uint64_t most_before = highest(cells, (writer + s.writers - 1) % s.writers);

	for (unsigned line = 0; line < s.lines; line++) {
		const struct cell *cell = cell_of(cells, writer, line);
		uint64_t count = load(&cell->count), again = load(&cell->again);

		if (count != due(line, most) || load(&cell->seen) > most_before)
			return false;
		/* The cut may have come between the two, unless they were written in a bracket. */
		if (again != count && (s.explicit || count != most ||
				       again != (count > s.lines ? count - s.lines : 0)))
			return false;
	}
	return true;
}

static bool is_consistent(struct cell *cells)
{
	for (unsigned writer = 0; writer < s.writers; writer++)
		if (!writer_is_consistent(cells, writer))
			return false;
	return true;
}

/* --- a round --- */

static struct {
	struct held {
		struct cow_snapshot *snapshot;
		uint64_t hash;
	} held[HELD];
	bool drops;
	uint64_t cuts, torn, changed, wrong, rollbacks, branches, views, forks, stale, merges;
	struct cell *copy;
} r;

static void mix_pages(uint64_t *seed)
{
	unsigned pages[PAGES_MAX] = { 0 }, count = s.writers * s.lines;

	for (unsigned i = 0; i < count; i++) {
		unsigned at = (unsigned)draw(seed, i + 1);

		pages[i] = pages[at];
		pages[at] = i;
	}
	/* In one round of three they stay in order: a writer's pages are neighbours then. */
	for (unsigned i = 0; i < count; i++)
		s.place[i / s.lines][i % s.lines] = s.seed % 3 == 0 ? i : pages[i];
}

static uint64_t hash_of(const void *cells)
{
	return XXH3_64bits(cells, all_bytes());
}

#define failed(result) note_failure(result, __LINE__)

static bool note_failure(int result, int line)
{
	if (result != 0 && r.wrong++ == 0)
		diag("line %d: %s", line, tap_errno_name(result));
	return result != 0;
}

static bool went_stale(int result)
{
	r.stale += result == -ESTALE;
	return result == -ESTALE && r.drops;
}

/* Into the copy; false: it was given up, or could not be read. */
static bool read_snapshot(struct cow_snapshot *snapshot)
{
	int result = cow_snapshot_read(snapshot, 0, r.copy, all_bytes());

	failed(went_stale(result) ? 0 : result);
	return result == 0;
}

static void let_go(struct held *held)
{
	if (held->snapshot && read_snapshot(held->snapshot))
		r.changed += hash_of(r.copy) != held->hash;
	held->snapshot = cow_snapshot_unref(held->snapshot);
}

static void cut(uint64_t *seed)
{
	struct held *held = &r.held[draw(seed, HELD)];
	struct cow_snapshot *snapshot = NULL;

	let_go(held);
	failed(draw(seed, 4) == 0 ? cow_region_arm(s.region) : 0);
	if (failed(cow_region_snapshot(s.region, &snapshot)))
		return;
	r.cuts++;
	held->snapshot = snapshot;
	if (!read_snapshot(snapshot))
		return;
	r.torn += !is_consistent(r.copy);
	held->hash = hash_of(r.copy);
}

static struct held *any_held(uint64_t *seed)
{
	struct held *held = &r.held[draw(seed, HELD)];

	return held->snapshot ? held : NULL;
}

static void map_one(uint64_t *seed)
{
	struct held *held = any_held(seed);
	const void *view = NULL;
	int result;

	if (!held)
		return;
	/* One that is not filled raises SIGBUS when its snapshot is given up in the end. */
	result = cow_snapshot_map(held->snapshot, r.drops || draw(seed, 2) ? COW_MAP_POPULATE : 0,
				  &view);
	if (result < 0) {
		failed(went_stale(result) ? 0 : result);
		return;
	}
	r.changed += hash_of(view) != held->hash;
	r.views++;
}

/* Half of its pages written, cut, and all of it back again. */
static void use_branch(struct cow_region *branch, uint64_t hash)
{
	struct cow_snapshot *own = NULL;
	uint64_t mark = UINT64_MAX;

	failed(cow_region_snapshot(branch, &own));
	for (size_t page = 0; page < all_bytes() / PAGE; page += 2)
		failed(cow_region_write(branch, page * PAGE, &mark, sizeof(mark)));
	failed(cow_region_rollback(branch, own));
	failed(cow_region_read(branch, 0, r.copy, all_bytes()));
	r.changed += hash_of(r.copy) != hash;
	cow_snapshot_unref(own);
	r.branches++;
}

static void branch_one(uint64_t *seed)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_region *branch = NULL;
	struct held *held = any_held(seed);
	int result;

	if (!held || !s.region ||
	    r.drops) /* what it has not looked at would go with its snapshot */
		return;
	options.trap = s.region->trap_kind;
	options.flags = draw(seed, 2) ? COW_REGION_SHARED : 0;
	result = cow_snapshot_branch(held->snapshot, &options, &branch);
	if (result == 0)
		use_branch(branch, held->hash);
	else
		failed(went_stale(result) ? 0 : result);
	cow_region_free(branch);
}

static void pause_writers(void)
{
	s.pause = true;
	while (s.paused < s.writers)
		sched_yield();
}

static void roll_back(uint64_t *seed)
{
	struct held *held = any_held(seed);
	int result;

	if (!held)
		return;
	pause_writers();
	result = cow_region_rollback(s.region, held->snapshot);
	if (result == 0) {
		failed(cow_region_read(s.region, 0, r.copy, all_bytes()));
		r.changed += hash_of(r.copy) != held->hash;
		r.rollbacks++;
	} else {
		failed(went_stale(result) || result == -EAGAIN ? 0 : result);
	}
	s.pause = false;
}

/* What a child finds is a consistent cut, too, and stays where it is. */
static void fork_once(void)
{
	int status = 0;
	bool right;
	pid_t pid = fork();

	if (pid == 0) {
		s.explicit = false; /* unlike a cut, a fork may fall into a bracket */
		right = is_consistent(s.cells);
		memset(s.cells, 1, all_bytes());
		_exit(right ? 0 : 1);
	}
	failed(pid < 0 || waitpid(pid, &status, 0) < 0 ? -errno : 0);
	r.torn += status != 0;
	r.forks++;
}

static void something(uint64_t *seed)
{
	bool shared = s.region && s.region->memfd >= 0; /* and so not there in a child */

	switch (draw(seed, 40)) {
	case 0:
		roll_back(seed);
		break;
	case 1:
		branch_one(seed);
		break;
	case 2:
		map_one(seed);
		break;
	case 3:
		if (!shared)
			fork_once();
		break;
	case 4:
		failed(cow_region_merge(s.region, NULL));
		r.merges++;
		break;
	case 5:
		let_go(&r.held[draw(seed, HELD)]);
		break;
	default:
		cut(seed);
	}
}

static void *arm_on(void *context)
{
	uint64_t seed = s.seed;

	(void)context;
	while (s.go) {
		if (cow_region_arm(s.region) < 0)
			s.failures++;
		usleep((unsigned)draw(&seed, 2000));
	}
	return NULL;
}

static void run_threads(void (*work)(uint64_t *seed), double until)
{
	pthread_t writers[WRITERS_MAX] = { 0 }, armer = 0;
	bool arms = s.region && s.seed % 2 == 0;
	uint64_t seed = s.seed, before;

	s.go = true;
	for (uintptr_t i = 0; i < s.writers; i++)
		pthread_create(&writers[i], NULL, write_on, (void *)i);
	if (arms)
		pthread_create(&armer, NULL, arm_on, NULL);
	while (now() < until && tap.failed == 0) {
		/* Cuts that nothing falls between prove nothing. */
		for (before = s.steps; s.steps < before + 2;)
			sched_yield();
		work(&seed);
	}
	s.go = false;
	for (unsigned i = 0; i < s.writers; i++)
		pthread_join(writers[i], NULL);
	if (arms)
		pthread_join(armer, NULL);
}

static void choose_options(struct cow_region_options *options, uint64_t *seed)
{
	options->cut_timeout_ns = 600000000000u; /* a machine may be busy */
	options->flags = (draw(seed, 3) == 0 ? COW_REGION_SHARED : 0) |
			 (draw(seed, 3) == 0 ? COW_REGION_HUGE_PAGES : 0) |
			 (draw(seed, 3) == 0 ? COW_REGION_COPY_AHEAD : 0) |
			 (draw(seed, 3) == 0 ? COW_REGION_CHECK : 0);
	options->block = draw(seed, 2) ? 0 : PAGE << draw(seed, 7);
	switch (draw(seed, 4)) {
	case 0:
		options->preimage_limit = COW_PREIMAGE_LIMIT_MIN << draw(seed, 4);
		options->limit_policy = COW_LIMIT_DROP;
		break;
	case 1:
		options->preimage_limit = 4 * COW_PREIMAGE_LIMIT_MIN << draw(seed, 3);
		options->limit_policy = COW_LIMIT_SPILL;
		options->spill_directory = getenv("BUILD_ROOT") ?: ".";
		break;
	default:
		break;
	}
}

static void set_up(enum cow_trap trap, uint64_t round_seed)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	uint64_t seed = round_seed;
	int result;

	memset(&s, 0, sizeof(s));
	s.seed = round_seed;
	s.writers = 2 + (unsigned)draw(&seed, WRITERS_MAX - 1);
	s.lines = draw(&seed, 3) ? 3 + (unsigned)draw(&seed, 20) :
				   3 + (unsigned)draw(&seed, LINES_MAX - 2);
	/* That a store traps, and its page is copied before, is beyond ThreadSanitizer. */
#ifdef __SANITIZE_THREAD__
	s.explicit = true;
#else
	s.explicit = trap == COW_TRAP_EXPLICIT;
#endif
	mix_pages(&seed);
	options.trap = trap;
	choose_options(&options, &seed);
	result = cow_region_new(all_bytes(), &options, &s.region);
	if (result == -EINVAL && options.spill_directory) { /* on a tmpfs */
		options.spill_directory = NULL;
		options.limit_policy = COW_LIMIT_DROP;
		result = cow_region_new(all_bytes(), &options, &s.region);
	}
	if (result < 0)
		bail("a region: %s", strerror(-result));
	s.cells = cow_region_get_base(s.region);
	/* SPILL gives snapshots up as well, where a store has no other way. */
	r.drops = options.preimage_limit > 0;
}

/* Nobody writes but by traps and brackets. */
static uint64_t bypassed(void)
{
	struct cow_region_stats stats = COW_REGION_STATS_INIT;

	failed(cow_region_get_stats(s.region, &stats));
	if (stats.bypassed_pages > 0)
		diag("%" PRIu64 " pages were written unnoticed", stats.bypassed_pages);
	return stats.bypassed_pages;
}

static bool run_round(enum cow_trap trap, uint64_t seed, double length)
{
	uint64_t wrong;

	alarm(240); /* something hangs */
	set_up(trap, seed);
	run_threads(something, now() + length);
	for (unsigned i = 0; i < HELD; i++)
		let_go(&r.held[i]);
	r.wrong += bypassed();
	wrong = s.failures + r.torn + r.changed + r.wrong;
	ok(wrong == 0,
	   "seed %" PRIu64 ", %u writers, %u lines: torn %" PRIu64 ", changed %" PRIu64
	   ", wrong %" PRIu64 ", writes failed %" PRIu64,
	   seed, s.writers, s.lines, r.torn, r.changed, r.wrong, s.failures);
	is_u64(s.region->space.snap_count, 0, "snapshots left");
	helper_drain(s.region); /* the copier may have a hand on a page */
	space_validate(&s.region->space);
	cow_region_free(s.region);
	return wrong == 0;
}

#define TRAPS 4.0

/* What dies says nothing more: this does. */
static uint64_t running;

static void say_seed(int signal)
{
	char text[80];
	int length = snprintf(text, sizeof(text), "# seed %" PRIu64 ": %s\n", running,
			      signal == SIGALRM ? "hangs" : "dies");

	(void)!write(STDOUT_FILENO, text, (size_t)length);
	raise(signal);
}

static void watch_over(void)
{
	const int signals[] = { SIGALRM, SIGABRT, SIGSEGV, SIGBUS };
	const struct sigaction action = { .sa_handler = say_seed, .sa_flags = (int)SA_RESETHAND };

	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
}

/* Each trap has its share of the time. */
static void stress(enum cow_trap trap)
{
	double start = now(), end = start + seconds / TRAPS;
	uint64_t seed = first_seed ?: (uint64_t)trap * 1000000;
	unsigned rounds = 0;

	memset(&r, 0, sizeof(r));
	r.copy = malloc(PAGES_MAX * PAGE);
	if (!r.copy)
		bail("no memory");
#ifdef STRESS_LONG
	seed = first_seed ?: (uint64_t)time(NULL) * 1000;
#endif
	diag("from seed %" PRIu64, seed);
	do {
		running = seed;
		rounds++;
	} while (run_round(trap, seed++, 0.5) && now() < end);
	diag("%u rounds: %" PRIu64 " cuts, %" PRIu64 " rollbacks, %" PRIu64 " branches, %" PRIu64
	     " views, %" PRIu64 " forks, %" PRIu64 " merges, %" PRIu64 " given up",
	     rounds, r.cuts, r.rollbacks, r.branches, r.views, r.forks, r.merges, r.stale);
	ok(r.cuts >= rounds, "there were cuts");
	free(r.copy);
	alarm(0);
}

TEST(signal_trap)
{
	stress(COW_TRAP_SIGNAL);
}

TEST(thread_trap)
{
	stress(COW_TRAP_THREAD);
}

TEST(mprotect_trap)
{
	stress(COW_TRAP_MPROTECT);
}

TEST(explicit_trap)
{
	stress(COW_TRAP_EXPLICIT);
}

/* --- controls: the checker passes what is consistent, and sees what is not --- */

static void set_up_plain(void)
{
	uint64_t seed = 5;

	memset(&s, 0, sizeof(s));
	memset(&r, 0, sizeof(r));
	s.seed = 5;
	s.writers = 3;
	s.lines = 40;
	mix_pages(&seed);
	s.cells = mmap(NULL, all_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	r.copy = malloc(all_bytes());
	if (s.cells == MAP_FAILED || !r.copy)
		bail("no memory");
}

static void tear_down_plain(void)
{
	munmap(s.cells, all_bytes());
	free(r.copy);
}

/* NOLINTNEXTLINE(readability-non-const-parameter): run_threads() gives what others change */
static void fork_and_look(uint64_t *seed)
{
	(void)seed;
	fork_once();
}

TEST(control_fork_is_consistent)
{
	set_up_plain();
	run_threads(fork_and_look, now() + 0.3);
	diag("%" PRIu64 " children", r.forks);
	ok(r.forks > 3, "it forked");
	is_u64(r.torn + r.wrong, 0, "children that were torn: the checker would be wrong");
	tear_down_plain();
}

/* NOLINTNEXTLINE(readability-non-const-parameter): as above */
static void copy_and_look(uint64_t *seed)
{
	uint64_t *to = (uint64_t *)(void *)r.copy;
	const uint64_t *from = (const uint64_t *)(const void *)s.cells;

	(void)seed;
	for (size_t i = 0; i < all_bytes() / 8; i++)
		to[i] = load(&from[i]);
	r.torn += !is_consistent(r.copy);
	r.cuts++;
}

/* On a busy machine the writers may stand still for a while. */
TEST(control_a_copy_beside_writers_is_not)
{
	set_up_plain();
	for (unsigned i = 0; i < 20 && r.torn == 0; i++)
		run_threads(copy_and_look, now() + 0.3);
	diag("%" PRIu64 " of %" PRIu64 " copies were torn", r.torn, r.cuts);
	ok(r.torn > 0, "the checker sees a copy that is no cut");
	tear_down_plain();
}

static const struct tap_case cases[] = {
	CASE(control_fork_is_consistent),
	CASE(control_a_copy_beside_writers_is_not),
	CASE(signal_trap),
	CASE(thread_trap),
	CASE(mprotect_trap),
	CASE(explicit_trap),
};

static unsigned number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*text == '\0' || *end != '\0' || value > 1000000000)
		bail("'%s' is not a number", text);
	return (unsigned)value;
}

/* Takes the options out, and leaves the names of cases. */
static int read_options(int argc, char **argv)
{
	const char *minutes = getenv("COW_STRESS_MINUTES");
	int left = 1;

	if (minutes && *minutes)
		seconds = 60 * number(minutes);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--minutes") == 0 && i + 1 < argc)
			seconds = 60 * number(argv[++i]);
		else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
			seconds = number(argv[++i]);
		else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
			first_seed = number(argv[++i]);
		else
			argv[left++] = argv[i];
	}
	return left;
}

int main(int argc, char **argv)
{
	argc = read_options(argc, argv);
	watch_over();
	return tap_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
