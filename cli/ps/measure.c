/* SPDX-License-Identifier: MIT */
/*
 * Measures a selection: by frames where their numbers can be seen, else by what the kernel sums
 * up for each process (smaps_rollup). Several threads share out the processes, since the time
 * goes into the kernel's walks of page tables.
 *
 * The second way cannot see who shares with whom: what is shared inside and outside the selection
 * and its distinct frames stay unknown.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/output.h"
#include "cli/ps/pages.h"
#include "cli/ps/ps.h"
#include "cli/ps/stripes.h"
#include "cli/ps/threads.h"
#include "proc/areas.h"

/* A sample's window: less costs no less, since a walk has its own cost. */
#define WINDOW_PAGES 32

/* What is read at a time of each process: the frames of so many pages fit the caches. */
#define STRIPE_PAGES (4 * LEAF_ENTRIES)

/* What is read in vain rather than by two calls, in pages. */
#define LARGEST_GAP 64

/* So many descriptors are left to the rest of the program. */
#define SPARE_DESCRIPTORS 64
#define MOST_OPEN         4096

struct job {
	const struct ps_options *options;
	struct ps_result *result;
	struct page_world *world; /* NULL: by smaps_rollup */
	struct pages *pages;      /* of each process */
	int error;                /* atomic: the first that ends everything */

	/* Processes are opened together as far as descriptors allow: a batch. */
	struct page_source *sources;
	size_t first, end; /* the batch, by numbers of processes */
	struct stripes *stripes;
	size_t next;           /* atomic: the process, or the stripe, to go on with */
	pthread_mutex_t mutex; /* guards what follows */
	struct pages read;     /* of the batch */
};

/* --- can we? --- */

bool ps_can_see_frames(const struct proc_root *root)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	volatile char *page;
	uint64_t word = 0;
	off_t at;
	int fd, counts;

	if (root->captured)
		return false;
	page = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return false;
	*page = 1;
	at = (off_t)((uintptr_t)page / page_bytes * sizeof(word));
	fd = proc_root_open_file(root, "proc/self/pagemap");
	counts = proc_root_open_file(root, "proc/kpagecount");
	if (fd < 0 || counts < 0 || pread(fd, &word, sizeof(word), at) != (ssize_t)sizeof(word))
		word = 0;
	if (fd >= 0)
		close(fd);
	if (counts >= 0)
		close(counts);
	munmap((void *)page, page_bytes);
	return (word & PAGEMAP_FRAME) != 0;
}

/* --- one process --- */

static uint64_t known(uint64_t value)
{
	return value == KEYED_ABSENT ? PS_UNKNOWN : value;
}

static void take_status(struct ps_process *process, const struct proc_status *status)
{
	process->rss = known(status->resident_bytes);
	process->swap = known(status->swap_bytes);
	process->page_tables = known(status->page_table_bytes);
	process->huge_tlb = status->huge_tlb_bytes == KEYED_ABSENT ? 0 : status->huge_tlb_bytes;
	/* Counted apart since Linux 4.5. */
	process->anon = status->anonymous_bytes == KEYED_ABSENT ? process->rss :
								  status->anonymous_bytes;
	process->file = process->rss -
			(process->anon < process->rss ? process->anon : process->rss);
	process->pss = process->uss = process->inside = process->outside = PS_UNKNOWN;
	process->ksm = process->thp = PS_UNKNOWN;
}

static int read_status(const struct job *job, int directory, struct proc_buffer *buffer,
		       struct proc_status *status)
{
	struct text text;
	int error = proc_read_at(&job->options->root, directory, "status", buffer, &text);

	return error ? error : proc_status_parse(text, status);
}

/* Whether the directory is of the process that was selected. */
static int check_identity(const struct job *job, int directory, struct proc_buffer *buffer,
			  const struct ps_process *process)
{
	struct proc_stat stat;
	struct text text;
	int error = proc_read_at(&job->options->root, directory, "stat", buffer, &text);

	if (!error)
		error = proc_stat_parse(text, &stat);
	if (!error && stat.start_ticks != process->start_ticks)
		error = -ESRCH;
	return error;
}

static uint64_t sum_known(uint64_t a, uint64_t b)
{
	return a == KEYED_ABSENT || b == KEYED_ABSENT ? PS_UNKNOWN : a + b;
}

/* Huge pages of shared memory and files came later than those of anonymous memory. */
static uint64_t or_zero(uint64_t value)
{
	return value == KEYED_ABSENT ? 0 : value;
}

