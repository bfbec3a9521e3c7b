/* SPDX-License-Identifier: MIT */
/*
 * qcow2: copy-on-write in disk images. An internal snapshot, an overlay, and libcow's layers, which
 * are qcow2 images, too: what making one costs by size of image, what scattered writes cost after
 * it, and how many bytes these take.
 */
#include <cow.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/bench/bench.h"
#include "cli/bench/disk.h"

#define MIB  ((uint64_t)1 << 20)
#define PAGE ((uint64_t)4096)

#define SIZES      2
#define WRITES_MAX 1000

struct image {
	const char *raw, *path; /* the content, and the same as qcow2 */
	uint64_t bytes;
};

struct plan {
	struct image images[SIZES];
	uint64_t writes;
	struct image *large; /* that is written to */
};

static void run_or_fail(struct bench *bench, const char *const argv[])
{
	int status = bench_over(bench) ? 0 : bench_run(bench, argv, NULL);

	if (status)
		bench_fail(bench, 0, "%s: %s", argv[0], bench_run_error(bench));
}

static void make_image(struct bench *bench, struct image *image, const char *name, uint64_t bytes)
{
	*image = (struct image){ .raw = bench_text(bench, "%s/%s.raw", bench->directory, name),
				 .path = bench_text(bench, "%s/%s.qcow2", bench->directory, name),
				 .bytes = bytes };
	const char *argv[] = { "qemu-img", "convert",  "-f",        "raw", "-O",
			       "qcow2",    image->raw, image->path, NULL };
	int error = disk_fill_file(image->raw, bytes, bench->seed);

	if (error)
		bench_fail(bench, error, "cannot write %s", image->raw);
	run_or_fail(bench, argv);
}

static uint64_t allocated(const char *path)
{
	struct stat status;

	return stat(path, &status) == 0 ? (uint64_t)status.st_blocks * 512 : 0;
}

/* --- making one --- */

/* What every figure of a program contains: starting it, and opening the image. */
static double measure_nothing(struct bench *bench, const struct bench_subject *subject)
{
	const struct image *image = subject->context;
	const char *argv[] = { "qemu-io", "-f", "qcow2", "-c", "flush", image->path, NULL };
	uint64_t start = bench_now();

	run_or_fail(bench, argv);
	return (double)bench_lap(start);
}

static double measure_internal(struct bench *bench, const struct bench_subject *subject)
{
	const struct image *image = subject->context;
	const char *make[] = { "qemu-img", "snapshot", "-c", "s", image->path, NULL };
	const char *drop[] = { "qemu-img", "snapshot", "-d", "s", image->path, NULL };
	uint64_t start = bench_now(), ns;

	run_or_fail(bench, make);
	ns = bench_lap(start);
	run_or_fail(bench, drop);
	return (double)ns;
}

static double measure_overlay(struct bench *bench, const struct bench_subject *subject)
{
	const struct image *image = subject->context;
	const char *path = bench_text(bench, "%s/overlay.qcow2", bench->directory);
	const char *argv[] = { "qemu-img", "create", "-q",        "-f", "qcow2", "-F",
			       "qcow2",    "-b",     image->path, path, NULL };
	uint64_t start = bench_now(), ns;

	run_or_fail(bench, argv);
	ns = bench_lap(start);
	unlink(path);
	return (double)ns;
}

static double measure_convert(struct bench *bench, const struct bench_subject *subject)
{
	const struct image *image = subject->context;
	const char *path = bench_text(bench, "%s/copy.qcow2", bench->directory);
	const char *argv[] = { "qemu-img", "convert",   "-f", "qcow2", "-O",
			       "qcow2",    image->path, path, NULL };
	uint64_t start = bench_now(), ns;

	run_or_fail(bench, argv);
	ns = bench_lap(start);
	unlink(path);
	return (double)ns;
}

