/* SPDX-License-Identifier: MIT */
/*
 * gc: how much of a heap a child un-shares by looking after it, though it changes none of its data.
 *
 * A heap of small objects in random order of references is made before the fork. In the child:
 *
 *	reading	   walks all objects and only reads
 *	counting   takes and drops a reference to each, as CPython does for whoever looks at one
 *	marking    sets a bit in each object's header, then clears it (mark and sweep)
 *	bitmap	   marks in a bitmap beside the heap
 *	moving	   copies each object elsewhere and leaves its new address in the old one
 *	frozen	   marking or moving only what was made after the fork
 *
 * Beside these models the real CPython does the same with a list of objects of its own: reads it,
 * collects, collects after gc.freeze().
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/bench/forks.h"

/* 48 bytes: what a small object with two references takes. */
struct object {
	uint64_t references; /* or, when it has moved, its new address */
	uint64_t header;
	struct object *to[2];
	uint64_t payload[2];
};

#define MARKED UINT64_C(1)

static struct {
	struct object *objects;
	size_t count, bytes;
	uint64_t *bitmap;
	struct object *space; /* where moved ones go */
} heap;

static volatile uint64_t sink;

static void make_heap(uint64_t seed)
{
	size_t i;

	bench_fill(heap.objects, heap.bytes, seed);
	for (i = 0; i < heap.count; i++) {
		struct object *object = &heap.objects[i];
		uint64_t random = (i + seed) * UINT64_C(0x9e3779b97f4a7c15);

		object->to[0] = &heap.objects[(random >> 20) % heap.count];
		object->to[1] = &heap.objects[(i + 1) % heap.count];
		object->references = 2;
		object->header = 0;
	}
}

/* --- what a child does with it --- */

static void read_all(void)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < heap.count; i++)
		sum += heap.objects[i].to[0]->payload[0];
	sink = sum;
}

static void count_all(void)
{
	size_t i;

	for (i = 0; i < heap.count; i++) {
		volatile uint64_t *references = &heap.objects[i].to[0]->references;

		++*references;
		sink = heap.objects[i].payload[0];
		--*references;
	}
}

static void mark_and_sweep(void)
{
	size_t i;

	for (i = 0; i < heap.count; i++) {
		heap.objects[i].to[0]->header |= MARKED;
		heap.objects[i].to[1]->header |= MARKED;
	}
	for (i = 0; i < heap.count; i++)
		heap.objects[i].header &= ~MARKED;
}

static void mark_beside(void)
{
	size_t i, j, at;

	for (i = 0; i < heap.count; i++)
		for (j = 0; j < 2; j++) {
			at = (size_t)(heap.objects[i].to[j] - heap.objects);
			heap.bitmap[at / 64] |= UINT64_C(1) << at % 64;
		}
	memset(heap.bitmap, 0, heap.count / 8 + 8);
}

static void move_all(void)
{
	size_t i;

	for (i = 0; i < heap.count; i++) {
		heap.space[i] = heap.objects[i];
		heap.objects[i].references = (uintptr_t)&heap.space[i];
	}
	for (i = 0; i < heap.count; i++) {
		heap.space[i].to[0] = (struct object *)heap.space[i].to[0]->references;
		heap.space[i].to[1] = (struct object *)heap.space[i].to[1]->references;
	}
}

/* A young generation of its own, and the old one left alone. */
static void collect_young(void)
{
	size_t young = heap.count / 64 + 1, i;

	for (i = 0; i < young; i++) {
		heap.space[i] = (struct object){ .to = { heap.objects, heap.objects } };
		heap.space[i].header |= MARKED;
		sink = heap.space[i].to[0]->payload[0];
	}
	for (i = 0; i < young; i++)
		heap.space[i].header &= ~MARKED;
}

