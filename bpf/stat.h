/* SPDX-License-Identifier: MIT */
/*
 * What bpf/stat.bpf.c and cli/stat/bpf.c share: process records in memory that both map, and the
 * events of the ring buffer.
 *
 * Model
 * - A process has a slot. The kernel's side adds to its counts; the command reads them whenever
 *   it likes, without a system call. Serials are never used twice, slots are.
 * - When the last thread of a process ends, its final counts go out as an event and the slot is
 *   free again. Where the ring buffer is full, the counts are added to slot 0 instead: totals stay
 *   right, the process's own line is lost, and `lost` says how often.
 * - Slot 0 also collects the processes for which there was no free slot.
 */
#ifndef BPF_STAT_H
#define BPF_STAT_H

#define BPF_STAT_SLOTS   16384
#define BPF_STAT_RING    (1 << 20)
#define BPF_STAT_COMMAND 16
#define BPF_STAT_AREAS   8

enum bpf_stat_count {
	BPF_STAT_FORKS,         /* new processes */
	BPF_STAT_VFORKS,        /* of them, those that share memory with their parent */
	BPF_STAT_THREADS,       /* new threads */
	BPF_STAT_EXECS,         /* */
	BPF_STAT_WRITE_FAULTS,  /* writes to present pages that were protected */
	BPF_STAT_SHARED_WRITES, /* of them, those in shared mappings: never a copy */
	BPF_STAT_COPIED,        /* of them, those that copied the page */
	BPF_STAT_ZERO_REPLACED, /* of them, those that replaced the kernel's page of zeroes */
	BPF_STAT_ZERO_FILLED,   /* pages of zeroes made by writes where nothing was */
	BPF_STAT_FILE_COPIED,   /* copies by writes where a private file's page was absent */
	BPF_STAT_MINOR_FAULTS,  /* set when the process ends */
	BPF_STAT_MAJOR_FAULTS,  /* set when the process ends */
	BPF_STAT_COUNTS
};

enum bpf_stat_state {
	BPF_STAT_FREE,
	BPF_STAT_WAITING, /* counts from its exec on */
	BPF_STAT_COUNTING,
	BPF_STAT_ENDED,
};

struct bpf_stat_process {
	unsigned long long serial;
	unsigned long long parent_serial; /* 0: was not counted */
	unsigned int state;
	unsigned int pid;
	unsigned int parent;
	char command[BPF_STAT_COMMAND];
	unsigned int shared; /* by several threads, or processes: adding must be atomic */
	unsigned long long counts[BPF_STAT_COUNTS];
};

/* An area of memory that was written, as it was when it was looked up. */
struct bpf_stat_area {
	unsigned long long start, end;
	unsigned int kind;
	unsigned int uses; /* that are left */
};

/* Of each task; the command writes those of the first, all else is the kernel's side's. */
struct bpf_stat_task {
	unsigned long long serial;
	unsigned int slot;
	unsigned int pending;
	unsigned long long address; /* of the open fault */
	unsigned long long
		entry_ip; /* where the task came into the kernel, and by which system call */
	unsigned long long entry_ax;
	unsigned long long fork_began; /* ns, 0: in no fork */
	unsigned int fork_copied;      /* the new process got a copy of the address space */
	unsigned int last_area;
	struct bpf_stat_area areas[BPF_STAT_AREAS];
};

enum bpf_stat_event_type {
	BPF_STAT_EVENT_END = 1, /* process: its final state */
	BPF_STAT_EVENT_FORK,    /* a fork that copied an address space */
};

struct bpf_stat_event_fork {
	unsigned int type;
	unsigned int pid;
	unsigned long long serial;
	unsigned long long ns;
};

struct bpf_stat_event_end {
	unsigned int type;
	unsigned int unused;
	struct bpf_stat_process process;
};

#endif
