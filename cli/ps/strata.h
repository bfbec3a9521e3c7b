/* SPDX-License-Identifier: MIT */
/*
 * The estimates of `cow ps --fast`, with their intervals.
 *
 * Model. Memory is cut into strata; of each one window is looked at, the same in every process.
 * Where the strata begin is chosen by chance, and each begins with its window: a systematic sample
 * of clusters, one a stratum: what is local (one heap, one library, the part that a child has
 * written) is met in proportion to its size. The kernel's RSS counters are known for all, so
 * quantities are ratios:
 *
 *	estimate of Y = (sum of RSS, known) * (y over the windows) / (RSS seen in them)
 *
 * separately for anonymous memory and for files, which the kernel counts apart: a library that a
 * window happens to meet would else pass for a part of the heaps.
 *
 * Its variance comes from the residuals e = y - R x of the windows. One window a stratum leaves no
 * spread within strata to be measured, so neighbouring strata are taken in pairs ("collapsed"):
 * their difference holds the spread within both and what differs between them, hence the
 * estimate of the variance errs upwards. Strata in which nothing was met count with zero; to leave
 * them out would make what is rare look certain.
 *
 * The interval is Student's, with Satterthwaite's degrees of freedom: few strata that carry
 * most of the spread make it wide, as they should.
 */
#ifndef CLI_PS_STRATA_H
#define CLI_PS_STRATA_H

#include <stddef.h>
#include <stdint.h>

enum page_kind {
	PAGE_ANON, /* private to relatives: heaps, stacks, what was copied of a file */
	PAGE_FILE, /* of files and of shared memory */
	PAGE_KINDS,
};

struct stratum_key {
	uint64_t object; /* what is mapped: 0 for anonymous memory, else device and inode */
	uint64_t inode;
	uint64_t index; /* of the stratum in it */
};

/* What was met of one kind in one window, over all processes, scaled up to the stratum. Bytes. */
struct stratum_sums {
	double rss, pss, unique, outside;
	double missed; /* as in an observation */
};

struct strata;

struct strata *strata_new(void);
void strata_free(struct strata *strata);

/* From any thread: the stratum's number, or a negative errno. */
int64_t strata_find(struct strata *strata, const struct stratum_key *key);
size_t strata_count(const struct strata *strata);
/*
 * Once all are found: an element for each stratum and kind, [PAGE_KINDS * stratum + kind], zero at
 * first; owned by the strata. NULL without memory.
 */
struct stratum_sums *strata_sums(struct strata *strata);

struct estimate {
	double value, error; /* the 99 % interval is value - error to value + error */
};

/* What a window met, scaled up to its stratum. */
struct observation {
	double x, y;
	double missed; /* the share of the stratum that the window left out, 0 to 1 */
};

/* In the order of the strata's keys. known: the sum of x over everything, an upper bound of y. */
struct estimate ratio_estimate(const struct observation *list, size_t count, double known);

struct strata_estimates {
	struct estimate pss, unique, outside;
};
/* known_rss: bytes of each kind. 0 or -ENOMEM. */
int strata_estimate(struct strata *strata, const double known_rss[PAGE_KINDS],
		    struct strata_estimates *ret_estimates);
/* Of two kinds together. They come from the same windows, hence the errors are added up. */
struct estimate estimate_add(struct estimate a, struct estimate b);

/* Half the width of the 99 % interval of Student's t, in standard deviations. */
double student_99(double degrees);

#endif
