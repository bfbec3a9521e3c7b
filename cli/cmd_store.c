/* SPDX-License-Identifier: MIT */
/*
 * cow store: directories of durable layers. A word after the verb says what to do; the work is in
 * cli/store/, store.h says which part is where.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/fd.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/store/store.h"

static struct store_options wanted;

static const struct command_option options[] = {
	{
		.name = "limit",
		.letter = 'n',
		.type = OPTION_COUNT,
		.argument = "N",
		.help = "log: show the newest N layers (0: all)",
		.value.number = &wanted.limit,
	},
	{
		.name = "ascii",
		.type = OPTION_FLAG,
		.help = "log: draw with ASCII, on a terminal with UTF-8 too",
		.value.flag = &wanted.ascii,
	},
	{
		.name = "tag",
		.letter = 't',
		.type = OPTION_STRING,
		.argument = "TAG",
		.help = "import: name the new layer",
		.value.string = &wanted.tag,
	},
	{
		.name = "format",
		.type = OPTION_STRING,
		.argument = "FORMAT",
		.help = "import: qcow2 or raw, instead of looking",
		.value.string = &wanted.format,
	},
	{
		.name = "remove",
		.type = OPTION_FLAG,
		.help = "tag: take the tag away",
		.value.flag = &wanted.remove,
	},
	{
		.name = "compress",
		.type = OPTION_FLAG,
		.help = "compact: compress what is neither HEAD nor tagged (zstd)",
		.value.flag = &wanted.compress,
	},
	{
		.name = "depth",
		.type = OPTION_COUNT,
		.argument = "N",
		.help = "compact: at most so many layers below one that is kept (32)",
		.value.number = &wanted.depth,
		.min = 1,
		.max = COW_STORE_DEPTH_MAX,
	},
	{ 0 },
};

enum { READS, WRITES, CREATES };

static const struct action {
	const char *name;
	const char *operands; /* after the directory */
	int min, max;
	int access;
	const char *options; /* of those above, the ones that it takes */
	store_action run;
} actions[] = {
	{ "log", "", 0, 0, READS, " limit ascii ", store_log },
	{ "info", "[LAYER]", 0, 1, READS, "", store_info },
	{ "verify", "[LAYER]", 0, 1, READS, "", store_verify },
	{ "diff", "OLDER [NEWER]", 1, 2, READS, "", store_diff },
	{ "export", "[LAYER] FILE", 1, 2, READS, "", store_export },
	{ "import", "FILE", 1, 1, CREATES, " tag format ", store_import },
	{ "tag", "[[LAYER] TAG]", 0, 2, WRITES, " remove ", store_tag },
	{ "compact", "", 0, 0, WRITES, " compress depth ", store_compact },
	{ "delete", "LAYER", 1, 1, WRITES, "", store_delete },
};

static const char *const action_names[] = { "log",    "info", "verify",  "diff",   "export",
					    "import", "tag",  "compact", "delete", NULL };

/* --- interruption, progress, messages --- */

static volatile sig_atomic_t interrupted;
static const char *progress_label;
static bool progress_begun;
static bool said; /* the library named what is wrong */

static void note_signal(int number)
{
	interrupted = number;
}

/* The library takes back what it has begun; a second signal ends the process at once. */
static void catch_signals(void)
{
	struct sigaction act = { .sa_handler = note_signal, .sa_flags = (int)SA_RESETHAND };

	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGHUP, &act, NULL);
}

int store_progress(uint64_t done, uint64_t total, void *context)
{
	(void)context;
	if (!progress_begun)
		progress_begin(progress_label, total >> 20);
	progress_begun = true;
	progress_update(done >> 20);
	return interrupted;
}

int store_result(int result, const char *format, ...)
{
	va_list arguments;
	char text[512];

	progress_end();
	progress_begun = false;
	if (result == 0)
		return COMMAND_OK;
	if (interrupted) {
		complain("interrupted; the store is as it was");
		signal((int)interrupted, SIG_DFL);
		raise((int)interrupted);
	}
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (!said || result != -EUCLEAN)
		complain_errno(result, "%s", text);
	return COMMAND_FAILED;
}

static void log_message(int priority, const char *message, void *context)
{
	(void)context;
	if (priority > LOG_NOTICE)
		return;
	if (strncmp(message, "libcow: ", 8) == 0)
		message += 8;
	if (strncmp(message, "store: ", 7) == 0)
		message += 7;
	complain("%s", message);
	said = true;
}

bool store_has_complained(void)
{
	return said;
}

/* --- the way to an action --- */

static const struct action *find_action(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
		if (strcmp(actions[i].name, name) == 0)
			return &actions[i];
	complain("there is no action '%s'; give log, info, verify, diff, export, import, tag, "
		 "compact or delete",
		 name);
	return NULL;
}

