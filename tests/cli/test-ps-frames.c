/* SPDX-License-Identifier: MIT */
/* The sums of cow ps over made-up frames and map counts, and its estimates over made-up strata. */
#include "tests/tap.h"

#include <math.h>

#include "cli/ps/frames.h"
#include "cli/ps/strata.h"
#include "proc/areas.h"

#define FRAMES 4096
#define PAGE   4096

static uint64_t counts[FRAMES], flags[FRAMES];
static struct frame_set *set;
static int reads;

static int read_counts(void *context, uint64_t first, size_t count, uint64_t *words)
{
	reads++;
	if (first + count > FRAMES)
		return -EINVAL;
	memcpy(words, counts + first, count * sizeof(*words));
	return 0;
}

static int read_flags(void *context, uint64_t first, size_t count, uint64_t *words)
{
	memcpy(words, flags + first, count * sizeof(*words));
	return 0;
}

static int fail_to_read(void *context, uint64_t first, size_t count, uint64_t *words)
{
	return -EIO;
}

static void begin(void)
{
	memset(counts, 0, sizeof(counts));
	memset(flags, 0, sizeof(flags));
	reads = 0;
	set = frame_set_new(FRAMES, PAGE);
	if (!set)
		bail("out of memory");
}

static const struct leaf_sums *sums(int64_t leaf)
{
	return frame_set_leaf(set, (uint32_t)leaf);
}

TEST(equal_leaves_are_one)
{
	uint32_t a[] = { 10, 11, 12 }, b[] = { 10, 11, 13 };
	int64_t first, second, third;

	begin();
	counts[10] = counts[11] = 3;
	counts[12] = 2;
	counts[13] = 1;
	first = frame_set_intern(set, a, 3);
	second = frame_set_intern(set, a, 3);
	third = frame_set_intern(set, b, 3);
	is_int(second, first, "the same leaf again");
	ok(third != first, "another leaf");
	is_u64(frame_set_leaves(set), 2, "leaves");
	is_errno(frame_set_resolve(set, false, 2, read_counts, NULL, NULL), 0, "resolved");
	is_u64(frame_set_totals(set).unique_pages, 4, "distinct frames");
	is_u64(frame_set_totals(set).outside_pages, 0, "none is mapped outside");
	is_u64(sums(first)->pages, 3, "pages");
	is_u64(sums(first)->pss, (2 * ((PAGE << SHARE_SHIFT) / 3) + (PAGE << SHARE_SHIFT) / 2),
	       "PSS");
	is_u64(sums(third)->private_pages, 1, "private pages");
	is_u64(sums(first)->inside_pages, 3, "shared inside");
	frame_set_free(set);
}

/* Frame 10 is everybody's; 11 has a copy, 20, in one of three, and 21 is mapped outside, too. */
TEST(a_difference_is_its_base_but_for_some_frames)
{
	uint32_t a[] = { 10, 11, 12 }, removed[] = { 11 }, added[] = { 20, 21 };
	const struct leaf_difference difference = { removed, added, 1, 2 };
	const struct leaf_difference less = { .removed = a, .removed_count = 3 };
	int64_t base, other, empty;

	begin();
	counts[10] = counts[12] = 3;
	counts[11] = 2;
	counts[20] = 1;
	counts[21] = 2;
	base = frame_set_intern(set, a, 3);
	frame_set_again(set, (uint32_t)base, 1);
	other = frame_set_intern_like(set, (uint32_t)base, &difference);
	empty = frame_set_intern_like(set, (uint32_t)base, &less);
	ok(other > base && empty > other, "leaves of their own");
	is_errno(frame_set_resolve(set, false, 2, read_counts, NULL, NULL), 0, "resolved");
	is_u64(frame_set_totals(set).unique_pages, 5, "distinct frames");
	is_u64(frame_set_totals(set).outside_pages, 1, "one of them outside");
	is_u64(sums(base)->pages, 3, "pages of the base");
	is_u64(sums(base)->inside_pages, 3, "all shared inside");
	is_u64(sums(other)->pages, 4, "pages of the other");
	is_u64(sums(other)->private_pages, 1, "one of them private");
	is_u64(sums(other)->inside_pages, 2, "two shared inside");
	is_u64(sums(other)->outside_pages, 1, "one outside");
	is_u64(sums(other)->pss,
	       2 * ((PAGE << SHARE_SHIFT) / 3) + (PAGE << SHARE_SHIFT) + (PAGE << SHARE_SHIFT) / 2,
	       "its PSS");
	is_u64(sums(empty)->pages, 0, "nothing is left of the third");
	is_u64(sums(empty)->pss, 0, "not even a share");
	frame_set_free(set);
}

