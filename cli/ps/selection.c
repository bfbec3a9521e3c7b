/* SPDX-License-Identifier: MIT */
/*
 * Which processes: all, some, or one with its descendants. Each is remembered with its start time,
 * so that a later process of the same PID is not taken for it.
 *
 * Descendants are those that /proc links by parent; one whose parent ended was given to another
 * one, and is no longer found.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/ps/ps.h"
#include "cli/ps/threads.h"

/* What a thread reads before it asks for more. */
#define LISTED_AT_ONCE 32

/* 0, or a negative errno: -ENOENT or -ESRCH where there is no such process. */
static int read_stat(const struct proc_root *root, pid_t pid, struct proc_buffer *buffer,
		     struct proc_stat *stat)
{
	struct text text;
	char path[40];
	int error;

	snprintf(path, sizeof(path), "proc/%d/stat", (int)pid);
	error = proc_root_read(root, path, buffer, &text);
	return error ? error : proc_stat_parse(text, stat);
}

static void add_process(struct ps_result *result, pid_t pid, const struct proc_stat *stat,
			bool asked)
{
	struct ps_process *process = &result->processes[result->count++];

	*process = (struct ps_process){
		.pid = pid,
		.ppid = (pid_t)stat->ppid,
		.start_ticks = stat->start_ticks,
		.asked = asked,
	};
	memcpy(process->command, stat->command, sizeof(process->command));
}

static int list_processes(const struct proc_root *root, pid_t **ret_pids, struct ps_result *result)
{
	size_t count;
	int error = proc_root_list(root, ret_pids, &count);

	if (error == -ENOENT && root->captured)
		complain("there is no proc/ in this tree; --sysroot takes the directory above it");
	else if (error)
		complain_errno(error, "cannot list the processes under proc/");
	if (error)
		return error;
	result->processes = output_realloc(NULL, count * sizeof(*result->processes));
	result->count = count;
	return 0;
}

struct listing {
	const struct proc_root *root;
	const pid_t *pids;
	struct listed {
		struct proc_stat stat;
		int error;
	} * list;
	size_t count;
	size_t next; /* atomic: the one to go on with */
};

static void *read_stats(void *context)
{
	struct proc_buffer buffer = { 0 };
	struct listing *listing = context;
	struct listed *listed;
	size_t at, end;

	for (;;) {
		at = __atomic_fetch_add(&listing->next, LISTED_AT_ONCE, __ATOMIC_RELAXED);
		end = at + LISTED_AT_ONCE < listing->count ? at + LISTED_AT_ONCE : listing->count;
		if (at >= end)
			break;
		for (; at < end; at++) {
			listed = &listing->list[at];
			listed->error = read_stat(listing->root, listing->pids[at], &buffer,
						  &listed->stat);
		}
	}
	proc_buffer_free(&buffer);
	return NULL;
}

static void add_listed(struct ps_result *result, const struct listing *listing)
{
	size_t i;
	int error;

	for (i = 0; i < listing->count; i++) {
		error = listing->list[i].error;
		if (!error)
			add_process(result, listing->pids[i], &listing->list[i].stat, false);
		else if (error == -EINVAL || error == -ERANGE)
			result->unreadable++;
		else
			result->vanished++;
	}
}

int ps_select_all(const struct proc_root *root, struct ps_result *result)
{
	struct listing listing = { .root = root };
	pid_t *pids;
	int error;

	error = list_processes(root, &pids, result);
	if (error)
		return error;
	listing.pids = pids;
	listing.count = result->count;
	listing.list = output_realloc(NULL, (listing.count + 1) * sizeof(*listing.list));
	result->count = 0;
	run_on_threads(threads_available(), read_stats, &listing);
	add_listed(result, &listing);
	free(listing.list);
	free(pids);
	return 0;
}

static const struct ps_process *find_process(const struct ps_process *list, size_t count, pid_t pid)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (list[i].pid == pid)
			return &list[i];
	return NULL;
}

/* Moves `process` to the end of those that are kept, at the front of the list. */
static void keep(struct ps_process *list, size_t *kept, size_t at)
{
	struct ps_process process = list[at];

	list[at] = list[*kept];
	list[(*kept)++] = process;
}

/*
 * Generation by generation: whoever's parent is kept, is kept. A captured tree may link processes
 * in a circle; nobody is kept twice, so it ends.
 */
static void keep_descendants(struct ps_result *result, pid_t top)
{
	size_t kept = 0, before, i;

	for (i = 0; i < result->count; i++)
		if (result->processes[i].pid == top)
			keep(result->processes, &kept, i);
	do {
		before = kept;
		for (i = kept; i < result->count; i++)
			if (find_process(result->processes, before, result->processes[i].ppid))
				keep(result->processes, &kept, i);
	} while (kept > before);
	result->count = kept;
}

int ps_select_tree(const struct proc_root *root, pid_t top, struct ps_result *result)
{
	int error = ps_select_all(root, result);

	if (error)
		return error;
	/* Others do not matter to who asked for this tree. */
	result->vanished = 0;
	result->unreadable = 0;
	if (!find_process(result->processes, result->count, top)) {
		complain("there is no process %d; cow ps --all lists those there are", (int)top);
		return -ESRCH;
	}
	keep_descendants(result, top);
	return 0;
}

static int complain_process(int error, pid_t pid)
{
	if (error == -ENOENT || error == -ESRCH)
		complain("there is no process %d; cow ps --all lists those there are", (int)pid);
	else if (error == -EINVAL || error == -ERANGE)
		complain("proc/%d/stat is not what a kernel writes; is this a /proc?", (int)pid);
	else
		complain_errno(error, "cannot read proc/%d/stat", (int)pid);
	return error;
}

int ps_select_pids(const struct proc_root *root, const pid_t *pids, size_t count,
		   struct ps_result *result)
{
	struct proc_buffer buffer = { 0 };
	struct proc_stat stat;
	int error = 0;
	size_t i;

	result->processes = output_realloc(NULL, count * sizeof(*result->processes));
	for (i = 0; i < count && !error; i++) {
		if (find_process(result->processes, result->count, pids[i]))
			continue;
		error = read_stat(root, pids[i], &buffer, &stat);
		if (error)
			complain_process(error, pids[i]);
		/* A thread's number opens its process's directory, and stat tells the thread's. */
		else
			add_process(result, pids[i], &stat, true);
	}
	proc_buffer_free(&buffer);
	return error;
}
