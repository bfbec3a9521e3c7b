/* SPDX-License-Identifier: MIT */
/* The findings, as text with the worst first to be seen, and as JSON. */
#include <stdio.h>
#include <string.h>

#include "cli/doctor/doctor.h"
#include "cli/output.h"
#include "cli/report.h"
#include "cli/table.h"
#include "proc/name.h"

static const char *const level_names[] = { "ok", "note", "warning", "critical" };
static const char *const evidence_names[] = { "measured", "rule", "not measured" };
static const enum style level_styles[] = { STYLE_GOOD, STYLE_NONE, STYLE_WARN, STYLE_BAD };

static void print_line(const char *label, const char *text)
{
	if (!text[0])
		return;
	printf("          %s%-8s%s", style(stdout, STYLE_DIM), label, style(stdout, STYLE_NONE));
	output_wrap(stdout, 18, text);
}

static void print_finding(const struct finding *finding)
{
	printf("%s%-9s%s %s%s%s: %s\n", style(stdout, level_styles[finding->level]),
	       level_names[finding->level], style(stdout, STYLE_NONE), style(stdout, STYLE_BOLD),
	       finding->id, style(stdout, STYLE_NONE), finding->value);
	print_line("means", finding->meaning);
	print_line("advice", finding->advice);
	print_line("reason", finding->reason);
}

static void print_size(const char *label, uint64_t bytes, const char *remark)
{
	char unit[UNIT_LENGTH];

	printf("  %-23s %10s  %s%s%s\n", label,
	       bytes == DOCTOR_UNKNOWN ? "unknown" : format_bytes(unit, bytes),
	       style(stdout, STYLE_DIM), remark, style(stdout, STYLE_NONE));
}

static void print_cost(const struct fork_cost *cost)
{
	char name[PROC_NAME_ROOM(PROC_COMMAND_LENGTH)], time[UNIT_LENGTH];

	printf("\nA fork of process %d (%s)\n", (int)cost->pid,
	       proc_name_escape(cost->command, name, sizeof(name)));
	printf("  %-23s %10s  %s%s%s\n", "latency",
	       cost->latency_ns == DOCTOR_UNKNOWN ? "unknown" : format_ns(time, cost->latency_ns),
	       style(stdout, STYLE_DIM), "from its entries, and forks measured here",
	       style(stdout, STYLE_NONE));
	print_size("page tables", cost->page_table_bytes, "copied for the child, at most");
	print_size("extra memory at worst", cost->worst_bytes, "every private writable page twice");
	if (cost->earlier_bytes != DOCTOR_UNKNOWN)
		print_size("extra memory, estimated", cost->earlier_bytes, cost->earlier_source);
	else
		puts("  extra memory, estimated     unknown  none was seen (--earlier FILE)");
	print_size("room for it", cost->room_bytes, "the least of available RAM and cgroup");
}

static void print_privileges(const struct privilege *privileges)
{
	puts("");
	for (; privileges->name; privileges++) {
		printf("%s%-9s%s %-15s ",
		       style(stdout, privileges->present ? STYLE_GOOD : STYLE_WARN),
		       privileges->present ? "have" : "missing", style(stdout, STYLE_NONE),
		       privileges->name);
		output_wrap(stdout, 26, privileges->brings);
	}
}

void doctor_print_text(const struct doctor *doctor, const struct fork_cost *cost,
		       const struct privilege *privileges)
{
	size_t i;

	printf("%s\n\n", doctor->root.captured ? "a captured tree" :
			 doctor->container     ? "seen from inside a container" :
						 "seen from the host");
	for (i = 0; i < doctor->count; i++)
		print_finding(&doctor->findings[i]);
	if (cost)
		print_cost(cost);
	if (privileges)
		print_privileges(privileges);
	if (doctor->unreadable)
		printf("\n# %zu of %zu files could not be read or make no sense\n",
		       doctor->unreadable, doctor->looked);
}

static void add_finding(json_object *list, const struct finding *finding)
{
	json_object *object = report_add_object(list, NULL);

	report_add_string(object, "id", finding->id);
	report_add_string(object, "level", level_names[finding->level]);
	report_add_string(object, "value", finding->value);
	report_add_string(object, "meaning", finding->meaning);
	report_add_word(object, "advice", finding->advice);
	report_add_string(object, "reason", finding->reason);
	report_add_string(object, "evidence", evidence_names[finding->evidence]);
}

static void add_cost(json_object *report, const struct fork_cost *cost)
{
	json_object *object = report_add_object(report, "fork");

	report_add_signed(object, "pid", cost->pid);
	report_add_string(object, "command", cost->command);
	report_add_unsigned(object, "rss_bytes", cost->rss_bytes);
	report_add_unsigned(object, "areas", cost->areas);
	report_add_known(object, "latency_ns", cost->latency_ns);
	report_add_known(object, "latency_max_ns", cost->latency_max_ns);
	report_add_unsigned(object, "page_table_bytes", cost->page_table_bytes);
	report_add_unsigned(object, "worst_bytes", cost->worst_bytes);
	report_add_known(object, "estimated_bytes", cost->earlier_bytes);
	report_add_string(object, "estimated_from", cost->earlier_source);
	report_add_known(object, "room_bytes", cost->room_bytes);
	report_add_bool(object, "fits",
			cost->worst_bytes + cost->page_table_bytes <= cost->room_bytes);
}

bool doctor_print_json(const struct doctor *doctor, const struct fork_cost *cost,
		       const struct privilege *privileges)
{
	json_object *report = report_new("doctor"), *list, *object;
	bool written;
	size_t i;

	report_add_string(report, "backend", "proc");
	report_add_double(
		report, "coverage",
		doctor->looked ? 1 - (double)doctor->unreadable / (double)doctor->looked : 0, 6);
	report_add_unsigned(report, "lost_events", 0);
	report_add_string(report, "scope", doctor->container ? "container" : "host");
	report_add_string(
		report, "status",
		level_names[doctor_worst(doctor) == LEVEL_NOTE ? LEVEL_OK : doctor_worst(doctor)]);
	list = report_add_array(report, "findings");
	for (i = 0; i < doctor->count; i++)
		add_finding(list, &doctor->findings[i]);
	if (cost)
		add_cost(report, cost);
	if (privileges) {
		list = report_add_array(report, "caps");
		for (; privileges->name; privileges++) {
			object = report_add_object(list, NULL);
			report_add_string(object, "name", privileges->name);
			report_add_bool(object, "present", privileges->present);
			report_add_string(object, "brings", privileges->brings);
		}
	}
	written = report_write(report, NULL);
	json_object_put(report);
	return written;
}
