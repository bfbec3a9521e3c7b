/* SPDX-License-Identifier: MIT */
/* What was found: a table with its totals, what stands behind them, and the same as JSON. */
#include <linux/fiemap.h>
#include <stdlib.h>
#include <string.h>

#include "cli/file/file.h"
#include "cli/output.h"
#include "cli/report.h"
#include "cli/table.h"
#include "proc/name.h"

/* --- names --- */

/* Paths are what anybody may have called them: escaped for a terminal. The caller frees it. */
static char *printable(const char *path)
{
	size_t room = PROC_NAME_ROOM(strlen(path) + 1);
	char *text = output_realloc(NULL, room);

	proc_name_escape(path, text, room);
	return text;
}

static const struct {
	uint32_t flag;
	const char *name;
} flag_names[] = {
	{ FIEMAP_EXTENT_SHARED, "shared" },
	{ FIEMAP_EXTENT_UNWRITTEN, "unwritten" },
	{ FIEMAP_EXTENT_DATA_INLINE, "inline" },
	{ FIEMAP_EXTENT_DATA_TAIL, "tail" },
	{ FIEMAP_EXTENT_DELALLOC, "unplaced" },
	{ FIEMAP_EXTENT_UNKNOWN, "unknown" },
	{ FIEMAP_EXTENT_DATA_ENCRYPTED, "encrypted" },
	{ FIEMAP_EXTENT_ENCODED, "compressed" },
};

/* Whether a flag says anything beyond what another one says. */
static bool tells(uint32_t flags, uint32_t flag)
{
	if (!(flags & flag))
		return false;
	/* Encrypted data is encoded, too, and what has no place yet is unknown. */
	if (flag == FIEMAP_EXTENT_ENCODED)
		return !(flags & FIEMAP_EXTENT_DATA_ENCRYPTED);
	return flag != FIEMAP_EXTENT_UNKNOWN || !(flags & FIEMAP_EXTENT_DELALLOC);
}

static const char *uuid_text(const uint8_t uuid[16], char text[37])
{
	char *at = text;
	int i;

	for (i = 0; i < 16; i++)
		at += snprintf(at, 4, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
			       uuid[i]);
	return text;
}

/* The row of the subvolume that another one is a snapshot of. */
static const struct file_row *find_parent(const struct file_result *result,
					  const struct file_subvolume *subvolume)
{
	size_t i;

	for (i = 0; file_is_snapshot(subvolume) && i < result->count; i++)
		if (result->rows[i].is_subvolume &&
		    memcmp(result->rows[i].subvolume.uuid, subvolume->parent, 16) == 0)
			return &result->rows[i];
	return NULL;
}

/* --- the table --- */

enum column {
	COLUMN_SIZE,
	COLUMN_MAPPED,
	COLUMN_EXCLUSIVE,
	COLUMN_SHARED,
	COLUMN_INSIDE,
	COLUMN_HOLES,
	COLUMN_UNWRITTEN,
	COLUMN_INLINE,
	COLUMN_COMPRESSED,
	COLUMN_UNPLACED,
	COLUMN_EXTENTS,
	COLUMN_FILES,
	COLUMN_LAYER,
	COLUMN_PATH,
	COLUMNS,
};

static const struct table_column titles[COLUMNS] = {
	[COLUMN_SIZE] = { "size", true },
	[COLUMN_MAPPED] = { "on disk", true },
	[COLUMN_EXCLUSIVE] = { "exclusive", true },
	[COLUMN_SHARED] = { "shared", true },
	[COLUMN_INSIDE] = { "inside", true },
	[COLUMN_HOLES] = { "holes", true },
	[COLUMN_UNWRITTEN] = { "unwritten", true },
	[COLUMN_INLINE] = { "inline", true },
	[COLUMN_COMPRESSED] = { "compressed", true },
	[COLUMN_UNPLACED] = { "unplaced", true },
	[COLUMN_EXTENTS] = { "extents", true },
	[COLUMN_FILES] = { "files", true },
	[COLUMN_LAYER] = { "layer", false },
	[COLUMN_PATH] = { "path", false },
};

