/* SPDX-License-Identifier: MIT */
/*
 * The command's numbers, sizes and times: a refused text leaves the result alone, an accepted one
 * means the same when its value is written out in the smallest unit.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const struct command *const command_table[] = { NULL };

struct parser {
	int (*parse)(const char *text, uint64_t *ret_value);
	const char *smallest_unit;
};

static const struct parser parsers[] = {
	{ options_parse_count, "" },
	{ options_parse_size, "B" },
	{ options_parse_duration, "ns" },
};

static void try_parser(const struct parser *parser, const char *text)
{
	uint64_t value = 0x5a5a5a5a5a5a5a5a, again = 0;
	char canonical[64];
	int error = parser->parse(text, &value);

	if (error) {
		assert(error == -EINVAL || error == -ERANGE);
		assert(value == 0x5a5a5a5a5a5a5a5a);
		return;
	}
	snprintf(canonical, sizeof(canonical), "%" PRIu64 "%s", value, parser->smallest_unit);
	error = parser->parse(canonical, &again);
	assert(!error && again == value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	size_t i;

	assert(text);
	memcpy(text, data, size);
	text[size] = '\0';
	for (i = 0; i < sizeof(parsers) / sizeof(parsers[0]); i++)
		try_parser(&parsers[i], text);
	free(text);
	return 0;
}
