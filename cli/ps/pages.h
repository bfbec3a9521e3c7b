/* SPDX-License-Identifier: MIT */
/*
 * Reads page tables through /proc/PID/pagemap and hands them to a frame set, whole or as a sample.
 *
 * Processes are opened first, then read piece by piece: the same addresses of all of them one
 * after the other. Relatives have the same there, or nearly: what the kernel looks up for one is
 * in the caches for the next, and a leaf is compared with the one just read of a relative, instead
 * of being taken apart.
 *
 * A sample looks at the window with which each stratum begins. A stratum is a stretch of the file
 * that is mapped or, where none is, of addresses: relatives and strangers who share a frame then
 * have it in the same stratum, and the window is at the same place for all of them, so that what
 * they share is seen shared. Merged pages (KSM) are the exception; frames.h says what is done about
 * them.
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
	uint64_t pages, stratum_pages;
};

/* What all readers share; not changed while they read. */
struct page_world {
	const struct proc_root *root;
	uint64_t page_bytes;
	int kpagecount, kpageflags;
	bool merging;  /* KSM has merged pages */
	bool unmarked; /* but kpageflags does not tell them from other anonymous ones */
	struct frame_set *frames;
	/* Of a sample: */
	struct strata *strata; /* NULL: everything is read */
	bool whole;            /* it would be no sample: everything is read */
	struct window windows[AREA_KINDS];
	uint64_t seed;
};

/* A part of a process: of one stratum, or at most one page-table page. */
struct piece {
	uint32_t process; /* its number in the selection */
	uint32_t stratum;
	uint32_t leaf;          /* its number + 1; 0: nothing shared */
	uint16_t private_pages; /* beside those of the leaf */
	uint16_t thp_pages;     /* mapped by one entry; in a sample: unknown */
	uint8_t kind;           /* enum page_kind */
	uint8_t area;           /* enum area_kind */
};

struct pages {
	struct piece *pieces;
	size_t count, room;
};

/* A stretch of an area, or all of it. */
struct page_range {
	uint64_t page, count; /* page numbers: addresses / page_bytes */
	/* Of a file: what it is, and where in it the range begins, in pages. */
	uint64_t object, inode, from;
	enum area_kind kind;
};

/* A process that is open for reading. */
struct page_source {
	int pagemap;  /* -1: not open */
	bool merging; /* some of its pages may be merged ones */
	uint32_t number;
	struct page_range *ranges; /* in the order of their addresses */
	size_t count, room;
	int error; /* atomic: the first reason why it is not read any more; 0: none */
};

int page_world_open(struct page_world *world, const struct proc_root *root);
void page_world_close(struct page_world *world);

/* Where the strata of addresses begin: so many pages before page 0. */
uint64_t page_world_shift(const struct page_world *world);

/* One thread's memory for reading, zero-initialised; and what it has read. */
struct page_reader {
	struct proc_buffer text;
	uint64_t *words;
	/* Which words these are; none where the source is NULL. */
	const struct page_source *source;
	uint64_t first, end, expected_end;
	struct memo *memo;
	struct recent_stratum *strata;
	struct pages pages;
};

/* The next pages to be read are these, though by several calls. */
void page_reader_expect(struct page_reader *reader, uint64_t page, uint64_t end);

/*
 * Opens a process and looks up its areas; process is the descriptor of /proc/PID. 0, or -ESRCH when
 * it ended, -EACCES or -EPERM when it may not be looked at, -EINVAL when its areas make no sense.
 * Then ret_source is as it was.
 */
int pages_open(const struct page_world *world, struct page_reader *reader, int process,
	       const struct proc_status *status, uint32_t number, struct page_source *ret_source);
void pages_close(struct page_source *source);

/* Reads a part of a range, of so many pages, into reader->pages; as above. */
int pages_read(const struct page_world *world, struct page_reader *reader,
	       const struct page_source *source, const struct page_range *range, uint64_t page,
	       uint64_t count);

/* After the last of them, before anything is resolved: tells the frame set what was put off. */
void page_reader_finish(const struct page_world *world, struct page_reader *reader);

/* The shares in frames that the pieces hold are given back. */
void pages_withdraw(const struct page_world *world, const struct pages *pages);
/* Of none so far: memory for `room` pieces, which the caller knows to be enough. */
int pages_make_room(struct pages *pages);
int pages_append(struct pages *to, const struct piece *piece);
void pages_free(struct pages *pages);
void page_reader_free(struct page_reader *reader);

/* A frame_reader for kpagecount and one for kpageflags; the context is the world. */
int page_world_counts(void *context, uint64_t first, size_t count, uint64_t *words);
int page_world_flags(void *context, uint64_t first, size_t count, uint64_t *words);

#endif
