/* SPDX-License-Identifier: MIT */
/* The lines of -I: one an interval, a title every screenful. */
#include <string.h>

#include "cli/output.h"
#include "cli/stat/result.h"

static const struct {
	enum metric metric;
	const char *title;
} columns[] = {
	{ METRIC_FORKS, "forks" },        { METRIC_COPIED, "copied" },
	{ METRIC_REUSED, "reused" },      { METRIC_PROTECTED, "protected" },
	{ METRIC_ZERO_FILLED, "zeroed" }, { METRIC_MINOR_FAULTS, "minor" },
	{ METRIC_MAJOR_FAULTS, "major" },
};

#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

static bool is_column(const struct session *session, size_t i)
{
	if (columns[i].metric == METRIC_PROTECTED && is_counted(session->counted, METRIC_REUSED))
		return false;
	return is_counted(session->counted, columns[i].metric);
}

void interval_print_titles(FILE *stream, const struct session *session)
{
	size_t i;

	fprintf(stream, "%s#%10s", style(stream, STYLE_BOLD), "time");
	for (i = 0; i < COLUMNS; i++)
		if (is_column(session, i))
			fprintf(stream, " %10s", columns[i].title);
	fprintf(stream, "%s\n", style(stream, STYLE_NONE));
}

void interval_print(FILE *stream, const struct session *session, const struct counts *delta,
		    uint64_t at_ns, const char *rises)
{
	char value[UNIT_LENGTH];
	size_t i;

	fprintf(stream, "%11.3f", (double)at_ns / 1e9);
	for (i = 0; i < COLUMNS; i++)
		if (is_column(session, i))
			fprintf(stream, " %10s",
				format_count(value, delta->value[columns[i].metric]));
	if (rises[0])
		fprintf(stream, "  %s<- %s%s", style(stream, STYLE_WARN), rises,
			style(stream, STYLE_NONE));
	fputc('\n', stream);
	fflush(stream);
}
