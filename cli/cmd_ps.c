/* SPDX-License-Identifier: MIT */
/*
 * cow ps: who has how much memory, and who shares it with whom. The work is in cli/ps/; ps.h says
 * which part is where.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/ps/ps.h"
#include "cli/ps/threads.h"

/* A sample looks at so many pages: some ten milliseconds. */
#define SAMPLE_PAGES UINT64_C(650000)

static bool all, fast;
static const char *tree, *sort_name = "pss", *sysroot;
static uint64_t limit, seed, sample_pages = SAMPLE_PAGES;

static const struct command_option options[] = {
	{
		.name = "all",
		.letter = 'a',
		.type = OPTION_FLAG,
		.help = "all processes; so it is where none are named",
		.value.flag = &all,
	},
	{
		.name = "tree",
		.letter = 't',
		.type = OPTION_STRING,
		.argument = "PID",
		.help = "this process and its descendants",
		.value.string = &tree,
	},
	{
		.name = "fast",
		.letter = 'f',
		.type = OPTION_FLAG,
		.help = "look at a sample of the pages, and say how far off it may be",
		.value.flag = &fast,
	},
	{
		.name = "sample-pages",
		.type = OPTION_COUNT,
		.argument = "N",
		.help = "with --fast: how many pages to look at",
		.value.number = &sample_pages,
		.min = 1,
	},
	{
		.name = "seed",
		.type = OPTION_COUNT,
		.argument = "N",
		.help = "with --fast: take the same sample again (0: another one each time)",
		.value.number = &seed,
	},
	{
		.name = "sort",
		.letter = 's',
		.type = OPTION_STRING,
		.argument = "KEY",
		.help = "pss, rss, uss, inside, outside, swap, ksm, thp, tables, pid or command",
		.value.string = &sort_name,
	},
	{
		.name = "limit",
		.letter = 'n',
		.type = OPTION_COUNT,
		.argument = "N",
		.help = "show the first N rows (0: all); the sums are of all",
		.value.number = &limit,
	},
	{
		.name = "sysroot",
		.type = OPTION_PATH,
		.argument = "DIR",
		.help = "read a captured tree, DIR/proc, instead of this machine's",
		.value.string = &sysroot,
	},
	{ 0 },
};

static bool parse_sort(enum ps_sort *ret_key)
{
	int i;

	for (i = 0; ps_sort_names[i]; i++)
		if (strcmp(sort_name, ps_sort_names[i]) == 0) {
			*ret_key = (enum ps_sort)i;
			return true;
		}
	complain("--sort: there is no key '%s'; give pss, rss, uss, inside, outside, swap, ksm, "
		 "thp, tables, pid or command",
		 sort_name);
	return false;
}

struct request {
	pid_t *pids;
	size_t count;
	pid_t top; /* 0: no tree */
	enum ps_sort sort;
};

static bool parse_request(int argc, char **argv, struct request *request)
{
	int i;

	if ((argc > 0) + all + (tree != NULL) > 1) {
		complain("PIDs, --tree and --all exclude each other; give one of them");
		return false;
	}
	if (!parse_sort(&request->sort) ||
	    (tree && !options_parse_pid("tree", tree, &request->top)))
		return false;
	request->pids = output_realloc(NULL, (size_t)argc * sizeof(*request->pids));
	for (i = 0; i < argc; i++)
		if (!options_parse_pid(NULL, argv[i], &request->pids[request->count++]))
			return false;
	return true;
}

static int select_processes(const struct proc_root *root, const struct request *request,
			    struct ps_result *result)
{
	if (request->count)
		return ps_select_pids(root, request->pids, request->count, result);
	if (request->top)
		return ps_select_tree(root, request->top, result);
	return ps_select_all(root, result);
}

static uint64_t choose_seed(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return seed ? seed : (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* --fast without the right to see frames is what it is without --fast. */
static void warn(const struct ps_result *result)
{
	if (fast && result->backend == PS_ROLLUP && !sysroot)
		complain("--fast needs CAP_SYS_ADMIN for frame numbers; all was read instead");
}

static int measure_and_print(const struct proc_root *root, const struct request *request,
			     struct ps_result *result)
{
	const struct ps_options how = {
		.root = *root,
		.fast = fast,
		.seed = choose_seed(),
		.budget = sample_pages,
		.threads = threads_available(),
	};
	int error = select_processes(root, request, result);

	if (error)
		return COMMAND_FAILED;
	error = ps_measure(&how, result);
	if (error) {
		complain_errno(error, "cannot measure");
		return COMMAND_FAILED;
	}
	warn(result);
	ps_sort(result, request->sort);
	ps_read_arguments(root, result);
	if (command_json_wanted)
		return ps_print_json(result, (size_t)limit) ? COMMAND_OK : COMMAND_FAILED;
	ps_print_text(result, (size_t)limit);
	return COMMAND_OK;
}

static int run(const struct command *command, int argc, char **argv)
{
	struct ps_result result = { 0 };
	struct request request = { 0 };
	struct proc_root root;
	int status, error;

	if (!parse_request(argc, argv, &request)) {
		free(request.pids);
		return COMMAND_USAGE;
	}
	error = proc_root_open(sysroot, &root);
	if (error) {
		complain_errno(error, "cannot open %s", sysroot ? sysroot : "/");
		free(request.pids);
		return COMMAND_FAILED;
	}
	status = measure_and_print(&root, &request, &result);
	ps_result_free(&result);
	proc_root_close(&root);
	free(request.pids);
	return status;
}

const struct command command_ps = {
	.name = "ps",
	.summary = "show who has how much memory, and how much of it is shared with whom",
	.synopsis = "[PID...]",
	.description =
		"RSS counts every page for everyone who maps it. PSS divides it, USS is\n"
		"what nobody else maps, 'unique' counts each page of the selection once. Shared\n"
		"pages are told apart: with others of the selection, or with somebody outside it.\n"
		"\n"
		"Frame numbers need CAP_SYS_ADMIN. Without it the kernel's own sums are shown for\n"
		"the processes that you may look at, and what is unique remains unknown.\n",
	.options = options,
	.max_operands = UINT_MAX >> 1,
	.json = COMMAND_JSON_STDOUT,
	.run = run,
};
