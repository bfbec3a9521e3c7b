/* SPDX-License-Identifier: MIT */
/* What was seen, as a table a step, and as JSON. */
#include <stdio.h>
#include <string.h>

#include "cli/output.h"
#include "cli/report.h"
#include "cli/table.h"
#include "cli/walk/walk.h"
#include "proc/areas.h"

#define CELL 64

/* Bits of /proc/kpageflags, by the kernel's names for them; the letters are of the text. */
static const struct {
	unsigned bit;
	const char *name;
	char letter; /* 0: of no interest here */
} flag_names[] = {
	{ 0, "locked", 0 },         { 2, "referenced", 0 },    { 3, "uptodate", 0 },
	{ 4, "dirty", 'd' },        { 5, "lru", 'l' },         { 6, "active", 0 },
	{ 7, "slab", 0 },           { 8, "writeback", 0 },     { 9, "reclaim", 0 },
	{ 10, "buddy", 0 },         { 11, "mmap", 'm' },       { 12, "anon", 'a' },
	{ 13, "swapcache", 0 },     { 14, "swapbacked", 'b' }, { 15, "compound_head", 0 },
	{ 16, "compound_tail", 0 }, { 17, "huge", 0 },         { 18, "unevictable", 0 },
	{ 19, "hwpoison", 0 },      { 20, "nopage", 0 },       { 21, "ksm", 'k' },
	{ 22, "thp", 't' },         { 23, "offline", 0 },      { 24, "zero_page", 'z' },
	{ 25, "idle", 0 },          { 26, "pgtable", 0 },
};

#define FLAGS (sizeof(flag_names) / sizeof(flag_names[0]))

static const char *const sim_place_names[] = {
	[SIM_ZERO] = "zero",
	[SIM_WINDOW] = "window",
	[SIM_KEPT] = "kept",
	[SIM_OWN] = "own",
};

const char *walk_frame_name(const struct walk_entry *entry, char name[WALK_NAME])
{
	if (!entry->present)
		snprintf(name, WALK_NAME, "%s", entry->swapped ? "swapped" : "-");
	else if (entry->zero)
		snprintf(name, WALK_NAME, "zero");
	else if (entry->frame == WALK_UNKNOWN)
		snprintf(name, WALK_NAME, "%s", entry->exclusive ? "alone" : "shared");
	else
		snprintf(name, WALK_NAME, "%" PRIx64, entry->frame);
	return name;
}

const char *walk_sim_name(const struct sim_entry *entry, char name[WALK_NAME])
{
	if (entry->place == SIM_ZERO)
		snprintf(name, WALK_NAME, "zero");
	else
		snprintf(name, WALK_NAME, "%s %" PRIu64, sim_place_names[entry->place],
			 entry->frame);
	return name;
}

/* --- text --- */

static const char *protection(bool writable)
{
	return writable ? "rw" : "ro";
}

static void flag_letters(uint64_t flags, char letters[FLAGS + 1])
{
	size_t i;

	if (flags != WALK_UNKNOWN)
		for (i = 0; i < FLAGS; i++)
			if (flag_names[i].letter && (flags >> flag_names[i].bit & 1))
				*letters++ = flag_names[i].letter;
	*letters = '\0';
}

/* "10f3a2 x2 ro dlmab"; what a page of zeroes is mapped by nobody counts. */
static void entry_cell(const struct walk_entry *entry, char cell[CELL])
{
	char name[WALK_NAME], maps[WALK_NAME] = "", letters[FLAGS + 1];

	walk_frame_name(entry, name);
	if (!entry->present) {
		snprintf(cell, CELL, "%s", name);
		return;
	}
	if (!entry->zero && entry->maps != WALK_UNKNOWN)
		snprintf(maps, sizeof(maps), "x%" PRIu64, entry->maps);
	flag_letters(entry->flags, letters);
	snprintf(cell, CELL, "%-6s %-2s %s %s%s", name, maps, protection(entry->writable), letters,
		 entry->huge ? " 2M" : "");
}

static void sim_cell(const struct sim_entry *entry, char cell[CELL])
{
	char name[WALK_NAME], readers[WALK_NAME] = "";

	if (entry->readers)
		snprintf(readers, sizeof(readers), "x%u", entry->readers);
	snprintf(cell, CELL, "%-8s %-2s %s", walk_sim_name(entry, name), readers,
		 protection(entry->writable));
}

static enum style entry_style(bool exists, bool present, bool writable)
{
	if (!exists || !present)
		return STYLE_DIM;
	return writable ? STYLE_GOOD : STYLE_WARN;
}

static void add_entry(struct table *table, const struct walk_entry *entry)
{
	char cell[CELL] = "";

	if (entry->exists)
		entry_cell(entry, cell);
	table_cell(table, entry_style(entry->exists, entry->present, entry->writable), "%s", cell);
}

