/* SPDX-License-Identifier: MIT */
/*
 * What every benchmark shares: options, the machine's description, samples with their spread,
 * results beside their bounds, JSON.
 *
 * The rules: a result stands beside a baseline measured in the same run, the two take turns, the
 * first turns do not count, the median of the turns' ratios is the result and the spread is shown
 * with it. A bound is what the project promises; a result beyond it is printed as MISSED and, with
 * --strict, fails the run.
 */
#ifndef COW_BENCH_HARNESS_H
#define COW_BENCH_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench_options {
	bool quick; /* tiny sizes: does it run at all */
	bool strict;
	const char *json;      /* NULL: none */
	const char *directory; /* for files: on a disk */
	uint64_t seed;
	unsigned runs;    /* counted turns of each measurement */
	const char *only; /* names of parts, comma between them; NULL: all */
};

#define BENCH_WARM_UP 2u /* turns of each measurement before those that count */

/* Parses the command line, prints the header. Ends the process on --help and on bad usage. */
void bench_begin(const char *name, const char *purpose, int argc, char **argv,
		 struct bench_options *ret_options);

/* Whether a part of the benchmark, "part" or "part/piece", is to run. A program that asks can be
 * told --only; what is named there and never asked for is an error in the end. */
bool bench_wants(const char *name);

/* A title above the results that follow. */
void bench_section(const char *format, ...) __attribute__((format(printf, 1, 2)));
void bench_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct samples {
	double *values;
	size_t count, room;
};

void samples_add(struct samples *samples, double value);
double samples_quantile(struct samples *samples, double share); /* 0.5: the median */
void samples_free(struct samples *samples);

/* A result; the samples are the turns. */
enum bench_bound { BOUND_NONE, AT_MOST, AT_LEAST };
void bench_result(const char *name, const char *unit, struct samples *samples,
		  enum bench_bound kind, double bound);
/* One figure without turns of its own. */
void bench_value(const char *name, const char *unit, double value, enum bench_bound kind,
		 double bound);

/* Medians beside each other: a line of column names, then lines of as many samples; where there are
 * none the cell stays empty. The JSON names a cell "row: column". The columns stay the caller's. */
#define BENCH_COLUMNS_MAX 8u
struct bench_column {
	const char *name, *unit;
};
void bench_columns(const struct bench_column columns[], unsigned count);
void bench_row(const char *name, struct samples cells[]);

int bench_end(void); /* the exit status */

/* --- small things --- */
double now_us(void);
uint64_t random_next(uint64_t *state);
void *plain_memory(size_t bytes); /* 4 KiB pages, not yet touched */
uint64_t pss_bytes(void);         /* of this process */
/* Rewrites every page, then forks: how long fork() takes. The child ends at once. */
double rewrite_and_fork_us(unsigned char *memory, size_t size);
_Noreturn void bench_fail(const char *what);

static inline void check(bool holds, const char *what)
{
	if (!holds)
		bench_fail(what);
}

void check_errno(int r, const char *what);

#endif
