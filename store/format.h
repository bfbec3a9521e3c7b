/* SPDX-License-Identifier: MIT */
/*
 * What a layer's file consists of, as bytes: conversions between them and structs. No I/O.
 *
 * A layer is a qcow2 image, version 3, that is written once and never changed:
 *
 *   cluster 0     header, backing format, name of the parent's file
 *   then          refcount table, refcount blocks, L1 table, the touched L2 tables
 *   then          data, contiguous, in order of their guest addresses
 *   then          the manifest: the caller's state, a CRC32C for each cluster of the file before
 *                 the array itself, and in the last cluster of the file the footer
 *
 * The manifest is guest data, too: it lies past the end of the region, so for other readers it is
 * the tail of a disk that is a little longer. The footer is the last cluster of the file and of the
 * guest, and says what the layer is: identity and sequence, its own and its parent's, the region's
 * length and address. Every byte of the file is covered by a checksum: the footer's own, the
 * footer's of the array, the array's of everything else.
 *
 * Room for metadata is kept for the most that a save may write; what turns out not to be needed is
 * a hole with a refcount of zero.
 *
 * All numbers are big-endian, as qcow2's.
 *
 * A compressed layer (FOOTER_COMPRESSED; only compaction writes them) has clusters of 64 KiB for
 * qcow2: 16 pages each, packed by zstd, one behind the other, at no boundary. Metadata and manifest
 * lie at multiples of 64 KiB, the latter not compressed. Everything else holds as it is: the file's
 * parts, and checksums for each 4 KiB of it, whatever lies there.
 *
 *   A cluster of such a layer is whole: it says nothing (ask the parent), or zero, or it holds what
 *   all of its 16 pages read as in this layer. Pages that the layer had nothing for were filled
 *   with what lies below it, which never changes; on nothing, with zeroes.
 */
#ifndef COW_STORE_FORMAT_H
#define COW_STORE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cow.h"

#define CLUSTER_BITS  12u
#define CLUSTER       ((size_t)1 << CLUSTER_BITS)
#define SLICE_BITS    9u /* an L2 table has so many entries */
#define SLICE         ((uint64_t)1 << SLICE_BITS)
#define SLICE_BYTES   ((uint64_t)SLICE << CLUSTER_BITS)
#define REFCOUNTS     (CLUSTER / 2) /* in a block */
#define TABLE_ENTRIES (CLUSTER / 8)

/* Of compressed layers. */
#define PACKED_BITS    16u
#define PACKED_CLUSTER ((size_t)1 << PACKED_BITS)
#define PACKED_PAGES   (PACKED_CLUSTER / CLUSTER) /* clusters of 4 KiB in one */
#define PACKED_MAX     (PACKED_CLUSTER + 1024)    /* bytes, packed: what does not shrink grows */

#define ID_BYTES 16u

/* The lock of a layer lies behind its sequence (store.h), and locks end where files do. */
#define SEQUENCE_MAX ((uint64_t)INT64_MAX - 1)

/* QEMU reads L1 tables of up to 32 MiB; the tail needs a little. */
#define LENGTH_STORED_MAX (((uint64_t)8 << 40) - ((uint64_t)64 << 30))

/* Entries of L1 and L2 tables. */
#define QCOW2_COPIED      ((uint64_t)1 << 63)
#define QCOW2_COMPRESSED  ((uint64_t)1 << 62)
#define QCOW2_ZERO        ((uint64_t)1 << 0)
#define QCOW2_OFFSET_MASK ((uint64_t)0x00fffffffffffe00)

#define QCOW2_MAGIC    0x514649fbu
#define QCOW2_NAME_MAX 1023u

/* Incompatible feature bits: it was not closed, and refcounts may be wrong; the header says how
 * clusters are compressed. */
#define QCOW2_DIRTY           ((uint64_t)1 << 0)
#define QCOW2_HAS_COMPRESSION ((uint64_t)1 << 3)
enum qcow2_compression { QCOW2_ZLIB = 0, QCOW2_ZSTD = 1 };

struct qcow2_header {
	uint32_t version;
	uint32_t cluster_bits;
	uint32_t header_length;
	uint64_t size; /* of the guest, bytes */
	uint64_t l1_offset;
	uint32_t l1_entries;
	uint64_t refcount_offset;
	uint32_t refcount_clusters;
	uint32_t crypt_method;
	uint32_t snapshots;
	uint64_t incompatible, compatible;
	uint32_t refcount_order;
	uint8_t compression;
	char backing[QCOW2_NAME_MAX + 1];                /* empty: none */
	char backing_format[32];                         /* empty: not said */
	bool has_data_file, has_encryption, has_bitmaps; /* header extensions */
};

