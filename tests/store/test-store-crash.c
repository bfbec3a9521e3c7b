/* SPDX-License-Identifier: MIT */
/*
 * Crashes: after any of them a store is what it was before the call that was under way, or what it
 * was to become.
 *
 * Random workloads (workload.h) run on a real directory while every operation of the store is
 * recorded. From the log come the states that a crash may have left (crash.h). Each is put into a
 * directory, opened, and has to hold exactly what the model says of one of two moments: the names,
 * every page of every layer as read by the library and by a second reader, and no damage. What a
 * call had promised by returning has to be there. Some of the stores are written on.
 *
 * Then the log is spoilt: one sync left out, made too early or too late, two renames exchanged.
 * Each of these has to be caught by the same check.
 */
#include <sys/stat.h>

#include "store/rewrite.h"
#include "tests/store/crash.h"
#include "tests/store/record.h"
#include "tests/store/workload.h"
#include "tests/tap.h"

#ifdef CRASH_LONG
enum { WORKLOADS = 24, STEPS = 14, RANDOM = 14, SINGLES = 10, EVERY = 1, MUTATED = 4 };
#define STATES_AT_LEAST 10000
#else
enum { WORKLOADS = 3, STEPS = 10, RANDOM = 3, SINGLES = 3, EVERY = 4, MUTATED = 1 };
#define STATES_AT_LEAST 200
#endif

enum { MARKS = 64 };

static struct recording {
	struct crash_log log;
	struct work_state *states; /* by mark */
	unsigned count;
	enum work_kind kinds[MARKS]; /* the call that led to the mark */
	char directory[256];         /* where states are put */
	uint64_t checked, went_on;
	unsigned compressed; /* layers, after each step */
	unsigned go_on_every;
	bool quiet; /* a mutant: a failure is wanted */
	char why[256];
} recording;

static const struct work_options workloads[] = {
	{ .seed = 1 },                                /* a bit of everything */
	{ .seed = 2, .weight = { [WORK_SAVE] = 1 } }, /* a chain */
	/* Deletions and compactions, half of which compress what they can. */
	{ .seed = 3,
	  .weight = { 4, 0, 0, 1, 4, 0, 0 },
	  .pages = 40,
	  .compress = true,
	  .plain = true },
	{ .seed = 4, .weight = { 3, 2, 2, 0, 0, 0, 1 } },              /* tags */
	{ .seed = 5, .weight = { 3, 1, 0, 2, 0, 3, 2 } },              /* branches */
	{ .seed = 6, .weight = { 3, 0, 0, 1, 1, 0, 0 }, .pages = 40 }, /* large layers */
	{ .seed = 7, .weight = { 3, 1, 1, 2, 2, 1, 1 } },
};

