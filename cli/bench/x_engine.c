/* SPDX-License-Identifier: MIT */
/*
 * engine: libcow beside fork(), on the same memory: the stall of a snapshot by size and by what was
 * written since the last one, first writes and their tails, memory, going back, branching, bringing
 * back from disk.
 *
 * Each figure comes from a process of its own: a fork of a process that also has a region would
 * write-protect the region's memory, and libcow would pay for it.
 */
#include <cow.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/bench/bench.h"
#include "cli/bench/disk.h"

#define MIB  ((uint64_t)1 << 20)
#define PAGE ((uint64_t)4096)

#define SUBJECTS 64
#define CUTS     1000 /* timed together: one is far below what a clock tells well */

/* What holds a past state of the memory. */
enum keeper { BY_FORK, EXPLICIT, SIGNAL, THREAD, MPROTECT, KEEPERS };

static const struct keeper_info {
	const char *key, *name;
	enum cow_trap trap;
} keepers[KEEPERS] = {
	[BY_FORK] = { "fork", "fork()", COW_TRAP_AUTO },
	[EXPLICIT] = { "explicit", "libcow, brackets", COW_TRAP_EXPLICIT },
	[SIGNAL] = { "signal", "libcow, signal trap", COW_TRAP_SIGNAL },
	[THREAD] = { "thread", "libcow, thread trap", COW_TRAP_THREAD },
	[MPROTECT] = { "mprotect", "libcow, mprotect trap", COW_TRAP_MPROTECT },
};

struct setting {
	enum keeper keeper;
	uint64_t bytes;
	unsigned int percent; /* of pages written before */
	double quantile;      /* of first writes; 0: their mean */
};

struct list {
	struct setting settings[SUBJECTS];
	struct bench_subject subjects[SUBJECTS];
	size_t count;
	bool usable[KEEPERS];
};

/* --- the memory, and what keeps it --- */

struct arena {
	enum keeper keeper;
	char *memory;
	uint64_t bytes;
	struct cow_region *region; /* NULL: plain memory */
	struct cow_snapshot *snapshot;
	pid_t child;
};

static int make_arena(struct bench *bench, const struct setting *setting, struct arena *arena)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	int error = 0;

	*arena = (struct arena){ .keeper = setting->keeper, .bytes = setting->bytes };
	if (arena->keeper == BY_FORK) {
		arena->memory = bench_map(bench, setting->bytes, false);
	} else {
		options.trap = keepers[setting->keeper].trap;
		error = cow_region_new(setting->bytes, &options, &arena->region);
		if (!error)
			arena->memory = cow_region_get_base(arena->region);
		if (!error)
			madvise(arena->memory, setting->bytes, MADV_NOHUGEPAGE);
		if (!error && arena->keeper == EXPLICIT)
			error = cow_region_touch(arena->region, arena->memory, setting->bytes);
	}
	if (error || !arena->memory) {
		bench_fail(bench, error, "cannot make memory of %s", keepers[arena->keeper].name);
		return -1;
	}
	bench_fill(arena->memory, setting->bytes, bench->seed);
	return 0;
}

/* Returns how long the caller stood still, ns; the harness's own look at the clock apart. */
static uint64_t keep(struct bench *bench, struct arena *arena)
{
	uint64_t start = bench_now(), ns;
	int error = 0;

	if (arena->region) {
		error = cow_region_snapshot(arena->region, &arena->snapshot);
	} else {
		arena->child = fork();
		if (arena->child == 0) {
			pause();
			_exit(0);
		}
		error = arena->child < 0 ? -errno : 0;
	}
	ns = bench_now() - start;
	if (error)
		bench_fail(bench, error, "cannot keep the state by %s",
			   keepers[arena->keeper].name);
	return ns;
}

static void let_go(struct arena *arena)
{
	arena->snapshot = cow_snapshot_unref(arena->snapshot);
	if (arena->child > 0) {
		kill(arena->child, SIGKILL);
		waitpid(arena->child, NULL, 0);
		arena->child = 0;
	}
}

static void write_page(struct arena *arena, uint64_t page, uint64_t value)
{
	char *at = arena->memory + page * PAGE;

	if (arena->keeper == EXPLICIT && cow_region_write_begin(arena->region, at, sizeof(value)))
		return;
	memcpy(at, &value, sizeof(value));
	if (arena->keeper == EXPLICIT)
		cow_region_write_end(arena->region, at, sizeof(value));
}