static int read_rollup(const struct job *job, int directory, struct proc_buffer *buffer,
		       struct ps_process *process)
{
	const struct proc_root *root = &job->options->root;
	struct proc_smaps smaps;
	struct text text;
	int error = proc_read_at(root, directory, "smaps_rollup", buffer, &text);

	if (error == -ENOENT)
		error = proc_read_at(root, directory, "smaps", buffer, &text);
	if (!error)
		error = proc_smaps_parse(text, &smaps);
	if (error)
		return error;
	process->rss = smaps.rss_bytes;
	process->pss = smaps.pss_bytes;
	process->uss = sum_known(smaps.private_clean_bytes, smaps.private_dirty_bytes);
	process->ksm = known(smaps.ksm_bytes);
	process->thp = known(smaps.huge_anon_bytes);
	if (process->thp != PS_UNKNOWN)
		process->thp += or_zero(smaps.huge_shmem_bytes) + or_zero(smaps.huge_file_bytes);
	return 0;
}

/* By frames it is opened only; its pages are read with those of the others. */
static int read_memory(struct job *job, struct page_reader *reader, int directory, size_t number,
		       const struct proc_status *status)
{
	if (!job->world)
		return read_rollup(job, directory, &reader->text, &job->result->processes[number]);
	return pages_open(job->world, reader, directory, status, (uint32_t)number,
			  &job->sources[number - job->first]);
}

static int measure_process(struct job *job, struct page_reader *reader, int directory,
			   size_t number)
{
	struct ps_process *process = &job->result->processes[number];
	struct proc_status status;
	int error;

	error = check_identity(job, directory, &reader->text, process);
	if (!error)
		error = read_status(job, directory, &reader->text, &status);
	if (error)
		return error;
	take_status(process, &status);
	if (status.resident_bytes == KEYED_ABSENT)
		return -ENODATA;
	return read_memory(job, reader, directory, number, &status);
}

static enum ps_state state_of(int error)
{
	switch (error) {
	case 0:
		return PS_MEASURED;
	case -EACCES:
	case -EPERM:
		return PS_DENIED;
	case -ENODATA:
		return PS_EMPTY;
	case -ENOENT:
	case -ESRCH:
		return PS_VANISHED;
	default:
		return PS_UNREADABLE;
	}
}

static void fail(struct job *job, int error)
{
	int none = 0;

	__atomic_compare_exchange_n(&job->error, &none, error, false, __ATOMIC_RELAXED,
				    __ATOMIC_RELAXED);
}

static void settle(struct job *job, size_t number, int error)
{
	if (error == -ENOMEM || error == -EOVERFLOW || error == -EMFILE || error == -ENFILE)
		fail(job, error);
	job->result->processes[number].state = state_of(error);
}

static void measure_number(struct job *job, struct page_reader *reader, size_t number)
{
	struct ps_process *process = &job->result->processes[number];
	int directory = proc_root_open_process(&job->options->root, process->pid), error;

	error = directory < 0 ? directory : measure_process(job, reader, directory, number);
	if (directory >= 0)
		close(directory);
	settle(job, number, error);
}

static void *work(void *context)
{
	struct page_reader reader = { 0 };
	struct job *job = context;
	size_t number;

	for (;;) {
		number = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
		if (number >= job->end || __atomic_load_n(&job->error, __ATOMIC_RELAXED))
			break;
		measure_number(job, &reader, number);
	}
	page_reader_free(&reader);
	return NULL;
}

/* --- reading page tables --- */

static void stop_reading(struct page_source *source, int error)
{
	int none = 0;

	__atomic_compare_exchange_n(&source->error, &none, error, false, __ATOMIC_RELAXED,
				    __ATOMIC_RELAXED);
}

/* The end of a row of areas side by side, as those of a library are: one read will do for them. */
static uint64_t end_of_neighbours(const struct job *job, size_t stripe,
				  const struct stripe_part *part)
{
	uint32_t source = part->source;
	uint64_t end = part->page;

	for (; part && part->source == source && part->page - end <= LARGEST_GAP;
	     part = stripes_next(job->stripes, stripe, part))
		end = part->page + part->count;
	return end;
}

