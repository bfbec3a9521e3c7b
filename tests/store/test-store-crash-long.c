/* SPDX-License-Identifier: MIT */
/* test-store-crash with more workloads, more subsets of each, and more mutants. */
#define CRASH_LONG
#include "test-store-crash.c" /* NOLINT(bugprone-suspicious-include) */