/* All pages in an order without a pattern: an odd step through a power of two. */
static uint64_t page_of(const struct arena *arena, uint64_t number)
{
	return number * 2654435761u % (arena->bytes / PAGE);
}

static void write_share(struct arena *arena, unsigned int percent, uint64_t value)
{
	uint64_t pages = arena->bytes / PAGE * percent / 100, i;

	for (i = 0; i < pages; i++)
		write_page(arena, page_of(arena, i), value);
}

static const struct setting *setting_of(const struct bench_subject *subject)
{
	return subject->context;
}

/* --- the stall --- */

/* Nothing was written since the last one. */
static double measure_stall(struct bench *bench, const struct bench_subject *subject)
{
	struct cow_snapshot **snapshots = malloc(CUTS * sizeof(struct cow_snapshot *));
	struct arena arena;
	uint64_t start, ns;
	int i, error = 0;

	if (!snapshots || make_arena(bench, setting_of(subject), &arena) < 0) {
		free(snapshots);
		return NAN;
	}
	if (!arena.region) {
		ns = keep(bench, &arena);
		let_go(&arena);
		free(snapshots);
		return (double)ns;
	}
	start = bench_now();
	for (i = 0; i < CUTS && !error; i++)
		error = cow_region_snapshot(arena.region, &snapshots[i]);
	ns = bench_lap(start);
	if (error)
		bench_fail(bench, error, "cannot take a snapshot");
	while (i-- > 0)
		if (!error)
			cow_snapshot_unref(snapshots[i]);
	free(snapshots);
	return (double)ns / CUTS;
}

/* A part of all pages was written since the last one. */
static double measure_dirty(struct bench *bench, const struct bench_subject *subject)
{
	const struct setting *setting = setting_of(subject);
	struct arena arena;
	uint64_t ns;

	if (make_arena(bench, setting, &arena) < 0)
		return NAN;
	keep(bench, &arena);
	let_go(&arena);
	write_share(&arena, setting->percent, 1);
	ns = keep(bench, &arena);
	let_go(&arena);
	return bench_over(bench) ? NAN : (double)ns;
}

/* --- first writes --- */

static int compare_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double tail_of(struct arena *arena, double quantile)
{
	const uint64_t pages = arena->bytes / PAGE;
	uint64_t *ns = malloc(pages * sizeof(*ns)), start, i;
	double value;

	if (!ns)
		return NAN;
	memset(ns, 0, pages * sizeof(*ns));
	for (i = 0; i < pages; i++) {
		start = bench_now();
		write_page(arena, page_of(arena, i), 2);
		ns[i] = bench_now() - start;
	}
	qsort(ns, pages, sizeof(*ns), compare_ns);
	value = (double)ns[(uint64_t)((double)(pages - 1) * quantile)];
	free(ns);
	return value;
}

static double measure_first_writes(struct bench *bench, const struct bench_subject *subject)
{
	const struct setting *setting = setting_of(subject);
	uint64_t start, i, pages = setting->bytes / PAGE;
	struct arena arena;
	double value;

	if (make_arena(bench, setting, &arena) < 0)
		return NAN;
	/* Once before: as in a program that takes snapshots again and again, frames are at hand. */
	keep(bench, &arena);
	write_share(&arena, 100, 1);
	let_go(&arena);
	keep(bench, &arena);
	if (setting->quantile > 0) {
		value = tail_of(&arena, setting->quantile);
	} else {
		start = bench_now();
		for (i = 0; i < pages; i++)
			write_page(&arena, page_of(&arena, i), 2);
		value = (double)bench_lap(start) / (double)pages;
	}
	let_go(&arena);
	return bench_over(bench) ? NAN : value;
}

/* --- memory --- */

static double pss_of(const struct arena *arena)
{
	struct bench_memory own = { 0 }, child = { 0 };

	bench_memory(0, &own);
	if (arena->child > 0)
		bench_memory(arena->child, &child);
	return (double)own.pss + (double)child.pss;
}

/* What rewriting everything takes while a past state is held. */
static double measure_memory(struct bench *bench, const struct bench_subject *subject)
{
	struct arena arena;
	double before, after;

	if (make_arena(bench, setting_of(subject), &arena) < 0)
		return NAN;
	before = pss_of(&arena);
	keep(bench, &arena);
	write_share(&arena, 100, 3);
	after = pss_of(&arena);
	let_go(&arena);
	return bench_over(bench) ? NAN : after - before;
}