static void fill_values(const struct file_sums *sums, uint64_t values[COLUMNS])
{
	memset(values, 0, COLUMNS * sizeof(*values));
	values[COLUMN_SIZE] = sums->size;
	values[COLUMN_MAPPED] = sums->mapped;
	values[COLUMN_EXCLUSIVE] = sums->exclusive;
	values[COLUMN_SHARED] = sums->shared;
	values[COLUMN_INSIDE] = sums->inside;
	values[COLUMN_HOLES] = sums->holes;
	values[COLUMN_UNWRITTEN] = sums->unwritten;
	values[COLUMN_INLINE] = sums->in_line;
	values[COLUMN_COMPRESSED] = sums->compressed;
	values[COLUMN_UNPLACED] = sums->unplaced;
	values[COLUMN_EXTENTS] = sums->extents;
	values[COLUMN_FILES] = sums->files;
}

static bool has_layers(const struct file_result *result)
{
	size_t i;

	for (i = 0; i < result->count; i++)
		if (result->rows[i].layer >= 0)
			return true;
	return false;
}

/* What is zero everywhere is left out, unless the question was for it. */
static bool is_needed(const struct file_result *result, enum column column)
{
	uint64_t values[COLUMNS];
	size_t i;

	switch (column) {
	case COLUMN_HOLES:
	case COLUMN_UNWRITTEN:
	case COLUMN_INLINE:
	case COLUMN_COMPRESSED:
	case COLUMN_UNPLACED:
		fill_values(&result->totals.sums, values);
		return values[column] > 0;
	case COLUMN_INSIDE:
		return result->count > 1 || result->totals.sums.inside > 0;
	case COLUMN_FILES:
		for (i = 0; i < result->count; i++)
			if (result->rows[i].directory)
				return true;
		return false;
	case COLUMN_LAYER:
		return has_layers(result);
	default:
		return true;
	}
}

static const char *layer_name(const struct file_row *row, char text[20])
{
	if (row->layer < 0)
		return "";
	if (row->layer > 0)
		snprintf(text, 20, "lower %d", row->layer);
	else
		snprintf(text, 20, "%s", row->sums.overlay.copied_up_files ? "copied up" : "upper");
	return text;
}

static void add_value(struct table *table, enum column column, enum style cell_style,
		      const struct file_sums *sums)
{
	uint64_t values[COLUMNS];
	char unit[UNIT_LENGTH];

	fill_values(sums, values);
	/* Of files without extents nothing but their blocks is known. */
	if (sums->blind_files && sums->blind_files == sums->files && column != COLUMN_SIZE &&
	    column != COLUMN_MAPPED && column != COLUMN_FILES)
		table_cell(table, STYLE_DIM, "-");
	else if (column == COLUMN_EXTENTS || column == COLUMN_FILES)
		table_cell(table, cell_style, "%s", format_count(unit, values[column]));
	else
		table_cell(table, cell_style, "%s", format_bytes(unit, values[column]));
}

static void add_row(struct table *table, const struct file_row *row)
{
	char *path = printable(row->path), layer[20];
	enum column column;

	for (column = 0; column < COLUMNS; column++)
		if (column == COLUMN_PATH)
			table_cell(table, STYLE_NONE, "%s", path);
		else if (column == COLUMN_LAYER)
			table_cell(table, STYLE_NONE, "%s", layer_name(row, layer));
		else
			add_value(table, column, STYLE_NONE, &row->sums);
	free(path);
}

static void add_total(struct table *table, const struct file_sums *sums)
{
	char count[UNIT_LENGTH];
	enum column column;

	for (column = 0; column < COLUMNS; column++)
		if (column == COLUMN_PATH)
			table_cell(table, STYLE_BOLD, "%s file%s", format_count(count, sums->files),
				   sums->files == 1 ? "" : "s");
		else if (column == COLUMN_LAYER)
			table_cell(table, STYLE_NONE, "%s", "");
		else
			add_value(table, column, STYLE_BOLD, sums);
}

