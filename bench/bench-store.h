/* SPDX-License-Identifier: MIT */
/* What the parts of bench-store share: a region, files beside the store, QEMU's tools. */
#ifndef COW_BENCH_STORE_H
#define COW_BENCH_STORE_H

#include <cow.h>

#include "bench/harness.h"

#define PAGE 4096u
#define MIB  ((size_t)1 << 20)

extern struct bench_options options;
extern char scratch[4000]; /* a directory of its own, removed in the end */

void bench_full(void);
void bench_incremental(void);
void bench_bytes(void);
void bench_chain(void);
void bench_reflink(void);
void bench_restore(void);
void bench_latency(void);

size_t region_bytes(void); /* 1 GiB; with --quick 32 MiB */
/* A region of that many bytes with random content in every page. */
struct cow_region *new_region(size_t bytes);
/* Writes 64 random bytes to each of so many random pages. The pages are sorted, unlike each other,
 * and free()d by the caller. */
size_t *dirty_pages(struct cow_region *region, size_t count, uint64_t *random);
struct cow_snapshot *take(struct cow_region *region);

/* scratch/NAME, valid until the eighth call after this one. */
const char *path_of(const char *name);
struct cow_store *open_store(const char *name, uint32_t flags);
void remove_tree(const char *path);
uint64_t file_blocks(const char *path); /* bytes that it has on disk */
/* Gone from the page cache. */
void make_cold(const char *path);
void make_store_cold(const char *path);

/* The baseline: bytes of memory into a new file, 1 MiB at a time, and fdatasync(). Microseconds. */
double plain_write(const char *path, const unsigned char *bytes, size_t length);
/* Runs a command of the shell; microseconds. input: its standard input, or NULL. */
double run_command(const char *input, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
bool has_qemu(void);

struct ratio {
	struct samples ours, theirs, ratio;
};
void ratio_add(struct ratio *ratio, double ours, double theirs);
void ratio_free(struct ratio *ratio);

#endif