static void read_stripe(struct job *job, struct page_reader *reader, size_t stripe)
{
	const struct stripe_part *part = NULL;
	struct page_source *source;
	int error;

	while ((part = stripes_next(job->stripes, stripe, part))) {
		source = &job->sources[part->source];
		if (__atomic_load_n(&source->error, __ATOMIC_RELAXED))
			continue;
		page_reader_expect(reader, part->page, end_of_neighbours(job, stripe, part));
		error = pages_read(job->world, reader, source, &source->ranges[part->range],
				   part->page, part->count);
		if (error)
			stop_reading(source, error);
	}
}

static int hand_over(struct pages *to, const struct pages *from)
{
	size_t i;
	int error = 0;

	for (i = 0; i < from->count && !error; i++)
		error = pages_append(to, &from->pieces[i]);
	return error;
}

static void *read_stripes(void *context)
{
	struct page_reader reader = { 0 };
	struct job *job = context;
	size_t stripe;
	int error;

	for (;;) {
		stripe = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
		if (stripe >= stripes_count(job->stripes) ||
		    __atomic_load_n(&job->error, __ATOMIC_RELAXED))
			break;
		read_stripe(job, &reader, stripe);
	}
	page_reader_finish(job->world, &reader);
	pthread_mutex_lock(&job->mutex);
	error = hand_over(&job->read, &reader.pages);
	pthread_mutex_unlock(&job->mutex);
	if (error)
		fail(job, error);
	page_reader_free(&reader);
	return NULL;
}

/* A sample's strata are not cut, where they are of addresses. */
static uint64_t stripe_pages(const struct page_world *world)
{
	uint64_t stratum = world->strata ? world->windows[AREA_ANON].stratum_pages : 1;

	return (STRIPE_PAGES + stratum - 1) / stratum * stratum;
}

/* What was read of each process, in the order in which it was. */
static int sort_pieces(struct job *job)
{
	const struct piece *piece;
	struct pages *pages;
	size_t i;

	for (i = 0; i < job->read.count; i++)
		job->pages[job->read.pieces[i].process].room++;
	for (i = job->first; i < job->end; i++) {
		pages = &job->pages[i];
		pages->pieces = malloc((pages->room + 1) * sizeof(*pages->pieces));
		if (!pages->pieces)
			return -ENOMEM;
	}
	for (i = 0; i < job->read.count; i++) {
		piece = &job->read.pieces[i];
		pages = &job->pages[piece->process];
		pages->pieces[pages->count++] = *piece;
	}
	return 0;
}

/* All at once, by a process alone: another moment than that of the others, but whole. */
static int read_alone(struct job *job, struct page_reader *reader, size_t number)
{
	struct page_source *source = &job->sources[number - job->first];
	int error = 0;
	size_t i;

	for (i = 0; i < source->count && !error; i++)
		error = pages_read(job->world, reader, source, &source->ranges[i],
				   source->ranges[i].page, source->ranges[i].count);
	page_reader_finish(job->world, reader);
	if (!error)
		error = hand_over(&job->pages[number], &reader->pages);
	else
		pages_withdraw(job->world, &reader->pages);
	return error;
}

/* exec replaces the address space under the reader: once more, with the new one. */
static void retry(struct job *job, size_t number)
{
	struct page_source *source = &job->sources[number - job->first];
	struct page_reader reader = { 0 };

	pages_withdraw(job->world, &job->pages[number]);
	job->pages[number].count = 0;
	if (source->error == -ESRCH) {
		pages_close(source);
		source->error = 0;
		measure_number(job, &reader, number);
		if (job->result->processes[number].state == PS_MEASURED)
			settle(job, number, read_alone(job, &reader, number));
	} else {
		settle(job, number, source->error);
	}
	page_reader_free(&reader);
}

static int read_batch(struct job *job)
{
	int error;
	size_t i;

	job->stripes = stripes_new(job->sources, job->end - job->first, stripe_pages(job->world),
				   page_world_shift(job->world));
	if (!job->stripes)
		return -ENOMEM;
	job->next = 0;
	run_on_threads(job->options->threads, read_stripes, job);
	stripes_free(job->stripes);
	error = job->error ? job->error : sort_pieces(job);
	pages_free(&job->read);
	for (i = job->first; i < job->end && !error; i++)
		if (job->sources[i - job->first].error)
			retry(job, i);
	return error ? error : job->error;
}

