/* SPDX-License-Identifier: MIT */
/*
 * cow bench: what an experiment is, and what it is given to work with.
 *
 * An experiment tests one claim that is made about copy-on-write. It measures (run), which gives
 * rows, and then it judges (judge), which looks at nothing but the rows: so a verdict follows from
 * figures, and a test that feeds other figures has to get another verdict.
 *
 * How to add one
 * - cli/bench/x_NAME.c with one `const struct bench_experiment`; its line in experiments.c and in
 *   cli/meson.build; its line in the list of man/cow-bench.1.scd; a line in tests/cli/test-bench.py
 *   that names the checks which have to hold, and one in tests/cli/test-bench-verdicts.c with rows
 *   that contradict the claim. x_rss.c is a small one to start from.
 * - run() adds rows in the order in which they are to be shown. A row's key is stable: programs
 *   read it. Times are in ns, memory in bytes; printing chooses human units.
 * - What is true by construction of the kernel (one page diverges, MAP_SHARED copies nothing) is
 *   said with bench_check(): it goes into the report, and one that fails is a failure of the run.
 *   Never check a time.
 * - Whatever is compared takes turns: bench_take_turns(). What a process's memory would disturb
 *   goes into a child of its own: bench_in_child().
 *
 * Where it runs
 * - In a process of its own: one thread, the leader of a process group, default signals. As root
 *   also in mount and IPC namespaces of its own, so mounts need no undoing. Its directory is
 *   removed, and whatever it has started and left behind is killed, also after SIGINT and after a
 *   crash: an experiment need not clean up for those cases.
 * - Its time is bounded (seconds); its memory is its own business: it stays below bench->memory,
 *   says so in a note where it had to be smaller than the claim's figures, and measures less.
 * - A setting of the system is changed through bench_tune() alone: refused without --allow-tuning,
 *   put back in any case.
 * - It prints nothing. Progress is drawn by bench_take_turns() and bench_progress().
 *
 * Errors: where memory or a process runs out, bench_fail() notes it and the experiment returns. All
 * functions below may be called after that; they do nothing then.
 */
#ifndef CLI_BENCH_BENCH_H
#define CLI_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proc/process.h"

/* ----------------------------------------------------------------- the experiment's record -- */

/* The texts whose claims are tested, by what they are; an experiment names one or joins several. */
#define BENCH_SOURCE_PRODUCTION                                                        \
	"a guide to copy-on-write in production (page-fault path, btrfs, containers, " \
	"tunables, kernels 5.4 to 6.5)"
#define BENCH_SOURCE_FORK                                                              \
	"an article on how copy-on-write makes fork() fast (naive copy against fork, " \
	"Nginx workers, four misconceptions)"
#define BENCH_SOURCE_ATLAS \
	"the encyclopedia entry \"Copy-on-Write\" of Computer Atlas (trade-offs, Redis, qcow2, GC)"
#define BENCH_SOURCE_COURSE \
	"a course on Linux memory semantics, \"Copy-on-Write (CoW)\", with three C examples"
#define BENCH_SOURCE_FAULTS "\"Copy on Write needs page faults\" (summary of a talk by H. Nasser)"

enum bench_scale {
	BENCH_TINY,   /* does it run, and do its checks hold: a second or so, a few MiB */
	BENCH_QUICK,  /* all experiments together: 6 minutes on 2 cores and 4 GiB */
	BENCH_NORMAL, /* the default */
	BENCH_FULL,   /* the texts' own sizes, as far as memory allows */
};

enum bench_need {
	BENCH_NEEDS_ROOT = 1u << 0,   /* effective user 0 */
	BENCH_NEEDS_LOOP = 1u << 1,   /* root, and loop devices */
	BENCH_NEEDS_TUNING = 1u << 2, /* cannot do anything without --allow-tuning */
};

struct bench_program {
	const char *name;    /* looked for in PATH and the sbin directories */
	const char *package; /* Debian's */
};

/* Rows that name this plot appear in it, in their order. */
struct bench_plot {
	const char *name;
	const char *title;
	const char *x_label; /* NULL: bars, each with its row's label */
	const char *y_label;
	bool log_x, log_y;
	bool bytes_x; /* x is a size in bytes */
};

struct bench;

struct bench_experiment {
	const char *name;                     /* stable: "fork-size" */
	const char *title;                    /* "What a fork costs, by size" */
	const char *source;                   /* BENCH_SOURCE_... */
	const char *claim;                    /* in full, with its figures */
	const char *method;                   /* a paragraph: what is measured, and how */
	unsigned int needs;                   /* BENCH_NEEDS_... */
	const struct bench_program *programs; /* without which it is skipped; ends with {0} */
	const struct bench_plot *plots;       /* ends with {0}; or NULL */
	unsigned int seconds; /* most that it may take at --quick; longer scales get more */
	void (*run)(struct bench *bench);
	void (*judge)(struct bench *bench);
};

