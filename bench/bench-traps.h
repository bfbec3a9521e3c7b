/* SPDX-License-Identifier: MIT */
/*
 * What the parts of bench-traps share: variants of the library, and processes that take turns.
 *
 * A measurement is a job. Each job runs in a process of its own, so that its memory is fresh and
 * what it leaves in the page tables is nobody else's; the processes take turns, one at a time, so
 * that a ratio is of two neighbours in time. A turn gives figures.
 */
#ifndef COW_BENCH_TRAPS_H
#define COW_BENCH_TRAPS_H

#include <cow.h>
#include <string.h>
#include <sys/types.h>

#include "bench/harness.h"

#define PAGE 4096u
#define MIB  ((size_t)1 << 20)

/* A way to set the library up. */
struct variant {
	const char *name;
	enum cow_trap trap;
	const char *tune; /* COW_TUNE, see lib/tune.h; NULL: the defaults */
	bool binds;       /* the bounds are meant for it; it gets all turns */
	uint32_t flags;   /* COW_REGION_..., beside the job's */
	int way;          /* for the part: what else is different about it */
};

#define FIGURES 24u

struct job {
	const struct variant *variant; /* NULL: plain memory */
	size_t size;
	uint32_t flags; /* COW_REGION_... */
	uint64_t seed;
	unsigned times; /* as many turns as others have; 0: once */
	/* In the process of the job. What prepare returns goes to the turns. */
	void *(*prepare)(const struct job *job);
	void (*turn)(void *state, double figures[]);
};

struct worker {
	pid_t pid;
	int to, from;
};

/* Forks the process and waits until it is prepared. false: the variant's trap is not to be had here
 * (said in a note). */
bool worker_start(struct worker *worker, const struct job *job);
void worker_turn(struct worker *worker, double figures[FIGURES]);
void worker_stop(struct worker *worker);

/* What each turn gave: a variant's figures, and after them those of its baseline. */
struct turns {
	bool binds;
	unsigned count;
	double (*figures)[2 * FIGURES];
};

#define OURS(figure)   (figure)
#define THEIRS(figure) (FIGURES + (figure))

/* Turns of a variant: those that no bound is meant for get a third. */
unsigned turns_of(const struct variant *variant);

/* The baseline (NULL: there is none) and the job take turns; the first two do not count. false: as
 * worker_start(). */
bool turns_take(struct turns *turns, const struct job *job, struct worker *baseline);
void turns_add(struct turns *turns, const double ours[FIGURES], const double theirs[FIGURES]);
void turns_free(struct turns *turns);

/* One figure of each turn, or the ratio of two; the caller frees the samples. */
struct samples turns_figure(const struct turns *turns, unsigned figure);
struct samples turns_ratio(const struct turns *turns, unsigned over, unsigned under);

void show_figure(const struct turns *turns, const char *name, const char *unit, unsigned figure);
/* The bound is for variants that it binds; 0: there is none. */
void show_ratio(const struct turns *turns, const char *name, unsigned over, unsigned under,
		enum bench_bound kind, double bound);

/* Those variants of a part that are wanted, one after the other, beside one process of the
 * baseline. */
void each_variant(const char *part, const struct variant variants[], size_t count,
		  const struct job *baseline,
		  void (*measure)(const struct variant *variant, struct worker *baseline));

extern struct bench_options options;

/* --- in the process of a job --- */

/* All of it written; 4 KiB pages unless the job says otherwise. */
struct cow_region *job_region(const struct job *job, size_t pool_limit);
unsigned char *job_memory(const struct job *job);
struct cow_snapshot *job_snapshot(struct cow_region *region);
double last_cut_us(struct cow_region *region);

/* Has so much free memory backed. A virtual machine's host takes back what was free for seconds
 * (free page reporting), and the first touch then waits for the host: 0.9 ms a huge page instead of
 * 0.25, which is no property of what is measured. */
void back_memory(size_t bytes);

/* A child that keeps what it shares with us until it is released. */
struct held {
	pid_t pid;
	int hold;
};
struct held hold_child(void);
void release_child(struct held *held); /* waits for its end, too */

/* Page numbers below pages, each once; shuffled or in order. The caller frees them. */
size_t *page_order(size_t pages, bool at_random, uint64_t *random);

/* --- the parts --- */

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

void bench_cuts(void);
void bench_cuts_by_size(void);
void bench_cuts_beside_writer(void);
void bench_cuts_huge(void);
void bench_first_writes(void);
void bench_sparse_writes(void);
void bench_copier(void);
void bench_latencies(void);
void bench_open_writes(void);
void bench_rollback(void);
void bench_branches(void);

#endif
