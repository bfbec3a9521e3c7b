/* SPDX-License-Identifier: MIT */
/* Units, tables and histograms of the command. */
#include "tests/tap.h"

#include "cli/histogram.h"
#include "cli/output.h"
#include "cli/table.h"

static char unit[UNIT_LENGTH];

TEST(bytes_have_three_digits_and_a_unit)
{
	is_str(format_bytes(unit, 0), "0 B", "nothing");
	is_str(format_bytes(unit, 1023), "1023 B", "the most bytes");
	is_str(format_bytes(unit, 1024), "1 KiB", "exact values have no decimals");
	is_str(format_bytes(unit, 1536), "1.50 KiB", "two decimals");
	is_str(format_bytes(unit, 12595), "12.3 KiB", "one decimal");
	is_str(format_bytes(unit, 1048575), "1.00 MiB", "rounding reaches the next unit");
	is_str(format_bytes(unit, UINT64_C(5) << 40), "5 TiB", "terabytes");
	is_str(format_bytes(unit, UINT64_MAX), "16.0 EiB", "the largest number");
}

TEST(times_have_three_digits_and_a_unit)
{
	is_str(format_ns(unit, 999), "999 ns", "nanoseconds");
	is_str(format_ns(unit, 20000), "20 us", "exact microseconds");
	is_str(format_ns(unit, 45678), "45.7 us", "microseconds");
	is_str(format_ns(unit, 999999), "1.00 ms", "rounding reaches the next unit");
	is_str(format_ns(unit, UINT64_C(90000000000)), "90 s", "seconds have no next unit");
}

TEST(counts_have_groups_of_three)
{
	is_str(format_count(unit, 0), "0", "nothing");
	is_str(format_count(unit, 999), "999", "one group");
	is_str(format_count(unit, 1000), "1,000", "two groups");
	is_str(format_count(unit, 1234567), "1,234,567", "three groups");
	is_str(format_count(unit, UINT64_MAX), "18,446,744,073,709,551,615", "the largest number");
}

/* What a table prints, as text that the caller frees. */
static char *printed(const struct table *table)
{
	char *text = NULL;
	size_t size = 0;
	FILE *stream = open_memstream(&text, &size);

	if (!stream)
		bail("open_memstream: %s", strerror(errno));
	table_print(table, stream);
	fclose(stream);
	return text;
}

TEST(tables_align_their_columns)
{
	static const struct table_column columns[] = { { "what", false }, { "bytes", true } };
	struct table *table = table_new(columns, 2);
	char *text;

	table_cell(table, STYLE_NONE, "a");
	table_cell(table, STYLE_GOOD, "%d", 123456);
	table_cell(table, STYLE_NONE,
		   "gr\xc3\xbc\xc3\x9f"
		   "e");
	table_cell(table, STYLE_NONE, "7");
	text = printed(table);
	is_str(text,
	       "what    bytes\n"
	       "a      123456\n"
	       "gr\xc3\xbc\xc3\x9f"
	       "e       7\n",
	       "numbers stand right, letters of two bytes take one column");
	free(text);
	table_free(table);
	table_free(NULL);
}

TEST(the_last_column_is_cut_to_the_width)
{
	static const struct table_column columns[] = { { "a", true }, { "name", false } };
	struct table *table = table_new(columns, 2);
	char *text;

	table_cell(table, STYLE_NONE, "12345");
	table_cell(table, STYLE_NONE,
		   "gr\xc3\xbc\xc3\x9f"
		   "e an alle");
	table_set_width(table, 12, 4);
	text = printed(table);
	is_str(text,
	       "    a  name\n"
	       "12345  gr\xc3\xbc\xc3\x9f"
	       "e\n",
	       "to 12 columns");
	free(text);
	table_set_width(table, 5, 4);
	text = printed(table);
	is_str(text,
	       "    a  name\n"
	       "12345  gr\xc3\xbc\xc3\x9f\n",
	       "but not below the least");
	free(text);
	table_free(table);
}

