/* SPDX-License-Identifier: MIT */
/*
 * What the public objects are made of. A region is a space with a window of real memory, a policy
 * for its limit, and a reference count: the caller's reference and one for each snapshot.
 *
 * Lock order: cut_mutex (of several regions: by address) -> gate -> view_mutex -> the space's lock.
 */
#ifndef COW_LIB_INTERNAL_H
#define COW_LIB_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <syslog.h>

#include "core/space.h"
#include "cow.h"
#include "lib/histogram.h"
#include "lib/tune.h"
#include "mmu/trap.h"
#include "sys/sys.h"

struct bypass;
struct spill;
struct view;

/* What a layer above hangs on a region, and is freed with it. Only ever added, at the front. */
struct attachment {
	struct attachment *next;
	void (*free)(struct attachment *attachment);
};

struct cow_region {
	struct space space;
	_Atomic uint32_t refs;
	uint64_t process; /* see process.h */
	unsigned char *base;
	size_t length;
	bool adopted;
	int memfd;        /* -1: private memory */
	bool has_content; /* from a layer above: in the window without an entry in the table */
	int empty_advice; /* to madvise(): gives pages back, which then read as zero; -1: nothing
			     does */
	struct cow_snapshot *source; /* of a branch: a reference */
	enum cow_trap trap_kind;
	struct trap *trap;     /* NULL: explicit */
	struct bypass *bypass; /* NULL: not checked */
	enum cow_limit_policy limit_policy;
	uint64_t limit_timeout_ns, cut_timeout_ns;
	struct spill *spill; /* NULL: none */
	_Atomic int no_room; /* why there was none: see limit.c */
	_Atomic uint32_t no_room_said;
	_Atomic uint64_t dropped_said; /* how many the log was last told of */
	pthread_mutex_t cut_mutex;     /* orders cuts and rollbacks; guards rolled_back_... */
	uint64_t rolled_back_to,
		rolled_back_at; /* epochs: when the second one ended, the region was
						    as the first one's snapshot */
	_Atomic uint64_t cut_ns_last, cut_ns_max;
	_Atomic uint64_t dropped_snapshots, view_bytes;
	_Atomic(struct cow_snapshot *) later; /* references that a trap could not drop */
	struct histogram fault_ns;
	struct cow_region *adopted_next; /* see adopt.h */
	struct cow_region *helper_next;  /* see helper.h */
	bool helped;                     /* guarded by the cut mutex */
	_Atomic uint32_t helper_tasks;
	struct tune tune;
	_Atomic(struct attachment *) attachments;
};

#define SNAPSHOT_DROPPED 0x80000000u

struct cow_snapshot {
	struct snap snap;
	_Atomic uint32_t refs;
	struct cow_region *region; /* a reference */
	uint64_t time_ns;
	_Atomic uint32_t pins; /* views, branches, a rollback under way; or SNAPSHOT_DROPPED */
	_Atomic uint32_t branches;
	pthread_mutex_t view_mutex; /* guards view and image */
	struct view *view;
	int image;                  /* a descriptor, -1: none */
	struct cow_snapshot *later; /* in its region's list of references to be dropped */
	_Atomic uint32_t due;       /* how many of them; while there are any it is in the list */
};

/* --- checks.c: what every public function does first --- */
int check_region(const struct cow_region *region);
int check_snapshot(const struct cow_snapshot *snapshot);
int check_range(size_t length, size_t offset, size_t piece);

/* Reads a struct of the caller's with its size first: 0, -EINVAL or -E2BIG. */
int options_read(void *to, size_t size, size_t first_release, const void *from);
/* How many bytes of the caller's result struct may be written: 0, -EINVAL or -E2BIG. */
int stats_room(const void *stats, size_t size, size_t first_release, size_t *ret_room);

/* --- region.c --- */
#define REGION_LENGTH_MAX ((size_t)1 << 44)

/* Content that a layer above brings: what a page holds that was never written. */
struct region_content {
	/* For traps that see first touches: a file in memory that the window maps privately, and
	 * what fills it (in a trap: struct trap_source). The descriptor stays the content's. */
	int (*open)(void *context, int *ret_fd);
	int (*fill)(void *context, uint64_t offset, size_t length);
	/* For the others: maps it over the window. */
	int (*map)(void *context, unsigned char *window);
	void *context;
};

