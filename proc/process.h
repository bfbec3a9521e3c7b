/* SPDX-License-Identifier: MIT */
/*
 * What /proc/PID says about a process, but for its areas and pages: stat, status, smaps and
 * smaps_rollup. Values that a kernel does not report are KEYED_ABSENT.
 */
#ifndef PROC_PROCESS_H
#define PROC_PROCESS_H

#include "proc/keyed.h"

#define PROC_COMMAND_LENGTH 64 /* the kernel's names have 15 bytes; those of its workers more */

/* /proc/PID/stat */
struct proc_stat {
	uint64_t pid, ppid;
	char command[PROC_COMMAND_LENGTH]; /* any bytes but zero; may hold ')' and newlines */
	char state;                        /* 'Z': has ended */
	uint64_t minor_faults, child_minor_faults;
	uint64_t major_faults, child_major_faults;
	uint64_t user_ticks, system_ticks;
	uint64_t threads;
	uint64_t start_ticks; /* since boot: tells a process from a later one of the same PID */
	uint64_t virtual_bytes;
	uint64_t resident_pages;
};

/* 0, -EINVAL or -ERANGE; the result is then untouched. */
int proc_stat_parse(struct text text, struct proc_stat *ret_stat);

/* /proc/PID/status; bytes. A kernel thread and a process that has ended have no memory. */
struct proc_status {
	uint64_t virtual_bytes, resident_bytes;
	uint64_t anonymous_bytes, file_bytes, shmem_bytes; /* parts of resident_bytes */
	uint64_t page_table_bytes;
	uint64_t swap_bytes;
	uint64_t huge_tlb_bytes;
	uint64_t data_bytes; /* private writable areas, the stack aside */
	uint64_t threads;
	uint64_t effective_capabilities; /* a bit each */
	uint64_t user;                   /* effective */
};

int proc_status_parse(struct text text, struct proc_status *ret_status);

/* /proc/PID/statm: the same counters as in status, for less. */
struct proc_statm {
	uint64_t virtual_pages, resident_pages;
	uint64_t file_pages; /* of files and shared memory; part of resident_pages */
};

int proc_statm_parse(struct text text, struct proc_statm *ret_statm);

/* /proc/PID/smaps_rollup, or the sum over the areas of /proc/PID/smaps. */
struct proc_smaps {
	uint64_t rss_bytes, pss_bytes, pss_anon_bytes;
	uint64_t private_clean_bytes, private_dirty_bytes;
	uint64_t shared_clean_bytes, shared_dirty_bytes;
	uint64_t anonymous_bytes;
	uint64_t ksm_bytes;                                          /* since Linux 6.6 */
	uint64_t huge_anon_bytes, huge_shmem_bytes, huge_file_bytes; /* mapped by one entry */
	uint64_t huge_tlb_shared_bytes, huge_tlb_private_bytes;      /* not in rss_bytes */
	uint64_t swap_bytes;
};

/*
 * -ENODATA where it says nothing: a process without memory. smaps has no Pss of parts; the
 * kernel rounds each area's values down to kB.
 */
int proc_smaps_parse(struct text text, struct proc_smaps *ret_smaps);

#endif