static void add_sim(struct table *table, const struct walk_step *step, unsigned who, unsigned page)
{
	const struct sim_entry *entry = &step->sim[who][page];
	char cell[CELL] = "";

	if (step->in_sim[who] && walk_page_kinds[page].anonymous)
		sim_cell(entry, cell);
	else if (step->in_sim[who])
		snprintf(cell, CELL, "-");
	table_cell(table, entry_style(*cell != '\0', *cell != '-', entry->writable), "%s", cell);
}

static void print_pages(const struct walk *walk, const struct walk_step *step)
{
	static const struct table_column columns[] = {
		{ "page", false },           { "parent", false }, { "child", false },
		{ "libcow: parent", false }, { "child", false },
	};
	struct table *table = table_new(columns, sizeof(columns) / sizeof(columns[0]));
	unsigned page;

	for (page = 0; page < walk->pages; page++) {
		table_cell(table, STYLE_NONE, "%s", walk_page_kinds[page].name);
		add_entry(table, &step->entries[WALK_BY_PARENT][page]);
		add_entry(table, &step->entries[WALK_BY_CHILD][page]);
		add_sim(table, step, WALK_BY_PARENT, page);
		add_sim(table, step, WALK_BY_CHILD, page);
	}
	table_print(table, stdout);
	table_free(table);
}

static void add_write(struct table *table, const struct walk_write *write)
{
	bool right = write->faults == write->expected_faults && !write->faults_again;

	table_cell(table, STYLE_NONE, "%s", walk_page_kinds[write->page].name);
	table_cell(table, STYLE_NONE, "%" PRIu64, write->expected_faults);
	table_cell(table, right ? STYLE_NONE : STYLE_BAD, "%" PRIu64, write->faults);
	table_cell(table, right ? STYLE_NONE : STYLE_BAD, "%" PRIu64, write->faults_again);
	table_cell(table, STYLE_NONE, "%s", walk_outcome_names[write->outcome]);
	table_cell(table, STYLE_NONE, "%s",
		   write->in_sim ? walk_sim_outcome_names[write->sim.outcome] : "-");
}

static void print_writes(const struct walk_step *step)
{
	static const struct table_column columns[] = {
		{ "write to", false },     { "faults inferred", true }, { "taken", true },
		{ "written again", true }, { "kernel", false },         { "libcow", false },
	};
	struct table *table;
	unsigned i;

	if (!step->write_count)
		return;
	table = table_new(columns, sizeof(columns) / sizeof(columns[0]));
	for (i = 0; i < step->write_count; i++)
		add_write(table, &step->writes[i]);
	putchar('\n');
	table_print(table, stdout);
	table_free(table);
}

static void print_pages_meant(const struct walk *walk)
{
	static const struct table_column columns[] = { { NULL, false }, { NULL, false } };
	struct table *table = table_new(columns, 2);
	unsigned page;

	for (page = 0; page < walk->pages; page++) {
		table_cell(table, STYLE_BOLD, "%s", walk_page_kinds[page].name);
		table_cell(table, STYLE_NONE, "%s", walk_page_kinds[page].meaning);
	}
	table_print(table, stdout);
	table_free(table);
}

static void print_legend(const struct walk *walk)
{
	output_wrap(
		stdout, 0,
		walk->sees_frames ?
			"Of the processes: frame number, how often it is mapped, what the next "
			"write meets (ro: a fault), flags (d dirty, l LRU, m mapped, a anonymous, "
			"b swap-backed, k KSM, t huge, z zero page), 2M: one entry maps a huge "
			"page." :
			"Of the processes: whether the page is shared or alone, and what the next "
			"write meets (ro: a fault). Frame numbers, map counts and flags are "
			"hidden: they need CAP_SYS_ADMIN.");
	output_wrap(stdout, 0,
		    "Of libcow's core on its software MMU: the parent's window, copies kept for "
		    "the child, the child's own memory; how many read it. Its snapshot outlives "
		    "what the child wrote: where the kernel reuses 'both', libcow keeps a copy. "
		    "Pages of files are the kernel's alone.");
	if (walk->huge_missing)
		puts("There was no huge page to be had: those rows are small pages.");
}

void walk_print_text(const struct walk *walk)
{
	unsigned i;

	print_pages_meant(walk);
	for (i = 0; i < WALK_STEPS; i++) {
		printf("\n%s%u. %s%s: %s\n\n", style(stdout, STYLE_BOLD), i + 1,
		       walk->steps[i].name, style(stdout, STYLE_NONE), walk->steps[i].what);
		print_pages(walk, &walk->steps[i]);
		print_writes(&walk->steps[i]);
	}
	putchar('\n');
	print_legend(walk);
	if (walk->contradictions)
		printf("%s%u of the writes did not fault as was inferred.%s\n",
		       style(stdout, STYLE_BAD), walk->contradictions, style(stdout, STYLE_NONE));
	else
		puts("Every write faulted as was inferred from the page tables.");
}

/* --- JSON --- */