TEST(what_is_taken_back_was_never_there)
{
	uint32_t a[] = { 10, 11 }, added[] = { 12 };
	const struct leaf_difference difference = { .added = added, .added_count = 1 };
	int64_t base, other;

	begin();
	counts[10] = counts[11] = counts[12] = 1;
	base = frame_set_intern(set, a, 2);
	other = frame_set_intern_like(set, (uint32_t)base, &difference);
	frame_set_again(set, (uint32_t)other, -1);
	is_errno(frame_set_resolve(set, false, 1, read_counts, NULL, NULL), 0, "resolved");
	is_u64(frame_set_totals(set).unique_pages, 2, "distinct frames");
	is_u64(sums(base)->outside_pages, 0, "nobody outside");
	is_u64(sums(base)->private_pages, 2, "nobody else inside");
	frame_set_free(set);
}

TEST(more_maps_than_references_are_outside)
{
	uint32_t a[] = { 100, 200 };
	int64_t leaf;

	begin();
	counts[100] = 5;
	counts[200] = 1;
	leaf = frame_set_intern(set, a, 2);
	frame_set_resolve(set, false, 2, read_counts, NULL, NULL);
	is_u64(sums(leaf)->outside_pages, 1, "of the leaf");
	is_u64(sums(leaf)->inside_pages, 0, "nothing inside");
	is_u64(sums(leaf)->unique_outside, PAGE << SHARE_SHIFT, "as a share");
	is_u64(frame_set_totals(set).outside_pages, 1, "in total");
	frame_set_free(set);
}

TEST(memory_mapped_twice_by_one_process)
{
	uint32_t a[] = { 7, 7 };
	int64_t leaf;

	begin();
	counts[7] = 2;
	leaf = frame_set_intern(set, a, 2);
	frame_set_resolve(set, false, 2, read_counts, NULL, NULL);
	is_u64(sums(leaf)->pages, 2, "RSS counts it twice");
	is_u64(sums(leaf)->pss, PAGE << SHARE_SHIFT, "PSS once");
	is_u64(sums(leaf)->private_pages, 0, "USS not at all, as in the kernel");
	is_u64(frame_set_totals(set).unique_pages, 1, "one frame");
	is_u64(frame_set_totals(set).outside_pages, 0, "nobody outside");
	frame_set_free(set);
}

TEST(what_is_no_memory_is_not_counted)
{
	uint32_t a[] = { 5, FRAMES, FRAMES + 1, NO_FRAME, 6 };
	int64_t leaf;

	begin();
	counts[6] = 1; /* 5 is the zero page: no map count; the others lie beyond RAM */
	leaf = frame_set_intern(set, a, 5);
	is_errno(frame_set_resolve(set, false, 2, read_counts, NULL, NULL), 0, "resolved");
	is_u64(sums(leaf)->special, 4, "special");
	is_u64(sums(leaf)->pages, 1, "pages");
	is_u64(frame_set_totals(set).unique_pages, 1, "distinct frames");
	frame_set_free(set);
}

TEST(merged_pages_in_a_sample)
{
	uint32_t a[] = { 50 };
	int64_t leaf;

	begin();
	counts[50] = 4;
	flags[50] = KPAGE_KSM;
	leaf = frame_set_intern(set, a, 1);
	frame_set_resolve(set, true, 2, read_counts, read_flags, NULL);
	is_u64(sums(leaf)->ksm_pages, 1, "merged");
	is_u64(sums(leaf)->unique, (PAGE << SHARE_SHIFT) / 4, "shared with those not looked at");
	is_u64(sums(leaf)->outside_pages, 0, "not taken for outside");
	frame_set_free(set);
}

TEST(counts_are_read_where_frames_are)
{
	uint32_t a[] = { 0, 1, 2, FRAMES - 1 };

	begin();
	counts[0] = counts[1] = counts[2] = counts[FRAMES - 1] = 1;
	frame_set_intern(set, a, 4);
	is_errno(frame_set_resolve(set, false, 2, read_counts, NULL, NULL), 0, "resolved");
	is_int(reads, 2, "one read for each end");
	is_u64(frame_set_totals(set).unique_pages, 4, "distinct frames");
	frame_set_free(set);
	begin();
	frame_set_intern(set, a, 4);
	is_errno(frame_set_resolve(set, false, 2, fail_to_read, NULL, NULL), -EIO, "a failed read");
	frame_set_free(set);
	frame_set_free(NULL);
}

TEST(many_leaves)
{
	uint32_t frames[LEAF_ENTRIES];
	uint64_t total = 0;
	int64_t leaves[2000];
	int i, j;

	begin();
	for (i = 0; i < FRAMES; i++)
		counts[i] = 2000;
	for (i = 0; i < 2000; i++) {
		for (j = 0; j < 1 + i % LEAF_ENTRIES; j++)
			frames[j] = (uint32_t)(i * 7 + j) % FRAMES;
		leaves[i] = frame_set_intern(set, frames, (size_t)j);
		total += (uint64_t)j;
	}
	frame_set_resolve(set, false, 2, read_counts, NULL, NULL);
	for (i = 0; i < 2000; i++)
		total -= sums(leaves[i])->pages;
	is_u64(total, 0, "every page is in its leaf");
	is_u64(frame_set_totals(set).unique_pages, FRAMES, "all frames");
	frame_set_free(set);
}