/* --------------------------------------------------------------------- what run() is given -- */

struct bench_result; /* rows, checks, notes, verdicts */

struct bench {
	const struct bench_experiment *experiment;
	enum bench_scale scale;
	unsigned int runs;     /* counted turns; bench_take_turns() needs no other */
	unsigned int warm_ups; /* turns before them that do not count */
	uint64_t seed;
	uint64_t memory; /* bytes that it may use at once */
	bool allow_tuning;
	const char *directory; /* its own, empty; removed afterwards */
	struct bench_result *result;
};

/* One of four numbers by scale. */
#define BENCH_BY_SCALE(bench, tiny, quick, normal, full)                                   \
	(((const __typeof__((tiny) + (quick) + (normal) + (full))[]){ tiny, quick, normal, \
								      full })[(bench)->scale])

/* The size, or what memory allows of it where use copies of it are alive at once; whole MiB. */
uint64_t bench_fit(const struct bench *bench, uint64_t bytes, unsigned int copies);

/* --------------------------------------------------------------------------------- samples -- */

struct bench_samples {
	double *values; /* in the order in which they were taken */
	size_t count, room;
};

void bench_samples_add(struct bench_samples *samples, double value);
void bench_samples_free(struct bench_samples *samples);

/* ------------------------------------------------------------------------------------ rows -- */

enum bench_unit {
	BENCH_NS,
	BENCH_BYTES,
	BENCH_PAGES,
	BENCH_COUNT,
	BENCH_RATIO,      /* "2.5 x" */
	BENCH_PERCENT,    /* 0 to 100 */
	BENCH_PER_SECOND, /* a rate */
};

/* The fields of a row that its author fills; all texts are copied. */
struct bench_row {
	const char *key;   /* unique in the experiment: "fork/500MB" */
	const char *label; /* "fork() of 500 MB, nothing written" */
	enum bench_unit unit;
	const char *text;   /* the text's figure, as it stands there: "~45 us"; or NULL */
	const char *plot;   /* the plot it is a point or a bar of; or NULL */
	const char *series; /* in that plot; or NULL */
	double x;           /* where, in a plot with an x axis */
};

/* Adds a row of what was sampled. */
void bench_add(struct bench *bench, const struct bench_row *row,
	       const struct bench_samples *samples);
/* ... of one figure that is not a matter of chance. */
void bench_add_value(struct bench *bench, const struct bench_row *row, double value);
/* ... that says why there is no figure. */
__attribute__((format(printf, 3, 4))) void
bench_add_skipped(struct bench *bench, const struct bench_row *row, const char *format, ...);
/*
 * ... of ratios turn by turn, of two rows with as many samples, so with the spread of the ratio:
 * samples of numerator / samples of denominator, and the unit is BENCH_RATIO.
 */
void bench_add_ratio(struct bench *bench, const struct bench_row *row, const char *numerator,
		     const char *denominator);

/* Text that lives as long as the result: for keys and labels. */
__attribute__((format(printf, 2, 3))) const char *bench_text(struct bench *bench,
							     const char *format, ...);

/* ----------------------------------------------------------------- other things to be said -- */

/* A structural fact: asserted by the tests, and a failure of the run where it does not hold. */
__attribute__((format(printf, 3, 4))) void bench_check(struct bench *bench, bool holds,
						       const char *format, ...);
/* What a reader has to know: scaled down, a fallback taken, a kernel without a feature. */
__attribute__((format(printf, 2, 3))) void bench_note(struct bench *bench, const char *format, ...);
/* The whole experiment cannot be done here; with the reason, and what would help. */
__attribute__((format(printf, 2, 3))) void bench_skip(struct bench *bench, const char *format, ...);
/* It went wrong: error is a negative errno, or 0 where there is none. */
__attribute__((format(printf, 3, 4))) void bench_fail(struct bench *bench, int error,
						      const char *format, ...);
bool bench_over(const struct bench *bench); /* skipped or failed */

/* ---------------------------------------------------------------------- taking turns, time -- */

uint64_t bench_now(void); /* ns, CLOCK_MONOTONIC */
/*
 * ns since start. Time with this: the shortest interval so timed is what the harness's own overhead
 * is held against. What takes less than 10 us is timed many at a time.
 */
uint64_t bench_lap(uint64_t start);

/*
 * One of several things that are compared. measure() returns a figure in the row's unit, or NaN
 * after bench_fail(). The row's key, label and so on are those that the result gets.
 */
struct bench_subject {
	struct bench_row row;
	double (*measure)(struct bench *bench, const struct bench_subject *subject);
	/* For measure(). */
	uint64_t number;
	const void *context;
	bool in_child; /* measure() runs in a child of its own, made before it and gone after it */
};

/*
 * Measures all subjects bench->warm_ups times without counting and then bench->runs times, all in
 * each turn, every other turn in reverse order; adds their rows.
 */
