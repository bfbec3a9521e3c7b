/* SPDX-License-Identifier: MIT */
/*
 * cow bench: what is said of copy-on-write, tried here. The work is in cli/bench/; bench.h says
 * what an experiment is, document.h what a result is.
 */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli/bench/experiments.h"
#include "cli/bench/print.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/table.h"

#define MIB ((uint64_t)1 << 20)

static bool list, tiny, quick, full, merge, allow_tuning;
static const char *markdown, *csv, *html, *directory;
static uint64_t runs, warm_ups = UINT64_MAX, seed = 1, memory;

static const struct command_option options[] = {
	{
		.name = "list",
		.letter = 'l',
		.type = OPTION_FLAG,
		.help = "say what there is, and measure nothing",
		.value.flag = &list,
	},
	{
		.name = "quick",
		.letter = 'q',
		.type = OPTION_FLAG,
		.help = "small sizes and few runs: all of them within 6 minutes",
		.value.flag = &quick,
	},
	{
		.name = "full",
		.letter = 'f',
		.type = OPTION_FLAG,
		.help = "the texts' own sizes, as far as memory allows",
		.value.flag = &full,
	},
	{
		.name = "tiny",
		.type = OPTION_FLAG,
		.help = "a second each: whether it runs and its checks hold; figures mean nothing",
		.value.flag = &tiny,
	},
	{
		.name = "runs",
		.letter = 'r',
		.type = OPTION_COUNT,
		.argument = "N",
		.help = "counted runs of each measurement (7 at --quick, 20 at --full, else 10)",
		.value.number = &runs,
		.min = 1,
		.max = 10000,
	},
	{
		.name = "warmup",
		.letter = 'w',
		.type = OPTION_COUNT,
		.argument = "N",
		.help = "runs before these that do not count (1 with --quick, else 2)",
		.value.number = &warm_ups,
		.max = 1000,
	},
	{
		.name = "seed",
		.type = OPTION_COUNT,
		.argument = "N",
		.help = "of random orders and contents",
		.value.number = &seed,
	},
	{
		.name = "memory",
		.type = OPTION_SIZE,
		.argument = "SIZE",
		.help = "most memory that an experiment may use (half of what is available)",
		.value.number = &memory,
		.min = 64 * MIB,
		.max = (uint64_t)1 << 50,
	},
	{
		.name = "directory",
		.letter = 'd',
		.type = OPTION_PATH,
		.argument = "DIR",
		.help = "where files of experiments are made, on a disk (TMPDIR, else /var/tmp)",
		.value.string = &directory,
	},
	{
		.name = "allow-tuning",
		.type = OPTION_FLAG,
		.help = "change settings of the system where needed; put back afterwards",
		.value.flag = &allow_tuning,
	},
	{
		.name = "markdown",
		.type = OPTION_PATH,
		.argument = "FILE",
		.help = "write the results there, too, as Markdown; - as with --json",
		.value.string = &markdown,
	},
	{
		.name = "csv",
		.type = OPTION_PATH,
		.argument = "FILE",
		.help = "write the rows there, too, as comma-separated values; - as with --json",
		.value.string = &csv,
	},
	{
		.name = "html",
		.type = OPTION_PATH,
		.argument = "DIR",
		.help = "write a page with plots there, too, as DIR/index.html",
		.value.string = &html,
	},
	{
		.name = "merge",
		.letter = 'm',
		.type = OPTION_FLAG,
		.help = "measure nothing; show these results of --json side by side",
		.value.flag = &merge,
	},
	{ 0 },
};

/* For completion; test-bench compares it with the list of experiments. */
/* clang-format off */
static const char *const names[] = {
	"all",
	"fork-methods",
	"spawn-rate",
	"fork-size",
	"fork-exec",
	"rss",
	"page-granularity",
	"break-even",
	"swarm",
	"fault-path",
	"fault-contention",
	"ksm",
	"misconceptions",
	"gc",
	"persistent-structure",
	"prefork",
	"bgsave",
	"postgres",
	"containers",
	"reflink",
	"qcow2",
	"engine",
	NULL,
};
/* clang-format on */

/* --- what is asked for --- */

/* How many results take the place of the text. */
static int results_on_stdout(void)
{
	return (command_json_wanted && !command_json_path) + report_is_stdout(markdown) +
	       report_is_stdout(csv);
}