static void run_making(struct bench *bench, const struct plan *plan)
{
	static const struct {
		const char *key, *label;
		double (*measure)(struct bench *bench, const struct bench_subject *subject);
	} kinds[] = { { "nothing", "starting qemu-io and opening", measure_nothing },
		      { "internal", "internal snapshot", measure_internal },
		      { "overlay", "overlay", measure_overlay },
		      { "copy", "full copy (convert)", measure_convert } };
	struct bench_subject subjects[4 * SIZES];
	size_t count = 0, kind, size;

	for (kind = 0; kind < 4; kind++)
		for (size = 0; size < SIZES; size++)
			subjects[count++] = (struct bench_subject){
				.row = { bench_text(bench, "%s/%zu", kinds[kind].key, size),
					 bench_text(bench, "%s, an image of %s", kinds[kind].label,
						    bench_figure(bench, BENCH_BYTES,
								 (double)plan->images[size].bytes)),
					 BENCH_NS, NULL, "make", kinds[kind].label,
					 (double)plan->images[size].bytes },
				.measure = kinds[kind].measure,
				.context = &plan->images[size],
			};
	bench_take_turns(bench, subjects, count);
}

/* --- writing after it --- */

static uint64_t page_of(const struct plan *plan, uint64_t number)
{
	return number * 2654435761u % (plan->large->bytes / PAGE);
}

/* All writes in one process, and one flush at the end: ns. */
static double write_image(struct bench *bench, const struct plan *plan, const char *path)
{
	const char **argv = malloc((2 * WRITES_MAX + 10) * sizeof(char *));
	char *commands = malloc(48 * WRITES_MAX);
	size_t at = 0, i;
	uint64_t start, ns;

	if (!argv || !commands) {
		free(argv);
		free(commands);
		bench_fail(bench, -ENOMEM, "cannot write to an image");
		return NAN;
	}
	argv[at++] = "qemu-io";
	argv[at++] = "-f";
	argv[at++] = "qcow2";
	/* Else each write would be flushed. */
	argv[at++] = "-t";
	argv[at++] = "writeback";
	for (i = 0; i < plan->writes; i++) {
		snprintf(commands + 48 * i, 48, "write -q -P 90 %" PRIu64 " 4096",
			 page_of(plan, i) * PAGE);
		argv[at++] = "-c";
		argv[at++] = commands + 48 * i;
	}
	argv[at++] = "-c";
	argv[at++] = "flush";
	argv[at++] = path;
	argv[at] = NULL;
	start = bench_now();
	run_or_fail(bench, argv);
	ns = bench_lap(start);
	free(argv);
	free(commands);
	return (double)ns;
}

enum kind { PLAIN, INTERNAL, OVERLAY, SMALL_CLUSTERS, KINDS };

static const struct {
	const char *key, *label;
} written[KINDS] = { { "plain", "to an image without a snapshot" },
		     { "internal", "after an internal snapshot" },
		     { "overlay", "to an overlay" },
		     { "overlay-4k", "to an overlay with clusters of 4 KiB" } };

/* A fresh copy of the image, or an overlay over it; removed afterwards. */
static const char *prepare(struct bench *bench, const struct plan *plan, enum kind kind)
{
	const char *path = bench_text(bench, "%s/written.qcow2", bench->directory);
	const char *clusters = kind == SMALL_CLUSTERS ? "cluster_size=4k" : "cluster_size=64k";
	const char *overlay[] = { "qemu-img", "create", "-q",     "-f", "qcow2",           "-F",
				  "qcow2",    "-o",     clusters, "-b", plan->large->path, path,
				  NULL };
	const char *snapshot[] = { "qemu-img", "snapshot", "-c", "s", path, NULL };
	int error;

	if (kind == OVERLAY || kind == SMALL_CLUSTERS) {
		run_or_fail(bench, overlay);
		return path;
	}
	error = disk_copy_file(plan->large->path, path);
	if (error)
		bench_fail(bench, error, "cannot copy an image");
	if (kind == INTERNAL)
		run_or_fail(bench, snapshot);
	return path;
}

struct figures {
	struct bench_samples ns, growth;
};