static bool takes(const struct action *action, const char *option)
{
	char word[32];

	snprintf(word, sizeof(word), " %s ", option);
	return strstr(action->options, word) != NULL;
}

static bool was_given(const struct command_option *option)
{
	switch (option->type) {
	case OPTION_FLAG:
		return *option->value.flag;
	case OPTION_STRING:
	case OPTION_PATH:
		return *option->value.string != NULL;
	default:
		return *option->value.number != 0;
	}
}

static bool check_words(const struct action *action, int argc)
{
	const struct command_option *option;

	for (option = options; option->name; option++)
		if (was_given(option) && !takes(action, option->name)) {
			complain("--%s is not for %s; see: cow help store", option->name,
				 action->name);
			return false;
		}
	if (argc >= 2 + action->min && argc <= 2 + action->max)
		return true;
	complain("give: cow store %s DIR%s%s", action->name, action->operands[0] ? " " : "",
		 action->operands);
	return false;
}

static bool check_format(void)
{
	if (!wanted.format || strcmp(wanted.format, "qcow2") == 0 ||
	    strcmp(wanted.format, "raw") == 0)
		return true;
	complain("--format: '%s' is not read; give qcow2 or raw", wanted.format);
	return false;
}

/* What is to be imported has to be there before a store is made for it. */
static bool check_source(const struct action *action, const char *path)
{
	if (action->access != CREATES || access(path, R_OK) == 0)
		return true;
	complain_errno(-errno, "cannot import %s", path);
	return false;
}

static int open_store(const struct action *action, const char *directory,
		      struct cow_store **ret_store)
{
	uint32_t flags = action->access == READS   ? COW_STORE_READ_ONLY :
			 action->access == CREATES ? COW_STORE_CREATE :
						     0;
	int r = cow_store_open(directory, flags, ret_store);

	if (r == -ENOENT && access(directory, F_OK) < 0)
		complain("there is no directory %s; cow store import makes one", directory);
	else if (r == -ENOTDIR)
		complain("%s is not a directory; a store is one", directory);
	else if (r < 0 && !said)
		complain_errno(r, "cannot open %s", directory);
	return r;
}

static int act(const struct action *action, struct store_run *run, int count, char **operands)
{
	int status;

	/* What cannot be listed can be verified all the same: that is when it is asked for. */
	if (action->run != store_verify && !layers_read(run->store, &run->found))
		return COMMAND_FAILED;
	if (command_json_wanted) {
		run->json = report_new("store");
		report_add_string(run->json, "action", action->name);
		report_add_string(run->json, "directory", run->directory);
	}
	status = action->run(run, count, operands);
	/* Damage and differences are 1, and results all the same. */
	if (run->json &&
	    (status == COMMAND_OK || action->run == store_verify || action->run == store_diff) &&
	    !report_write(run->json, NULL))
		status = COMMAND_FAILED;
	json_object_put(run->json);
	layers_free(&run->found);
	return status;
}

static int run(const struct command *command, int argc, char **argv)
{
	const struct action *action = find_action(argv[0]);
	struct store_run run = { .options = &wanted };
	int status;

	if (!action || !check_words(action, argc) || !check_format())
		return COMMAND_USAGE;
	run.directory = argv[1];
	progress_label = action->name;
	cow_log_set(log_message, NULL);
	catch_signals();
	fd_allow_many(); /* a layer of a chain holds one */
	if (!check_source(action, argv[2]) || open_store(action, run.directory, &run.store) < 0)
		return COMMAND_FAILED;
	status = act(action, &run, argc - 2, argv + 2);
	cow_store_close(run.store);
	return status;
}

const struct command command_store = {
	.name = "store",
	.summary = "look at saved snapshots, check, compare, copy and tidy them",
	.synopsis = "ACTION DIR [OPERAND...]",
	.description =
		"A store is a directory of layers, one for each saved snapshot, as qcow2 images;\n"
		"programs write it through libcow. LAYER is an identity, the beginning of one, a\n"
		"tag, or HEAD, the newest; so it is where it may be left out.\n"
		"\n"
		"  log DIR                    the layers, and what each was made from\n"
		"  info DIR [LAYER]           what is known of one\n"
		"  verify DIR [LAYER]         read everything, and compare it with its checksums\n"
		"  diff DIR OLDER [NEWER]     where the contents of two differ\n"
		"  export DIR [LAYER] FILE    write one as a raw image\n"
		"  import DIR FILE            make a qcow2 or raw image a layer\n"
		"  tag DIR [[LAYER] TAG]      name one; without names, list the tags\n"
		"  delete DIR LAYER           give one up\n"
		"  compact DIR                tidy up after deleted ones, and shorten long chains\n"
		"\n"
		"verify and diff end with 1 where they found damage, or a difference.\n",
	.options = options,
	.min_operands = 1,
	.max_operands = 4,
	.operands = action_names,
	.files = true,
	.json = COMMAND_JSON_STDOUT,
	.run = run,
};