/* What the counters say before anything is looked at: it decides how much of it will be. */
static void count_pages(const struct job *job, uint64_t pages[AREA_KINDS])
{
	const struct ps_process *process;
	uint64_t bytes = job->world->page_bytes;
	size_t i;

	for (i = job->first; i < job->end; i++) {
		process = &job->result->processes[i];
		if (process->state != PS_MEASURED)
			continue;
		pages[AREA_ANON] += process->anon / bytes;
		pages[AREA_FILE] += process->file / bytes;
	}
	/* Those of further batches are like these. */
	for (i = 0; i < AREA_KINDS; i++)
		pages[i] = pages[i] * job->result->count / (job->end - job->first);
}

/*
 * Strata are of an odd length: what programs do at round addresses (the head of each arena, of each
 * table) is then met neither by all windows nor by none.
 */
static struct window plan_window(uint64_t pages, uint64_t budget)
{
	uint64_t stratum = pages / (budget / WINDOW_PAGES + 1);

	if (pages <= budget)
		return (struct window){ .pages = LEAF_ENTRIES, .stratum_pages = LEAF_ENTRIES };
	return (struct window){
		.pages = WINDOW_PAGES,
		.stratum_pages = stratum / 64 * 64 + 64 * 3 / 8 + 1,
	};
}

/* No strata where everything fits into the budget; files, if they are few, get half of it. */
static int plan_sample(struct job *job)
{
	uint64_t pages[AREA_KINDS] = { 0 }, budget = job->options->budget, for_files;
	struct page_world *world = job->world;

	if (!job->options->fast || world->strata || world->whole)
		return 0;
	count_pages(job, pages);
	world->whole = pages[AREA_ANON] + pages[AREA_FILE] <= budget;
	if (world->whole)
		return 0;
	for_files = pages[AREA_FILE] < budget / 2 ? pages[AREA_FILE] : budget / 2;
	world->windows[AREA_FILE] = plan_window(pages[AREA_FILE], for_files);
	world->windows[AREA_ANON] = plan_window(pages[AREA_ANON], budget - for_files);
	world->seed = job->options->seed;
	world->strata = strata_new();
	return world->strata ? 0 : -ENOMEM;
}

static size_t most_open(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1;
	limit.rlim_cur = limit.rlim_max; /* nothing that is run from here inherits it */
	setrlimit(RLIMIT_NOFILE, &limit);
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur <= SPARE_DESCRIPTORS)
		return 1;
	return limit.rlim_cur - SPARE_DESCRIPTORS < MOST_OPEN ?
		       (size_t)(limit.rlim_cur - SPARE_DESCRIPTORS) :
		       MOST_OPEN;
}

/*
 * A table of descriptors that grows while there are threads waits for each CPU (synchronize_rcu),
 * some milliseconds at a time: grow it before.
 */
static void make_room_for_descriptors(size_t count)
{
	int low = open("/", O_PATH | O_CLOEXEC), high;

	if (low < 0)
		return;
	high = fcntl(low, F_DUPFD_CLOEXEC, (int)count + SPARE_DESCRIPTORS - 1);
	if (high >= 0)
		close(high);
	close(low);
}

static int measure_batch(struct job *job)
{
	size_t count = job->end - job->first, i;
	int error;

	for (i = 0; i < count; i++)
		job->sources[i] = (struct page_source){ .pagemap = -1 };
	job->next = job->first;
	run_on_threads(job->options->threads, work, job);
	error = job->error;
	if (!error && job->world)
		error = plan_sample(job);
	if (!error && job->world)
		error = read_batch(job);
	for (i = 0; i < count; i++)
		pages_close(&job->sources[i]);
	return error;
}

static int measure_all(struct job *job)
{
	size_t most = job->world ? most_open() : job->result->count;
	int error = 0;

	if (most > job->result->count)
		most = job->result->count;
	job->sources = calloc(most + 1, sizeof(*job->sources));
	if (!job->sources)
		return -ENOMEM;
	pthread_mutex_init(&job->mutex, NULL);
	if (job->world)
		make_room_for_descriptors(most);
	for (job->first = 0; job->first < job->result->count && !error; job->first = job->end) {
		job->end = job->first + most;
		if (job->end > job->result->count)
			job->end = job->result->count;
		error = measure_batch(job);
	}
	pthread_mutex_destroy(&job->mutex);
	free(job->sources);
	return error;
}

/* --- sums by frames --- */

struct sums {
	uint64_t pages, private_pages, inside, outside, ksm, special;
	uint64_t pss, unique, unique_outside; /* bytes << SHARE_SHIFT */
};

