/* SPDX-License-Identifier: MIT */
/* Restoring: the first byte, and everything, both of the same restore; with nothing in the
 * cache. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench-store.h"

static const struct {
	const char *name;
	enum cow_trap trap;
} traps[] = {
	{ "explicit", COW_TRAP_EXPLICIT },
	{ "signal", COW_TRAP_SIGNAL },
	{ "thread", COW_TRAP_THREAD },
	{ "mprotect", COW_TRAP_MPROTECT },
};

struct restored {
	double first, all, eager; /* us */
};

static struct cow_region *restore(enum cow_trap trap, uint32_t flags)
{
	struct cow_restore_options how = COW_RESTORE_OPTIONS_INIT;
	struct cow_store *store = open_store("restore", COW_STORE_READ_ONLY);
	struct cow_region *region = NULL;
	int r;

	how.trap = trap;
	how.flags = flags;
	how.verify = COW_VERIFY_NONE; /* the others read without looking, too */
	r = cow_store_restore(store, NULL, &how, &region);
	cow_store_close(store);
	return r == 0 ? region : NULL;
}

static uint64_t touch_all(struct cow_region *region)
{
	const volatile unsigned char *base = cow_region_get_base(region);
	uint64_t sum = 0;

	for (size_t at = 0; at < cow_region_get_length(region); at += PAGE)
		sum += base[at];
	return sum;
}

/* Lazily: to a byte somewhere, then to every page; then eagerly, anew. False: not to be had. */
static bool measure(enum cow_trap trap, uint64_t *random, struct restored *ret)
{
	const volatile unsigned char *base;
	struct cow_region *region;
	double start;

	make_store_cold(path_of("restore"));
	start = now_us();
	region = restore(trap, 0);
	if (!region)
		return false;
	base = cow_region_get_base(region);
	(void)base[random_next(random) % cow_region_get_length(region)];
	ret->first = now_us() - start;
	touch_all(region);
	ret->all = now_us() - start;
	cow_region_free(region);

	make_store_cold(path_of("restore"));
	start = now_us();
	region = restore(trap, COW_RESTORE_POPULATE);
	if (!region)
		return false;
	touch_all(region);
	ret->eager = now_us() - start;
	cow_region_free(region);
	return true;
}

static double convert(const char *head)
{
	double us;

	make_store_cold(path_of("restore"));
	us = run_command(NULL, "qemu-img convert -f qcow2 -O raw '%s' '%s'", head,
			 path_of("converted.raw"));
	unlink(path_of("converted.raw"));
	return us;
}

/* A base and ten changes of a thousand pages. */
static void make_chain(char head[5000])
{
	struct cow_region *region = new_region(region_bytes());
	struct cow_store *store = open_store("restore", COW_STORE_CREATE);
	uint64_t random = options.seed + 5;
	char id[COW_ID_LENGTH];

	for (unsigned i = 0; i < 11; i++) {
		struct cow_snapshot *snapshot = take(region);

		check_errno(cow_store_save(store, snapshot, NULL, id), "cow_store_save");
		cow_snapshot_unref(snapshot);
		free(dirty_pages(region, options.quick ? 10 : 1000, &random));
	}
	cow_store_close(store);
	cow_region_free(region);
	snprintf(head, 5000, "%s/%s.qcow2", path_of("restore"), id);
}

static void bench_trap(unsigned t, const char *head)
{
	struct ratio first = { 0 }, all = { 0 };
	uint64_t random = options.seed + 6;
	struct restored turn;
	bool peer = has_qemu();
	char name[100];

	for (unsigned i = 0; i < options.runs + BENCH_WARM_UP; i++) {
		double theirs = peer ? convert(head) : 1;

		if (!measure(traps[t].trap, &random, &turn)) {
			bench_note("%s: not to be had here", traps[t].name);
			break;
		}
		if (i < BENCH_WARM_UP)
			continue;
		ratio_add(&first, turn.first, theirs);
		ratio_add(&all, turn.all, turn.eager);
	}
	if (first.ours.count) {
		snprintf(name, sizeof(name), "%s: to the first byte, cold", traps[t].name);
		bench_result(name, "us", &first.ours, BOUND_NONE, 0);
		if (peer) {
			bench_result("  qemu-img convert -O raw", "us", &first.theirs, BOUND_NONE,
				     0);
			bench_result("  ratio", "", &first.ratio, AT_MOST, 0.015);
		}
		bench_result("  to every page", "us", &all.ours, BOUND_NONE, 0);
		bench_result("  eager load", "us", &all.theirs, BOUND_NONE, 0);
		bench_result("  ratio", "", &all.ratio, AT_MOST, 1.3);
	}
	ratio_free(&first);
	ratio_free(&all);
}

void bench_restore(void)
{
	char head[5000];

	bench_section("Restore of %zu MiB from a chain of 11 layers, nothing in the cache",
		      region_bytes() / MIB);
	make_chain(head);
	for (unsigned t = 0; t < sizeof(traps) / sizeof(traps[0]); t++)
		bench_trap(t, head);
	remove_tree(path_of("restore"));
}
