/* SPDX-License-Identifier: MIT */
#include "store/known.h"
#include "sys/sys.h"

struct known_slice {
	uint64_t bits[SLICE / 64];
	uint32_t crcs[SLICE];
};

struct known {
	uint64_t count;
	struct known_slice **slices;
};

int known_new(uint64_t length, struct known **ret_known)
{
	struct known *known = sys_alloc(sizeof(*known));

	if (!known)
		return -ENOMEM;
	known->count = div_up(length, SLICE_BYTES);
	known->slices = sys_alloc_array(known->count, sizeof(known->slices[0]));
	if (!known->slices) {
		sys_free(known);
		return -ENOMEM;
	}
	*ret_known = known;
	return 0;
}

void known_free(struct known *known)
{
	if (!known)
		return;
	for (uint64_t i = 0; i < known->count; i++)
		sys_free(known->slices[i]);
	sys_free(known->slices);
	sys_free(known);
}

bool known_swap(struct known *known, uint64_t cluster, uint32_t crc)
{
	struct known_slice **slice = &known->slices[cluster / SLICE];
	unsigned i = (unsigned)(cluster % SLICE);
	uint64_t bit = (uint64_t)1 << i % 64;
	bool same;

	if (!*slice)
		*slice = sys_alloc(sizeof(**slice));
	if (!*slice)
		return false;
	same = ((*slice)->bits[i / 64] & bit) && (*slice)->crcs[i] == crc;
	(*slice)->bits[i / 64] |= bit;
	(*slice)->crcs[i] = crc;
	return same;
}