/* --- going back --- */

static double measure_rollback(struct bench *bench, const struct bench_subject *subject)
{
	const struct setting *setting = setting_of(subject);
	struct arena arena;
	uint64_t start, ns, expected;
	char *copy = NULL;
	int error = 0;

	if (make_arena(bench, setting, &arena) < 0)
		return NAN;
	memcpy(&expected, arena.memory, sizeof(expected));
	if (arena.region) {
		keep(bench, &arena);
	} else {
		/* What one does without: a copy of everything, copied back. */
		copy = bench_map(bench, setting->bytes, false);
		if (!copy)
			return NAN;
		memcpy(copy, arena.memory, setting->bytes);
	}
	write_share(&arena, setting->percent, 4);
	start = bench_now();
	if (arena.region)
		error = cow_region_rollback(arena.region, arena.snapshot);
	else if (copy)
		memcpy(arena.memory, copy, setting->bytes);
	ns = bench_lap(start);
	if (error || memcmp(arena.memory, &expected, sizeof(expected)) != 0)
		bench_fail(bench, error, "going back did not bring the content back");
	let_go(&arena);
	return bench_over(bench) ? NAN : (double)ns;
}

/* --- branches --- */

/* A duplicate in which one page is written, and that is thrown away. */
static double measure_branch(struct bench *bench, const struct bench_subject *subject)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	const struct setting *setting = setting_of(subject);
	struct cow_region *branch;
	struct arena arena;
	uint64_t start, ns;
	int error = 0;
	pid_t pid;

	if (make_arena(bench, setting, &arena) < 0)
		return NAN;
	if (arena.region) {
		options.trap = keepers[setting->keeper].trap;
		start = bench_now();
		error = cow_region_snapshot(arena.region, &arena.snapshot);
		if (!error)
			error = cow_snapshot_branch(arena.snapshot, &options, &branch);
		if (!error) {
			error = cow_region_write(branch, 0, "branch", 6);
			cow_region_free(branch);
		}
		arena.snapshot = cow_snapshot_unref(arena.snapshot);
		ns = bench_lap(start);
	} else {
		start = bench_now();
		pid = fork();
		if (pid == 0) {
			memcpy(arena.memory, "branch", 6);
			_exit(0);
		}
		error = pid < 0 ? -errno : 0;
		if (pid > 0)
			waitpid(pid, NULL, 0);
		ns = bench_lap(start);
	}
	if (error)
		bench_fail(bench, error, "cannot branch");
	return bench_over(bench) ? NAN : (double)ns;
}

/* --- from disk --- */

/* Reads a file of the size into memory: what a program without libcow does when it starts. */
static double load_plain(struct bench *bench, const struct setting *setting)
{
	const char *path = bench_text(bench, "%s/plain", bench->directory);
	uint64_t start, ns = 0, at;
	ssize_t n = 1;
	char *memory = bench_map(bench, setting->bytes, false);
	int fd, error = memory ? disk_fill_file(path, setting->bytes, bench->seed) : -ENOMEM;

	start = bench_now();
	fd = error ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	for (at = 0; fd >= 0 && at < setting->bytes && n > 0; at += (uint64_t)n)
		n = read(fd, memory + at, setting->bytes - at);
	ns = bench_lap(start);
	if (fd < 0 || n <= 0)
		bench_fail(bench, error ? error : -EIO, "cannot read a file back");
	if (fd >= 0)
		close(fd);
	unlink(path);
	return (double)ns;
}

static double restore(struct bench *bench, struct arena *arena, const char *directory)
{
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_region *region = NULL;
	struct cow_store *store = NULL;
	char id[COW_ID_LENGTH];
	uint64_t start = 0, ns = 0, first = 0;
	int error = cow_store_open(directory, COW_STORE_CREATE, &store);

	options.trap = COW_TRAP_EXPLICIT;
	if (!error)
		error = cow_store_save(store, arena->snapshot, NULL, id);
	if (!error) {
		start = bench_now();
		error = cow_store_restore(store, id, &options, &region);
	}
	if (!error)
		error = cow_region_read(region, arena->bytes / 2, &first, sizeof(first));
	ns = error ? 0 : bench_lap(start);
	if (!error && memcmp(&first, arena->memory + arena->bytes / 2, sizeof(first)) != 0)
		error = -EILSEQ;
	if (error)
		bench_fail(bench, error, "cannot restore");
	cow_region_free(region);
	cow_store_close(store);
	return (double)ns;
}