static void make_directory(char path[256], const char *what)
{
	const char *root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("BUILD_ROOT") ?: ".";

	snprintf(path, 256, "%s/cow-crash-%s-XXXXXX", root, what);
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

/* --- recording --- */

static void promise(const struct work *work, enum work_kind kind)
{
	recording.kinds[recording.count] = kind;
	recording.states[recording.count] = work->state;
	if (recording.count > 0)
		crash_mark(&recording.log, recording.count);
	recording.count++;
}

static bool record_steps(struct work *work, const char *directory,
			 const struct work_options *options)
{
	char why[256];
	int r = work_open(work, directory, options);

	if (!is_errno(r, 0, "open"))
		return false;
	/* The first state is the empty store, also where there is no file yet. */
	promise(work, WORK_REOPEN);
	promise(work, WORK_REOPEN);
	for (unsigned i = 0; i < STEPS && r == 0; i++) {
		r = work_step(work);
		if (!is_errno(r, 0, "seed %" PRIu64 ", step %u, %s", options->seed, i,
			      work_kind_names[work->kind]))
			return false;
		promise(work, work->kind);
		recording.compressed += work_compressed(work);
	}
	return ok(work_holds(work, why), "seed %" PRIu64 ": holds what it should: %s",
		  options->seed, why);
}

static bool record(uint64_t n, bool named)
{
	size_t kinds = sizeof(workloads) / sizeof(workloads[0]);
	struct work_options options = workloads[n % kinds];
	char directory[256];
	static struct work work;
	bool recorded;

	options.seed += 1000 * (n / kinds);
	options.named = named;
	rewrite_pack_from = 1; /* however small */
	recording = (struct recording){ .go_on_every = 8 };
	recording.states = calloc(MARKS, sizeof(recording.states[0]));
	make_directory(directory, "real");
	make_directory(recording.directory, "state");
	record_start(&recording.log);
	recorded = record_steps(&work, directory, &options);
	record_stop();
	work_close(&work);
	remove_directory(directory);
	return recorded;
}

static void forget(void)
{
	remove_directory(recording.directory);
	crash_log_free(&recording.log);
	free(recording.states);
}

/* --- what a state has to be --- */

static int save_more(struct cow_store *store, struct work_state *state)
{
	struct work_layer *layer = &state->layers[state->count];
	struct cow_restore_options options = COW_RESTORE_OPTIONS_INIT;
	struct cow_region *region = NULL;
	struct cow_snapshot *snapshot = NULL;
	unsigned char page[WORK_PAGE];
	int r;

	options.trap = COW_TRAP_EXPLICIT;
	for (size_t i = 0; i < state->count; i++)
		if (strcmp(state->layers[i].id, state->head) == 0)
			*layer = state->layers[i];
	r = cow_store_restore(store, NULL, &options, &region);
	layer->version[3] = 4711;
	work_fill(page, 3, 4711);
	if (r == 0)
		r = cow_region_write(region, work_offset(3), page, WORK_PAGE);
	if (r == 0)
		r = cow_region_snapshot(region, &snapshot);
	if (r == 0)
		r = cow_store_save(store, snapshot, NULL, layer->id);
	if (r == 0) {
		memcpy(state->head, layer->id, sizeof(state->head));
		state->count++;
	}
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
	return r;
}

/* The store is not only readable. */
static bool goes_on(const struct work_state *found)
{
	struct work_state *state = malloc(sizeof(*state));
	struct work_state *const states[] = { state };
	struct cow_store *store;
	bool holds = false;
	int r;

	if (!state)
		bail("out of memory");
	*state = *found;
	r = cow_store_open(recording.directory, 0, &store);
	if (r == 0) {
		r = save_more(store, state);
		if (r == 0)
			r = cow_store_compact(store, NULL, NULL);
		cow_store_close(store);
	}
	if (r < 0)
		snprintf(recording.why, sizeof(recording.why),
			 "a save and a compaction after it: %s", strerror(-r));
	else
		holds = work_check(recording.directory, states, 1, recording.why) == 0;
	free(state);
	recording.went_on++;
	return holds;
}

static int check(const struct crash_state *state, void *context)
{
	struct work_state *candidates[2] = { &recording.states[state->mark], NULL };
	bool two = state->between && state->mark + 1 < recording.count;
	char text[256];
	int which, r;

	(void)context;
	if (two)
		candidates[1] = &recording.states[state->mark + 1];
	r = crash_materialize(state, recording.directory);
	if (r < 0)
		bail("%s: %s", recording.directory, strerror(-r));
	recording.checked++;
	which = work_check(recording.directory, candidates, two ? 2 : 1, recording.why);
	if (which >= 0 && candidates[which]->count > 0 && candidates[which]->count < WORK_LAYERS &&
	    recording.go_on_every && recording.checked % recording.go_on_every == 0 &&
	    !goes_on(candidates[which]))
		which = -1;
	if (which >= 0)
		return 0;
	if (recording.quiet)
		return 1;
	ok(false, "after operation %zu (%s), %s, after mark %u%s%s: %s", state->after,
	   state->after ? crash_op_text(&recording.log.ops[state->after - 1], text) : "none",
	   state->how, state->mark, two ? ", in " : "",
	   two ? work_kind_names[recording.kinds[state->mark + 1]] : "", recording.why);
	return tap.failed > 5;
}

static struct crash_options options_for(uint64_t seed)
{
	return (struct crash_options){
		.seed = seed, .random = RANDOM, .singles = SINGLES, .every = EVERY
	};
}

TEST(every_state_is_the_old_or_the_new)
{
	uint64_t states = 0, all = 0, went_on = 0;
	unsigned compressed = 0;

	for (unsigned n = 0; n < WORKLOADS && tap.failed < 5; n++) {
		struct crash_options options = options_for(n);

		if (record(n, false)) {
			crash_each_state(&recording.log, &options, check, NULL, &states);
			diag("workload %u: %zu operations, %u calls, %" PRIu64
			     " states; %u times a compressed layer",
			     n, recording.log.count, recording.count - 2, states,
			     recording.compressed);
			all += states;
			went_on += recording.went_on;
			compressed += recording.compressed;
		}
		forget();
	}
	diag("%" PRIu64 " states, %" PRIu64 " of them written on", all, went_on);
#ifdef COW_HAVE_ZSTD
	ok(compressed > 0, "compressed layers among them");
#endif
	ok(all >= STATES_AT_LEAST, "at least %d states", STATES_AT_LEAST);
}

/* --- mutants --- */

/* From where the mutant differs on; the crashes before it are the log's own. */
static bool is_caught(const struct crash_log *mutant, size_t at)
{
	struct crash_options options = options_for(at);

	options.random = 32;
	options.singles = 8;
	options.from = at;
	recording.quiet = true;
	recording.why[0] = '\0';
	return crash_each_state(mutant, &options, check, NULL, NULL) != 0;
}

static bool has_layer(const struct work_state *state, const char *id)
{
	for (size_t i = 0; i < state->count; i++)
		if (strcmp(state->layers[i].id, id) == 0)
			return true;
	return false;
}

static bool is_named(const struct work_state *state, const char *id)
{
	bool named = strcmp(state->head, id) == 0;

	for (size_t i = 0; i < WORK_TAGS; i++)
		named |= strcmp(state->tags[i].id, id) == 0;
	return named;
}

/* Whether the call before the next mark removes the file of a layer that nothing names. With or
 * without its file the store is as it was before the call or after it, whatever HEAD says. */
static bool removes_unnamed(const struct crash_log *log, size_t at, unsigned mark)
{
	const struct work_state *before = &recording.states[mark], *after = before + 1;
	bool unlinks = false;

	if (recording.kinds[mark + 1] != WORK_DELETE)
		return false;
	while (at > 0 && log->ops[at - 1].kind != CRASH_MARK)
		at--;
	for (; at < log->count && log->ops[at].kind != CRASH_MARK; at++)
		unlinks |= log->ops[at].kind == CRASH_UNLINK;
	for (size_t i = 0; i < before->count; i++)
		if (!has_layer(after, before->layers[i].id) &&
		    is_named(before, before->layers[i].id))
			return false;
	return unlinks;
}

/*
 * A directory's sync where nothing rests on its order: anywhere in a call that removes what nothing
 * names; and the last one of a compaction or a deletion, which only lets the store read the same in
 * a shorter way: a layer without its parent, a HEAD that no longer says what is being removed.
 */
static bool is_harmless(const struct crash_log *log, size_t at)
{
	enum work_kind kind;
	unsigned mark = 0;
	size_t sync = at;

	for (size_t i = 0; i < at; i++)
		if (log->ops[i].kind == CRASH_MARK)
			mark = log->ops[i].mark;
	while (sync < log->count && log->ops[sync].kind != CRASH_SYNC_DIRECTORY)
		sync++;
	if (mark + 1 >= recording.count || sync + 1 >= log->count || sync - at > 1)
		return false;
	kind = recording.kinds[mark + 1];
	return removes_unnamed(log, at, mark) || (log->ops[sync + 1].kind == CRASH_MARK &&
						  (kind == WORK_COMPACT || kind == WORK_DELETE));
}

/* Where a layer is saved that nothing names, nobody would miss it: here all are named. */
TEST(every_mutant_is_caught)
{
	struct crash_log mutant;
	unsigned count = 0, caught = 0;
	char name[256];
	size_t at;

	for (unsigned n = 0; n < MUTATED; n++) {
		if (record(n, true))
			for (size_t m = 0; crash_mutant(&recording.log, m, &mutant, &at, name);
			     m++) {
				bool is = is_caught(&mutant, at);

				count++;
				caught += is;
				if (!is && is_harmless(&recording.log, at))
					diag("harmless: %s", name);
				else if (ok(is, "workload %u: %s", n, name))
					diag("%s: %.80s", name, recording.why);
				crash_log_free(&mutant);
			}
		forget();
	}
	diag("%u mutants, %u caught", count, caught);
	ok(count > 20, "many mutants");
}

TAP_MAIN(CASE(every_state_is_the_old_or_the_new), CASE(every_mutant_is_caught))