static void measure_kind(struct bench *bench, const struct plan *plan, enum kind kind,
			 struct figures *figures, bool counts)
{
	const char *path = prepare(bench, plan, kind);
	uint64_t before = allocated(path);
	double ns = write_image(bench, plan, path);

	if (counts && !bench_over(bench)) {
		bench_samples_add(&figures->ns, ns);
		bench_samples_add(&figures->growth, ((double)allocated(path) - (double)before) /
							    (double)(plan->writes * PAGE));
	}
	unlink(path);
}

/* --- libcow's layers --- */

struct layers {
	const struct plan *plan;
	struct cow_store *store;
	struct cow_region *region;
	const char *directory;
	char *memory;
	uint64_t round;
};

/* A region with the image's content, saved once: the layer that later ones stand on. */
static int open_layers(struct bench *bench, const struct plan *plan, struct layers *layers)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_snapshot *snapshot = NULL;
	int error;

	*layers = (struct layers){ .plan = plan,
				   .directory = bench_text(bench, "%s/layers", bench->directory) };
	options.trap = COW_TRAP_EXPLICIT;
	error = cow_store_open(layers->directory, COW_STORE_CREATE, &layers->store);
	if (!error)
		error = cow_region_new(plan->large->bytes, &options, &layers->region);
	if (error)
		return error;
	layers->memory = cow_region_get_base(layers->region);
	error = cow_region_touch(layers->region, layers->memory, plan->large->bytes);
	if (error)
		return error;
	bench_fill(layers->memory, plan->large->bytes, bench->seed);
	error = cow_region_snapshot(layers->region, &snapshot);
	if (!error)
		error = cow_store_save(layers->store, snapshot, NULL, NULL);
	cow_snapshot_unref(snapshot);
	return error;
}

static void close_layers(struct layers *layers)
{
	cow_region_free(layers->region);
	cow_store_close(layers->store);
	disk_remove_tree(layers->directory);
}

/* The same pages are written, and saved as a layer of their own. */
static int save_layer(struct layers *layers, double *ret_ns, double *ret_growth,
		      char id[COW_ID_LENGTH])
{
	struct cow_layer_info info = COW_LAYER_INFO_INIT;
	struct cow_snapshot *snapshot = NULL;
	const uint64_t writes = layers->plan->writes;
	uint64_t start = bench_now(), i;
	char page[PAGE];
	int error = 0;

	memset(page, (int)++layers->round, sizeof(page));
	for (i = 0; i < writes && !error; i++)
		error = cow_region_write(layers->region, page_of(layers->plan, i) * PAGE, page,
					 PAGE);
	if (!error)
		error = cow_region_snapshot(layers->region, &snapshot);
	if (!error)
		error = cow_store_save(layers->store, snapshot, NULL, id);
	*ret_ns = (double)bench_lap(start);
	cow_snapshot_unref(snapshot);
	if (!error)
		error = cow_store_get_info(layers->store, id, &info);
	*ret_growth = (double)info.file_bytes / (double)(writes * PAGE);
	return error;
}

static void measure_layer(struct bench *bench, struct layers *layers, struct figures *figures,
			  bool counts)
{
	char id[COW_ID_LENGTH];
	double ns, growth;
	int error = save_layer(layers, &ns, &growth, id);

	if (error) {
		bench_fail(bench, error, "cannot save a layer");
	} else if (counts) {
		bench_samples_add(&figures->ns, ns);
		bench_samples_add(&figures->growth, growth);
	}
}

