/* SPDX-License-Identifier: MIT */
/* test-store-inject with every single call, of more workloads. */
#define INJECT_LONG
#include "test-store-inject.c" /* NOLINT(bugprone-suspicious-include) */
