/* SPDX-License-Identifier: MIT */
/* Between the parts of the experiment bgsave: x_bgsave.c, bgsave_sides.c, bgsave_redis.c. */
#ifndef CLI_BENCH_BGSAVE_H
#define CLI_BENCH_BGSAVE_H

#include "cli/bench/bench.h"

/* What one save gives. */
enum bgsave_figure {
	BGSAVE_STALL,      /* ns until the writer goes on */
	BGSAVE_PAUSE,      /* ns, the longest write */
	BGSAVE_P99,        /* ns, of writes */
	BGSAVE_WRITES,     /* a second */
	BGSAVE_COPIED,     /* bytes: the child's Private_Dirty, as Redis counts; kept pages */
	BGSAVE_EXTRA,      /* bytes of memory beyond what was there before (PSS of both) */
	BGSAVE_RSS_PARENT, /* RSS afterwards beyond that before; bytes */
	BGSAVE_RSS_CHILD,  /* RSS when it was forked */
	BGSAVE_RSS_CHILD_AFTER,
	BGSAVE_DISTINCT, /* bytes of distinct pages that were written */
	BGSAVE_SPILLED,  /* bytes */
	BGSAVE_SOUND,    /* 1: what was saved is what was there */
	BGSAVE_FIGURES,
};

struct bgsave_plan {
	uint64_t bytes;
	uint64_t writes;     /* of a few bytes, to pages at random */
	uint64_t cap;        /* of libcow's kept pages */
	bool all;            /* writes go to every page, in order */
	bool keep_in_memory; /* the image goes nowhere: no page cache, no disk */
	const char *limit;   /* NULL, or the directory of a cgroup to enter */
};

/* For bench_in_child(); context is a plan. */
int bgsave_by_fork(struct bench *bench, void *context, double *ret_values);
int bgsave_by_libcow(struct bench *bench, void *context, double *ret_values);
int bgsave_by_libcow_freely(struct bench *bench, void *context, double *ret_values); /* no cap */

/* Adds rows of its own. */
void bgsave_by_redis(struct bench *bench, uint64_t bytes);

#endif