static const struct bench_experiment *find(const char *name)
{
	size_t i;

	for (i = 0; bench_experiments[i]; i++)
		if (strcmp(bench_experiments[i]->name, name) == 0)
			return bench_experiments[i];
	return NULL;
}

static bool check_names(int argc, char **argv)
{
	int i;

	for (i = 0; i < argc; i++)
		if (strcmp(argv[i], "all") != 0 && !find(argv[i])) {
			complain("there is no experiment '%s'; see: cow bench --list", argv[i]);
			return false;
		}
	return true;
}

static bool is_wanted(const struct bench_experiment *experiment, int argc, char **argv)
{
	int i;

	for (i = 0; i < argc; i++)
		if (strcmp(argv[i], "all") == 0 || strcmp(argv[i], experiment->name) == 0)
			return true;
	return argc == 0;
}

static bool check_usage(int argc, char **argv)
{
	if (tiny + quick + full > 1) {
		complain("--tiny, --quick and --full exclude each other; give one of them");
		return false;
	}
	if (results_on_stdout() > 1) {
		complain("only one of --json, --markdown and --csv can be '-', standard output");
		return false;
	}
	if (merge && argc == 0) {
		complain("--merge wants files that cow bench --json has written");
		return false;
	}
	return merge || check_names(argc, argv);
}

/* Before minutes are spent. */
static bool check_outputs(void)
{
	struct stat status;

	if (html && stat(html, &status) == 0 && !S_ISDIR(status.st_mode)) {
		complain("--html: %s is not a directory", html);
		return false;
	}
	if (html && stat(html, &status) < 0 && !report_check_path(html))
		return false;
	return report_check_path(markdown) && report_check_path(csv);
}

static bool check_directory(void)
{
	const char *from_environment = getenv("TMPDIR");
	struct stat status;

	if (!directory)
		directory = from_environment && from_environment[0] ? from_environment : "/var/tmp";
	if (stat(directory, &status) == 0 && !S_ISDIR(status.st_mode))
		errno = ENOTDIR;
	else if (access(directory, W_OK | X_OK) == 0)
		return true;
	complain("cannot make files in %s: %s; give another --directory", directory,
		 strerror(errno));
	return false;
}

static struct bench_options choose(void)
{
	static const unsigned int default_runs[] = { 1, 7, 10, 20 };
	static const unsigned int default_warm_ups[] = { 0, 1, 2, 2 };
	enum bench_scale scale = tiny  ? BENCH_TINY :
				 quick ? BENCH_QUICK :
				 full  ? BENCH_FULL :
					 BENCH_NORMAL;

	return (struct bench_options){
		.scale = scale,
		.runs = runs ? (unsigned int)runs : default_runs[scale],
		.warm_ups = warm_ups == UINT64_MAX ? default_warm_ups[scale] :
						     (unsigned int)warm_ups,
		.seed = seed,
		.memory = memory ? memory : bench_available_memory() / 2 / MIB * MIB,
		.allow_tuning = allow_tuning,
		.directory = directory,
	};
}

/* --- --list --- */

static bool list_json(int argc, char **argv)
{
	json_object *report = report_new("bench-list"), *experiments, *object;
	bool written;
	size_t i;

	experiments = report_add_array(report, "experiments");
	for (i = 0; bench_experiments[i]; i++) {
		if (!is_wanted(bench_experiments[i], argc, argv))
			continue;
		object = report_add_object(experiments, NULL);
		report_add_string(object, "name", bench_experiments[i]->name);
		report_add_string(object, "title", bench_experiments[i]->title);
		report_add_string(object, "source", bench_experiments[i]->source);
		report_add_string(object, "claim", bench_experiments[i]->claim);
		report_add_bool(object, "needs_root",
				bench_experiments[i]->needs &
					(BENCH_NEEDS_ROOT | BENCH_NEEDS_LOOP));
	}
	written = report_write(report, command_json_path);
	json_object_put(report);
	return written;
}

static const char *needs_text(const struct bench_experiment *experiment)
{
	return experiment->needs & BENCH_NEEDS_LOOP   ? "root, loop devices" :
	       experiment->needs & BENCH_NEEDS_ROOT   ? "root" :
	       experiment->needs & BENCH_NEEDS_TUNING ? "--allow-tuning" :
							"";
}