TEST(hidden_columns_take_no_room)
{
	static const struct table_column columns[] = {
		{ "a", true }, { "b", true }, { "c", true }, { "d", false }
	};
	struct table *table = table_new(columns, 4);
	char *text;
	int i;

	table_hide(table, 2);
	table_hide(table, 0);
	for (i = 0; i < 8; i++)
		table_cell(table, STYLE_NONE, "%d", i + 1);
	text = printed(table);
	is_str(text, "b  d\n2  4\n6  8\n", "the other cells are where they belong");
	free(text);
	table_free(table);
}

TEST(rows_have_no_trailing_blanks)
{
	static const struct table_column columns[] = { { NULL, false }, { NULL, false } };
	struct table *table = table_new(columns, 2);
	char *text;

	table_cell(table, STYLE_NONE, "key");
	table_cell(table, STYLE_NONE, "long value");
	table_cell(table, STYLE_NONE, "k");
	table_cell(table, STYLE_NONE, "v");
	table_cell(table, STYLE_NONE, "alone");
	text = printed(table);
	is_str(text, "key    long value\nk      v\nalone\n", "no titles, a short last row");
	free(text);
	table_free(table);
}

TEST(an_empty_table_prints_its_titles)
{
	static const struct table_column columns[] = { { "a", false }, { "b", true } };
	static const struct table_column untitled[] = { { "a", true }, { "b", true }, { "", 0 } };
	struct table *table = table_new(columns, 2);
	char *text = printed(table);

	is_str(text, "a  b\n", "titles");
	free(text);
	table_free(table);
	table = table_new(untitled, 3);
	text = printed(table);
	is_str(text, "a  b\n", "no blanks for a column without one");
	free(text);
	table_free(table);
}

TEST(words_are_wrapped_behind_their_label)
{
	char *text = NULL, *line, *rest;
	size_t size = 0;
	FILE *stream = open_memstream(&text, &size);
	unsigned int i;

	if (!stream)
		bail("open_memstream: %s", strerror(errno));
	is_u64(output_width(stream), 80, "what is no terminal has 80 columns");
	fputs("label  ", stream);
	for (i = 0; i < 3; i++)
		output_wrap(stream, 7, "");
	output_wrap(
		stream, 7,
		"  gr\xc3\xbc\xc3\x9f"
		"e an  alle\n"
		"und-noch-ein-langes-wort-das-in-keine-zeile-mehr-passt-weil-es-so-lang-ist-zzzz x "
		"12345678 12345678 12345678 12345678 12345678 12345678 12345678 12345678 1 1");
	fclose(stream);
	line = strtok_r(text, "\n", &rest);
	is_str(line, "label  ", "an empty text ends the line");
	line = strtok_r(NULL, "\n", &rest);
	is_str(line,
	       "gr\xc3\xbc\xc3\x9f"
	       "e an alle",
	       "blanks between words are one");
	line = strtok_r(NULL, "\n", &rest);
	is_u64(strlen(line), 7 + 79, "a word that is too long has a line");
	line = strtok_r(NULL, "\n", &rest);
	is_str(line,
	       "       x 12345678 12345678 12345678 12345678 12345678 12345678 12345678 12345678",
	       "80 columns are used, if need be all");
	line = strtok_r(NULL, "\n", &rest);
	is_str(line, "       1 1", "and the rest follows");
	free(text);
}

static struct histogram histogram, other;

TEST(an_empty_histogram_has_zeroes)
{
	memset(&histogram, 0, sizeof(histogram));
	is_u64(histogram_quantile(&histogram, 0.5), 0, "median");
	is_u64(histogram_quantile(&histogram, 1), 0, "maximum");
}

