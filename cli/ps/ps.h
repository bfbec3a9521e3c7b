/* SPDX-License-Identifier: MIT */
/*
 * What the parts of `cow ps` hand to each other: a selection of processes, and what was found.
 *
 *	selection.c  which processes               measure.c  what they have; see measure.h
 *	pages.c      page tables -> leaves         frames.c   leaves -> sums over frames
 *	strata.c     a sample's sums -> estimates  print.c    text and JSON
 *	arguments.c  their command lines
 *
 * Unknown values are PS_UNKNOWN: "-" in the text, null in JSON.
 */
#ifndef CLI_PS_PS_H
#define CLI_PS_PS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proc/process.h"
#include "proc/root.h"

#define PS_UNKNOWN UINT64_MAX

/* How much could be had of a process. */
enum ps_state {
	PS_SELECTED, /* nothing yet */
	PS_MEASURED,
	PS_ESTIMATED,  /* from a sample */
	PS_DENIED,     /* only what /proc/PID/status tells everybody */
	PS_VANISHED,   /* ended, or its PID is another's by now */
	PS_EMPTY,      /* has no memory: a kernel thread, a zombie */
	PS_UNREADABLE, /* its files make no sense */
};

struct ps_process {
	pid_t pid, ppid;
	uint64_t start_ticks;
	char command[PROC_COMMAND_LENGTH];
	char *arguments; /* the whole command line, once read; NULL: none, or not to be had */
	bool asked;      /* by PID: shown even when it has no memory */
	enum ps_state state;
	uint64_t rss, pss, uss;
	uint64_t inside, outside; /* shared with others of the selection; with somebody else */
	uint64_t swap, ksm, thp, huge_tlb, page_tables;
	uint64_t anon, file; /* parts of rss by the kernel's counters */
	uint64_t pss_error;  /* half the width of the interval; 0: exact */
};

struct ps_totals {
	uint64_t rss, pss, uss, unique, outside;
	uint64_t swap, ksm, thp, huge_tlb, page_tables;
	uint64_t unique_error, pss_error, outside_error;
};

enum ps_backend {
	PS_PAGEMAP, /* frames: pagemap with kpagecount */
	PS_ROLLUP,  /* smaps_rollup, smaps where a kernel has none (< 4.14) */
};

struct ps_result {
	struct ps_process *processes;
	size_t count;
	struct ps_totals totals;
	enum ps_backend backend;
	bool captured; /* of another machine, whose frames are not to be seen */
	bool sampled;
	double coverage; /* of the pages that could have been read, 0 to 1 */
	size_t measured, denied, vanished, unreadable;
};

struct ps_options {
	struct proc_root root;
	bool fast;
	uint64_t seed;   /* of the sample */
	uint64_t budget; /* pages that a sample may look at */
	unsigned int threads;
};

/* --- selection.c; messages are printed there, results are negative errnos --- */
int ps_select_all(const struct proc_root *root, struct ps_result *result);
int ps_select_tree(const struct proc_root *root, pid_t top, struct ps_result *result);
int ps_select_pids(const struct proc_root *root, const pid_t *pids, size_t count,
		   struct ps_result *result);

/* Whether frame numbers can be seen here (world.c). */
bool ps_can_see_frames(const struct proc_root *root);

/* --- measure.c --- */
int ps_measure(const struct ps_options *options, struct ps_result *result);
void ps_result_free(struct ps_result *result);

/* --- arguments.c --- */
void ps_read_arguments(const struct proc_root *root, struct ps_result *result);

/* --- print.c --- */
enum ps_sort {
	PS_SORT_PSS,
	PS_SORT_RSS,
	PS_SORT_USS,
	PS_SORT_INSIDE,
	PS_SORT_OUTSIDE,
	PS_SORT_SWAP,
	PS_SORT_KSM,
	PS_SORT_THP,
	PS_SORT_TABLES,
	PS_SORT_PID,
	PS_SORT_COMMAND,
};

extern const char *const ps_sort_names[]; /* in the order of the enum, ends with NULL */
void ps_sort(struct ps_result *result, enum ps_sort key);
void ps_print_text(const struct ps_result *result, size_t limit);
bool ps_print_json(const struct ps_result *result, size_t limit);

#endif
