/* SPDX-License-Identifier: MIT */
/* The machine, as measurements and bug reports name it. What it does not tell is
 * KEYED_ABSENT or empty. */
#ifndef CLI_MACHINE_H
#define CLI_MACHINE_H

#include <stdint.h>
#include <sys/utsname.h>

#include "proc/keyed.h"

struct machine {
	struct utsname kernel;
	char cpu[128];
	long cpus; /* online */
	uint64_t page_bytes, huge_page_bytes;
	char huge_pages[32]; /* always, madvise, never */
	uint64_t memory_bytes, available_bytes;
};

void machine_look(struct machine *ret_machine);

#endif