static void print_rows(const struct file_result *result)
{
	struct table *table = table_new(titles, COLUMNS);
	enum column column;
	size_t i;

	for (column = 0; column < COLUMNS; column++)
		if (!is_needed(result, column))
			table_hide(table, column);
	for (i = 0; i < result->count; i++)
		add_row(table, &result->rows[i]);
	if (result->count > 1)
		add_total(table, &result->totals.sums);
	table_print(table, stdout);
	table_free(table);
}

/* --- what the table means --- */

static void print_figure(const char *label, uint64_t value, const char *remark)
{
	char unit[UNIT_LENGTH];

	printf("%-15s %-9s %s%s%s\n", label, format_bytes(unit, value), style(stdout, STYLE_DIM),
	       remark, style(stdout, STYLE_NONE));
}

static void print_totals(const struct file_totals *totals)
{
	print_figure("unique", totals->unique, "each place on disk counted once");
	if (totals->set_shared)
		print_figure("shared inside", totals->set_shared,
			     "of these, referred to more than once by what was named");
	if (totals->outside)
		print_figure("shared outside", totals->outside,
			     "of these at least, referred to by others: clones, snapshots");
}

static const char *in_files(char text[UNIT_LENGTH + 16], uint64_t files)
{
	char number[UNIT_LENGTH];

	snprintf(text, UNIT_LENGTH + 16, "in %s file%s", format_count(number, files),
		 files == 1 ? "" : "s");
	return text;
}

static void print_overlay(const struct file_sums *sums)
{
	char text[UNIT_LENGTH + 16], size[UNIT_LENGTH], remark[160];

	if (!sums->overlay.files)
		return;
	snprintf(remark, sizeof(remark), "%s, hiding %s of the layers below",
		 in_files(text, sums->overlay.copied_up_files),
		 format_bytes(size, sums->overlay.hidden));
	print_figure("copied up", sums->overlay.copied_up, remark);
	snprintf(remark, sizeof(remark), "%s that no layer below has",
		 in_files(text, sums->overlay.upper_files));
	print_figure("upper", sums->overlay.upper, remark);
	snprintf(remark, sizeof(remark), "%s of the layers below, not copied up",
		 in_files(text, sums->overlay.lower_files));
	print_figure("lower", sums->overlay.lower, remark);
	if (sums->overlay.metadata_only)
		printf("# of %s copied up the data is still below (metacopy)\n",
		       format_count(text, sums->overlay.metadata_only));
	if (sums->overlay.whiteouts || sums->overlay.opaque || sums->overlay.redirected) {
		printf("# %s whiteouts, ", format_count(text, sums->overlay.whiteouts));
		printf("%s opaque and ", format_count(text, sums->overlay.opaque));
		printf("%s redirected directories\n", format_count(text, sums->overlay.redirected));
	}
	if (sums->overlay.unknown)
		printf("# of %s the layer is unknown: the layers' directories cannot be seen from "
		       "here\n",
		       format_count(text, sums->overlay.unknown));
}

static void print_subvolumes(const struct file_result *result)
{
	const struct file_row *parent;
	char uuid[37], *path, *source;
	size_t i;

	for (i = 0; i < result->count; i++) {
		const struct file_row *row = &result->rows[i];

		if (!row->is_subvolume)
			continue;
		path = printable(row->path);
		printf("# %s: %ssubvolume %" PRIu64, path,
		       row->subvolume.read_only ? "read-only " : "", row->subvolume.id);
		parent = find_parent(result, &row->subvolume);
		if (parent) {
			source = printable(parent->path);
			printf(", a snapshot of %s", source);
			free(source);
		} else if (file_is_snapshot(&row->subvolume)) {
			printf(", a snapshot of %s", uuid_text(row->subvolume.parent, uuid));
		}
		putchar('\n');
		free(path);
	}
}