struct region_base {
	void *adopt; /* memory that exists, or NULL */
	struct cow_snapshot *source;
	const struct region_content *content; /* NULL: none */
};
int region_make(size_t length, const struct cow_region_options *given, struct region_base base,
		struct cow_region **ret_region);
struct cow_region *region_get(struct cow_region *region);
void region_put(struct cow_region *region);
/* Drops a reference. Of the last one: frees it, and returns the region whose reference it held. */
struct cow_region *snapshot_drop(struct cow_snapshot *snapshot);

/* --- bracket.c --- */
/* Inside the gate, with nothing opened. */
int bracket_enter(struct cow_region *region);
void bracket_leave(struct cow_region *region);
bool bracket_is_held(const struct cow_region *region);
bool bracket_is_any_held(void);
/* Opens pages; -EAGAIN and others: some may have been opened, no content changed. Inside a
 * bracket. */
int bracket_open_pages(struct cow_region *region, uint64_t first, uint64_t end, unsigned flags);

/* The pages that a range touches: [first, end). */
static inline uint64_t region_first_page(const struct cow_region *region, size_t offset)
{
	return offset >> region->space.page_shift;
}

static inline uint64_t region_end_page(const struct cow_region *region, size_t offset,
				       size_t length)
{
	return length == 0 ? region_first_page(region, offset) :
			     region_first_page(region, offset + length - 1) + 1;
}

/* --- discard.c --- */
/* Of open pages: the memory goes back to the system, and they read as zero. */
void region_give_back(struct cow_region *region, uint64_t first, uint64_t end);

/* --- cut.c --- */
int cut_regions(struct cow_region *const regions[], size_t count, struct cow_snapshot *snapshots[]);
/* Ends the epoch without a snapshot; the cut mutex is held. -EBUSY: somebody has a bracket open. */
int cut_end_epoch(struct cow_region *region);

/* --- snapshot.c --- */
struct cow_snapshot *snapshot_make(struct cow_region *region);
void snapshot_discard(struct cow_snapshot *snapshot); /* never cut */
bool snapshot_try_get(struct cow_snapshot *snapshot);
int snapshot_pin(
	struct cow_snapshot *snapshot); /* it will not be dropped; -ESTALE: it was already */
void snapshot_unpin(struct cow_snapshot *snapshot);
/* Drops a reference when somebody who may free memory comes by. */
void snapshot_unref_later(struct cow_snapshot *snapshot);
void snapshot_unref_due(struct cow_region *region);

/* --- limit.c --- */
/* After -EAGAIN: 0: try again; or -EAGAIN: the policy has come to its end. freed: what space.freed
 * was before the attempt; *deadline_ns: 0 at the first attempt. Outside the gate, with no lock
 * held. */
int limit_make_room(struct cow_region *region, uint32_t freed, uint64_t *deadline_ns);
/* The same in a trap, which cannot say no: goes on to give up whatever snapshot there is. */
int limit_make_room_trapped(void *context, uint32_t freed, bool may_wait, uint64_t *deadline_ns);
/* Tells the log what happened at the limit, also in traps. With no lock held, not in a trap. */
void limit_report(struct cow_region *region);

/* --- image.c --- */
/* The descriptor stays the snapshot's. */
int image_get(struct cow_snapshot *snapshot, int *ret_fd);
int image_fill(struct cow_snapshot *snapshot, int fd);

/* --- view.c --- */
void view_free(struct view *view);

/* --- probe.c --- */
/* What COW_TRAP_AUTO stands for, here and now. -EMFILE, -ENFILE, -ENOMEM: no room to find out. */
int probe_auto(enum cow_trap *ret_trap);

/* --- log.c --- */
void log_message(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What is wrong with what the caller gave. Returns -EINVAL. */
int log_refusal(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* In a trap nothing is said. */
void log_mute(bool muted);
bool log_is_heard(void);
void log_after_fork(void);

#endif
