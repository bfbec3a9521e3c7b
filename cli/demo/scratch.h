/* SPDX-License-Identifier: MIT */
/* The one directory that holds everything temporary. */
#ifndef CLI_DEMO_SCRATCH_H
#define CLI_DEMO_SCRATCH_H

#include "cli/demo/demo.h"

/* Below --keep, else below TMPDIR, else /var/tmp. False after a message. */
bool scratch_make(struct demo *demo);

/* Whether so many bytes fit, with a message where they do not. */
bool scratch_has_room(struct demo *demo, uint64_t bytes);

/* keep_exports: the files that `exports` lists stay, and with them the directory. */
void scratch_remove(struct demo *demo, bool keep_exports);

#endif
