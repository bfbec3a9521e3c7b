/* SPDX-License-Identifier: MIT */
/*
 * Reads a process's page tables through /proc/PID/pagemap and hands them to a frame set, whole or
 * as a sample.
 *
 * A sample looks at one window in each stratum. A stratum is a stretch of the file that is mapped
 * or, where none is, of addresses: relatives and strangers who share a frame then have it in the
 * same stratum, and the window is at the same place for all of them, so that what they share is
 * seen shared. Merged pages (KSM) are the exception; frames.h says what is done about them.
 */
#ifndef CLI_PS_PAGES_H
#define CLI_PS_PAGES_H

#include "cli/ps/frames.h"
#include "cli/ps/strata.h"
#include "proc/process.h"
#include "proc/root.h"

/*
 * Areas of files and of shared memory are sampled by themselves: they are few and small where the
 * heaps are large, and then can be read in full.
 */
enum area_kind {
	AREA_ANON,
	AREA_FILE,
	AREA_KINDS,
};

struct window {
	uint64_t pages, stratum_pages; /* powers of two */
};

/* What all readers share; not changed while they read. */
struct page_world {
	const struct proc_root *root;
	uint64_t page_bytes;
	int kpagecount, kpageflags;
	bool merging; /* KSM has merged pages */
	struct frame_set *frames;
	/* Of a sample: */
	struct strata *strata; /* NULL: everything is read */
	struct window windows[AREA_KINDS];
	uint64_t seed;
};

/* A part of a process: of one stratum, or at most one page-table page. */
struct piece {
	uint32_t stratum;
	uint32_t leaf;          /* its number + 1; 0: nothing shared */
	uint16_t private_pages; /* beside those of the leaf */
	uint8_t kind;           /* enum page_kind */
	uint8_t area;           /* enum area_kind */
};

struct pages {
	struct piece *pieces;
	size_t count, room;
	uint64_t thp_pages;                /* mapped by one entry; in a sample: unknown */
	uint64_t read_pages, mapped_pages; /* entries looked at, entries there are */
};

int page_world_open(struct page_world *world, const struct proc_root *root);
void page_world_close(struct page_world *world);

/* One thread's memory for reading, zero-initialised. */
struct page_reader {
	struct proc_buffer text;
	uint64_t *words;
};

/*
 * process is the descriptor of /proc/PID. 0, or -ESRCH when it ended, -EACCES or -EPERM when it
 * may not be looked at, -EINVAL when its areas make no sense.
 */
int pages_read(const struct page_world *world, struct page_reader *reader, int process,
	       const struct proc_status *status, struct pages *ret_pages);
void pages_free(struct pages *pages);
void page_reader_free(struct page_reader *reader);

/* A frame_reader for kpagecount and one for kpageflags; the context is the world. */
int page_world_counts(void *context, uint64_t first, size_t count, uint64_t *words);
int page_world_flags(void *context, uint64_t first, size_t count, uint64_t *words);

#endif
