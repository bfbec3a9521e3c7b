/* SPDX-License-Identifier: MIT */
/* test-inject with every single call, however many of a kind there are. */
#define INJECT_LONG
#include "test-inject.c" /* NOLINT(bugprone-suspicious-include) */