static void list_text(int argc, char **argv)
{
	static const struct table_column columns[] = { { "name", false },
						       { "what", false },
						       { "needs", false } };
	struct table *table = table_new(columns, 3);
	size_t i;

	for (i = 0; bench_experiments[i]; i++) {
		if (!is_wanted(bench_experiments[i], argc, argv))
			continue;
		table_cell(table, STYLE_BOLD, "%s", bench_experiments[i]->name);
		table_cell(table, STYLE_NONE, "%s", bench_experiments[i]->title);
		table_cell(table, STYLE_DIM, "%s", needs_text(bench_experiments[i]));
	}
	table_print(table, stdout);
	table_free(table);
}

/* --- measuring --- */

static bool write_results(const struct documents *documents)
{
	bool written = true;

	if (command_json_wanted)
		written &= documents_write_json(documents, command_json_path);
	if (markdown)
		written &= write_markdown(documents, markdown);
	if (csv)
		written &= write_csv(documents, csv);
	if (html)
		written &= write_html(documents, html);
	return written;
}

/* Ends as one whom the signal has killed: a shell's loop stops, too. */
__attribute__((noreturn)) static void stop(int signal_number)
{
	complain("stopped by %s: what was started has ended, nothing was written",
		 strsignal(signal_number));
	fflush(stdout);
	signal(signal_number, SIG_DFL);
	raise(signal_number);
	exit(128 + signal_number);
}

static void print_one(const struct documents *documents, json_object *experiment)
{
	struct across across = { .at = { experiment }, .first = experiment, .count = 1 };

	if (results_on_stdout())
		return;
	print_experiment(documents, &across, NULL);
	fflush(stdout);
}

/* How many failed. */
static unsigned int measure_all(struct documents *documents, const struct bench_options *how,
				int argc, char **argv)
{
	uint64_t shortest = UINT64_MAX;
	unsigned int failures = 0;
	json_object *experiment;
	int signal_number;
	size_t i;

	for (i = 0; bench_experiments[i]; i++) {
		if (!is_wanted(bench_experiments[i], argc, argv))
			continue;
		experiment = bench_run_experiment(bench_experiments[i], how, &shortest,
						  &signal_number);
		if (!experiment)
			stop(signal_number);
		failures += document_is_failure(experiment);
		print_one(documents, experiment);
		document_add(documents->at[0], experiment);
	}
	document_finish(documents->at[0], shortest);
	return failures;
}

static int measure(int argc, char **argv)
{
	struct documents documents = { 0 };
	struct bench_options how;
	unsigned int failures;
	bool written;

	if (!check_directory())
		return COMMAND_FAILED;
	how = choose();
	documents_add(&documents, document_new(&how));
	documents_label(&documents);
	if (!results_on_stdout())
		print_header(&documents);
	failures = measure_all(&documents, &how, argc, argv);
	if (!results_on_stdout())
		print_summary(&documents);
	written = write_results(&documents);
	documents_free(&documents);
	if (failures)
		complain("%u of the experiments failed, or a check of theirs", failures);
	return written && !failures ? COMMAND_OK : COMMAND_FAILED;
}

static int show_merged(int argc, char **argv)
{
	struct documents documents = { 0 };
	bool done = documents_read(&documents, argv, (size_t)argc);

	documents_label(&documents);
	if (done && !results_on_stdout()) {
		print_header(&documents);
		documents_each_experiment(&documents, print_experiment, NULL);
		print_summary(&documents);
	}
	done = done && write_results(&documents);
	documents_free(&documents);
	return done ? COMMAND_OK : COMMAND_FAILED;
}

static int run(const struct command *command, int argc, char **argv)
{
	(void)command;
	if (!check_usage(argc, argv))
		return COMMAND_USAGE;
	if (list && command_json_wanted)
		return list_json(argc, argv) ? COMMAND_OK : COMMAND_FAILED;
	if (list) {
		list_text(argc, argv);
		return COMMAND_OK;
	}
	if (!check_outputs())
		return COMMAND_FAILED;
	return merge ? show_merged(argc, argv) : measure(argc, argv);
}

const struct command command_bench = {
	.name = "bench",
	.summary = "try what is said of copy-on-write on this machine",
	.synopsis = "[NAME...]",
	.description =
		"Each experiment takes a claim that texts make about copy-on-write, measures it\n"
		"here, and says whether it holds. Without a name, or with 'all', all are run;\n"
		"--list names them. What needs root or a package that is not there is skipped,\n"
		"with the reason.\n",
	.options = options,
	.max_operands = UINT_MAX >> 1,
	.operands = names,
	.files = true, /* of --merge */
	.json = COMMAND_JSON_FILE,
	.run = run,
};
