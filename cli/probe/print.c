/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/output.h"
#include "cli/probe/probe.h"
#include "cli/report.h"
#include "cli/table.h"

static const enum cow_trap trap_order[] = { COW_TRAP_EXPLICIT, COW_TRAP_SIGNAL, COW_TRAP_THREAD,
					    COW_TRAP_MPROTECT };
#define TRAPS (sizeof(trap_order) / sizeof(trap_order[0]))

static const char *const filter_names[] = { "none", "strict", "filter", NULL };

static const char *const overcommit_names[] = { "heuristic", "always", "never" };

/* The ways to a userfaultfd, and to what pages hold. */
struct way {
	const char *name, *key;
	int error;
	const char *why;
};
#define WAYS 4

static void list_ways(const struct probe_facts *facts, struct way ways[WAYS])
{
	const struct cow_system *system = &facts->system;

	ways[0] = (struct way){ "userfaultfd(2)", "call", system->call_error,
				probe_why_call(facts) };
	ways[1] = (struct way){ "  of user mode only", "user_call", system->user_call_error,
				probe_why_user_call(facts) };
	ways[2] = (struct way){ "/dev/userfaultfd", "device", system->device_error,
				probe_why_device(facts) };
	ways[3] = (struct way){ "/proc/self/pagemap", "pagemap", system->pagemap_error,
				probe_why_pagemap(facts) };
}

/* --- text --- */

static const struct table_column three[] = { { NULL, false }, { NULL, false }, { NULL, false } };

static void title(const char *text)
{
	printf("\n%s%s%s\n", style(stdout, STYLE_BOLD), text, style(stdout, STYLE_NONE));
}

/* A row that ends with what there is to say; without it the row ends one cell earlier. */
static void row(struct table *table, const char *name, int error, const char *why)
{
	table_cell(table, STYLE_NONE, "  %s", name);
	table_cell(table, error == 0 ? STYLE_GOOD : STYLE_BAD, error == 0 ? "yes" : "no");
	table_cell(table, STYLE_DIM, "%s", why);
}

static void finish(struct table *table)
{
	table_print(table, stdout);
	table_free(table);
}

static void print_traps(const struct probe_facts *facts)
{
	struct table *table = table_new(three, 3);
	char why[160];

	title("Traps");
	for (size_t i = 0; i < TRAPS; i++) {
		probe_why_trap(facts, trap_order[i], why, sizeof(why));
		row(table, probe_trap_names[trap_order[i]], facts->system.trap_error[trap_order[i]],
		    why);
	}
	finish(table);
	printf("  COW_TRAP_AUTO takes %s%s%s\n", style(stdout, STYLE_BOLD),
	       probe_trap_names[facts->system.auto_trap], style(stdout, STYLE_NONE));
}

static void print_ways(const struct probe_facts *facts)
{
	struct table *table = table_new(three, 3);
	struct way ways[WAYS];

	title("Ways");
	list_ways(facts, ways);
	for (size_t i = 0; i < WAYS; i++)
		row(table, ways[i].name, ways[i].error, ways[i].why);
	finish(table);
}

static void print_features(const struct probe_facts *facts)
{
	struct table *table = table_new(three, 3);
	const struct probe_feature *feature;

	title("Features of the kernel");
	for (feature = probe_features; feature->bit; feature++) {
		bool there = facts->system.features & feature->bit;

		table_cell(table, STYLE_NONE, "  %s", feature->name);
		table_cell(table, there ? STYLE_GOOD : STYLE_WARN, there ? "yes" : "no");
		if (there)
			table_cell(table, STYLE_DIM, "since Linux %s%s", feature->since,
				   feature->without ? "" : "; not used");
		else
			table_cell(table, STYLE_DIM, "since Linux %s; %s", feature->since,
				   feature->without ?: "not used");
	}
	finish(table);
}

static void setting(struct table *table, const char *name, const char *value, const char *remark)
{
	table_cell(table, STYLE_NONE, "  %s", name);
	table_cell(table, STYLE_NONE, "%s", value);
	table_cell(table, STYLE_DIM, "%s", remark);
}