static void print_remarks(const struct file_result *result)
{
	const struct file_sums *sums = &result->totals.sums;
	char text[UNIT_LENGTH];

	print_subvolumes(result);
	if (sums->hard_links)
		printf("# %s further names of files that were counted\n",
		       format_count(text, sums->hard_links));
	if (sums->skipped)
		printf("# %s that are no files (links, devices, /proc and the like) were passed "
		       "over\n",
		       format_count(text, sums->skipped));
	if (sums->blind_files)
		printf("# of %s file%s the file system tells no extents (no FIEMAP): blocks are "
		       "counted, what is shared is unknown\n",
		       format_count(text, sums->blind_files), sums->blind_files == 1 ? "" : "s");
	if (sums->compressed)
		puts("# sizes of compressed data are those before compression");
}

/* --- extents --- */

static const struct table_column extent_titles[] = {
	{ "offset", true },
	{ "place", true },
	{ "length", true },
	{ "", false },
};

static void add_flags(struct table *table, uint32_t flags)
{
	char text[128] = "";
	size_t i;

	for (i = 0; i < sizeof(flag_names) / sizeof(flag_names[0]); i++)
		if (tells(flags, flag_names[i].flag))
			snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s",
				 *text ? ", " : "", flag_names[i].name);
	table_cell(table, STYLE_NONE, "%s", text);
}

static void print_extents(const struct file_result *result)
{
	const struct file_extent *extent;
	struct table *table;
	uint32_t row, file;
	char *path;
	size_t i = 0;

	while (i < result->extents.count) {
		row = result->extents.list[i].row;
		file = result->extents.list[i].file;
		path = printable(result->rows[row].path);
		printf("\n%s%s%s\n", style(stdout, STYLE_BOLD), path, style(stdout, STYLE_NONE));
		free(path);
		table = table_new(extent_titles, 4);
		for (; i < result->extents.count && result->extents.list[i].file == file; i++) {
			extent = &result->extents.list[i];
			table_cell(table, STYLE_NONE, "%" PRIu64, extent->logical);
			table_cell(table, STYLE_NONE, "%" PRIu64, extent->physical);
			table_cell(table, STYLE_NONE, "%" PRIu64, extent->length);
			add_flags(table, extent->flags);
		}
		table_print(table, stdout);
		table_free(table);
	}
}

void file_print_text(const struct file_result *result, bool extents)
{
	if (!result->count)
		return;
	print_rows(result);
	print_totals(&result->totals);
	print_overlay(&result->totals.sums);
	print_remarks(result);
	if (extents)
		print_extents(result);
}

/* --- JSON --- */

static void add_overlay(json_object *to, const struct file_sums *sums)
{
	json_object *overlay;

	if (!sums->overlay.files && !sums->overlay.whiteouts) {
		report_add_string(to, "overlay", NULL);
		return;
	}
	overlay = report_add_object(to, "overlay");
	report_add_unsigned(overlay, "upper_bytes", sums->overlay.upper);
	report_add_unsigned(overlay, "upper_files", sums->overlay.upper_files);
	report_add_unsigned(overlay, "copied_up_bytes", sums->overlay.copied_up);
	report_add_unsigned(overlay, "copied_up_files", sums->overlay.copied_up_files);
	report_add_unsigned(overlay, "metadata_only_files", sums->overlay.metadata_only);
	report_add_unsigned(overlay, "hidden_bytes", sums->overlay.hidden);
	report_add_unsigned(overlay, "lower_bytes", sums->overlay.lower);
	report_add_unsigned(overlay, "lower_files", sums->overlay.lower_files);
	report_add_unsigned(overlay, "whiteouts", sums->overlay.whiteouts);
	report_add_unsigned(overlay, "opaque_directories", sums->overlay.opaque);
	report_add_unsigned(overlay, "redirected_directories", sums->overlay.redirected);
	report_add_unsigned(overlay, "unknown_files", sums->overlay.unknown);
}

