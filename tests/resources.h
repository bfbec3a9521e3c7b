/* SPDX-License-Identifier: MIT */
/* What the process holds of the kernel's: to find what a failure left behind. */
#ifndef TESTS_RESOURCES_H
#define TESTS_RESOURCES_H

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tests/tap.h"

TAP_MAYBE_UNUSED static unsigned open_files(void)
{
	DIR *directory = opendir("/proc/self/fd");
	unsigned count = 0;

	while (directory && readdir(directory))
		count++;
	if (directory)
		closedir(directory);
	return count;
}

/* Bytes of mappings that are nobody's but the program's: not the heap, which comes and goes. */
TAP_MAYBE_UNUSED static size_t mapped_bytes(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	size_t sum = 0, start, end;
	char line[600];

	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%zx-%zx", &start, &end) == 2 && !strstr(line, "[heap]") &&
		    !strstr(line, "[stack]"))
			sum += end - start;
	if (maps)
		fclose(maps);
	return sum;
}

#define COUNT_MAPPINGS (!SANITIZED) /* a sanitizer maps as it goes */

#endif
