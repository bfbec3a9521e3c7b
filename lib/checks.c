/* SPDX-License-Identifier: MIT */
/* What every public function does first. */
#include "lib/internal.h"
#include "lib/process.h"

int check_region(const struct cow_region *region)
{
	if (!region)
		return -EINVAL;
	return process_is(region->process) ? 0 : -ECHILD;
}

int check_snapshot(const struct cow_snapshot *snapshot)
{
	if (!snapshot)
		return -EINVAL;
	return check_region(snapshot->region);
}

int check_range(size_t length, size_t offset, size_t piece)
{
	return offset <= length && piece <= length - offset ? 0 : -ERANGE;
}

int options_read(void *to, size_t size, size_t first_release, const void *from)
{
	const unsigned char *bytes = from;
	size_t given;

	memcpy(&given, from, sizeof(given));
	if (given < first_release || given > 4096)
		return -EINVAL;
	for (size_t i = size; i < given; i++)
		if (bytes[i] != 0)
			return -E2BIG;
	memcpy(to, from, given < size ? given : size);
	return 0;
}

int stats_room(size_t given, size_t size, size_t first_release, size_t *ret_room)
{
	if (given < first_release || given > 4096)
		return -EINVAL;
	*ret_room = given < size ? given : size;
	return 0;
}