TEST(quantiles_are_within_a_64th)
{
	static const double shares[] = { 0.001, 0.5, 0.9, 0.99, 0.999 };
	uint64_t i, got, exact;

	memset(&histogram, 0, sizeof(histogram));
	for (i = 1; i <= 100000; i++)
		histogram_add(&histogram, i * 37);
	for (i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		exact = (uint64_t)(shares[i] * 100000 + 0.5) * 37;
		got = histogram_quantile(&histogram, shares[i]);
		ok(got >= exact && got <= exact + exact / 64 + 1,
		   "share %.3f: got %" PRIu64 ", exact %" PRIu64, shares[i], got, exact);
	}
	is_u64(histogram_quantile(&histogram, 1), 3700000, "the maximum is exact");
	is_u64(histogram.min, 37, "the minimum is exact");
}

TEST(any_value_finds_its_bucket)
{
	unsigned int bit;
	int step;
	uint64_t value;

	for (bit = 0; bit < 64; bit++)
		for (step = -1; step <= 1; step++) {
			value = (UINT64_C(1) << bit) + (uint64_t)step;
			memset(&histogram, 0, sizeof(histogram));
			histogram_add(&histogram, value);
			is_u64(histogram_quantile(&histogram, 0.5), value, "2^%u %+d", bit, step);
		}
	memset(&histogram, 0, sizeof(histogram));
	histogram_add(&histogram, UINT64_MAX);
	histogram_add(&histogram, UINT64_MAX - 1);
	is_u64(histogram_quantile(&histogram, 1), UINT64_MAX, "the largest number");
}

TEST(merged_histograms_are_as_one)
{
	memset(&histogram, 0, sizeof(histogram));
	memset(&other, 0, sizeof(other));
	histogram_merge(&histogram, &other);
	is_u64(histogram.total, 0, "nothing and nothing");
	histogram_add(&other, 5);
	histogram_add(&other, 500);
	histogram_merge(&histogram, &other);
	is_u64(histogram.min, 5, "the minimum comes along");
	histogram_add(&other, 2);
	histogram_merge(&histogram, &other);
	is_u64(histogram.total, 5, "totals add up");
	is_u64(histogram.min, 2, "the lesser minimum");
	is_u64(histogram.max, 500, "the greater maximum");
}

/* Every value is counted on exactly one line, so that the lines add up to the total. */
TEST(printed_histograms_count_every_value)
{
	const struct histogram *const series[] = { &histogram, &other };
	const char *const names[] = { "left", "right" };
	char *text = NULL, *line, *rest;
	unsigned int left, right, lefts = 0, rights = 0, i;
	size_t size = 0;
	FILE *stream;

	memset(&histogram, 0, sizeof(histogram));
	memset(&other, 0, sizeof(other));
	for (i = 0; i < 900; i++)
		histogram_add(&histogram, 1000 + i * 13);
	histogram_add(&other, 20000000);
	histogram_add(&other, 1999999);
	stream = open_memstream(&text, &size);
	histogram_print_ns(stream, series, names, 2);
	fclose(stream);
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (sscanf(line, "%*s %*s %u%*[# ]%u", &left, &right) != 2)
			continue;
		lefts += left;
		rights += right;
	}
	is_u64(lefts, 900, "the left column");
	is_u64(rights, 2, "the right column, with values at the edges of lines");
	free(text);
}

TAP_MAIN(CASE(bytes_have_three_digits_and_a_unit), CASE(times_have_three_digits_and_a_unit),
	 CASE(counts_have_groups_of_three), CASE(tables_align_their_columns),
	 CASE(the_last_column_is_cut_to_the_width), CASE(hidden_columns_take_no_room),
	 CASE(rows_have_no_trailing_blanks), CASE(an_empty_table_prints_its_titles),
	 CASE(words_are_wrapped_behind_their_label), CASE(an_empty_histogram_has_zeroes),
	 CASE(quantiles_are_within_a_64th), CASE(any_value_finds_its_bucket),
	 CASE(merged_histograms_are_as_one), CASE(printed_histograms_count_every_value))
