/* SPDX-License-Identifier: MIT */
/*
 * cow stat: counts copy-on-write while a command runs, in given processes, or everywhere.
 *
 * A run: the command is started and waits, the backends begin to count, the command is let go; a
 * loop over signals, the clock of the intervals and the ends of given processes; then everything
 * is read once more and printed. All that is changed for it (a setting, BPF programs, perf
 * events) goes with the process or is put back.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/ps/ps.h"
#include "cli/report.h"
#include "cli/stat/run.h"
#include "cli/stat/session.h"
#include "cli/stat/tuning.h"

#define LEAST_INTERVAL UINT64_C(1000000)
#define MOST_INTERVAL  UINT64_C(86400000000000)

static const char *interval_text;
static struct stat_options options = { .repeat = 1, .backend = "auto" };

static const struct command_option option_table[] = {
	{
		.name = "pid",
		.letter = 'p',
		.type = OPTION_STRING,
		.argument = "PID",
		.help = "watch these processes (PID,PID...) and what they start",
		.value.string = &options.pids,
	},
	{
		.name = "tree",
		.letter = 't',
		.type = OPTION_STRING,
		.argument = "PID",
		.help = "watch this process, its descendants, and what they start",
		.value.string = &options.tree,
	},
	{
		.name = "all",
		.letter = 'a',
		.type = OPTION_FLAG,
		.help = "watch the whole system",
		.value.flag = &options.whole_system,
	},
	{
		.name = "interval",
		.letter = 'I',
		.type = OPTION_STRING,
		.argument = "TIME",
		.help = "print each interval's figures; a plain number is milliseconds",
		.value.string = &interval_text,
	},
	{
		.name = "repeat",
		.letter = 'r',
		.type = OPTION_COUNT,
		.argument = "N",
		.help = "run the command N times, print means and their spread",
		.value.number = &options.repeat,
		.min = 1,
		.max = 1000,
	},
	{
		.name = "duration",
		.letter = 'd',
		.type = OPTION_DURATION,
		.argument = "TIME",
		.help = "with -p, -t or -a: stop after this time",
		.value.number = &options.duration_ns,
		.min = LEAST_INTERVAL,
	},
	{
		.name = "output",
		.letter = 'o',
		.type = OPTION_PATH,
		.argument = "FILE",
		.help = "print the statistics to FILE instead of standard error",
		.value.string = &options.output,
	},
	{
		.name = "per-process",
		.type = OPTION_FLAG,
		.help = "list all processes, not just ten",
		.value.flag = &options.per_process,
	},
	{
		.name = "backend",
		.type = OPTION_STRING,
		.argument = "NAME",
		.help = "count by auto, bpf, perf, taskstats or basic",
		.value.string = &options.backend,
	},
	{
		.name = "allow-tuning",
		.type = OPTION_FLAG,
		.help = "may set kernel.task_delayacct while it runs",
		.value.flag = &options.allow_tuning,
	},
	{ 0 },
};

static pid_t tree;
static pid_t pids[MOST_PIDS];
static size_t pid_count;

/* Twice named is watched once, or its memory would count twice. */
static bool is_watched(pid_t pid)
{
	size_t i;

	for (i = 0; i < pid_count; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

static bool parse_pids(const char *text)
{
	char *end;
	long pid;

	for (;;) {
		errno = 0;
		pid = strtol(text, &end, 10);
		if (end == text || pid < 1 || pid > INT32_MAX || errno ||
		    (*end != ',' && *end != '\0')) {
			complain("--pid: '%s' is not a list of process IDs; give one such as 1234, "
				 "or several with commas",
				 options.pids);
			return false;
		}
		if (pid_count == MOST_PIDS) {
			complain("--pid: more than %d processes; give fewer, or --all", MOST_PIDS);
			return false;
		}
		if (!is_watched((pid_t)pid))
			pids[pid_count++] = (pid_t)pid;
		if (*end == '\0')
			return true;
		text = end + 1;
	}
}

/* As perf stat's -I it is in milliseconds; a unit says otherwise. */
static bool parse_interval(const char *text)
{
	const bool plain = text[strspn(text, "0123456789.")] == '\0';
	uint64_t ns = 0;
	int error = options_parse_duration(text, &ns);

	if (error == -EINVAL) {
		complain(
			"--interval: '%s' is not a time; give milliseconds, or a time such as 0.5s",
			text);
		return false;
	}
	if (plain)
		ns /= 1000;
	if (error || ns < LEAST_INTERVAL || ns > MOST_INTERVAL) {
		complain("--interval: '%s' is out of range; give 1 ms to a day", text);
		return false;
	}
	options.interval_ns = ns;
	return true;
}

static bool check_usage(void)
{
	if (interval_text && !parse_interval(interval_text))
		return false;
	if ((options.pids != NULL) + (options.tree != NULL) + options.whole_system > 1)
		complain("--pid, --tree and --all exclude each other; give one of them");
	else if (!options.pids && !options.tree && !options.whole_system && !options.command)
		complain("nothing to watch; give a command after --, or --pid, --tree or --all");
	else if (options.repeat > 1 && !options.command)
		complain("--repeat needs a command; give one after --");
	else if (options.repeat > 1 && options.interval_ns)
		complain("--repeat and --interval exclude each other; leave one out");
	else if (options.duration_ns && options.command)
		complain("--duration is for --pid, --tree and --all; with a command, use "
			 "timeout(1)");
	else if (!session_knows_backend(options.backend))
		complain("--backend: there is no '%s'; give auto, bpf, perf, taskstats or basic",
			 options.backend);
	else if (options.tree)
		return options_parse_pid("tree", options.tree, &tree);
	else
		return !options.pids || parse_pids(options.pids);
	return false;
}

static bool check_target(pid_t pid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (pidfd >= 0) {
		close(pidfd);
		return true;
	}
	if (errno == ESRCH)
		complain("--pid: there is no process %d; see: cow ps", pid);
	else if (kill(pid, 0) == 0 || errno == EPERM)
		complain("--pid: %d is a thread of another process; give that one's ID", pid);
	else
		complain_errno(-errno, "--pid: cannot watch process %d", pid);
	return false;
}

/* Those of the tree that are there already. */
static bool find_tree(void)
{
	struct ps_result found = { 0 };
	struct proc_root root;
	int error = proc_root_open(NULL, &root);

	if (error) {
		complain_errno(error, "cannot open /proc");
		return false;
	}
	error = ps_select_tree(&root, tree, &found);
	if (!error && found.count > MOST_PIDS) {
		complain("--tree: %zu processes, and %d can be watched at most; give fewer with "
			 "--pid, or --all",
			 found.count, MOST_PIDS);
		error = -E2BIG;
	}
	for (; !error && pid_count < found.count; pid_count++)
		pids[pid_count] = found.processes[pid_count].pid;
	ps_result_free(&found);
	proc_root_close(&root);
	return !error;
}

static bool find_targets(void)
{
	size_t i;

	if (tree)
		return find_tree();
	for (i = 0; i < pid_count; i++)
		if (!check_target(pids[i]))
			return false;
	return true;
}

/* --- all runs --- */

static int print_results(json_object *report, const struct run *last, struct runs *runs,
			 FILE *stream)
{
	struct result mean;

	if (stream) {
		result_print(stream, &last->session, runs);
		if (fflush(stream) != 0 || ferror(stream)) {
			complain("cannot write the statistics; some are lost");
			return run_failure(&options);
		}
	}
	if (!report)
		return COMMAND_OK;
	mean = result_mean(runs);
	result_report(report, &last->session, &mean, runs->count == 1);
	return report_write(report, command_json_path) ? COMMAND_OK : run_failure(&options);
}

static int last_status(const struct runs *runs)
{
	size_t i;

	/* The first failure, so that a repeated command that fails once is not a success. */
	for (i = 0; i < runs->count; i++)
		if (runs->results[i].exit_status)
			return runs->results[i].exit_status;
	return COMMAND_OK;
}

static bool was_interrupted(const struct run *run)
{
	return WIFSIGNALED(run->wait_status) &&
	       (WTERMSIG(run->wait_status) == SIGINT || WTERMSIG(run->wait_status) == SIGTERM);
}

static int run_all(int signals, FILE *stream)
{
	json_object *report = command_json_wanted ? report_new("stat") : NULL, *list = NULL;
	struct runs runs = { output_realloc(NULL, options.repeat * sizeof(struct result)), 0 };
	struct run *run = output_realloc(NULL, sizeof(*run));
	int status = COMMAND_OK;
	bool more = true;
	char target[512];

	while (more && runs.count < options.repeat) {
		*run = (struct run){ .options = &options,
				     .pids = pids,
				     .pid_count = pid_count,
				     .signals = signals,
				     .stream = stream };
		run->session.options = &options;
		if (report && runs.count == 0) {
			run->session.whole_system = options.whole_system;
			result_target(&run->session, target, sizeof(target));
			report_add_string(report, "target", target);
			report_add_unsigned(report, "repeats", options.repeat);
		}
		if (report && options.interval_ns)
			run->intervals = report_add_array(report, "intervals");
		status = run_once(run);
		if (status != COMMAND_OK)
			break;
		runs.results[runs.count++] = run->result;
		if (report && options.repeat > 1) {
			if (!list)
				list = report_add_array(report, "runs");
			result_report(report_add_object(list, NULL), &run->session, &run->result,
				      true);
		}
		more = runs.count < options.repeat && !was_interrupted(run);
		if (more)
			session_end(&run->session);
	}
	if (status == COMMAND_OK)
		status = print_results(report, run, &runs, stream);
	session_end(&run->session);
	if (status == COMMAND_OK)
		status = last_status(&runs);
	json_object_put(report);
	free(runs.results);
	free(run);
	return status;
}

/* Where text goes: NULL where JSON takes its place. */
static int open_stream(FILE **ret_stream)
{
	if (options.output) {
		*ret_stream = fopen(options.output, "we");
		if (!*ret_stream) {
			complain_errno(-errno, "cannot write '%s'", options.output);
			return run_failure(&options);
		}
	} else {
		*ret_stream = command_json_wanted && !command_json_path ? NULL : stderr;
	}
	return COMMAND_OK;
}

static int run(const struct command *command, int argc, char **argv)
{
	FILE *stream;
	int signals, status;

	/* What follows the operands in argv is NULL, or what options_parse has read. */
	if (argc) {
		options.command = output_realloc(NULL, ((size_t)argc + 1) * sizeof(char *));
		memcpy(options.command, argv, (size_t)argc * sizeof(char *));
		options.command[argc] = NULL;
	}
	if (!check_usage())
		return COMMAND_USAGE;
	if (!find_targets())
		return run_failure(&options);
	status = open_stream(&stream);
	if (status != COMMAND_OK)
		return status;
	signals = child_take_signals();
	if (signals < 0) {
		complain_errno(signals, "cannot take signals");
		status = run_failure(&options);
	} else {
		session_tune(&options);
		status = run_all(signals, stream);
		close(signals);
	}
	if (options.output && fclose(stream) != 0) {
		complain_errno(-errno, "cannot write '%s'", options.output);
		status = run_failure(&options);
	}
	tuning_restore();
	free(options.command);
	return status;
}

const struct command command_stat = {
	.name = "stat",
	.summary = "count copy-on-write: copies, reuses, forks, and what they cost",
	.synopsis = "[-p PID | -t PID | -a] [--] [COMMAND [ARGUMENT...]]",
	.description =
		"Counts in a command and all its descendants, in given processes, or in the\n"
		"whole system. Which backend counts depends on what is allowed; the output\n"
		"names it. Statistics go to standard error; the exit status is the command's.\n",
	.options = option_table,
	.max_operands = UINT32_MAX >> 1,
	.json = COMMAND_JSON_FILE,
	.stop_at_operand = true,
	.run = run,
};
