/* SPDX-License-Identifier: MIT */
#include "proc/areas.h"

#include <errno.h>
#include <string.h>

#include "proc/keyed.h"

static bool take_hex(struct text *text, uint64_t *ret_value)
{
	return text_u64(text, 16, ret_value) == 0;
}

static bool take_range(struct text *line, struct proc_area *area)
{
	return take_hex(line, &area->start) && text_take(line, '-') && take_hex(line, &area->end) &&
	       area->start < area->end && (area->start | area->end) % 4096 == 0;
}

static bool take_rights(struct text *line, struct proc_area *area)
{
	struct text word;

	if (!text_word(line, &word) || text_length(word) != 4)
		return false;
	area->readable = word.at[0] == 'r';
	area->writable = word.at[1] == 'w';
	area->executable = word.at[2] == 'x';
	area->shared = word.at[3] == 's';
	return true;
}

static bool take_device(struct text *line, struct proc_area *area)
{
	uint64_t major, minor;

	text_skip_blanks(line);
	if (!take_hex(line, &major) || !text_take(line, ':') || !take_hex(line, &minor) ||
	    major > UINT32_MAX || minor > UINT32_MAX)
		return false;
	area->device_major = (uint32_t)major;
	area->device_minor = (uint32_t)minor;
	return true;
}

static bool parse_area(struct text line, struct proc_area *area)
{
	if (!take_range(&line, area) || !take_rights(&line, area))
		return false;
	text_skip_blanks(&line);
	if (!take_hex(&line, &area->offset) || !take_device(&line, area))
		return false;
	text_skip_blanks(&line);
	if (text_u64(&line, 10, &area->inode) < 0)
		return false;
	text_skip_blanks(&line);
	area->name = line;
	return true;
}

int proc_area_next(struct text *maps, struct proc_area *ret_area)
{
	struct proc_area area;
	struct text line;

	if (!text_line(maps, &line))
		return 0;
	if (!parse_area(line, &area))
		return -EINVAL;
	*ret_area = area;
	return 1;
}

/* What follows an area's line in smaps; a name with a colon, while areas begin with a range. */
static bool is_detail(struct text line)
{
	struct text word;

	return text_word(&line, &word) && word.end[-1] == ':';
}

int proc_smaps_area_next(struct text *smaps, struct proc_area *ret_area, struct text *ret_details)
{
	struct text line, rest, details;
	int result = proc_area_next(smaps, ret_area);

	if (result <= 0)
		return result;
	details = text_of(smaps->at, 0);
	for (rest = *smaps; text_line(&rest, &line) && is_detail(line); *smaps = rest)
		details.end = rest.at;
	*ret_details = details;
	return 1;
}

/*
 * Zones are blocks that begin with "Node N, zone NAME"; "spanned" comes before "start_pfn", which
 * since Linux 4.9 has a colon.
 */
int proc_zoneinfo_end(struct text text, uint64_t *ret_end)
{
	struct {
		uint64_t spanned, start;
	} zone = { KEYED_ABSENT, KEYED_ABSENT };
	uint64_t end = 0, zone_end;
	struct text line, word;

	while (text_line(&text, &line)) {
		if (!text_word(&line, &word))
			continue;
		if (text_is(word, "spanned") && text_only_u64(line, &zone.spanned) < 0)
			return -EINVAL;
		if (!text_is(word, "start_pfn:") || zone.spanned == KEYED_ABSENT)
			continue;
		if (text_only_u64(line, &zone.start) < 0 ||
		    __builtin_add_overflow(zone.start, zone.spanned, &zone_end))
			return -EINVAL;
		/* An empty zone starts nowhere. */
		if (zone.spanned && zone_end > end)
			end = zone_end;
		zone.spanned = KEYED_ABSENT;
	}
	if (!end || end > PAGEMAP_FRAME)
		return -EINVAL;
	*ret_end = end;
	return 0;
}
