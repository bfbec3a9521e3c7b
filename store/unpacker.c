/* SPDX-License-Identifier: MIT */
#include <string.h>
#ifdef COW_HAVE_ZSTD
#include <zstd.h>
#endif

#include "store/layer.h"
#include "store/unpacker.h"
#include "sys/sys.h"

/* The file's clusters that packed bytes may lie in. */
#define PACKED_ROOM (div_up(PACKED_MAX + CLUSTER - 1, CLUSTER) * CLUSTER)

struct unpacked {
	const struct layer *layer; /* NULL: nothing */
	uint64_t packed;
	uint64_t used;
	bool verified;
	unsigned char *bytes;
};

struct unpacker {
	void *zstd;
	unsigned char *packed;
	uint64_t clock;
	unsigned count;
	struct unpacked last[];
};

#ifdef COW_HAVE_ZSTD
static void *zstd_new(void)
{
	return ZSTD_createDCtx();
}

static void zstd_free(void *zstd)
{
	ZSTD_freeDCtx(zstd);
}

/* Behind the frame, up to the end of the sector, lies what is not ours. */
static bool zstd_unpack(void *zstd, const unsigned char *packed, size_t bytes, unsigned char *to)
{
	size_t frame = ZSTD_findFrameCompressedSize(packed, bytes);

	return !ZSTD_isError(frame) &&
	       ZSTD_decompressDCtx(zstd, to, PACKED_CLUSTER, packed, frame) == PACKED_CLUSTER;
}
#else
static void *zstd_new(void)
{
	return NULL;
}

static void zstd_free(void *zstd)
{
	(void)zstd;
}

static bool zstd_unpack(void *zstd, const unsigned char *packed, size_t bytes, unsigned char *to)
{
	(void)zstd;
	(void)packed;
	(void)bytes;
	(void)to;
	return false;
}
#endif

void unpacker_free(struct unpacker *unpacker)
{
	if (!unpacker)
		return;
	for (unsigned i = 0; i < unpacker->count; i++)
		sys_free(unpacker->last[i].bytes);
	zstd_free(unpacker->zstd);
	sys_free(unpacker->packed);
	sys_free(unpacker);
}

int unpacker_new(unsigned remembered, struct unpacker **ret_unpacker)
{
	struct unpacker *unpacker;
	bool complete = true;

	unpacker = sys_alloc(sizeof(*unpacker) + remembered * sizeof(unpacker->last[0]));
	if (!unpacker)
		return -ENOMEM;
	unpacker->count = remembered;
	unpacker->zstd = zstd_new();
	unpacker->packed = sys_alloc(PACKED_ROOM);
	for (unsigned i = 0; i < remembered; i++) {
		unpacker->last[i].bytes = sys_alloc(PACKED_CLUSTER);
		complete &= unpacker->last[i].bytes != NULL;
	}
	if (!complete || !unpacker->zstd || !unpacker->packed) {
		unpacker_free(unpacker);
		return -ENOMEM;
	}
	*ret_unpacker = unpacker;
	return 0;
}

static bool is_it(const struct unpacked *last, const struct layer *layer, uint64_t packed)
{
	return last->layer == layer && last->packed == packed;
}

/* Where it is, or what has not been asked for for longest. */
static struct unpacked *find(struct unpacker *unpacker, const struct layer *layer, uint64_t packed)
{
	struct unpacked *oldest = &unpacker->last[0];

	for (unsigned i = 0; i < unpacker->count; i++) {
		struct unpacked *last = &unpacker->last[i];

		if (is_it(last, layer, packed))
			return last;
		if (last->used < oldest->used)
			oldest = last;
	}
	return oldest;
}

static int unpack_to(struct unpacker *unpacker, struct layer *layer, uint64_t packed,
		     unsigned char *to, bool verify)
{
	uint64_t at = packed_offset(packed), bytes = packed_bytes(packed);
	uint64_t first = at / CLUSTER, end = div_up(at + bytes, CLUSTER);
	int r = layer_read_clusters(layer, first * CLUSTER, end - first, unpacker->packed, verify);

	if (r == 0 && !zstd_unpack(unpacker->zstd, unpacker->packed + at % CLUSTER, bytes, to)) {
		store_complain(layer->store, layer->name,
			       "damaged or modified: what is compressed at byte %llu cannot be "
			       "unpacked",
			       (unsigned long long)at);
		r = -EUCLEAN;
	}
	return r;
}

static int remember(struct unpacker *unpacker, struct unpacked *last, struct layer *layer,
		    uint64_t packed, bool verify)
{
	int r;

	last->layer = NULL;
	r = unpack_to(unpacker, layer, packed, last->bytes, verify);
	if (r < 0)
		return r;
	last->layer = layer;
	last->packed = packed;
	last->verified = verify;
	return 0;
}

int unpacker_read(struct unpacker *unpacker, struct layer *layer, uint64_t packed, unsigned first,
		  unsigned count, unsigned char *to, bool verify)
{
	struct unpacked *last = find(unpacker, layer, packed);
	bool known = is_it(last, layer, packed) && (last->verified || !verify);
	int r = 0;

	if (!known && count == PACKED_PAGES)
		return unpack_to(unpacker, layer, packed, to, verify);
	last->used = ++unpacker->clock;
	if (!known)
		r = remember(unpacker, last, layer, packed, verify);
	if (r == 0)
		memcpy(to, last->bytes + first * CLUSTER, count * CLUSTER);
	return r;
}
