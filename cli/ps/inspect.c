/* SPDX-License-Identifier: MIT */
/*
 * One process, apart from its pages: whether it is the one that was selected, what its counters
 * say, and what the kernel sums up for it where frames cannot be seen.
 */
#include <errno.h>
#include <unistd.h>

#include "cli/ps/measure.h"

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

static int read_smaps(const struct job *job, int directory, struct proc_buffer *buffer,
		      struct proc_smaps *smaps)
{
	const struct proc_root *root = &job->options->root;
	struct text text;
	int error = proc_read_at(root, directory, "smaps_rollup", buffer, &text);

	if (error == -ENOENT)
		error = proc_read_at(root, directory, "smaps", buffer, &text);
	return error ? error : proc_smaps_parse(text, smaps);
}

static int read_rollup(const struct job *job, int directory, struct proc_buffer *buffer,
		       struct ps_process *process)
{
	struct proc_smaps smaps;
	int error = read_smaps(job, directory, buffer, &smaps);

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

/* Where no frame tells whether it is a merged one. */
static void ask_for_merged(const struct job *job, int directory, struct proc_buffer *buffer,
			   struct ps_process *process)
{
	struct proc_smaps smaps;

	if (read_smaps(job, directory, buffer, &smaps) == 0)
		process->ksm = known(smaps.ksm_bytes);
}

/* By frames it is opened only; its pages are read with those of the others. */
static int read_memory(struct job *job, struct page_reader *reader, int directory, size_t number,
		       const struct proc_status *status)
{
	struct ps_process *process = &job->result->processes[number];
	struct page_source *source;
	int error;

	if (!job->world)
		return read_rollup(job, directory, &reader->text, process);
	source = &job->sources[number - job->first];
	error = pages_open(job->world, reader, directory, status, (uint32_t)number, source);
	if (error || !job->world->unmarked)
		return error;
	process->ksm = 0;
	if (source->merging)
		ask_for_merged(job, directory, &reader->text, process);
	return 0;
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

void job_fail(struct job *job, int error)
{
	int none = 0;

	__atomic_compare_exchange_n(&job->error, &none, error, false, __ATOMIC_RELAXED,
				    __ATOMIC_RELAXED);
}

void job_settle(struct job *job, size_t number, int error)
{
	if (error == -ENOMEM || error == -EOVERFLOW || error == -EMFILE || error == -ENFILE)
		job_fail(job, error);
	job->result->processes[number].state = state_of(error);
}

void job_inspect(struct job *job, struct page_reader *reader, size_t number)
{
	struct ps_process *process = &job->result->processes[number];
	int directory = proc_root_open_process(&job->options->root, process->pid), error;

	error = directory < 0 ? directory : measure_process(job, reader, directory, number);
	if (directory >= 0)
		close(directory);
	job_settle(job, number, error);
}
