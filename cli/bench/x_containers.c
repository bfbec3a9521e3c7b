/* SPDX-License-Identifier: MIT */
/*
 * containers: N containers over one image, and what it costs to write to a file of the image.
 *
 * A container is here what concerns memory and files: an overlay mount with an upper layer of its
 * own over one lower layer, and a process that maps a file of the image privately, reads all of it,
 * and has memory of its own. Namespaces and limits would change neither.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/bench/bench.h"
#include "cli/bench/disk.h"
#include "cli/file/file.h"

#define MIB      ((uint64_t)1 << 20)
#define PODS_MAX 100

/* --- memory --- */

struct pod {
	struct bench *bench;
	const char *file;
	uint64_t image, own; /* bytes */
	struct bench_worker worker;
};

static volatile char sink;

/* In the container's process. */
static int start_pod(void *context, int number)
{
	const struct pod *pod = context;
	int fd = open(pod->file, O_RDONLY | O_CLOEXEC);
	char *image, *own;
	uint64_t at;

	if (fd < 0)
		return -errno;
	image = mmap(NULL, pod->image, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	own = bench_map(pod->bench, pod->own, false);
	if (image == MAP_FAILED || !own)
		return -ENOMEM;
	for (at = 0; at < pod->image; at += 4096)
		sink = image[at];
	bench_fill(own, pod->own, (uint64_t)getpid());
	return 0;
}

struct fleet {
	const char *key; /* "image" or "copies" */
	const char *words;
	unsigned int pods;
	uint64_t image, own;
};

static const char *fleet_key(struct bench *bench, const struct fleet *fleet, const char *what)
{
	return bench_text(bench, "%s/%u/%s", fleet->key, fleet->pods, what);
}

static const char *text_rss(unsigned int pods)
{
	return pods == 1 ? "120 MiB" : pods == 10 ? "115 MiB" : pods == 100 ? "112 MiB" : NULL;
}

static const char *text_shared(unsigned int pods)
{
	return pods == 1 ? "0 MiB" : pods == 10 ? "95 MiB" : pods == 100 ? "910 MiB" : NULL;
}

static double sum(const struct bench_samples *samples)
{
	double total = 0;
	size_t i;

	for (i = 0; i < samples->count; i++)
		total += samples->values[i];
	return total;
}

static void add_memory(struct bench *bench, const struct fleet *fleet,
		       const struct bench_samples *rss, const struct bench_samples *pss,
		       const struct bench_samples *uss)
{
	const char *series = fleet->words;
	const char *label = bench_text(bench, "%u container%s, %s", fleet->pods,
				       fleet->pods == 1 ? "" : "s", fleet->words);
	bool shares = strcmp(fleet->key, "image") == 0;

	bench_add(bench,
		  &(struct bench_row){ fleet_key(bench, fleet, "rss"),
				       bench_text(bench, "RSS of each of %s", label), BENCH_BYTES,
				       shares ? text_rss(fleet->pods) : NULL },
		  rss);
	bench_add(bench,
		  &(struct bench_row){ fleet_key(bench, fleet, "pss"),
				       bench_text(bench, "PSS of each of %s", label), BENCH_BYTES,
				       NULL, "memory", series, fleet->pods },
		  pss);
	bench_add(bench,
		  &(struct bench_row){ fleet_key(bench, fleet, "uss"),
				       bench_text(bench, "USS of each of %s", label), BENCH_BYTES },
		  uss);
	bench_add_value(bench,
			&(struct bench_row){ fleet_key(bench, fleet, "saved"),
					     bench_text(bench, "saved by sharing: %s", label),
					     BENCH_BYTES,
					     shares ? text_shared(fleet->pods) : NULL },
			sum(rss) - sum(pss));
}

static void measure_pods(struct bench *bench, const struct fleet *fleet, const struct pod *pods)
{
	struct bench_samples rss = { 0 }, pss = { 0 }, uss = { 0 };
	struct bench_memory memory;
	unsigned int i;
	int error;

	for (i = 0; i < fleet->pods && !bench_over(bench); i++) {
		error = bench_memory(pods[i].worker.pid, &memory);
		if (error)
			bench_fail(bench, error, "cannot read a container's memory");
		bench_samples_add(&rss, (double)memory.rss);
		bench_samples_add(&pss, (double)memory.pss);
		bench_samples_add(&uss, (double)memory.uss);
	}
	if (!bench_over(bench))
		add_memory(bench, fleet, &rss, &pss, &uss);
	bench_samples_free(&rss);
	bench_samples_free(&pss);
	bench_samples_free(&uss);
}

/* Its own copy of the image's file: written to once, so that it is in the upper layer. */
static void copy_up(struct bench *bench, const char *file)
{
	int fd = open(file, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		bench_fail(bench, -errno, "cannot write to a file of the image");
	else
		close(fd);
}

static const char *pod_base(struct bench *bench, const struct disk *disk, unsigned int number)
{
	return bench_text(bench, "%s/pod%u", disk->mount, number);
}

static void run_fleet(struct bench *bench, const struct disk *disk, const struct fleet *fleet)
{
	const char *lower = bench_text(bench, "%s/lower", disk->mount), *merged;
	struct pod pods[PODS_MAX] = { 0 };
	unsigned int i;

	for (i = 0; i < fleet->pods && !bench_over(bench); i++) {
		merged = disk_overlay(bench, lower, pod_base(bench, disk, i));
		if (!merged)
			break;
		pods[i] = (struct pod){ bench, bench_text(bench, "%s/app", merged), fleet->image,
					fleet->own };
		if (strcmp(fleet->key, "copies") == 0)
			copy_up(bench, pods[i].file);
		if (bench_worker_begin(&pods[i].worker, start_pod, &pods[i]) < 0 ||
		    bench_worker_step(&pods[i].worker, 0) < 0)
			bench_fail(bench, 0, "cannot start container %u", i);
		bench_progress(bench, i + 1, fleet->pods);
	}
	measure_pods(bench, fleet, pods);
	for (i = 0; i < fleet->pods; i++) {
		bench_worker_end(&pods[i].worker);
		disk_overlay_end(bench, pod_base(bench, disk, i));
	}
}

static void run_memory(struct bench *bench)
{
	const unsigned int counts[] = { 1, BENCH_BY_SCALE(bench, 2u, 10u, 10u, 10u),
					BENCH_BY_SCALE(bench, 4u, 100u, 100u, 100u) };
	/* Of the text's 120 MiB most is the image; a hundred of them need 100 times the rest. */
	const uint64_t image = BENCH_BY_SCALE(bench, 2, 20, 64, 95) * MIB;
	struct fleet fleet = { .image = image };
	struct disk disk;
	const char *reason = disk_make(bench, "ext4", "pods", 13 * image + 256 * MIB, &disk);
	const char *lower;
	size_t i;
	int error;

	if (reason) {
		bench_skip(bench, "%s", reason);
		return;
	}
	fleet.own = bench_fit(bench, BENCH_BY_SCALE(bench, 1, 4, 12, 17) * MIB, counts[2] + 12);
	lower = bench_text(bench, "%s/lower", disk.mount);
	if (mkdir(lower, 0755) < 0)
		bench_fail(bench, -errno, "cannot make %s", lower);
	error = disk_fill_file(bench_text(bench, "%s/app", lower), image, bench->seed);
	if (error)
		bench_fail(bench, error, "cannot write the image");
	bench_add_value(bench, &(struct bench_row){ "image", "the file of the image", BENCH_BYTES },
			(double)image);
	bench_add_value(bench,
			&(struct bench_row){ "own", "a container's own memory", BENCH_BYTES },
			(double)fleet.own);
	if (image + fleet.own < 112 * MIB)
		bench_note(bench, "a container is %s here, not the text's 112 to 120 MiB",
			   bench_figure(bench, BENCH_BYTES, (double)(image + fleet.own)));
	fleet.key = "image";
	fleet.words = "one image";
	for (i = 0; i < 3 && !bench_over(bench); i++) {
		fleet.pods = counts[i];
		run_fleet(bench, &disk, &fleet);
	}
	fleet.key = "copies";
	fleet.words = "a copy each";
	fleet.pods = counts[1];
	run_fleet(bench, &disk, &fleet);
	bench_check(bench,
		    bench_max(bench, bench_text(bench, "image/%u/uss", counts[2])) <
			    (double)fleet.own + 0.2 * (double)image + (double)MIB,
		    "of the image's pages a container has none for itself");
	bench_check(bench,
		    bench_min(bench, bench_text(bench, "copies/%u/pss", counts[1])) >
			    0.95 * (double)(image + fleet.own),
		    "containers with copies of the file share none of its pages");
	bench_add_value(bench, &(struct bench_row){ "pods", "the most containers", BENCH_COUNT },
			counts[2]);
	bench_add_value(bench, &(struct bench_row){ "pods/some", "some containers", BENCH_COUNT },
			counts[1]);
	disk_unmake(&disk);
}

/* --- copy-up --- */

struct copied {
	const struct disk *disk;
	const char *name;
};

/* The open that copies up, in a mount of its own: ns. */
static double measure_copy_up(struct bench *bench, const struct bench_subject *subject)
{
	const struct copied *copied = subject->context;
	const char *base = bench_text(bench, "%s/up", copied->disk->mount);
	const char *merged = disk_overlay(bench, bench_text(bench, "%s/lower", copied->disk->mount),
					  base);
	uint64_t start, ns;
	int fd;

	if (!merged)
		return NAN;
	start = bench_now();
	fd = open(bench_text(bench, "%s/%s", merged, copied->name), O_WRONLY | O_CLOEXEC);
	ns = bench_lap(start);
	if (fd < 0)
		bench_fail(bench, -errno, "cannot copy up");
	else
		close(fd);
	disk_overlay_end(bench, base);
	return (double)ns;
}

/* One byte is written to a file of the image: what does the upper layer then have for itself? */
static void measure_upper(struct bench *bench, const struct disk *disk, const char *name,
			  uint64_t bytes)
{
	const char *base = bench_text(bench, "%s/byte", disk->mount), *file, *merged;
	const struct file_options options = { 0 };
	struct file_result result = { 0 };
	int fd;

	merged = disk_overlay(bench, bench_text(bench, "%s/lower", disk->mount), base);
	if (!merged)
		return;
	file = bench_text(bench, "%s/%s", merged, name);
	fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || pwrite(fd, "x", 1, 0) != 1 || fsync(fd) < 0)
		bench_fail(bench, -errno, "cannot write to %s", file);
	if (fd >= 0)
		close(fd);
	file_add(&options, file, &result);
	file_finish(&result);
	bench_check(bench, result.count == 1 && result.totals.sums.overlay.copied_up_files == 1,
		    "%s: the file is in the upper layer", disk->type);
	bench_add_value(bench,
			&(struct bench_row){
				bench_text(bench, "upper/%s", disk->type),
				bench_text(bench, "space taken by one byte written to %s, on %s",
					   bench_figure(bench, BENCH_BYTES, (double)bytes),
					   disk->type),
				BENCH_BYTES, "one page" },
			(double)result.totals.sums.exclusive);
	file_result_free(&result);
	disk_overlay_end(bench, base);
}

#define SIZES 4
#define TYPES 3

struct copy_ups {
	struct disk disks[TYPES];
	struct copied copied[TYPES * SIZES];
	struct bench_subject subjects[TYPES * SIZES];
	size_t count;
};

static void prepare_type(struct bench *bench, struct copy_ups *ups, size_t type,
			 const char *type_name, const uint64_t sizes[SIZES], size_t used)
{
	const uint64_t largest = used ? sizes[used - 1] : 0;
	struct disk *disk = &ups->disks[type];
	const char *reason =
		disk_make(bench, type_name, bench_text(bench, "%s-up", type_name),
			  3 * largest + (strcmp(type_name, "ext4") == 0 ? 128 : 512) * MIB, disk);
	const char *name, *lower;
	size_t i;

	if (reason) {
		bench_add_skipped(bench,
				  &(struct bench_row){
					  bench_text(bench, "copy-up/%s", type_name),
					  bench_text(bench, "copy-up on %s", type_name), BENCH_NS },
				  "%s", reason);
		return;
	}
	lower = bench_text(bench, "%s/lower", disk->mount);
	mkdir(lower, 0755);
	for (i = 0; i < used; i++) {
		name = bench_text(bench, "file%zu", i);
		if (disk_fill_file(bench_text(bench, "%s/%s", lower, name), sizes[i], i) < 0)
			bench_fail(bench, -errno, "cannot write to %s", lower);
		ups->copied[ups->count] = (struct copied){ disk, name };
		ups->subjects[ups->count] = (struct bench_subject){
			.row = {
				.key = bench_text(bench, "copy-up/%s/%zu", type_name, i),
				.label = bench_text(bench, "copy-up of %s on %s",
						    bench_figure(bench, BENCH_BYTES,
								 (double)sizes[i]),
						    type_name),
				.unit = BENCH_NS,
				.plot = "copy-up",
				.series = type_name,
				.x = (double)sizes[i],
			},
			.measure = measure_copy_up,
			.context = &ups->copied[ups->count],
		};
		ups->count++;
	}
	measure_upper(bench, disk, bench_text(bench, "file%zu", used - 1), largest);
}

static void run_copy_up(struct bench *bench)
{
	static const char *const types[TYPES] = { "ext4", "xfs", "btrfs" };
	const uint64_t sizes[SIZES] = { 64 << 10, MIB, 16 * MIB, 100 * MIB };
	const size_t used = bench->scale == BENCH_TINY  ? 2 :
			    bench->scale == BENCH_QUICK ? 3 :
							  SIZES;
	struct copy_ups ups = { 0 };
	size_t i;

	for (i = 0; i < TYPES && !bench_over(bench); i++)
		prepare_type(bench, &ups, i, types[i], sizes, used);
	bench_add_value(bench,
			&(struct bench_row){ "file", "the largest file copied up", BENCH_BYTES },
			(double)sizes[used - 1]);
	if (ups.count)
		bench_take_turns(bench, ups.subjects, ups.count);
	for (i = 0; i < TYPES; i++)
		if (ups.disks[i].mount)
			disk_unmake(&ups.disks[i]);
}

static void run(struct bench *bench)
{
	run_memory(bench);
	if (!bench_over(bench))
		run_copy_up(bench);
}

/* --- judging --- */

static void judge_sharing(struct bench *bench)
{
	const char *most = bench_text(bench, "%.0f", bench_median(bench, "pods"));
	double rss = bench_median(bench, bench_text(bench, "image/%s/rss", most));
	double pss = bench_median(bench, bench_text(bench, "image/%s/pss", most));
	double uss = bench_median(bench, bench_text(bench, "image/%s/uss", most));
	double own = bench_median(bench, "own");
	double image = bench_median(bench, "image");

	bench_judge(bench, "containers share the pages of their image",
		    uss < own + 0.2 * image + (double)MIB ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "each of %s has an RSS of %s, of which %s are its own and %s its part of all "
		    "(PSS); what is shared is the page cache of the lower file, read-only: nothing "
		    "is copied on a write here",
		    most, bench_figure(bench, BENCH_BYTES, rss),
		    bench_figure(bench, BENCH_BYTES, uss), bench_figure(bench, BENCH_BYTES, pss));
}

static void judge_table(struct bench *bench)
{
	const char *some = bench_text(bench, "%.0f", bench_median(bench, "pods/some"));
	const char *most = bench_text(bench, "%.0f", bench_median(bench, "pods"));
	double one = bench_median(bench, "image/1/rss");
	double many = bench_median(bench, bench_text(bench, "image/%s/rss", most));
	double few = bench_median(bench, bench_text(bench, "image/%s/saved", some));
	double all = bench_median(bench, bench_text(bench, "image/%s/saved", most));
	double wanted = bench_median(bench, "pods") / bench_median(bench, "pods/some") / 2;

	bench_judge(bench, "a pod's RSS falls as pods are added (120, 115, 112 MiB)",
		    many < 0.97 * one ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "%s alone, %s as one of %s: RSS counts shared pages in full; it is PSS that "
		    "falls",
		    bench_figure(bench, BENCH_BYTES, one), bench_figure(bench, BENCH_BYTES, many),
		    most);
	bench_judge(bench, "what is shared grows with the pods (95 MiB at 10, 910 MiB at 100)",
		    all > wanted * few ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "saved by sharing: %s with %s pods, %s with %s",
		    bench_figure(bench, BENCH_BYTES, few), some,
		    bench_figure(bench, BENCH_BYTES, all), most);
}

static void judge_copy_up(struct bench *bench)
{
	double file = bench_median(bench, "file");
	double ext4 = bench_median(bench, "upper/ext4");
	double xfs = bench_median(bench, "upper/xfs"), btrfs = bench_median(bench, "upper/btrfs");
	bool clones = xfs < 0.1 * file || btrfs < 0.1 * file;

	if (isnan(ext4)) {
		bench_judge(bench, "copy-up allocates a page and copies it", BENCH_NOT_JUDGED,
			    "there was no ext4");
		return;
	}
	bench_judge(bench, "copy-up allocates a page and copies it",
		    ext4 < 0.1 * file ? BENCH_HOLDS :
		    clones            ? BENCH_HOLDS_IN_PART :
					BENCH_DOES_NOT_HOLD,
		    "writing one byte to %s takes %s on ext4: the whole file is copied when it is "
		    "opened for writing; where files can be cloned, only what is written is taken "
		    "(XFS %s, btrfs %s)",
		    bench_figure(bench, BENCH_BYTES, file), bench_figure(bench, BENCH_BYTES, ext4),
		    bench_figure(bench, BENCH_BYTES, xfs), bench_figure(bench, BENCH_BYTES, btrfs));
}

static void judge(struct bench *bench)
{
	judge_sharing(bench);
	judge_table(bench);
	judge_copy_up(bench);
}

static const struct bench_plot plots[] = {
	{ "memory", "A container's part of all memory (PSS)", "containers", "bytes", true, false },
	{ "copy-up", "Opening a file of the image for writing", "size of the file", "ns", true,
	  true, true },
	{ 0 },
};

static const struct bench_program programs[] = {
	{ "mkfs.ext4", "e2fsprogs" },
	{ 0 },
};

const struct bench_experiment experiment_containers = {
	.name = "containers",
	.title = "Containers over one image",
	.source = BENCH_SOURCE_PRODUCTION "; " BENCH_SOURCE_ATLAS,
	.claim =
		"Containers of one image share its pages through overlayfs: with 1, 10 and 100 "
		"pods of the same image the RSS per pod is 120, 115 and 112 MiB and the shared RSS "
		"0, 95 and 910 MiB. When a container writes to a file of a lower layer, copy-up "
		"locates the read-only page, allocates a new page in the writable layer and copies "
		"the data; only modified files are copied, the image layer stays unchanged.",
	.method =
		"Overlay mounts over one lower directory on ext4, each with a process that maps a "
		"file of the image privately, reads all of it and has memory of its own; RSS, PSS "
		"and USS of each; the same with copies of the file instead of a shared one. Then "
		"the open() that copies a file up, by size, with lower and upper layer on ext4, "
		"XFS and btrfs, and what the upper layer takes for itself after one byte was "
		"written.",
	.needs = BENCH_NEEDS_ROOT | BENCH_NEEDS_LOOP,
	.programs = programs,
	.plots = plots,
	.seconds = 45,
	.run = run,
	.judge = judge,
};