static const char *count_or(char unit[UNIT_LENGTH], uint64_t number, const char *otherwise)
{
	return number == PROBE_UNKNOWN ? otherwise : format_count(unit, number);
}

static const char *bytes_or(char unit[UNIT_LENGTH], uint64_t bytes, const char *otherwise)
{
	return bytes == PROBE_UNKNOWN ? otherwise : format_bytes(unit, bytes);
}

static const char *overcommit_name(const struct probe_facts *facts)
{
	return facts->overcommit < 3 ? overcommit_names[facts->overcommit] : "unknown";
}

static void print_memory(const struct probe_facts *facts, struct table *table)
{
	char unit[UNIT_LENGTH], remark[320] = "";

	if (facts->available_bytes != PROBE_UNKNOWN)
		snprintf(remark, sizeof(remark), "%s available",
			 format_bytes(unit, facts->available_bytes));
	setting(table, "memory", bytes_or(unit, facts->memory_bytes, "unknown"), remark);
	if (facts->cgroup.version)
		snprintf(remark, sizeof(remark), "set in %s, version %d", facts->cgroup.path,
			 facts->cgroup.version);
	setting(table, "cgroup's limit",
		facts->cgroup.version ? format_bytes(unit, facts->cgroup.limit) : "none",
		facts->cgroup.version ? remark : "");
}

static void print_settings(const struct probe_facts *facts)
{
	struct table *table = table_new(three, 3);
	char unit[UNIT_LENGTH], remark[96] = "";

	title("Settings");
	setting(table, "pages", format_bytes(unit, facts->system.page_size), "");
	if (facts->huge_page_bytes != PROBE_UNKNOWN)
		snprintf(remark, sizeof(remark), "%s; of shared memory: %s",
			 facts->huge_pages[0] ? facts->huge_pages : "unknown",
			 facts->shared_huge_pages[0] ? facts->shared_huge_pages : "unknown");
	setting(table, "huge pages", bytes_or(unit, facts->huge_page_bytes, "none"), remark);
	setting(table, "vm.max_map_count", count_or(unit, facts->map_count, "unknown"), "");
	setting(table, "vm.overcommit_memory", count_or(unit, facts->overcommit, "unknown"),
		overcommit_name(facts));
	setting(table, "descriptors", count_or(unit, facts->descriptors, "unlimited"),
		"two to four a region with the signal or thread trap");
	print_memory(facts, table);
	finish(table);
}

static void print_advice(const struct probe_facts *facts)
{
	struct probe_advice advice[PROBE_ADVICE_MAX];
	unsigned count = probe_advise(facts, advice);

	if (count == 0) {
		puts("\nThere is no better trap to be had.");
		return;
	}
	title("For a better trap, one of these");
	for (unsigned i = 0; i < count; i++) {
		printf("  %s:\n      %s%s%s\n", advice[i].what, style(stdout, STYLE_BOLD),
		       advice[i].command, style(stdout, STYLE_NONE));
		if (advice[i].note)
			printf("      %s%s%s\n", style(stdout, STYLE_DIM), advice[i].note,
			       style(stdout, STYLE_NONE));
	}
}

void probe_print_text(const struct probe_facts *facts)
{
	printf("libcow %s on %s %s %s%s, as %s%s%s\n", cow_version(), facts->kernel.sysname,
	       facts->kernel.release, facts->kernel.machine,
	       facts->container ? ", in a container" : "", facts->user == 0 ? "root" : "a user",
	       probe_has(facts, PROBE_CAP_PTRACE) ? " with CAP_SYS_PTRACE" : "",
	       facts->filter == FILTER_PROGRAM ? ", behind a filter of system calls" : "");
	print_traps(facts);
	print_ways(facts);
	print_features(facts);
	print_settings(facts);
	print_advice(facts);
}

/* --- JSON --- */

/* The errno's name, so that scripts need no table. */
static void add_attempt(json_object *to, int error, const char *why)
{
	report_add_bool(to, "available", error == 0);
	report_add_string(to, "error", error ? strerrorname_np(-error) : NULL);
	report_add_word(to, "reason", why);
}

