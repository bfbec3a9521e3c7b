/* SPDX-License-Identifier: MIT */
/*
 * cow version: what a bug report or a measurement has to name. Everything that the machine does
 * not tell is left out of the text, and null in JSON.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cow.h>

#include "cli/commands.h"
#include "cli/machine.h"
#include "cli/output.h"
#include "cli/report.h"
#include "cli/table.h"

static const struct {
	const char *name;
	enum cow_trap trap;
} traps[] = {
	{ "explicit", COW_TRAP_EXPLICIT },
	{ "signal", COW_TRAP_SIGNAL },
	{ "thread", COW_TRAP_THREAD },
	{ "mprotect", COW_TRAP_MPROTECT },
};

#define TRAPS (sizeof(traps) / sizeof(traps[0]))

/* Whether a region with this trap can be made here and now: 0 or a negative errno. */
static int try_trap(enum cow_trap trap)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct cow_region *region;
	int error;

	options.trap = trap;
	error = cow_region_new((size_t)sysconf(_SC_PAGESIZE), &options, &region);
	if (!error)
		cow_region_free(region);
	return error;
}

static bool print_json(const struct machine *machine)
{
	json_object *report = report_new("version"), *list;
	bool written;
	size_t i;

	report_add_string(report, "version", cow_version());
	report_add_string(report, "kernel", machine->kernel.release);
	report_add_string(report, "machine", machine->kernel.machine);
	report_add_unsigned(report, "page_size", machine->page_bytes);
	report_add_known(report, "huge_page_size", machine->huge_page_bytes);
	report_add_word(report, "huge_pages", machine->huge_pages);
	report_add_word(report, "cpu", machine->cpu);
	report_add_signed(report, "cpus", machine->cpus);
	list = report_add_object(report, "traps");
	for (i = 0; i < TRAPS; i++)
		report_add_bool(list, traps[i].name, try_trap(traps[i].trap) == 0);
	written = report_write(report, NULL);
	json_object_put(report);
	return written;
}

static void print_trap(struct table *table, size_t i)
{
	int error = try_trap(traps[i].trap);

	table_cell(table, STYLE_NONE, "%s %s", "trap", traps[i].name);
	if (!error)
		table_cell(table, STYLE_GOOD, "yes");
	else
		table_cell(table, STYLE_DIM, "no: %s",
			   error == -EOPNOTSUPP ? "not in this version" : strerror(-error));
}

static void print_text(const struct machine *machine)
{
	static const struct table_column columns[] = { { NULL, false }, { NULL, false } };
	struct table *table = table_new(columns, 2);
	char unit[UNIT_LENGTH];
	size_t i;

	table_cell(table, STYLE_NONE, "libcow");
	table_cell(table, STYLE_BOLD, "%s", cow_version());
	table_cell(table, STYLE_NONE, "kernel");
	table_cell(table, STYLE_NONE, "%s %s %s", machine->kernel.sysname, machine->kernel.release,
		   machine->kernel.machine);
	table_cell(table, STYLE_NONE, "pages");
	table_cell(table, STYLE_NONE, "%s", format_bytes(unit, machine->page_bytes));
	if (machine->huge_page_bytes != KEYED_ABSENT) {
		table_cell(table, STYLE_NONE, "huge pages");
		table_cell(table, STYLE_NONE, "%s, %s",
			   format_bytes(unit, machine->huge_page_bytes), machine->huge_pages);
	}
	table_cell(table, STYLE_NONE, "CPUs");
	table_cell(table, STYLE_NONE, "%ld%s%s", machine->cpus, machine->cpu[0] ? " x " : "",
		   machine->cpu);
	for (i = 0; i < TRAPS; i++)
		print_trap(table, i);
	table_print(table, stdout);
	table_free(table);
}

static int run(const struct command *command, int argc, char **argv)
{
	struct machine machine;

	machine_look(&machine);
	if (command_json_wanted)
		return print_json(&machine) ? COMMAND_OK : COMMAND_FAILED;
	print_text(&machine);
	return COMMAND_OK;
}

const struct command command_version = {
	.name = "version",
	.summary = "show the versions of the library and the kernel, and what works here",
	.description =
		"The traps are tried, not looked up: 'yes' means that a region was made with it\n"
		"in this environment (a container may forbid what the kernel offers).\n",
	.json = COMMAND_JSON_STDOUT,
	.run = run,
};