/* What a header of ours is written from. Gives the bytes in one cluster. */
void qcow2_encode(const struct qcow2_header *header, unsigned char cluster[CLUSTER]);
/* From the first `length` bytes of a file. 0; -EINVAL: not qcow2; -EUCLEAN: damaged. Features are
 * not judged. */
int qcow2_decode(const unsigned char *bytes, size_t length, struct qcow2_header *ret_header);
/* The name of the first thing in it that this library does not read, or NULL. */
const char *qcow2_refusal(const struct qcow2_header *header);

struct layer_id {
	unsigned char bytes[ID_BYTES];
};

struct footer {
	struct layer_id id, parent; /* parent: all zero: none */
	uint64_t sequence, parent_sequence;
	uint64_t length, address, page_size, time_ns;
	uint64_t virtual_size;     /* of the image */
	uint64_t meta_clusters;    /* before the data */
	uint64_t data_clusters;    /* standard ones */
	uint64_t compressed_bytes; /* of the file, after the data: compressed clusters */
	uint64_t zero_clusters;    /* guest clusters recorded as zero */
	uint64_t held_clusters;    /* guest clusters that this layer has content for */
	uint64_t state_length;
	uint64_t manifest_cluster; /* of the file: where state and array begin */
	uint64_t crc_count;        /* elements of the array */
	uint32_t crc_of_array;
	uint32_t flags;
};

#define FOOTER_COMPRESSED 0x1u

static inline bool footer_is_packed(const struct footer *footer)
{
	return footer->flags & FOOTER_COMPRESSED;
}

void footer_encode(const struct footer *footer, unsigned char cluster[CLUSTER]);
/* 0, or -EUCLEAN. */
int footer_decode(const unsigned char cluster[CLUSTER], struct footer *ret_footer);

bool id_is_none(const struct layer_id *id);
bool id_equal(const struct layer_id *a, const struct layer_id *b);
/* A random one (version 4, as the field calls it). */
int id_new(struct layer_id *ret_id);
void id_print(const struct layer_id *id, char text[COW_ID_LENGTH]);
bool id_parse(const char *text, struct layer_id *ret_id);

/* The name of a layer's file, "ID.qcow2". */
#define LAYER_NAME_LENGTH (COW_ID_LENGTH + 6)
void layer_name(const struct layer_id *id, char name[LAYER_NAME_LENGTH]);
bool layer_name_parse(const char *name, struct layer_id *ret_id);

bool tag_is_valid(const char *tag);

uint32_t crc32c(const void *bytes, size_t length);
uint32_t crc32c_of_zero_cluster(void);

static inline uint64_t get_be64(const void *from)
{
	uint64_t value;

	__builtin_memcpy(&value, from, sizeof(value));
	return __builtin_bswap64(value);
}

static inline uint32_t get_be32(const void *from)
{
	uint32_t value;

	__builtin_memcpy(&value, from, sizeof(value));
	return __builtin_bswap32(value);
}

static inline void put_be64(void *to, uint64_t value)
{
	value = __builtin_bswap64(value);
	__builtin_memcpy(to, &value, sizeof(value));
}

static inline void put_be32(void *to, uint32_t value)
{
	value = __builtin_bswap32(value);
	__builtin_memcpy(to, &value, sizeof(value));
}

static inline void put_be16(void *to, uint16_t value)
{
	value = __builtin_bswap16(value);
	__builtin_memcpy(to, &value, sizeof(value));
}

static inline uint64_t div_up(uint64_t value, uint64_t by)
{
	return value / by + (value % by != 0);
}

/* What an L2 entry says of a compressed cluster: where it begins, and how many sectors of 512 bytes
 * it touches. */
#define PACKED_OFFSET_BITS 54u /* 62 - (PACKED_BITS - 8) */

static inline uint64_t packed_entry(uint64_t offset, uint64_t bytes)
{
	uint64_t more = (offset + bytes - 1) / 512 - offset / 512;

	return QCOW2_COMPRESSED | more << PACKED_OFFSET_BITS | offset;
}

static inline uint64_t packed_offset(uint64_t entry)
{
	return entry & (((uint64_t)1 << PACKED_OFFSET_BITS) - 1);
}

/* Up to the end of the last sector. */
static inline uint64_t packed_bytes(uint64_t entry)
{
	uint64_t sectors = (entry >> PACKED_OFFSET_BITS & 0xff) + 1;

	return sectors * 512 - packed_offset(entry) % 512;
}

/* Where the manifest begins in the guest. */
static inline uint64_t tail_start(uint64_t length)
{
	return div_up(length, SLICE_BYTES) * SLICE_BYTES;
}

#endif