static void json_flags(json_object *to, uint64_t flags)
{
	json_object *list;
	size_t i;

	if (flags == WALK_UNKNOWN) {
		report_add_string(to, "flags", NULL);
		return;
	}
	list = report_add_array(to, "flags");
	for (i = 0; i < FLAGS; i++)
		if (flags >> flag_names[i].bit & 1)
			report_add_string(list, NULL, flag_names[i].name);
}

static void json_entry(json_object *to, const char *key, const struct walk_entry *entry)
{
	json_object *object;

	if (!entry->exists) {
		report_add_string(to, key, NULL);
		return;
	}
	object = report_add_object(to, key);
	report_add_bool(object, "present", entry->present);
	if (!entry->present)
		return;
	report_add_known(object, "frame", entry->frame);
	report_add_known(object, "maps", entry->maps);
	report_add_bool(object, "exclusive", entry->exclusive);
	report_add_bool(object, "file", entry->file);
	report_add_bool(object, "zero_page", entry->zero);
	report_add_bool(object, "huge", entry->huge);
	report_add_bool(object, "writable", entry->writable);
	json_flags(object, entry->flags);
}

static void json_sim(json_object *to, const char *key, const struct walk_step *step, unsigned who,
		     unsigned page)
{
	const struct sim_entry *entry = &step->sim[who][page];
	json_object *object;

	if (!step->in_sim[who] || !walk_page_kinds[page].anonymous) {
		report_add_string(to, key, NULL);
		return;
	}
	object = report_add_object(to, key);
	report_add_string(object, "place", sim_place_names[entry->place]);
	report_add_known(object, "frame", entry->place == SIM_ZERO ? WALK_UNKNOWN : entry->frame);
	report_add_unsigned(object, "readers", entry->readers);
	report_add_bool(object, "writable", entry->writable);
}

static void json_pages(json_object *to, const struct walk *walk, const struct walk_step *step)
{
	json_object *list = report_add_array(to, "pages"), *object, *libcow;
	unsigned page;

	for (page = 0; page < walk->pages; page++) {
		object = report_add_object(list, NULL);
		report_add_string(object, "name", walk_page_kinds[page].name);
		json_entry(object, "parent", &step->entries[WALK_BY_PARENT][page]);
		json_entry(object, "child", &step->entries[WALK_BY_CHILD][page]);
		libcow = report_add_object(object, "libcow");
		json_sim(libcow, "parent", step, WALK_BY_PARENT, page);
		json_sim(libcow, "child", step, WALK_BY_CHILD, page);
	}
}

static void json_writes(json_object *to, const struct walk_step *step)
{
	json_object *list = report_add_array(to, "writes"), *object, *libcow;
	const struct walk_write *write;
	unsigned i;

	for (i = 0; i < step->write_count; i++) {
		write = &step->writes[i];
		object = report_add_object(list, NULL);
		report_add_string(object, "page", walk_page_kinds[write->page].name);
		report_add_string(object, "by", write->who == WALK_BY_CHILD ? "child" : "parent");
		report_add_unsigned(object, "inferred_faults", write->expected_faults);
		report_add_unsigned(object, "faults", write->faults);
		report_add_unsigned(object, "faults_again", write->faults_again);
		report_add_string(object, "outcome", walk_outcome_names[write->outcome]);
		if (!write->in_sim) {
			report_add_string(object, "libcow", NULL);
			continue;
		}
		libcow = report_add_object(object, "libcow");
		report_add_unsigned(libcow, "inferred_faults", write->sim_expected_faults);
		report_add_unsigned(libcow, "faults", write->sim.faults);
		report_add_string(libcow, "outcome", walk_sim_outcome_names[write->sim.outcome]);
	}
}

bool walk_print_json(const struct walk *walk)
{
	json_object *report = report_new("walk"), *steps, *object;
	unsigned i;
	bool written;

	report_add_string(report, "backend",
			  walk->sees_frames ? "pagemap+kpagecount+kpageflags" : "pagemap");
	report_add_unsigned(report, "page_bytes", walk->page_bytes);
	report_add_bool(report, "frames_visible", walk->sees_frames);
	report_add_bool(report, "zero_page_told", walk->knows_zero);
	report_add_double(report, "coverage", walk->sees_frames ? 1 : 0, 1);
	report_add_unsigned(report, "lost_events", 0);
	report_add_bool(report, "huge_page", walk->pages == WALK_PAGES && !walk->huge_missing);
	report_add_unsigned(report, "contradictions", walk->contradictions);
	steps = report_add_array(report, "steps");
	for (i = 0; i < WALK_STEPS; i++) {
		object = report_add_object(steps, NULL);
		report_add_string(object, "name", walk->steps[i].name);
		json_pages(object, walk, &walk->steps[i]);
		json_writes(object, &walk->steps[i]);
	}
	written = report_write(report, NULL);
	json_object_put(report);
	return written;
}
