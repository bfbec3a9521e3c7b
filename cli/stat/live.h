/* SPDX-License-Identifier: MIT */
/* What /proc says about processes while they are alive, and about the system. */
#ifndef CLI_STAT_LIVE_H
#define CLI_STAT_LIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Faults of a process's whole life, all its threads: 0 or a negative errno. */
int live_faults(pid_t pid, uint64_t *ret_minor, uint64_t *ret_major);

/* The name and the parent of a process; they stay untouched where it is gone. */
void live_identity(pid_t pid, char *command, size_t size, unsigned int *parent);

/* The process's threads; the caller frees the list. 0 or a negative errno. */
int live_threads(pid_t pid, pid_t **ret_threads, size_t *ret_count);

/* Memory of some processes, added up. */
struct sharing {
	uint64_t at_ns;     /* since the start; when it was looked at */
	uint64_t processes; /* that could be looked at */
	uint64_t refused;   /* that could not, for want of permission */
	uint64_t rss_bytes, pss_bytes, uss_bytes;
};

void sharing_add(struct sharing *sharing, pid_t pid);

/* Counters of /proc/vmstat: of the whole system, since it started. */
enum vmstat_counter {
	VMSTAT_FAULTS,
	VMSTAT_MAJOR_FAULTS,
	VMSTAT_REUSED,
	VMSTAT_PMD_SPLITS,
	VMSTAT_HUGE_FAULTS,
	VMSTAT_KSM_COPIED,
	VMSTAT_SCANNED_KSWAPD,
	VMSTAT_SCANNED_DIRECT,
	VMSTAT_RECLAIMED_KSWAPD,
	VMSTAT_RECLAIMED_DIRECT,
	VMSTAT_SWAPPED_IN,
	VMSTAT_SWAPPED_OUT,
	VMSTAT_OOM_KILLS,
	VMSTAT_COUNTERS
};

struct vmstat {
	uint64_t value[VMSTAT_COUNTERS]; /* KEYED_ABSENT: this kernel has no such counter */
};

/* The kernel's names of the counters. */
extern const char *const vmstat_names[VMSTAT_COUNTERS];

int vmstat_read(struct vmstat *ret_vmstat);
/* What a counter grew by; false where it is absent. */
bool vmstat_delta(const struct vmstat *from, const struct vmstat *to, enum vmstat_counter counter,
		  uint64_t *ret_delta);

#endif
