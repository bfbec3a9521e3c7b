/* SPDX-License-Identifier: MIT */
/* Turns what the store tells its recorder (store/io.h) into a log of operations (crash.h). */
#ifndef TESTS_STORE_RECORD_H
#define TESTS_STORE_RECORD_H

#include "tests/store/crash.h"

/* From now on, until record_stop(). One log at a time; descriptors that were open before are not
 * known. */
void record_start(struct crash_log *log);
void record_stop(void);

#endif
