/* SPDX-License-Identifier: MIT */
/*
 * Measures processes as cow ps does and compares with what the kernel says (smaps_rollup), to the
 * kilobyte. Libraries are shared with every process of the machine, so PSS changes whenever one
 * starts or ends anywhere: a comparison counts when the kernel said the same before and after, or
 * when it was PSS alone that changed, and what was measured in between lies between the two.
 */
#ifndef TESTS_PS_COMPARE_H
#define TESTS_PS_COMPARE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/ps/ps.h"
#include "proc/process.h"

struct kernel_view {
	struct proc_smaps smaps;
};

static inline int ask_kernel(const struct proc_root *root, pid_t pid, struct proc_smaps *smaps)
{
	struct proc_buffer buffer = { 0 };
	struct text text;
	char path[64];
	int error;

	snprintf(path, sizeof(path), "proc/%d/smaps_rollup", (int)pid);
	error = proc_root_read(root, path, &buffer, &text);
	if (!error)
		error = proc_smaps_parse(text, smaps);
	proc_buffer_free(&buffer);
	return error;
}

static inline int ask_all(const struct proc_root *root, const pid_t *pids, size_t count,
			  struct proc_smaps *list)
{
	int error = 0;
	size_t i;

	memset(list, 0, count * sizeof(*list));
	for (i = 0; i < count && !error; i++)
		error = ask_kernel(root, pids[i], &list[i]);
	return error;
}

static inline int measure(const struct proc_root *root, const pid_t *pids, size_t count,
			  struct ps_result *result)
{
	const struct ps_options options = { .root = *root, .threads = 2 };
	int error = ps_select_pids(root, pids, count, result);

	if (!error)
		error = ps_measure(&options, result);
	/* As they were named. */
	if (!error)
		ps_sort(result, PS_SORT_PID);
	return error;
}

static inline void show(const char *name, pid_t pid, uint64_t got, uint64_t expected)
{
	if (got >> 10 != expected >> 10)
		printf("# %d: %s is %llu kB, the kernel says %llu kB\n", (int)pid, name,
		       (unsigned long long)got >> 10, (unsigned long long)expected >> 10);
}

static inline int is_between(uint64_t value, uint64_t a, uint64_t b)
{
	return value >> 10 >= (a < b ? a : b) >> 10 && value >> 10 <= (a < b ? b : a) >> 10;
}

/* The kernel rounds the sums of smaps_rollup down to kB, as is done here. */
static inline int differs(const struct ps_process *process, const struct proc_smaps *smaps,
			  const struct proc_smaps *after, int verbose)
{
	uint64_t uss = smaps->private_clean_bytes + smaps->private_dirty_bytes;
	uint64_t thp = smaps->huge_anon_bytes + smaps->huge_shmem_bytes + smaps->huge_file_bytes;

	if (verbose) {
		show("RSS", process->pid, process->rss, smaps->rss_bytes);
		show("PSS", process->pid, process->pss, smaps->pss_bytes);
		show("USS", process->pid, process->uss, uss);
		show("THP", process->pid, process->thp, thp);
		show("KSM", process->pid, process->ksm, smaps->ksm_bytes);
	}
	return process->state != PS_MEASURED || process->rss != smaps->rss_bytes ||
	       !is_between(process->pss, smaps->pss_bytes, after->pss_bytes) ||
	       process->uss != uss || process->thp != thp ||
	       (smaps->ksm_bytes != KEYED_ABSENT && process->ksm != smaps->ksm_bytes);
}

static inline int changed(const struct proc_smaps *before, const struct proc_smaps *after,
			  size_t count)
{
	struct proc_smaps same;
	int any = 0;
	size_t i;

	for (i = 0; i < count; i++) {
		same = after[i];
		same.pss_bytes = before[i].pss_bytes;
		same.pss_anon_bytes = before[i].pss_anon_bytes;
		any |= memcmp(&before[i], &same, sizeof(same)) != 0;
	}
	return any;
}

/*
 * 0: equal; 1: not equal though the kernel did not change its mind; negative: an errno, -EAGAIN
 * when it never was quiet. PIDs ascend. The last result is the caller's to free.
 */
static inline int compare_with_kernel(const pid_t *pids, size_t count, struct ps_result *ret_result)
{
	struct proc_smaps *before = calloc(count, sizeof(*before));
	struct proc_smaps *after = calloc(count, sizeof(*after));
	int tries, error, different = 0;
	struct proc_root root;
	size_t i;

	error = before && after ? proc_root_open(NULL, &root) : -ENOMEM;
	for (tries = 0; tries < 400 && !error; tries++) {
		struct ps_result result = { 0 };

		ps_result_free(ret_result);
		error = ask_all(&root, pids, count, before);
		if (!error)
			error = measure(&root, pids, count, &result);
		if (!error)
			error = ask_all(&root, pids, count, after);
		*ret_result = result;
		if (error || changed(before, after, count)) {
			if (!error)
				usleep(20000);
			continue;
		}
		for (i = different = 0; i < count; i++)
			different |= differs(&result.processes[i], &before[i], &after[i],
					     tries >= 199);
		/* Something may have changed and changed back: a real difference stays. */
		if (!different || tries >= 199)
			break;
	}
	if (!error && tries == 400)
		error = -EAGAIN;
	proc_root_close(&root);
	free(before);
	free(after);
	return error ? error : different;
}

#endif
