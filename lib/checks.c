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

#define SIZE_MAX_SANE 4096u

static int check_size(const unsigned char *bytes, size_t given, size_t size, size_t first_release)
{
	if (given < first_release || given > SIZE_MAX_SANE)
		return log_refusal("a struct begins with its size, but this one with %zu: set it "
				   "to its _INIT macro first",
				   given);
	for (size_t i = size; i < given; i++)
		if (bytes[i] != 0) {
			log_message(LOG_ERR,
				    "libcow: byte %zu of a struct is set, which version "
				    "%s does not know",
				    i, cow_version());
			return -E2BIG;
		}
	return 0;
}

int options_read(void *to, size_t size, size_t first_release, const void *from)
{
	size_t given;
	int r;

	memcpy(&given, from, sizeof(given));
	r = check_size(from, given, size, first_release);
	if (r < 0)
		return r;
	memcpy(to, from, given < size ? given : size);
	return 0;
}

int stats_room(const void *stats, size_t size, size_t first_release, size_t *ret_room)
{
	const unsigned char *bytes = stats;
	size_t given;
	int r;

	if (!stats)
		return -EINVAL;
	memcpy(&given, stats, sizeof(given));
	r = check_size(bytes, given, size, first_release);
	if (r < 0)
		return r;
	*ret_room = given < size ? given : size;
	return 0;
}
