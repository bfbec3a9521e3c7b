/* SPDX-License-Identifier: MIT */
#include "lib/tune.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static bool is_off(const char *settings, const char *name)
{
	size_t length = strlen(name);

	for (const char *at = settings; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (strncmp(at, name, length) == 0 && strncmp(at + length, "=off", 4) == 0 &&
		    (at[length + 4] == ',' || at[length + 4] == '\0'))
			return true;
	}
	return false;
}

struct tune tune_read(void)
{
	const char *settings = secure_getenv("COW_TUNE");

	return (struct tune){
		.blocks = !is_off(settings, "blocks"),
		.cost = !is_off(settings, "cost"),
		.rounds = !is_off(settings, "rounds"),
		.frames = !is_off(settings, "frames"),
		.huge = !is_off(settings, "huge"),
	};
}
