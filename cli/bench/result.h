/* SPDX-License-Identifier: MIT */
/* What an experiment found, inside the process that runs it, and how it leaves as JSON. */
#ifndef CLI_BENCH_RESULT_H
#define CLI_BENCH_RESULT_H

#include "cli/bench/bench.h"
#include "cli/report.h"

struct bench_result *bench_result_new(void);
void bench_result_free(struct bench_result *result);

/* The text of bench_fail(), or NULL. */
const char *bench_result_failure(const struct bench_result *result);
/* For bench_run_error(). */
void bench_keep_error(struct bench *bench, const char *line);

/* What follows from the parts that were judged, and why, in one text of the result's. */
enum bench_verdict bench_result_verdict(const struct bench_result *result);
const char *bench_result_reason(struct bench *bench);

/* "holds", "holds in part", "does not hold"; NULL: not judged. */
const char *bench_verdict_name(enum bench_verdict verdict);
/* "ns", "bytes", ...; what JSON calls a unit. */
const char *bench_unit_name(enum bench_unit unit);
/* BENCH_COUNT for a name that is none. */
enum bench_unit bench_unit_find(const char *name);

/* Human text of a figure: "45.6 us", "12.3 MiB", "2.54 x". */
#define BENCH_FIGURE_LENGTH 48
const char *bench_format(char text[BENCH_FIGURE_LENGTH], enum bench_unit unit, double value);

/* Adds the experiment's members to its object. */
void bench_result_report(struct bench *bench, json_object *to);

#endif