/* --- estimates --- */

static uint64_t state = 1;

static double chance(void)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (double)(state >> 11) / (double)(UINT64_C(1) << 53);
}

TEST(nothing_met_is_a_bound)
{
	struct observation none[] = { { 0, 0, 0.9 }, { 0, 0, 0.9 } },
			   one[] = { { 10, 5, 0.9 }, { 0 } };
	struct estimate estimate;

	estimate = ratio_estimate(none, 2, 1000);
	ok(estimate.error >= 1000, "no window met anything: all of it is open");
	estimate = ratio_estimate(one, 2, 1000);
	ok(estimate.error >= 1000, "one window shows no spread");
	estimate = ratio_estimate(NULL, 0, 1000);
	ok(estimate.error >= 1000, "no window");
}

TEST(what_was_read_in_full_is_exact)
{
	struct observation list[] = { { 10, 5, 0 }, { 20, 1, 0 }, { 5, 5, 0 } };
	struct estimate estimate = ratio_estimate(list, 3, 35);

	ok(fabs(estimate.value - 11) < 1e-9, "the value");
	ok(estimate.error <= 0, "no error");
}

/*
 * Populations like those of forks: each page of a stratum is unshared by some of the processes, in
 * stretches. Windows of 32 of 1024 pages; the interval has to hold in 99 % of the samples.
 */
static bool sample_holds(const double *unique, size_t strata, size_t pages, double truth)
{
	struct observation *list = calloc(strata, sizeof(*list));
	struct estimate estimate;
	size_t places = pages / 32, i, j, place;

	for (i = 0; i < strata; i++) {
		place = (size_t)(chance() * (double)places) * 32;
		list[i].missed = 1 - 32.0 / (double)pages;
		for (j = place; j < place + 32; j++) {
			list[i].x += 100.0 * (double)pages / 32;
			list[i].y += unique[i * pages + j] * (double)pages / 32;
		}
	}
	estimate = ratio_estimate(list, strata, 100.0 * (double)(strata * pages));
	free(list);
	return fabs(estimate.value - truth) <= estimate.error;
}

static double fill_population(double *unique, size_t count, size_t stretch)
{
	double truth = 0;
	size_t i, from, process;

	for (i = 0; i < count; i++)
		unique[i] = 1;
	for (process = 0; process < 100; process++)
		for (i = 0; i < count / 20; i += stretch) {
			from = (size_t)(chance() * (double)(count - stretch));
			for (size_t k = 0; k < stretch; k++)
				unique[from + k]++;
		}
	for (i = 0; i < count; i++)
		truth += unique[i];
	return truth;
}

TEST(intervals_hold)
{
	static const size_t stretches[] = { 1, 64, 2048 };
	enum { STRATA = 60, PAGES = 1024, TRIALS = 1000 };
	double *unique = malloc(sizeof(double) * STRATA * PAGES), truth;
	size_t i;
	int held, trial;

	for (i = 0; i < sizeof(stretches) / sizeof(stretches[0]); i++) {
		truth = fill_population(unique, (size_t)STRATA * PAGES, stretches[i]);
		for (held = trial = 0; trial < TRIALS; trial++)
			held += sample_holds(unique, STRATA, PAGES, truth);
		diag("stretches of %zu pages: %d of %d intervals hold", stretches[i], held, TRIALS);
		ok(held >= TRIALS * 98 / 100, "stretches of %zu pages: %d hold", stretches[i],
		   held);
	}
	free(unique);
}

TEST(strata_are_found_again)
{
	struct stratum_key key = { .object = 1, .inode = 2 };
	struct strata *strata = strata_new();
	uint64_t i;

	for (i = 0; i < 5000; i++) {
		key.index = i;
		is_int(strata_find(strata, &key), (int64_t)i, "a new one");
	}
	for (i = 0; i < 5000; i++) {
		key.index = i;
		is_int(strata_find(strata, &key), (int64_t)i, "an old one");
	}
	is_u64(strata_count(strata), 5000, "strata");
	strata_free(strata);
	strata_free(NULL);
}

TAP_MAIN(CASE(equal_leaves_are_one), CASE(a_difference_is_its_base_but_for_some_frames),
	 CASE(what_is_taken_back_was_never_there), CASE(more_maps_than_references_are_outside),
	 CASE(memory_mapped_twice_by_one_process), CASE(what_is_no_memory_is_not_counted),
	 CASE(merged_pages_in_a_sample), CASE(counts_are_read_where_frames_are), CASE(many_leaves),
	 CASE(nothing_met_is_a_bound), CASE(what_was_read_in_full_is_exact), CASE(intervals_hold),
	 CASE(strata_are_found_again))