/* Another program reads the newest layer, with all below it, as what is in memory. */
static bool is_read_by_qemu(struct bench *bench, struct layers *layers)
{
	const char *raw = bench_text(bench, "%s/out.raw", bench->directory), *path;
	struct cow_layer_info info = COW_LAYER_INFO_INIT;
	void *mapped = MAP_FAILED;
	bool same = false;
	int fd;

	if (cow_store_get_info(layers->store, NULL, &info) < 0)
		return false;
	path = bench_text(bench, "%s/%s.qcow2", layers->directory, info.id);
	const char *check[] = { "qemu-img", "check", "-q", path, NULL };
	const char *convert[] = { "qemu-img", "convert", "-O", "raw", path, raw, NULL };

	run_or_fail(bench, check);
	run_or_fail(bench, convert);
	fd = open(raw, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		mapped = mmap(NULL, layers->plan->large->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	if (mapped != MAP_FAILED) {
		same = memcmp(mapped, layers->memory, layers->plan->large->bytes) == 0;
		munmap(mapped, layers->plan->large->bytes);
	}
	if (fd >= 0)
		close(fd);
	unlink(raw);
	return same;
}

/* --- all of them, in turns --- */

static void add_figures(struct bench *bench, const char *key, const char *label,
			const struct plan *plan, const struct figures *figures)
{
	bench_add(bench,
		  &(struct bench_row){
			  bench_text(bench, "write/%s", key),
			  bench_text(bench, "%" PRIu64 " pages of 4 KiB, %s", plan->writes, label),
			  BENCH_NS, NULL, "write", "writes" },
		  &figures->ns);
	bench_add(bench,
		  &(struct bench_row){
			  bench_text(bench, "growth/%s", key),
			  bench_text(bench, "bytes the file grew by, of those written, %s", label),
			  BENCH_RATIO, NULL, "growth", "growth" },
		  &figures->growth);
}

static void run_writing(struct bench *bench, const struct plan *plan, struct layers *layers)
{
	const unsigned int turns = bench->warm_ups + bench->runs;
	struct figures figures[KINDS + 1] = { 0 };
	unsigned int turn, kind;

	for (turn = 0; turn < turns && !bench_over(bench); turn++) {
		bench_progress(bench, turn, turns);
		for (kind = 0; kind < KINDS; kind++)
			measure_kind(bench, plan, (enum kind)(turn % 2 ? KINDS - 1 - kind : kind),
				     &figures[turn % 2 ? KINDS - 1 - kind : kind],
				     turn >= bench->warm_ups);
		measure_layer(bench, layers, &figures[KINDS], turn >= bench->warm_ups);
	}
	bench_progress(bench, turns, turns);
	for (kind = 0; kind < KINDS && !bench_over(bench); kind++)
		add_figures(bench, written[kind].key, written[kind].label, plan, &figures[kind]);
	if (!bench_over(bench))
		add_figures(bench, "libcow", "in memory, and saved as a layer of libcow", plan,
			    &figures[KINDS]);
	for (kind = 0; kind <= KINDS; kind++) {
		bench_samples_free(&figures[kind].ns);
		bench_samples_free(&figures[kind].growth);
	}
}

static void run(struct bench *bench)
{
	const uint64_t bytes = bench_fit(bench, BENCH_BY_SCALE(bench, 8, 64, 128, 512) * MIB, 3);
	struct plan plan = { .writes = BENCH_BY_SCALE(bench, 50, 500, 1000, 1000) };
	struct layers layers;
	int error;

	make_image(bench, &plan.images[0], "small", bytes / 8);
	make_image(bench, &plan.images[1], "large", bytes);
	plan.large = &plan.images[1];
	run_making(bench, &plan);
	if (bench_over(bench))
		return;
	error = open_layers(bench, &plan, &layers);
	if (error) {
		bench_fail(bench, error, "cannot make a store");
		return;
	}
	run_writing(bench, &plan, &layers);
	bench_check(bench, !bench_over(bench) && is_read_by_qemu(bench, &layers),
		    "qemu-img finds no fault in a layer, and reads from it what was saved");
	bench_check(bench, bench_median(bench, "growth/internal") >= 1,
		    "after an internal snapshot what is written goes to new clusters");
	bench_check(bench, bench_median(bench, "growth/plain") < 0.5,
		    "without one it is written in place");
	close_layers(&layers);
}

/* --- judging --- */

/* Without the start of the program. */
static double net(const struct bench *bench, const char *key, const char *nothing)
{
	double ns = bench_median(bench, key) - bench_median(bench, nothing);

	return ns > 0 ? ns : 0;
}

static void judge_making(struct bench *bench)
{
	double small = net(bench, "internal/0", "nothing/0");
	double large = net(bench, "internal/1", "nothing/1");
	double copy = net(bench, "copy/1", "nothing/1");

	bench_judge(
		bench, "an internal snapshot is cheap: no data is copied",
		large < 0.2 * copy ? BENCH_HOLDS :
		large < copy       ? BENCH_HOLDS_IN_PART :
				     BENCH_DOES_NOT_HOLD,
		"%s more than opening the image, %s for one of an eighth; a full copy takes %s. "
		"It counts a reference to each cluster",
		bench_figure(bench, BENCH_NS, large), bench_figure(bench, BENCH_NS, small),
		bench_figure(bench, BENCH_NS, copy));
}

static void judge_writing(struct bench *bench)
{
	bool dearer = bench_is_above(bench, "write/internal", "write/plain");

	bench_judge(
		bench, "writes after a snapshot are dearer",
		dearer ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		"%s after an internal snapshot, %s to an overlay, %s without; the file grows by "
		"%.1f, %.1f and %.1f times what is written: a whole cluster is copied for a page",
		bench_figure(bench, BENCH_NS, bench_median(bench, "write/internal")),
		bench_figure(bench, BENCH_NS, bench_median(bench, "write/overlay")),
		bench_figure(bench, BENCH_NS, bench_median(bench, "write/plain")),
		bench_median(bench, "growth/internal"), bench_median(bench, "growth/overlay"),
		bench_median(bench, "growth/plain"));
}

static void judge_layers(struct bench *bench)
{
	double growth = bench_median(bench, "growth/libcow");
	double overlay = bench_median(bench, "growth/overlay");
	double small = bench_median(bench, "growth/overlay-4k");

	bench_judge(
		bench, "libcow's layers hold little beyond the pages written",
		growth < 1.5     ? BENCH_HOLDS :
		growth < overlay ? BENCH_HOLDS_IN_PART :
				   BENCH_DOES_NOT_HOLD,
		"%.2f times what is written, an overlay %.2f, one with clusters of 4 KiB %.2f; %s, "
		"the overlays %s and %s",
		growth, overlay, small,
		bench_figure(bench, BENCH_NS, bench_median(bench, "write/libcow")),
		bench_figure(bench, BENCH_NS, bench_median(bench, "write/overlay")),
		bench_figure(bench, BENCH_NS, bench_median(bench, "write/overlay-4k")));
}

static void judge(struct bench *bench)
{
	judge_making(bench);
	judge_writing(bench);
	judge_layers(bench);
}

static const struct bench_plot plots[] = {
	{ "make", "Making a snapshot of an image", "size of the image", "ns", true, true, true },
	{ "write", "Scattered writes afterwards", NULL, "ns", false, true },
	{ "growth", "What the file grows by, of what is written", NULL, "times" },
	{ 0 },
};

static const struct bench_program programs[] = {
	{ "qemu-img", "qemu-utils" },
	{ "qemu-io", "qemu-utils" },
	{ 0 },
};

const struct bench_experiment experiment_qcow2 = {
	.name = "qcow2",
	.title = "Copy-on-write in disk images: snapshots, overlays, libcow's layers",
	.source = BENCH_SOURCE_ATLAS "; libcow's own documents",
	.claim = "QEMU/KVM snapshots use copy-on-write on disk images (qcow2): cheap to take, and "
		 "the writes after them pay. libcow's layers are qcow2 images that hold little "
		 "beyond the pages that were written.",
	.method =
		"qemu-img and qemu-io on images full of data: an internal snapshot, an overlay, a "
		"full copy, by size of image, beside merely opening it; then pages of 4 KiB at "
		"scattered places and one flush, to an image without a snapshot, after an internal "
		"one, to an overlay: time, and what the file grew by. libcow: the same pages "
		"written to a region with the same content, and saved as a layer with its "
		"fdatasync calls. The newest layer is read with qemu-img and compared with memory.",
	.programs = programs,
	.plots = plots,
	.seconds = 60,
	.run = run,
	.judge = judge,
};
