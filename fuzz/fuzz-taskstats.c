/* SPDX-License-Identifier: MIT */
/* Datagrams of taskstats: whatever they hold, records are whole and errors are the parser's own. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "proc/taskstats.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void visit(const struct proc_taskstats *record, void *context)
{
	unsigned int *records = context;

	assert(memchr(record->command, '\0', sizeof(record->command)));
	assert(record->has_copies || (record->copies == 0 && record->copy_ns == 0));
	(*records)++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int records = 0;
	uint16_t family = 0;
	int error;

	/* The family that the corpus was made with. */
	error = taskstats_parse(data, size, 29, visit, &records);
	assert(error <= 0 && records <= size / 8);
	error = taskstats_parse_family(data, size, &family);
	assert(error <= 0 && (error == 0 || family == 0));
	return 0;
}