static const struct way {
	const char *key, *label, *text;
	void (*collect)(void);
} ways[] = {
	{ "reading", "reading all objects", NULL, read_all },
	{ "counting", "reference counts", "wholesale", count_all },
	{ "marking", "mark and sweep, bits in headers", "wholesale", mark_and_sweep },
	{ "bitmap", "mark and sweep, bits beside the heap", NULL, mark_beside },
	{ "moving", "a moving collector", "most pages diverge", move_all },
	{ "frozen", "frozen: only what is new", NULL, collect_young },
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

/* --- models --- */

static int step(void *context, int number)
{
	(void)context;
	ways[number].collect();
	return 0;
}

static void measure_model(struct bench *bench, int number)
{
	struct bench_worker child;
	struct bench_memory memory;
	uint64_t diverged = 0, shared = 0;
	int error = bench_worker_begin(&child, step, NULL);

	if (error) {
		bench_fail(bench, error, "cannot start a process");
		return;
	}
	if (bench_worker_step(&child, number) < 0)
		error = -EPIPE;
	if (!error)
		error = bench_diverged_pages(child.pid, getpid(), heap.objects, heap.bytes,
					     &diverged, &shared);
	if (!error)
		error = bench_memory(child.pid, &memory);
	bench_worker_end(&child);
	if (error) {
		bench_fail(bench, error, "cannot look at a child");
		return;
	}
	bench_add_value(bench,
			&(struct bench_row){
				.key = bench_text(bench, "model/%s", ways[number].key),
				.label = bench_text(bench, "un-shared by %s", ways[number].label),
				.unit = BENCH_PERCENT,
				.text = ways[number].text,
				.plot = "unshared" },
			100 * (double)diverged / (double)(diverged + shared));
}

/* --- the real CPython --- */

static const char python_program[] =
	"import gc, os, sys\n"
	"count = int(sys.argv[1]); way = sys.argv[2]\n"
	"gc.disable()\n"
	"heap = [[i, str(i)] for i in range(count)]\n"
	"if way == 'frozen': gc.freeze()\n"
	"def private():\n"
	"    with open('/proc/self/smaps_rollup') as file:\n"
	"        fields = dict(line.split(':') for line in file.readlines()[1:])\n"
	"    return sum(int(fields[name].split()[0]) for name in\n"
	"               ('Private_Clean', 'Private_Dirty')), int(fields['Anonymous'].split()[0])\n"
	"read, write = os.pipe()\n"
	"pid = os.fork()\n"
	"if pid == 0:\n"
	"    before, memory = private()\n"
	"    if way == 'counting':\n"
	"        for item in heap: item[1]\n"
	"    else:\n"
	"        gc.collect()\n"
	"    after, memory = private()\n"
	"    os.write(write, b'%d %d' % (after - before, memory))\n"
	"    os._exit(0)\n"
	"os.waitpid(pid, 0)\n"
	"print(os.read(read, 100).decode())\n";

static void measure_python(struct bench *bench, const char *way, const char *label,
			   const char *text)
{
	const char *count = bench_text(bench, "%d",
				       BENCH_BY_SCALE(bench, 20000, 200000, 500000, 1000000));
	const char *const argv[] = { "python3", "-c", python_program, count, way, NULL };
	const struct bench_row row = { .key = bench_text(bench, "python/%s", way),
				       .label = bench_text(bench, "un-shared by CPython: %s",
							   label),
				       .unit = BENCH_PERCENT,
				       .text = text,
				       .plot = "unshared" };
	unsigned long grown = 0, memory = 0;
	char *output = NULL;
	int status;

	if (!bench_find_program(bench, "python3")) {
		bench_add_skipped(bench, &row, "needs python3: apt install python3");
		return;
	}
	status = bench_run(bench, argv, &output);
	if (status != 0 || !output || sscanf(output, "%lu %lu", &grown, &memory) != 2 ||
	    memory == 0)
		bench_add_skipped(bench, &row, "python3 failed: %s", bench_run_error(bench));
	else
		bench_add_value(bench, &row, 100 * (double)grown / (double)memory);
	free(output);
}

static void run(struct bench *bench)
{
	size_t i;

	heap.bytes = bench_fit(bench, BENCH_BY_SCALE(bench, 2, 32, 64, 256) * MIB, 4);
	heap.count = heap.bytes / sizeof(*heap.objects);
	heap.objects = bench_map(bench, heap.bytes, false);
	heap.space = bench_map(bench, heap.bytes, false);
	heap.bitmap = bench_map(bench, heap.count / 8 + 4096, false);
	if (bench_over(bench))
		return;
	make_heap(bench->seed);
	bench_add_value(bench, &(struct bench_row){ "objects", "objects in the heap", BENCH_COUNT },
			(double)heap.count);
	for (i = 0; i < WAYS && !bench_over(bench); i++)
		measure_model(bench, (int)i);
	measure_python(bench, "counting", "reading a list", NULL);
	measure_python(bench, "collect", "one gc.collect()", "most of it");
	measure_python(bench, "frozen", "gc.collect() after gc.freeze()", NULL);
	bench_check(bench, bench_median(bench, "model/reading") < 1, "reading un-shares nothing");
	bench_check(bench, bench_median(bench, "model/moving") > 99,
		    "a moving collector un-shares all");
	bench_check(bench, bench_median(bench, "model/frozen") < 1, "a frozen heap stays shared");
}

static void judge_touching(struct bench *bench)
{
	double counting = bench_median(bench, "model/counting");
	double marking = bench_median(bench, "model/marking");
	double beside = bench_median(bench, "model/bitmap");

	bench_judge(bench, "runtimes that touch every object's header un-share pages wholesale",
		    counting > 50 && marking > 50 ? BENCH_HOLDS :
		    counting > 50 || marking > 50 ? BENCH_HOLDS_IN_PART :
						    BENCH_DOES_NOT_HOLD,
		    "%s by counting references, %s by marking in headers; marking beside the heap "
		    "%s",
		    bench_figure(bench, BENCH_PERCENT, counting),
		    bench_figure(bench, BENCH_PERCENT, marking),
		    bench_figure(bench, BENCH_PERCENT, beside));
}

static void judge_moving(struct bench *bench)
{
	double moving = bench_median(bench, "model/moving");

	bench_judge(bench, "a moving collector in a child makes most pages diverge",
		    moving > 50 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD, "%s of them",
		    bench_figure(bench, BENCH_PERCENT, moving));
}

static void judge_python(struct bench *bench)
{
	double collect = bench_median(bench, "python/collect");
	double frozen = bench_median(bench, "python/frozen");

	if (isnan(collect) || isnan(frozen))
		bench_judge(bench, "a CPython child loses most of its sharing in one collection",
			    BENCH_NOT_JUDGED, "no python3 to try it with");
	else
		bench_judge(
			bench, "a CPython child loses most of its sharing in one collection",
			collect > 50 ? BENCH_HOLDS :
			collect > 25 ? BENCH_HOLDS_IN_PART :
				       BENCH_DOES_NOT_HOLD,
			"%s of its anonymous memory by gc.collect(), %s after gc.freeze(); %s by "
			"reading a list",
			bench_figure(bench, BENCH_PERCENT, collect),
			bench_figure(bench, BENCH_PERCENT, frozen),
			bench_figure(bench, BENCH_PERCENT, bench_median(bench, "python/counting")));
}

static void judge(struct bench *bench)
{
	judge_touching(bench);
	judge_moving(bench);
	judge_python(bench);
}

static const struct bench_plot plots[] = {
	{ "unshared", "What a child un-shares by looking after its heap", NULL, "%" },
	{ 0 },
};

const struct bench_experiment experiment_gc = {
	.name = "gc",
	.title = "What garbage collection un-shares after a fork",
	.source = BENCH_SOURCE_ATLAS,
	.claim = "Runtimes that touch every object header (reference counts, mark bits) de-share "
		 "pages wholesale after a fork: CPython forks lose most sharing within one GC "
		 "cycle. A moving GC that updates pointers in a forked process causes most pages "
		 "to diverge.",
	.method =
		"A heap of small objects with random references; after a fork the child reads it, "
		"counts references, marks in headers, marks in a bitmap, moves, or leaves what is "
		"old frozen; then its page tables are compared with the parent's. Beside the "
		"models the real CPython, with and without gc.freeze().",
	.plots = plots,
	.seconds = 15,
	.run = run,
	.judge = judge,
};
