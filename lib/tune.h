/* SPDX-License-Identifier: MIT */
/*
 * What can be switched off to see what it is worth: COW_TUNE=blocks=off,cost=off,... in the
 * environment when a region is made. For benchmarks: everything is on for good reasons.
 */
#ifndef COW_LIB_TUNE_H
#define COW_LIB_TUNE_H

#include <stdbool.h>

struct tune {
	bool blocks; /* a trap opens the pages around it, too */
	bool cost;   /* a cut joins and widens runs where that is cheaper */
	bool rounds; /* a cut arms ahead where other threads write */
	bool frames; /* the helper faults frames in */
	bool huge;   /* a huge page is opened whole */
};

struct tune tune_read(void);

#endif