static void add_piece(const struct page_world *world, const struct piece *piece, struct sums *sums)
{
	uint64_t page = world->page_bytes << SHARE_SHIFT;
	const struct leaf_sums *leaf;

	sums->pages += piece->private_pages;
	sums->private_pages += piece->private_pages;
	sums->pss += piece->private_pages * page;
	sums->unique += piece->private_pages * page;
	if (!piece->leaf)
		return;
	leaf = frame_set_leaf(world->frames, piece->leaf - 1);
	sums->pages += leaf->pages;
	sums->private_pages += leaf->private_pages;
	sums->inside += leaf->inside_pages;
	sums->outside += leaf->outside_pages;
	sums->ksm += leaf->ksm_pages;
	sums->special += leaf->special;
	sums->pss += leaf->pss;
	sums->unique += leaf->unique;
	sums->unique_outside += leaf->unique_outside;
}

/* Returns how many of the pages are not in the frame set, being nobody else's. */
static uint64_t take_exact(const struct page_world *world, const struct pages *pages,
			   struct ps_process *process)
{
	struct sums sums = { 0 };
	uint64_t unlisted = 0, thp_pages = 0;
	size_t i;

	for (i = 0; i < pages->count; i++) {
		add_piece(world, &pages->pieces[i], &sums);
		unlisted += pages->pieces[i].private_pages;
		thp_pages += pages->pieces[i].thp_pages;
	}
	process->rss = sums.pages * world->page_bytes;
	process->pss = sums.pss >> SHARE_SHIFT;
	process->uss = sums.private_pages * world->page_bytes;
	process->inside = sums.inside * world->page_bytes;
	process->outside = sums.outside * world->page_bytes;
	process->ksm = sums.ksm * world->page_bytes;
	process->thp = thp_pages * world->page_bytes;
	return unlisted;
}

static bool is_measured(const struct ps_process *process)
{
	return process->state == PS_MEASURED || process->state == PS_ESTIMATED;
}

static void add_known(uint64_t *total, uint64_t value)
{
	*total = *total == PS_UNKNOWN || value == PS_UNKNOWN ? PS_UNKNOWN : *total + value;
}

/* Of what was measured, so that the totals are about the same processes. */
static void add_up(struct ps_result *result)
{
	struct ps_totals *totals = &result->totals;
	const struct ps_process *process;
	size_t i;

	for (i = 0; i < result->count; i++) {
		process = &result->processes[i];
		result->measured += is_measured(process);
		result->denied += process->state == PS_DENIED;
		result->vanished += process->state == PS_VANISHED;
		result->unreadable += process->state == PS_UNREADABLE;
		if (!is_measured(process))
			continue;
		add_known(&totals->rss, process->rss);
		add_known(&totals->pss, process->pss);
		add_known(&totals->uss, process->uss);
		add_known(&totals->swap, process->swap);
		add_known(&totals->ksm, process->ksm);
		add_known(&totals->thp, process->thp);
		add_known(&totals->huge_tlb, process->huge_tlb);
		add_known(&totals->page_tables, process->page_tables);
	}
}

/* 1 for no error at all. */
static double share_measured(const struct ps_result *result)
{
	size_t wanted = result->measured + result->denied + result->vanished + result->unreadable;

	return wanted ? (double)result->measured / (double)wanted : 1;
}

static void finish_exact(struct job *job)
{
	struct ps_result *result = job->result;
	struct frame_totals frames = frame_set_totals(job->world->frames);
	uint64_t unique = frames.unique_pages;
	size_t i;

	for (i = 0; i < result->count; i++)
		if (result->processes[i].state == PS_MEASURED)
			unique += take_exact(job->world, &job->pages[i], &result->processes[i]);
	add_up(result);
	result->totals.unique = unique * job->world->page_bytes;
	result->totals.outside = frames.outside_pages * job->world->page_bytes;
	result->coverage = share_measured(result);
}

/* --- sums of a sample --- */

static uint64_t clamp(double value, uint64_t most)
{
	return value <= 0 ? 0 : value >= (double)most ? most : (uint64_t)(value + 0.5);
}

/* What is scaled up from a process's windows, of one kind of pages. */
struct expanded {
	double pages, private_pages, inside, outside, ksm;
};

static double missed_share(const struct page_world *world, const struct piece *piece)
{
	const struct window *window = &world->windows[piece->area];

	return 1 - (double)window->pages / (double)window->stratum_pages;
}

