/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <isa-l/igzip_lib.h>
#ifdef COW_HAVE_ZSTD
#include <zstd.h>
#endif

#include "store/unpack.h"
#include "sys/sys.h"

/* qcow2's zlib clusters are bare deflate streams. */
static int unpack_zlib(const void *packed, size_t packed_bytes, void *to, size_t bytes)
{
	struct inflate_state *state = sys_alloc(sizeof(*state));
	int r;

	if (!state)
		return -ENOMEM;
	isal_inflate_init(state);
	state->next_in = (uint8_t *)(uintptr_t)packed;
	state->avail_in = (uint32_t)packed_bytes;
	state->next_out = to;
	state->avail_out = (uint32_t)bytes;
	state->crc_flag = ISAL_DEFLATE;
	r = isal_inflate(state);
	r = (r == ISAL_DECOMP_OK || r == ISAL_END_INPUT) && state->avail_out == 0 ? 0 : -EUCLEAN;
	sys_free(state);
	return r;
}

#ifdef COW_HAVE_ZSTD
static int unpack_zstd(const void *packed, size_t packed_bytes, void *to, size_t bytes)
{
	ZSTD_DStream *stream = ZSTD_createDStream();
	ZSTD_inBuffer in = { packed, packed_bytes, 0 };
	ZSTD_outBuffer out = { to, bytes, 0 };
	size_t left = 1;

	if (!stream)
		return -ENOMEM;
	while (left != 0 && !ZSTD_isError(left) && out.pos < out.size && in.pos < in.size)
		left = ZSTD_decompressStream(stream, &out, &in);
	ZSTD_freeDStream(stream);
	return !ZSTD_isError(left) && out.pos == out.size ? 0 : -EUCLEAN;
}
#endif

bool can_unpack(enum qcow2_compression compression)
{
#ifdef COW_HAVE_ZSTD
	return true;
#else
	return compression == QCOW2_ZLIB;
#endif
}

int unpack(enum qcow2_compression compression, const void *packed, size_t packed_bytes, void *to,
	   size_t bytes)
{
	if (compression == QCOW2_ZLIB)
		return unpack_zlib(packed, packed_bytes, to, bytes);
#ifdef COW_HAVE_ZSTD
	return unpack_zstd(packed, packed_bytes, to, bytes);
#else
	return -EOPNOTSUPP;
#endif
}
