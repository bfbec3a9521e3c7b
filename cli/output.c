/* SPDX-License-Identifier: MIT */
#include "cli/output.h"

#include <errno.h>
#include <langinfo.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/progress.h"

static const char *current_verb;
static bool color_disabled;

void output_set_verb(const char *verb)
{
	current_verb = verb;
}

void output_disable_color(void)
{
	color_disabled = true;
}

static bool has_color(FILE *stream)
{
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");

	if (color_disabled || (no_color && no_color[0]))
		return false;
	if (!term || !term[0] || strcmp(term, "dumb") == 0)
		return false;
	return isatty(fileno(stream));
}

const char *style(FILE *stream, enum style wanted)
{
	static const char *const sequences[] = {
		[STYLE_NONE] = "\033[0m",  [STYLE_BOLD] = "\033[1m", [STYLE_DIM] = "\033[2m",
		[STYLE_GOOD] = "\033[32m", [STYLE_BAD] = "\033[31m", [STYLE_WARN] = "\033[33m",
	};

	return has_color(stream) ? sequences[wanted] : "";
}

bool output_has_blocks(FILE *stream)
{
	const char *term = getenv("TERM");

	return isatty(fileno(stream)) && term && strcmp(term, "dumb") != 0 &&
	       strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

unsigned int output_columns(FILE *stream)
{
	struct winsize size;

	return ioctl(fileno(stream), TIOCGWINSZ, &size) < 0 ? 0 : size.ws_col;
}

unsigned int output_width(FILE *stream)
{
	unsigned int columns = output_columns(stream);

	return columns == 0 ? 80 : columns < 40 ? 40 : columns > 100 ? 100 : columns;
}

/* Bytes that continue a character take no column. */
static unsigned int word_width(const char *word, size_t length)
{
	unsigned int width = 0;
	size_t i;

	for (i = 0; i < length; i++)
		width += ((unsigned char)word[i] & 0xc0) != 0x80;
	return width;
}

void output_wrap(FILE *stream, unsigned int indent, const char *text)
{
	const unsigned int most = output_width(stream);
	unsigned int column = indent, width;
	size_t length;

	for (text += strspn(text, " \n"); *text; text += strspn(text, " \n")) {
		length = strcspn(text, " \n");
		width = word_width(text, length);
		if (column > indent && column + 1 + width > most) {
			fprintf(stream, "\n%*s", (int)indent, "");
			column = indent;
		}
		if (column > indent)
			fputc(' ', stream);
		fwrite(text, 1, length, stream);
		column += width + (column > indent);
		text += length;
	}
	fputc('\n', stream);
}

/*
 * A message may quote what others chose, such as the name of a file: what would move a terminal's
 * cursor or end the line becomes a question mark. In UTF-8 the C1 controls are c2 80 to c2 9f.
 */
static void disarm(char *text)
{
	unsigned char *at = (unsigned char *)text;

	for (; *at; at++)
		if (*at < ' ' || *at == 0x7f)
			*at = '?';
		else if (*at == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)
			at[0] = at[1] = '?';
}

static void complain_text(char *text, const char *detail)
{
	disarm(text);
	progress_erase();
	fprintf(stderr, "%scow%s%s:%s %s%s%s\n", style(stderr, STYLE_BAD), current_verb ? " " : "",
		current_verb ? current_verb : "", style(stderr, STYLE_NONE), text,
		detail ? ": " : "", detail ? detail : "");
}

void complain(const char *format, ...)
{
	va_list arguments;
	char text[1024];

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	complain_text(text, NULL);
}

void complain_errno(int error, const char *format, ...)
{
	va_list arguments;
	char text[1024];

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	complain_text(text, strerror(-error));
}

bool output_finish(void)
{
	static bool told; /* by whoever wrote a report, before main() asks again */
	/* An earlier write may have failed with the reason long gone: ask for a new one. */
	bool lost = ferror(stdout);

	errno = 0;
	if (fflush(stdout) != 0)
		lost = true;
	if (!lost)
		return true;
	if (told)
		return false;
	told = true;
	if (errno)
		complain_errno(-errno, "cannot write the output");
	else
		complain("cannot write the output; some of it is lost");
	return false;
}

void *output_realloc(void *pointer, size_t size)
{
	void *result = realloc(pointer, size ? size : 1);

	if (!result) {
		complain("out of memory");
		exit(1);
	}
	return result;
}

/* Three significant digits and a unit; the next unit before four digits are needed. */
static const char *format_scaled(char text[UNIT_LENGTH], uint64_t value, const char *const units[],
				 size_t count, unsigned int step)
{
	double scaled = (double)value, limit = step > 1000 ? 1023.5 : 999.5;
	uint64_t factor = 1;
	size_t unit = 0;
	int decimals;

	for (; unit + 1 < count && scaled >= limit; unit++) {
		scaled /= step;
		factor *= step;
	}
	decimals = value % factor == 0 ? 0 : scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0;
	snprintf(text, UNIT_LENGTH, "%.*f %s", decimals, scaled, units[unit]);
	return text;
}

const char *format_bytes(char text[UNIT_LENGTH], uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };

	return format_scaled(text, bytes, units, sizeof(units) / sizeof(units[0]), 1024);
}

const char *format_ns(char text[UNIT_LENGTH], uint64_t ns)
{
	static const char *const units[] = { "ns", "us", "ms", "s" };

	return format_scaled(text, ns, units, sizeof(units) / sizeof(units[0]), 1000);
}

const char *format_count(char text[UNIT_LENGTH], uint64_t number)
{
	char digits[UNIT_LENGTH], *out = text;
	int length, i;

	length = snprintf(digits, sizeof(digits), "%" PRIu64, number);
	for (i = 0; i < length; i++) {
		if (i && (length - i) % 3 == 0)
			*out++ = ',';
		*out++ = digits[i];
	}
	*out = '\0';
	return text;
}