static double expansion(const struct page_world *world, const struct piece *piece)
{
	return 1 / (1 - missed_share(world, piece));
}

static void expand(const struct sums *sums, double weight, struct expanded *to)
{
	to->pages += weight * (double)sums->pages;
	to->private_pages += weight * (double)sums->private_pages;
	to->inside += weight * (double)sums->inside;
	to->outside += weight * (double)sums->outside;
	to->ksm += weight * (double)sums->ksm;
}

/* The windows of a process by strata. Returns how many there are. */
static size_t observe(const struct page_world *world, const struct pages *pages,
		      enum page_kind kind, struct observation *list, struct expanded *all)
{
	double page = (double)(world->page_bytes << SHARE_SHIFT), weight;
	const struct piece *piece;
	size_t count = 0, i;
	struct sums sums;

	for (i = 0; i < pages->count; i++) {
		piece = &pages->pieces[i];
		if (!i || piece->stratum != piece[-1].stratum)
			list[count++] =
				(struct observation){ .missed = missed_share(world, piece) };
		if (piece->kind != kind)
			continue;
		sums = (struct sums){ 0 };
		add_piece(world, piece, &sums);
		weight = expansion(world, piece);
		expand(&sums, weight, all);
		list[count - 1].x += weight * (double)sums.pages * page;
		list[count - 1].y += weight * (double)sums.pss;
	}
	return count;
}

static void add_scaled(uint64_t *to, double part, double whole, uint64_t known_bytes)
{
	*to += clamp(part / whole * (double)known_bytes, known_bytes);
}

/* False where nothing of the kind was met. */
static bool add_kind(const struct page_world *world, const struct pages *pages, enum page_kind kind,
		     struct observation *list, struct estimate *pss, struct ps_process *process)
{
	uint64_t known_bytes = kind == PAGE_ANON ? process->anon : process->file;
	struct expanded all = { 0 };
	size_t count = observe(world, pages, kind, list, &all);

	*pss = estimate_add(*pss, ratio_estimate(list, count, (double)known_bytes));
	if (all.pages <= 0)
		return false;
	add_scaled(&process->uss, all.private_pages, all.pages, known_bytes);
	add_scaled(&process->inside, all.inside, all.pages, known_bytes);
	add_scaled(&process->outside, all.outside, all.pages, known_bytes);
	add_scaled(&process->ksm, all.ksm, all.pages, known_bytes);
	return true;
}

static int take_estimate(const struct page_world *world, const struct pages *pages,
			 struct ps_process *process)
{
	struct observation *list = malloc((pages->count + 1) * sizeof(*list));
	struct ps_process sum = *process;
	struct estimate pss = { 0 };
	bool met;

	if (!list)
		return -ENOMEM;
	sum.uss = sum.inside = sum.outside = sum.ksm = 0;
	met = add_kind(world, pages, PAGE_ANON, list, &pss, &sum);
	met |= add_kind(world, pages, PAGE_FILE, list, &pss, &sum);
	free(list);
	process->state = PS_ESTIMATED;
	if (!met)
		return 0;
	sum.state = PS_ESTIMATED;
	sum.pss = clamp(pss.value, sum.rss);
	sum.pss_error = clamp(pss.error, sum.rss);
	*process = sum;
	return 0;
}

static void add_strata(const struct page_world *world, const struct pages *pages,
		       struct stratum_sums *strata)
{
	double fixed = (double)(1 << SHARE_SHIFT), weight;
	const struct piece *piece;
	struct stratum_sums *to;
	struct sums sums;
	size_t i;

	for (i = 0; i < pages->count; i++) {
		piece = &pages->pieces[i];
		to = &strata[PAGE_KINDS * piece->stratum];
		to[PAGE_ANON].missed = to[PAGE_FILE].missed = missed_share(world, piece);
		to += piece->kind;
		weight = expansion(world, piece);
		sums = (struct sums){ 0 };
		add_piece(world, piece, &sums);
		to->rss += weight * (double)(sums.pages * world->page_bytes);
		to->pss += weight * (double)sums.pss / fixed;
		to->unique += weight * (double)sums.unique / fixed;
		to->outside += weight * (double)sums.unique_outside / fixed;
	}
}

static int estimate_processes(struct job *job, struct stratum_sums *strata)
{
	struct ps_result *result = job->result;
	int error = 0;
	size_t i;

	for (i = 0; i < result->count && !error; i++) {
		if (result->processes[i].state != PS_MEASURED)
			continue;
		add_strata(job->world, &job->pages[i], strata);
		error = take_estimate(job->world, &job->pages[i], &result->processes[i]);
	}
	return error;
}