/* Until a page of what was saved can be read again. */
static double measure_restore(struct bench *bench, const struct bench_subject *subject)
{
	const struct setting *setting = setting_of(subject);
	const char *directory;
	struct arena arena;
	double ns;

	if (setting->keeper == BY_FORK) {
		ns = load_plain(bench, setting);
	} else {
		if (make_arena(bench, setting, &arena) < 0)
			return NAN;
		keep(bench, &arena);
		directory = bench_text(bench, "%s/store", bench->directory);
		ns = restore(bench, &arena, directory);
		let_go(&arena);
		disk_remove_tree(directory);
	}
	return bench_over(bench) ? NAN : ns;
}

/* --- lists --- */

static void add(struct list *list, struct bench_subject subject, struct setting setting)
{
	if (list->count == SUBJECTS || !list->usable[setting.keeper])
		return;
	list->settings[list->count] = setting;
	subject.context = &list->settings[list->count];
	subject.in_child = true;
	list->subjects[list->count++] = subject;
}

static void take_turns(struct bench *bench, struct list *list)
{
	if (list->count && !bench_over(bench))
		bench_take_turns(bench, list->subjects, list->count);
	list->count = 0;
}

static const char *size_text(struct bench *bench, uint64_t bytes)
{
	return bench_figure(bench, BENCH_BYTES, (double)bytes);
}

static void run_stalls(struct bench *bench, struct list *list)
{
	const uint64_t sizes[] = { 16 * MIB, BENCH_BY_SCALE(bench, 16, 128, 128, 1024) * MIB,
				   BENCH_BY_SCALE(bench, 16, 512, 512, 4096) * MIB };
	const size_t used = BENCH_BY_SCALE(bench, 1u, 3u, 3u, 3u);
	static const enum keeper pair[] = { BY_FORK, EXPLICIT };
	uint64_t bytes;
	size_t i, k;

	for (i = 0; i < used; i++) {
		bytes = bench_fit(bench, sizes[i], 2);
		for (k = 0; k < 2; k++)
			add(list,
			    (struct bench_subject){
				    .row = { bench_text(bench, "stall/%s/%zu", keepers[pair[k]].key,
							i),
					     bench_text(bench, "%s of %s", k ? "cut" : "fork()",
							size_text(bench, bytes)),
					     BENCH_NS, k ? "< 1 us" : "tens of ms", "stall",
					     keepers[pair[k]].name, (double)bytes },
				    .measure = measure_stall },
			    (struct setting){ .keeper = pair[k], .bytes = bytes });
	}
	take_turns(bench, list);
	bench_add_ratio(bench,
			&(struct bench_row){ "stall/ratio", "fork() of the largest, of a cut",
					     BENCH_RATIO },
			bench_text(bench, "stall/fork/%zu", used - 1),
			bench_text(bench, "stall/explicit/%zu", used - 1));
}

static void run_dirty(struct bench *bench, struct list *list)
{
	static const unsigned int shares[] = { 1, 10, 100 };
	const uint64_t bytes = BENCH_BY_SCALE(bench, 4, 32, 64, 256) * MIB;
	size_t i, k;

	for (i = 0; i < 3; i++)
		for (k = 0; k < KEEPERS; k++)
			add(list,
			    (struct bench_subject){
				    .row = { bench_text(bench, "dirty/%s/%u", keepers[k].key,
							shares[i]),
					     bench_text(bench, "%s of %s after %u %% were written",
							keepers[k].name, size_text(bench, bytes),
							shares[i]),
					     BENCH_NS, NULL, "dirty", keepers[k].name, shares[i] },
				    .measure = measure_dirty },
			    (struct setting){ .keeper = (enum keeper)k,
					      .bytes = bytes,
					      .percent = shares[i] });
	take_turns(bench, list);
}