static void add_sums(json_object *to, const struct file_sums *sums)
{
	report_add_unsigned(to, "files", sums->files);
	report_add_unsigned(to, "extents", sums->extents);
	report_add_unsigned(to, "size_bytes", sums->size);
	report_add_unsigned(to, "mapped_bytes", sums->mapped);
	report_add_unsigned(to, "exclusive_bytes", sums->exclusive);
	report_add_unsigned(to, "shared_bytes", sums->shared);
	report_add_unsigned(to, "shared_inside_bytes", sums->inside);
	report_add_unsigned(to, "hole_bytes", sums->holes);
	report_add_unsigned(to, "unwritten_bytes", sums->unwritten);
	report_add_unsigned(to, "inline_bytes", sums->in_line);
	report_add_unsigned(to, "compressed_bytes", sums->compressed);
	report_add_unsigned(to, "unplaced_bytes", sums->unplaced);
	report_add_unsigned(to, "unknown_bytes", sums->blind);
	report_add_unsigned(to, "unknown_files", sums->blind_files);
	report_add_unsigned(to, "hard_links", sums->hard_links);
	report_add_unsigned(to, "skipped", sums->skipped);
	report_add_unsigned(to, "directories", sums->directories);
	report_add_unsigned(to, "subvolumes", sums->subvolumes);
	report_add_unsigned(to, "snapshots", sums->snapshots);
	add_overlay(to, sums);
}

static void add_subvolume(json_object *to, const struct file_row *row)
{
	json_object *subvolume;
	char uuid[37];

	if (!row->is_subvolume) {
		report_add_string(to, "subvolume", NULL);
		return;
	}
	subvolume = report_add_object(to, "subvolume");
	report_add_unsigned(subvolume, "id", row->subvolume.id);
	report_add_string(subvolume, "name", row->subvolume.name);
	report_add_string(subvolume, "uuid", uuid_text(row->subvolume.uuid, uuid));
	report_add_string(
		subvolume, "snapshot_of",
		file_is_snapshot(&row->subvolume) ? uuid_text(row->subvolume.parent, uuid) : NULL);
	report_add_bool(subvolume, "read_only", row->subvolume.read_only);
}

static const char *layer_key(const struct file_row *row)
{
	if (row->layer < 0)
		return NULL;
	if (row->layer > 0)
		return "lower";
	return row->sums.overlay.copied_up_files ? "copied-up" : "upper";
}

static void add_extent(json_object *list, const struct file_result *result,
		       const struct file_extent *extent)
{
	json_object *row = report_add_object(list, NULL), *flags;
	size_t i;

	report_add_string(row, "path", result->rows[extent->row].path);
	report_add_unsigned(row, "offset_bytes", extent->logical);
	report_add_unsigned(row, "place_bytes", extent->physical);
	report_add_unsigned(row, "length_bytes", extent->length);
	flags = report_add_array(row, "flags");
	for (i = 0; i < sizeof(flag_names) / sizeof(flag_names[0]); i++)
		if (tells(extent->flags, flag_names[i].flag))
			report_add_string(flags, NULL, flag_names[i].name);
}

static void add_totals(json_object *report, const struct file_totals *totals)
{
	json_object *total = report_add_object(report, "total");

	report_add_unsigned(total, "unique_bytes", totals->unique);
	report_add_unsigned(total, "unique_shared_inside_bytes", totals->set_shared);
	report_add_unsigned(total, "shared_outside_bytes", totals->outside);
	add_sums(total, &totals->sums);
}

bool file_print_json(const struct file_result *result, bool extents)
{
	json_object *report = report_new("file"), *list, *row;
	bool written;
	size_t i;

	report_add_unsigned(report, "failed", result->failed);
	list = report_add_array(report, "paths");
	for (i = 0; i < result->count; i++) {
		row = report_add_object(list, NULL);
		report_add_string(row, "path", result->rows[i].path);
		report_add_string(row, "type", result->rows[i].directory ? "directory" : "file");
		report_add_string(row, "file_system", result->rows[i].file_system);
		report_add_string(row, "layer", layer_key(&result->rows[i]));
		add_subvolume(row, &result->rows[i]);
		add_sums(row, &result->rows[i].sums);
	}
	add_totals(report, &result->totals);
	if (extents) {
		list = report_add_array(report, "extents");
		for (i = 0; i < result->extents.count; i++)
			add_extent(list, result, &result->extents.list[i]);
	}
	written = report_write(report, NULL);
	json_object_put(report);
	return written;
}
