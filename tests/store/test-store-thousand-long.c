/* SPDX-License-Identifier: MIT */
/* test-store-thousand at its full size: 1 GiB, in 64 MiB. */
#define THOUSAND_LONG
#include "test-store-thousand.c" /* NOLINT(bugprone-suspicious-include) */