static void run_writes(struct bench *bench, struct list *list)
{
	static const struct {
		const char *key, *label;
		double quantile;
	} kinds[] = { { "first", "a first write, on average", 0 },
		      { "p999", "one first write in a thousand takes longer than", 0.999 } };
	const uint64_t bytes = BENCH_BY_SCALE(bench, 4, 32, 64, 256) * MIB;
	size_t i, k;

	for (i = 0; i < 2; i++)
		for (k = 0; k < KEEPERS; k++)
			add(list,
			    (struct bench_subject){
				    .row = { bench_text(bench, "%s/%s", kinds[i].key,
							keepers[k].key),
					     bench_text(bench, "%s: %s", keepers[k].name,
							kinds[i].label),
					     BENCH_NS, NULL, kinds[i].key, "first writes" },
				    .measure = measure_first_writes },
			    (struct setting){ .keeper = (enum keeper)k,
					      .bytes = bytes,
					      .quantile = kinds[i].quantile });
	take_turns(bench, list);
	bench_add_ratio(bench,
			&(struct bench_row){ "first/ratio",
					     "a first write between brackets, of the kernel's",
					     BENCH_RATIO },
			"first/explicit", "first/fork");
}

static void run_others(struct bench *bench, struct list *list)
{
	const uint64_t bytes = BENCH_BY_SCALE(bench, 4, 64, 128, 1024) * MIB;
	static const enum keeper pair[] = { BY_FORK, EXPLICIT };
	size_t k;

	for (k = 0; k < 2; k++) {
		const struct setting setting = { .keeper = pair[k], .bytes = bytes, .percent = 1 };
		const char *key = keepers[pair[k]].key;

		add(list,
		    (struct bench_subject){
			    .row = { bench_text(bench, "memory/%s", key),
				     bench_text(bench, "%s: memory for rewriting all of %s",
						keepers[pair[k]].name, size_text(bench, bytes)),
				     BENCH_BYTES },
			    .measure = measure_memory },
		    setting);
		add(list,
		    (struct bench_subject){
			    .row = { bench_text(bench, "rollback/%s", key),
				     bench_text(bench, "%s of %s after 1 %% was written",
						k ? "going back" : "copying back a copy",
						size_text(bench, bytes)),
				     BENCH_NS },
			    .measure = measure_rollback },
		    setting);
		add(list,
		    (struct bench_subject){
			    .row = { bench_text(bench, "branch/%s", key),
				     bench_text(bench, "%s of %s, one page written, thrown away",
						k ? "snapshot and branch" : "fork()",
						size_text(bench, bytes)),
				     BENCH_NS },
			    .measure = measure_branch },
		    setting);
		add(list,
		    (struct bench_subject){
			    .row = { bench_text(bench, "restore/%s", key),
				     bench_text(bench, "%s of %s until a page can be read, cached",
						k ? "restore" : "read(2)", size_text(bench, bytes)),
				     BENCH_NS },
			    .measure = measure_restore },
		    setting);
	}
	bench_add_value(bench, &(struct bench_row){ "bytes", "the memory of these", BENCH_BYTES },
			(double)bytes);
	take_turns(bench, list);
}

static void find_usable(struct bench *bench, struct list *list)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_region *region;
	size_t k;
	int error;

	list->usable[BY_FORK] = true;
	for (k = EXPLICIT; k < KEEPERS; k++) {
		options.trap = keepers[k].trap;
		error = cow_region_new(MIB, &options, &region);
		list->usable[k] = error == 0;
		if (error)
			bench_add_skipped(
				bench,
				&(struct bench_row){ bench_text(bench, "first/%s", keepers[k].key),
						     keepers[k].name, BENCH_NS },
				"the kernel refuses: %s", strerror(-error));
		else
			cow_region_free(region);
	}
}

static void run(struct bench *bench)
{
	static struct list list;
	double bytes;

	find_usable(bench, &list);
	run_stalls(bench, &list);
	run_dirty(bench, &list);
	run_writes(bench, &list);
	run_others(bench, &list);
	if (bench_over(bench))
		return;
	bytes = bench_median(bench, "bytes");
	bench_check(bench, bench_median(bench, "memory/explicit") < 1.1 * bytes + (double)MIB,
		    "libcow keeps each rewritten page once");
	bench_check(bench, bench_median(bench, "memory/fork") > 0.95 * bytes, "so does the kernel");
}

/* --- judging --- */

static const char *last_stall(struct bench *bench, const char *keeper)
{
	const char *last = NULL, *next;
	int i;

	for (i = 0;; i++) {
		next = bench_text(bench, "stall/%s/%d", keeper, i);
		if (isnan(bench_median(bench, next)))
			return last ? last : next;
		last = next;
	}
}