/* The counters of what was measured, by kind. */
static void sum_known_rss(const struct ps_result *result, double known_rss[PAGE_KINDS])
{
	size_t i;

	known_rss[PAGE_ANON] = known_rss[PAGE_FILE] = 0;
	for (i = 0; i < result->count; i++) {
		if (!is_measured(&result->processes[i]))
			continue;
		known_rss[PAGE_ANON] += (double)result->processes[i].anon;
		known_rss[PAGE_FILE] += (double)result->processes[i].file;
	}
}

/* Of the pages that there are, how many the windows met. */
static double share_seen(const struct job *job)
{
	double seen = 0, all = 0, weight;
	struct sums sums;
	size_t i, j;

	for (i = 0; i < job->result->count; i++)
		for (j = 0; j < job->pages[i].count; j++) {
			sums = (struct sums){ 0 };
			add_piece(job->world, &job->pages[i].pieces[j], &sums);
			weight = expansion(job->world, &job->pages[i].pieces[j]);
			seen += (double)sums.pages;
			all += weight * (double)sums.pages;
		}
	return all > 0 ? seen / all : 1;
}

static int finish_sample(struct job *job)
{
	struct stratum_sums *sums = strata_sums(job->world->strata);
	struct ps_totals *totals = &job->result->totals;
	struct strata_estimates estimates;
	double known_rss[PAGE_KINDS];
	uint64_t most;
	int error;

	error = sums ? estimate_processes(job, sums) : -ENOMEM;
	if (error)
		return error;
	add_up(job->result);
	most = totals->rss;
	sum_known_rss(job->result, known_rss);
	error = strata_estimate(job->world->strata, known_rss, &estimates);
	if (error)
		return error;
	totals->pss = clamp(estimates.pss.value, most);
	totals->pss_error = clamp(estimates.pss.error, most);
	totals->unique = clamp(estimates.unique.value, most);
	totals->unique_error = clamp(estimates.unique.error, most);
	totals->outside = clamp(estimates.outside.value, most);
	totals->outside_error = clamp(estimates.outside.error, most);
	job->result->sampled = true;
	job->result->coverage = share_seen(job) * share_measured(job->result);
	return 0;
}

/* --- the whole --- */

static int measure_frames(struct job *job)
{
	struct page_world *world = job->world;
	int error = measure_all(job);

	if (!error)
		error = frame_set_resolve(world->frames, world->strata != NULL,
					  job->options->threads, page_world_counts,
					  world->merging ? page_world_flags : NULL, world);
	if (error)
		return error;
	if (world->strata)
		return finish_sample(job);
	finish_exact(job);
	return 0;
}

/* One process alone shares with nobody inside. */
static void finish_rollup(struct ps_result *result)
{
	struct ps_process *process;
	size_t i;

	for (i = 0; i < result->count && result->count == 1; i++) {
		process = &result->processes[i];
		if (process->state != PS_MEASURED || process->uss == PS_UNKNOWN)
			continue;
		process->inside = 0;
		process->outside = process->rss - process->uss;
	}
	add_up(result);
	result->totals.unique = PS_UNKNOWN;
	result->totals.outside = PS_UNKNOWN;
	result->coverage = share_measured(result);
}

static void free_job(struct job *job)
{
	size_t i;

	for (i = 0; job->pages && i < job->result->count; i++)
		pages_free(&job->pages[i]);
	free(job->pages);
	if (job->world)
		page_world_close(job->world);
}

int ps_measure(const struct ps_options *options, struct ps_result *result)
{
	struct job job = { .options = options, .result = result };
	struct page_world world;
	int error;

	result->backend = PS_ROLLUP;
	if (ps_can_see_frames(&options->root) && page_world_open(&world, &options->root) == 0) {
		result->backend = PS_PAGEMAP;
		job.world = &world;
	}
	job.pages = calloc(result->count + 1, sizeof(*job.pages));
	error = !job.pages ? -ENOMEM : job.world ? measure_frames(&job) : measure_all(&job);
	if (!error && !job.world)
		finish_rollup(result);
	free_job(&job);
	return error;
}

void ps_result_free(struct ps_result *result)
{
	free(result->processes);
	*result = (struct ps_result){ 0 };
}