void bench_take_turns(struct bench *bench, const struct bench_subject *subjects, size_t count);
/*
 * The same, with the first subject measured once more at the other end of each turn: the ratio of
 * the two is the noise of this machine, and becomes the row "noise".
 */
void bench_take_turns_controlled(struct bench *bench, const struct bench_subject *subjects,
				 size_t count);

void bench_progress(struct bench *bench, uint64_t done, uint64_t total);

/* ------------------------------------------------------------------------------- processes -- */

/*
 * Runs work() in a child and receives count figures from it through a pipe. work() returns 0 or a
 * negative errno, and may start children of its own: what it leaves is killed. A child that fails
 * or dies is a bench_fail(). Returns whether the figures are there.
 */
typedef int (*bench_child_fn)(struct bench *bench, void *context, double *ret_values);
bool bench_in_child(struct bench *bench, bench_child_fn work, void *context, double *ret_values,
		    size_t count);

/* A child that waits for what it is told, for measuring it from outside. */
struct bench_worker {
	pid_t pid;
	int socket;
};

/*
 * fork(), and in the child step(context, number) for each bench_worker_step(); its result is what
 * that returns. The child ends with bench_worker_end(), or when its parent does. 0 or a negative
 * errno. bench_worker_step() returns -EPIPE where the child has died.
 */
typedef int (*bench_step_fn)(void *context, int number);
int bench_worker_begin(struct bench_worker *worker, bench_step_fn step, void *context);
int bench_worker_step(struct bench_worker *worker, int number);
void bench_worker_end(struct bench_worker *worker);

/*
 * The path of a program, as bench_experiment.programs looks for it, or NULL. In bench's memory.
 */
const char *bench_find_program(struct bench *bench, const char *name);

/*
 * Runs a program to its end without input; its output goes to ret_output (may be NULL: thrown
 * away) and is then to be freed. Its exit status, or a negative errno; -EINTR where a signal ended
 * it. The last line of its standard error is what bench_run_error() gives until the next run.
 */
int bench_run(struct bench *bench, const char *const argv[], char **ret_output);
const char *bench_run_error(const struct bench *bench);

/* ---------------------------------------------------------------------------------- memory -- */

/* Private anonymous memory, not touched, with 4 KiB pages (huge: huge pages, where there are). */
void *bench_map(struct bench *bench, size_t bytes, bool huge);
/* Writes every page, so that no two have the same content. */
void bench_fill(void *memory, size_t bytes, uint64_t seed);

/* /proc/PID/smaps_rollup and status; 0: this process. 0 or a negative errno. */
struct bench_memory {
	uint64_t rss, pss, uss; /* bytes */
	uint64_t anonymous;
	uint64_t huge; /* of it, in huge pages */
	uint64_t ksm;  /* 0 where the kernel does not tell */
	uint64_t page_tables;
};
int bench_memory(pid_t pid, struct bench_memory *ret_memory);

/*
 * How many pages of a range that two processes both have they do not share: by frame numbers as
 * root, else by the "mapped once" bit of the first. *ret_shared gets those that they do. Both have
 * to be alive and hold still. 0 or a negative errno.
 */
int bench_diverged_pages(pid_t one, pid_t other, const void *address, size_t bytes,
			 uint64_t *ret_diverged, uint64_t *ret_shared);

/* A number out of a file of /proc or /sys: the first one, or the one after name. */
int bench_read_number(const char *path, const char *name, uint64_t *ret_number);

/* Sets a file of /proc/sys or /sys until the experiment ends. -EPERM without --allow-tuning. */
int bench_tune(struct bench *bench, const char *path, const char *value);

/* --------------------------------------------------------------------------------- judging -- */

enum bench_verdict {
	BENCH_NOT_JUDGED,
	BENCH_HOLDS,
	BENCH_HOLDS_IN_PART,
	BENCH_DOES_NOT_HOLD,
};

/* What rows say; NaN where there is no such row, or it was skipped. */
double bench_median(const struct bench *bench, const char *key);
double bench_min(const struct bench *bench, const char *key);
double bench_max(const struct bench *bench, const char *key);
/* Whether three quarters of a row's samples lie above three quarters of the other's. */
bool bench_is_above(const struct bench *bench, const char *key, const char *other);

/*
 * One part of the claim, in few words, with the reason for its verdict in figures. The
 * experiment's verdict follows: of parts that all hold, that it holds; of parts none of which
 * holds, that it does not; else in part. A part for whose rows there are no figures is left out:
 * give it BENCH_NOT_JUDGED with the reason.
 */
__attribute__((format(printf, 4, 5))) void bench_judge(struct bench *bench, const char *part,
						       enum bench_verdict verdict,
						       const char *format, ...);

/* Human figures for reasons and labels, in memory of the result. */
const char *bench_figure(struct bench *bench, enum bench_unit unit, double value);

/* All experiments, in the order in which they are run; ends with NULL. */
extern const struct bench_experiment *const bench_experiments[];

#endif
