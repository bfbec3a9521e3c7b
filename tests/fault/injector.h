/* SPDX-License-Identifier: MIT */
/*
 * Makes one call of the kernel fail, the Nth through the seam (sys/sys.h), or one of a kind.
 *
 * Model
 * - What is counted: the calls of a thread while it is observed, and while a store of the script is
 *   under way those of every thread, since threads of the library may serve it. The service threads
 *   of views are not counted: their calls come when they come.
 * - munmap() is left out: memory that cannot be given back is lost, whatever the library does.
 */
#ifndef TESTS_FAULT_INJECTOR_H
#define TESTS_FAULT_INJECTOR_H

#include <stdbool.h>

#include "sys/sys.h"

/* Which errno each kind of call fails with; two ways each: some have a fallback for one of them. */
extern const int injected_errors[SYS_CALLS][2];

struct injector_plan {
	unsigned left; /* calls until the failure, 0: none */
	unsigned way;
	int only; /* a kind, -1: all */
	bool for_good;
	bool fired;
	enum sys_call what;
	unsigned kinds[SYS_CALLS]; /* how many of each have failed */
};
extern struct injector_plan plan;

/* What a run without a failure calls, in order. */
#define CALLS_MAX 8192u
struct injector_record {
	bool on;
	unsigned step, count;
	struct {
		unsigned step;
		enum sys_call call;
	} calls[CALLS_MAX];
};
extern struct injector_record record;

extern _Thread_local bool observed;
extern _Atomic bool storing;

/* To be sys_injector. */
int inject(enum sys_call call);

#endif
