/* SPDX-License-Identifier: MIT */
/* test-stress for an hour, or COW_STRESS_MINUTES, from seeds that are new each time. */
#define STRESS_LONG
#include "test-stress.c" /* NOLINT(bugprone-suspicious-include) */
