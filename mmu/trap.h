/* SPDX-License-Identifier: MIT */
/*
 * What the back ends with a trap have in common: a window of real memory whose pages the kernel
 * protects, and how a thread that ran into a protected page gets on.
 *
 *   before the first arming   plain memory: nothing is registered, nothing traps. What was written
 *                             by then is found out by asking the kernel which pages have content
 *   a page with content       armed or open; the open set holds every page that may be writable
 *   a granule without any     (2 MiB; uffd) watched for its first touch, which brings it under
 *                             protection; so a region may be far longer than its contents
 *
 * A trap enters the gate as a bracket does, runs the one fault(), and leaves. Where there is no
 * frame it asks the policy for room outside the gate and begins anew.
 */
#ifndef COW_MMU_TRAP_H
#define COW_MMU_TRAP_H

#include "core/space.h"
#include "mmu/ahead.h"
#include "mmu/cost.h"
#include "mmu/openset.h"

struct trap;

/* What the library decides for a trap. Called in the trap: no allocation, no lock of the
 * application's. */
struct trap_policy {
	bool (*is_nested)(void); /* the thread is inside some gate already */
	/* Ends in 0: a store cannot fail. Without may_wait: -EBUSY where it would have to. */
	int (*make_room)(void *context, uint32_t freed, bool may_wait, uint64_t *deadline_ns);
	void (*want_frames)(void *context); /* the pool could use a chunk that is faulted in */
	void *context;
};

/* Where a window's content comes from when it is touched for the first time. Called in a trap: no
 * allocation, no lock of the application's. */
struct trap_source {
	int (*fill)(void *context, uint64_t offset, size_t length); /* bytes of the window */
	void *context;
};

struct trap_ops {
	/* Puts [first, first + count) under protection; all of it has been discovered. 0 or
	 * -errno. */
	int (*protect)(struct trap *trap, uint64_t first, uint64_t count);
	/* Opens it, and lets threads that sleep on it go on. */
	int (*unprotect)(struct trap *trap, uint64_t first, uint64_t count);
	/* Before the first arming. */
	int (*start)(struct trap *trap);
	void (*stop)(struct trap *trap);
	/* Whether [first, end) may be protected as well, though nothing there is known to be open.
	 * NULL: yes. */
	bool (*covers)(struct trap *trap, uint64_t first, uint64_t end);
	/* Waits until all that was written unseen, while granules were converted, is known. NULL:
	 * there are none. */
	void (*await)(struct trap *trap);
	/* A granule that was not watched page by page was touched: from now on it is. NULL: there
	 * are none. */
	int (*convert)(struct trap *trap, uint64_t page);
};

enum trap_phase { TRAP_PLAIN, TRAP_STARTING, TRAP_ARMED };

struct trap {
	struct mmu mmu; /* first */
	/* A page without content cannot be protected: before Linux 6.4. */
	bool needs_content;
	const struct trap_ops *ops;
	struct space *space;
	struct trap_policy policy;
	unsigned char *base;
	size_t length;
	struct openset open;
	struct ahead *ahead;      /* NULL: nothing is copied ahead */
	_Atomic uint32_t armed;   /* enum trap_phase; who traps while it starts waits on it */
	struct lock arm_lock;     /* who holds it sees no page armed ahead */
	_Atomic uint32_t refused; /* since the last cut the kernel refused to open a page */
	struct lock start_lock;   /* guards the start */
	_Atomic uint32_t
		writers; /* shards of the threads that trapped since the last cut; all: who knows */
	struct cost cost; /* of protecting; under the cut mutex once started */
	bool exact;       /* a cut makes no use of the cost */
	bool rounds;      /* a cut arms ahead where other threads write */
	int uffd;         /* -1: none */
	void *service;    /* of the thread trap */
};

/* The space exists and is not in use yet; memory for the open set is all that is taken. */
int trap_init(struct trap *trap, const struct trap_ops *ops, struct space *space,
	      const struct trap_policy *policy);

/* Registers with the kernel and discovers what has content, once. */
int trap_start(struct trap *trap);

/* Before every cut, with the gate open: starts, and where other threads write, arms ahead, so that
 * they are stalled for the few pages that are left. */
int trap_prepare_cut(struct trap *trap);

/* Waits for a start that is under way. */
bool trap_has_started(struct trap *trap);

/* Starts, and arms what is open, in rounds, beside running writers. */
int trap_arm_ahead(struct trap *trap);

/* By the back end's start: what changing memory like the window's costs, measured once in a process
 * for each way of doing it. */
enum trap_cost { TRAP_COST_UFFD, TRAP_COST_MPROTECT, TRAP_COSTS };
void trap_measure_cost(struct trap *trap, enum trap_cost kind,
		       int (*prepare)(struct trap *trap, void *memory, size_t bytes),
		       cost_change_fn change);

/* What another thread was measuring is measured again, or a little wrong. */
void trap_costs_after_fork(void);

/* A store ran into a protected page, or a load into an unwatched granule. 0: try again. */
int trap_handle(struct trap *trap, uintptr_t address, bool nested);

/* The same for a writer that sleeps in the kernel, by a thread that others need, too. -EBUSY: again
 * in a moment. *deadline_ns: 0 at first. */
int trap_try(struct trap *trap, uintptr_t address, uint64_t *deadline_ns);

/* Started. Before a page is opened by a bracket: sees to it that writing it cannot trap for
 * another reason. */
int trap_prepare(struct trap *trap, uint64_t page);

/* After it: sees to it that it can be written, also where the kernel refused. -EAGAIN, -ENOMEM. */
int trap_assure(struct trap *trap, uint64_t page);

/* relief.c: opens a page that the kernel has armed, though the core has it open, and what it takes
 * around it. Inside the gate. */
int trap_relieve(struct trap *trap, uint64_t page);
bool trap_is_relieving(void);

/* For who looks at the table inside the gate, which a cut need not do: what this thread, or one
 * that it heard of, wrote before is known after it. NULL: no trap. */
static inline void trap_await(struct trap *trap)
{
	if (trap && trap->ops->await)
		trap->ops->await(trap);
}

static inline struct trap *trap_of(struct mmu *mmu)
{
	return (struct trap *)(void *)mmu;
}

/* The back ends. Each says by an errno that it is not to be had here. file: what the window maps,
 * -1: nothing; it stays the caller's. */
int trap_new_signal(struct space *space, const struct trap_policy *policy, int file,
		    struct trap **ret_trap);
int trap_new_thread(struct space *space, const struct trap_policy *policy, int file,
		    struct trap **ret_trap);
int trap_new_mprotect(struct space *space, const struct trap_policy *policy,
		      struct trap **ret_trap);
void trap_free(struct trap *trap); /* NULL-safe; nobody is inside */

/* A child has the parent's regions as plain memory. */
void mprotect_after_fork(void);

/* For the userfaultfd back ends, before the start: the window maps a file in memory privately,
 * which source fills. What it fills in is the window's base: armed, written by nobody. */
void trap_set_source(struct trap *trap, const struct trap_source *source);

#endif
