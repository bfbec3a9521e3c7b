/* SPDX-License-Identifier: MIT */
/* test-model with random seeds, for as long as an afternoon's patience lasts. */
#define MODEL_LONG
#include "test-model.c" /* NOLINT(bugprone-suspicious-include) */