static void judge_stall(struct bench *bench)
{
	double forked = bench_median(bench, last_stall(bench, "fork"));
	double cut = bench_median(bench, last_stall(bench, "explicit"));
	double small = bench_median(bench, "stall/explicit/0");

	bench_judge(bench, "a snapshot takes less than a microsecond, whatever the size",
		    cut < 1000 && cut < 3 * small + 100 ? BENCH_HOLDS :
		    cut < forked / 100                  ? BENCH_HOLDS_IN_PART :
							  BENCH_DOES_NOT_HOLD,
		    "%s for the smallest region, %s for the largest; fork() of as much: %s",
		    bench_figure(bench, BENCH_NS, small), bench_figure(bench, BENCH_NS, cut),
		    bench_figure(bench, BENCH_NS, forked));
}

static void judge_writes(struct bench *bench)
{
	double ours = bench_median(bench, "first/explicit");
	double kernel = bench_median(bench, "first/fork");
	double trapped = bench_median(bench, "first/signal");

	bench_judge(bench, "a first write costs a third of the kernel's",
		    ours < 0.4 * kernel ? BENCH_HOLDS :
		    ours < kernel       ? BENCH_HOLDS_IN_PART :
					  BENCH_DOES_NOT_HOLD,
		    "%s between brackets, %s by the kernel (%.2f of it); under the signal trap %s",
		    bench_figure(bench, BENCH_NS, ours), bench_figure(bench, BENCH_NS, kernel),
		    ours / kernel,
		    isnan(trapped) ? "not measured" : bench_figure(bench, BENCH_NS, trapped));
}

static void judge_memory(struct bench *bench)
{
	double ours = bench_median(bench, "memory/explicit"), bytes = bench_median(bench, "bytes");

	bench_judge(bench, "rewriting everything takes 1.02 of its bytes",
		    ours < 1.05 * bytes ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%.3f of them; the kernel, with two processes: %.3f", ours / bytes,
		    bench_median(bench, "memory/fork") / bytes);
}

static void judge_faster(struct bench *bench, const char *part, const char *key)
{
	double ours = bench_median(bench, bench_text(bench, "%s/explicit", key));
	double theirs = bench_median(bench, bench_text(bench, "%s/fork", key));

	bench_judge(bench, part, ours < theirs ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%s, against %s", bench_figure(bench, BENCH_NS, ours),
		    bench_figure(bench, BENCH_NS, theirs));
}

static void judge(struct bench *bench)
{
	judge_stall(bench);
	judge_writes(bench);
	judge_memory(bench);
	judge_faster(bench, "going back costs what was written, not the size", "rollback");
	judge_faster(bench, "a branch is cheaper than a fork", "branch");
	judge_faster(bench, "a saved region is usable at once", "restore");
}

static const struct bench_plot plots[] = {
	{ "stall", "How long a snapshot stops the program", "memory", "ns", true, true, true },
	{ "dirty", "The same, by what was written since the last one", "% of pages", "ns", true,
	  true },
	{ "first", "A first write after a snapshot, on average", NULL, "ns", false, true },
	{ "p999", "The slowest first write in a thousand", NULL, "ns", false, true },
	{ 0 },
};

const struct bench_experiment experiment_engine = {
	.name = "engine",
	.title = "libcow beside fork()",
	.source = "libcow's own README",
	.claim = "A snapshot takes less than a microsecond, whatever the size, where fork() stalls "
		 "for tens of milliseconds; a first write between brackets costs a third of the "
		 "kernel's; rewriting everything under a snapshot takes 1.02 of the bytes "
		 "rewritten; snapshots are rolled back to and branched at a cost that follows what "
		 "was written; what was saved is usable at once.",
	.method =
		"The same memory kept by fork() and by libcow, each in a process of its own: the "
		"stall by size (a thousand cuts timed together) and by the share of pages written "
		"since the last one; first writes to all pages in an order without a pattern, in "
		"the second round of a process, when libcow has frames at hand: their mean and the "
		"slowest in a thousand, for each trap; memory (PSS of all processes); rollback "
		"beside copying a copy back; a branch beside a fork; a restore from a store beside "
		"read(2) of as much from the page cache.",
	.plots = plots,
	.seconds = 60,
	.run = run,
	.judge = judge,
};
