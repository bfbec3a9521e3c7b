/* SPDX-License-Identifier: MIT */
/*
 * What it costs to protect pages, so that a cut can choose between many short calls and few long
 * ones that cover pages which are protected already.
 *
 * A call has a price of its own, each page one more, and then translations are flushed: page by
 * page in short runs, all at once in long ones (x86: from 34 pages on). So a run of 30 pages costs
 * more than one of 34, and is worth widening. Measured when the first trap of a process starts;
 * where other threads run, each call also interrupts their processors, which shows in the cuts
 * themselves and is learned from them.
 */
#ifndef COW_MMU_COST_H
#define COW_MMU_COST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cost {                        /* nanoseconds */
	double call, page;           /* of short runs */
	double wide_call, wide_page; /* of runs of at least wide_pages */
	double sweep_page;           /* where one wide run follows the other */
	uint64_t wide_pages;         /* 0: there is no difference */
	double extra;                /* what a call took beyond that, lately */
};

/* Protects or opens pages of the memory that cost_measure() was given. */
typedef int (*cost_change_fn)(void *context, void *address, size_t bytes, bool protect);

#define COST_PAGES 128u /* that much of it */

/* Without a measurement: what was seen on a virtual machine of 2025. */
#define COST_INIT                        \
	{                                \
		.call = 650, .page = 140 \
	}

/* Takes about half a millisecond. What cannot be measured stays as it is. */
void cost_measure(struct cost *cost, void *memory, size_t page_size, cost_change_fn change,
		  void *context);

double cost_of(const struct cost *cost, uint64_t pages);

/* How many pages are best protected where `pages` have to be: as many, or wide_pages. */
uint64_t cost_widened(const struct cost *cost, uint64_t pages);

/* Whether so many short runs among so many pages cost more than all the pages in one. */
bool cost_is_dense(const struct cost *cost, uint64_t runs, uint64_t pages);

/* A cut's calls, which were expected to take that long, took so long. */
void cost_learn(struct cost *cost, uint64_t calls, double expected_ns, double taken_ns);

#endif
