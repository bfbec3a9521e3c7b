/* SPDX-License-Identifier: MIT */
/* test-store-kill with more kills. */
#define KILL_LONG
#include "test-store-kill.c" /* NOLINT(bugprone-suspicious-include) */
