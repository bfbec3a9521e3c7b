/* SPDX-License-Identifier: MIT */
/* The large scenarios: see test-interleavings.c. */
#define MODEL_LARGE 1
#include "tests/model/test-interleavings.c"