static void add_traps(json_object *report, const struct probe_facts *facts)
{
	json_object *traps = report_add_object(report, "traps");
	char why[160];

	for (size_t i = 0; i < TRAPS; i++) {
		enum cow_trap trap = trap_order[i];

		probe_why_trap(facts, trap, why, sizeof(why));
		add_attempt(report_add_object(traps, probe_trap_names[trap]),
			    facts->system.trap_error[trap], why);
	}
	report_add_string(report, "auto", probe_trap_names[facts->system.auto_trap]);
	report_add_bool(report, "kernel_writes", facts->system.kernel_faults != 0);
}

static void add_userfaultfd(json_object *report, const struct probe_facts *facts)
{
	json_object *object = report_add_object(report, "ways");
	const struct probe_feature *feature;
	struct way ways[WAYS];

	list_ways(facts, ways);
	for (size_t i = 0; i < WAYS; i++)
		add_attempt(report_add_object(object, ways[i].key), ways[i].error, ways[i].why);
	object = report_add_object(report, "features");
	for (feature = probe_features; feature->bit; feature++)
		report_add_bool(object, feature->name, facts->system.features & feature->bit);
	object = report_add_array(report, "fallbacks");
	for (feature = probe_features; feature->bit; feature++)
		if (!(facts->system.features & feature->bit) && feature->without)
			report_add_string(object, NULL, feature->without);
}

static void add_settings(json_object *report, const struct probe_facts *facts)
{
	json_object *object = report_add_object(report, "settings");
	char mode[8];

	report_add_unsigned(object, "page_bytes", facts->system.page_size);
	report_add_known(object, "huge_page_bytes", facts->huge_page_bytes);
	report_add_word(object, "huge_pages", facts->huge_pages);
	report_add_word(object, "shared_huge_pages", facts->shared_huge_pages);
	report_add_known(object, "unprivileged_userfaultfd", facts->unprivileged);
	snprintf(mode, sizeof(mode), "%04o", (unsigned)facts->device.mode);
	report_add_string(object, "device_mode", facts->device.exists ? mode : NULL);
	report_add_known(object, "max_map_count", facts->map_count);
	report_add_known(object, "overcommit_memory", facts->overcommit);
	report_add_known(object, "descriptors", facts->descriptors);
	report_add_known(object, "memory_bytes", facts->memory_bytes);
	report_add_known(object, "available_bytes", facts->available_bytes);
	report_add_known(object, "cgroup_limit_bytes",
			 facts->cgroup.version ? facts->cgroup.limit : PROBE_UNKNOWN);
	report_add_string(object, "cgroup", facts->cgroup.version ? facts->cgroup.path : NULL);
}

static void add_process(json_object *report, const struct probe_facts *facts)
{
	json_object *object = report_add_object(report, "process");

	report_add_unsigned(object, "user", facts->user);
	report_add_bool(object, "cap_sys_ptrace", probe_has(facts, PROBE_CAP_PTRACE));
	report_add_string(object, "seccomp", filter_names[facts->filter]);
	report_add_bool(object, "no_new_privileges", facts->no_new_privileges);
	report_add_bool(object, "container", facts->container);
}

static void add_advice(json_object *report, const struct probe_facts *facts)
{
	struct probe_advice advice[PROBE_ADVICE_MAX];
	json_object *list = report_add_array(report, "advice");
	unsigned count = probe_advise(facts, advice);

	for (unsigned i = 0; i < count; i++) {
		json_object *object = report_add_object(list, NULL);

		report_add_string(object, "where", advice[i].what);
		report_add_string(object, "command", advice[i].command);
		report_add_string(object, "note", advice[i].note);
	}
}

bool probe_print_json(const struct probe_facts *facts)
{
	json_object *report = report_new("probe");
	bool written;

	report_add_string(report, "version", cow_version());
	report_add_string(report, "kernel", facts->kernel.release);
	report_add_string(report, "machine", facts->kernel.machine);
	add_traps(report, facts);
	add_userfaultfd(report, facts);
	add_settings(report, facts);
	add_process(report, facts);
	add_advice(report, facts);
	written = report_write(report, NULL);
	json_object_put(report);
	return written;
}
