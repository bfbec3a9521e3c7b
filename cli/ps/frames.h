/* SPDX-License-Identifier: MIT */
/*
 * Which page frames a selection of processes maps, and how often: the sums behind `cow ps`.
 *
 * Model. A process hands in its page tables in pieces ("leaves": at most a page-table page of 512
 * entries). Relatives share frames at the same addresses, so most leaves of a fork were handed in
 * by a sibling before: equal leaves are kept once, with the number of times they came (compared
 * by a 128-bit hash). What is then left to do grows with the frames that are mapped, not with the
 * summed RSS, and what is found out about a leaf's frames is found for all who have it. A leaf that
 * differs from another in a few pages (a child that has written some) is kept as the difference.
 *
 *	intern leaves (any thread) -> resolve (how often is each frame mapped, by anyone) -> sums
 *
 * A frame's references are those of the selection; its map count is the kernel's
 * (/proc/kpagecount), over all processes. More maps than references: somebody outside has it.
 *
 * What is not memory of a process in the kernel's own sums is not in these: frames without a map
 * count (the zero page, the huge zero page, [vvar], holes between RAM) and frames beyond RAM
 * (devices). They are counted as `special`.
 *
 * Limits. Not one moment: what processes do meanwhile is seen in part. Two processes that share
 * one address space (vfork, clone with CLONE_VM) are two here, while the kernel counts one map.
 */
#ifndef CLI_PS_FRAMES_H
#define CLI_PS_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEAF_ENTRIES 512

/* Shares of a page are counted as the kernel does it: PAGE_SIZE << 12, divided and cut off. */
#define SHARE_SHIFT 12

struct leaf_sums {
	uint32_t pages;         /* without the special ones */
	uint32_t private_pages; /* mapped once */
	uint32_t inside_pages;  /* referenced more than once in the selection */
	uint32_t outside_pages; /* mapped by others than the selection, too */
	uint32_t ksm_pages;
	uint32_t special;
	uint64_t pss;    /* bytes << SHARE_SHIFT, over all who map the page */
	uint64_t unique; /* the same, over those of the selection: adds up to the distinct frames */
	uint64_t unique_outside; /* of it, what others map, too */
};

struct frame_totals {
	uint64_t unique_pages;  /* distinct frames of all leaves */
	uint64_t outside_pages; /* of them */
};

/*
 * Reads `count` words of kpagecount or kpageflags from a frame on: 0 or a negative errno. Words
 * beyond the end are set to 0.
 */
typedef int frame_reader(void *context, uint64_t first, size_t count, uint64_t *words);

struct frame_set;

/* A frame beyond the machine's is handed in as this. */
#define NO_FRAME UINT32_MAX

/*
 * frames: the machine's, as from /proc/zoneinfo; up to 16 TiB of addresses, else -EOVERFLOW. NULL
 * with errno set on failure.
 */
struct frame_set *frame_set_new(uint64_t frames, uint64_t page_bytes);
void frame_set_free(struct frame_set *set);

/* From any thread. Returns the leaf's number, or a negative errno; 1 to LEAF_ENTRIES frames. */
int64_t frame_set_intern(struct frame_set *set, const uint32_t *frames, size_t count);

/*
 * A leaf that is another one, `base`, without some of its frames and with others in their place;
 * base was handed in by frame_set_intern(). Returns as that does.
 */
struct leaf_difference {
	const uint32_t *removed, *added;
	size_t removed_count, added_count; /* together 1 to LEAF_ENTRIES */
};
int64_t frame_set_intern_like(struct frame_set *set, uint32_t base,
			      const struct leaf_difference *difference);

/* The same leaf once more (1), or one of those who handed it in takes it back (-1). */
void frame_set_again(struct frame_set *set, uint32_t leaf, int by);

/*
 * Once, when all leaves are in: 0 or a negative errno. read_flags NULL: nobody merges pages here,
 * ksm_pages stay 0. In a sample not every reference to a merged page was seen, since these lie
 * anywhere: there its map count stands in for its references.
 */
int frame_set_resolve(struct frame_set *set, bool is_sample, unsigned int threads,
		      frame_reader *read_counts, frame_reader *read_flags, void *context);

/* After frame_set_resolve(). */
const struct leaf_sums *frame_set_leaf(const struct frame_set *set, uint32_t leaf);
struct frame_totals frame_set_totals(const struct frame_set *set);
size_t frame_set_leaves(const struct frame_set *set);

#endif
