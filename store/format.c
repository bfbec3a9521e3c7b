/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <isa-l/crc.h>
#include <stdio.h>
#include <string.h>

#include "store/format.h"
#include "sys/sys.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the conversions swap");

/* --- checksums --- */

uint32_t crc32c(const void *bytes, size_t length)
{
	const size_t most = (size_t)1 << 30;
	const unsigned char *at = bytes;
	uint32_t crc = ~0u;

	/* The library takes an int, and declares what it reads as writable. */
	for (; length > most; at += most, length -= most)
		crc = crc32_iscsi((unsigned char *)(uintptr_t)at, (int)most, crc);
	return ~crc32_iscsi((unsigned char *)(uintptr_t)at, (int)length, crc);
}

uint32_t crc32c_of_zero_cluster(void)
{
	return 0x98f94189u;
}

/* --- the header --- */

enum {
	AT_MAGIC = 0,
	AT_VERSION = 4,
	AT_BACKING_OFFSET = 8,
	AT_BACKING_SIZE = 16,
	AT_CLUSTER_BITS = 20,
	AT_SIZE = 24,
	AT_CRYPT = 32,
	AT_L1_ENTRIES = 36,
	AT_L1_OFFSET = 40,
	AT_REFCOUNT_OFFSET = 48,
	AT_REFCOUNT_CLUSTERS = 56,
	AT_SNAPSHOTS = 60,
	AT_V2_END = 72,
	AT_INCOMPATIBLE = 72,
	AT_COMPATIBLE = 80,
	AT_REFCOUNT_ORDER = 96,
	AT_HEADER_LENGTH = 100,
	AT_V3_END = 104,
	AT_COMPRESSION = 104,
	HEADER_LENGTH = 112,
};

#define EXTENSION_END            0u
#define EXTENSION_BACKING_FORMAT 0xe2792acau
#define EXTENSION_DATA_FILE      0x44415441u
#define EXTENSION_ENCRYPTION     0x0537be77u
#define EXTENSION_BITMAPS        0x23852875u

void qcow2_encode(const struct qcow2_header *header, unsigned char cluster[CLUSTER])
{
	size_t at = HEADER_LENGTH, name = strlen(header->backing);

	memset(cluster, 0, CLUSTER);
	put_be32(cluster + AT_MAGIC, QCOW2_MAGIC);
	put_be32(cluster + AT_VERSION, 3);
	put_be32(cluster + AT_CLUSTER_BITS, header->cluster_bits);
	put_be64(cluster + AT_SIZE, header->size);
	put_be32(cluster + AT_L1_ENTRIES, header->l1_entries);
	put_be64(cluster + AT_L1_OFFSET, header->l1_offset);
	put_be64(cluster + AT_REFCOUNT_OFFSET, header->refcount_offset);
	put_be32(cluster + AT_REFCOUNT_CLUSTERS, header->refcount_clusters);
	put_be64(cluster + AT_INCOMPATIBLE, header->incompatible);
	put_be32(cluster + AT_REFCOUNT_ORDER, 4);
	put_be32(cluster + AT_HEADER_LENGTH, HEADER_LENGTH);
	cluster[AT_COMPRESSION] = header->compression;
	if (name > 0) {
		put_be32(cluster + at, EXTENSION_BACKING_FORMAT);
		put_be32(cluster + at + 4, 5);
		memcpy(cluster + at + 8, "qcow2", 5);
		at += 16;
	}
	put_be32(cluster + at, EXTENSION_END);
	at += 8;
	if (name > 0) {
		put_be64(cluster + AT_BACKING_OFFSET, at);
		put_be32(cluster + AT_BACKING_SIZE, (uint32_t)name);
		memcpy(cluster + at, header->backing, name);
	}
}

static int decode_extension(uint32_t type, const unsigned char *data, uint32_t length,
			    struct qcow2_header *header)
{
	switch (type) {
	case EXTENSION_BACKING_FORMAT:
		if (length >= sizeof(header->backing_format))
			return -EUCLEAN;
		memcpy(header->backing_format, data, length);
		break;
	case EXTENSION_DATA_FILE:
		header->has_data_file = true;
		break;
	case EXTENSION_ENCRYPTION:
		header->has_encryption = true;
		break;
	case EXTENSION_BITMAPS:
		header->has_bitmaps = true;
		break;
	}
	return 0;
}

/* From the end of the header to the name of the backing file, or to the first cluster's end. */
static int decode_extensions(const unsigned char *bytes, uint64_t at, uint64_t end,
			     struct qcow2_header *header)
{
	while (at + 8 <= end) {
		uint32_t type = get_be32(bytes + at), length = get_be32(bytes + at + 4);
		int r;

		at += 8;
		if (type == EXTENSION_END)
			return 0;
		if (length > end - at)
			return -EUCLEAN;
		r = decode_extension(type, bytes + at, length, header);
		if (r < 0)
			return r;
		at += div_up(length, 8) * 8;
	}
	return 0;
}

static int decode_backing(const unsigned char *bytes, size_t length, struct qcow2_header *header)
{
	uint64_t offset = get_be64(bytes + AT_BACKING_OFFSET);
	uint32_t size = get_be32(bytes + AT_BACKING_SIZE);

	if (offset == 0)
		return 0;
	if (size == 0 || size > QCOW2_NAME_MAX || offset > length || size > length - offset)
		return -EUCLEAN;
	memcpy(header->backing, bytes + offset, size);
	return memchr(header->backing, 0, size) ? -EUCLEAN : 0;
}

static int decode_version_3(const unsigned char *bytes, size_t length, struct qcow2_header *header)
{
	if (length < AT_V3_END)
		return -EUCLEAN;
	header->incompatible = get_be64(bytes + AT_INCOMPATIBLE);
	header->compatible = get_be64(bytes + AT_COMPATIBLE);
	header->refcount_order = get_be32(bytes + AT_REFCOUNT_ORDER);
	header->header_length = get_be32(bytes + AT_HEADER_LENGTH);
	if (header->header_length < AT_V3_END || header->header_length % 8 != 0 ||
	    header->header_length > length)
		return -EUCLEAN;
	if (header->header_length > AT_COMPRESSION)
		header->compression = bytes[AT_COMPRESSION];
	return 0;
}

int qcow2_decode(const unsigned char *bytes, size_t length, struct qcow2_header *ret_header)
{
	struct qcow2_header header = { .header_length = AT_V2_END, .refcount_order = 4 };
	uint64_t end, backing;
	int r = 0;

	if (length < AT_V2_END || get_be32(bytes + AT_MAGIC) != QCOW2_MAGIC)
		return -EINVAL;
	header.version = get_be32(bytes + AT_VERSION);
	header.cluster_bits = get_be32(bytes + AT_CLUSTER_BITS);
	header.size = get_be64(bytes + AT_SIZE);
	header.crypt_method = get_be32(bytes + AT_CRYPT);
	header.l1_entries = get_be32(bytes + AT_L1_ENTRIES);
	header.l1_offset = get_be64(bytes + AT_L1_OFFSET);
	header.refcount_offset = get_be64(bytes + AT_REFCOUNT_OFFSET);
	header.refcount_clusters = get_be32(bytes + AT_REFCOUNT_CLUSTERS);
	header.snapshots = get_be32(bytes + AT_SNAPSHOTS);
	if (header.version >= 3)
		r = decode_version_3(bytes, length, &header);
	if (r == 0)
		r = decode_backing(bytes, length, &header);
	if (r < 0)
		return r;
	if (header.cluster_bits < 9 || header.cluster_bits > 21)
		return -EUCLEAN;
	backing = get_be64(bytes + AT_BACKING_OFFSET);
	end = (uint64_t)1 << header.cluster_bits;
	if (backing != 0 && backing < end)
		end = backing;
	r = decode_extensions(bytes, header.header_length, end < length ? end : length, &header);
	if (r == 0)
		*ret_header = header;
	return r;
}

static const char *const incompatible_names[] = {
	"it was not closed (dirty bit); qemu-img check -r all mends that",
	"it is marked corrupt",
	"an external data file",
	NULL, /* compression type: read */
	"extended L2 entries",
};

const char *qcow2_refusal(const struct qcow2_header *header)
{
	static _Thread_local char unknown[40];

	if (header->version != 2 && header->version != 3)
		return "a version other than 2 and 3";
	if (header->crypt_method != 0 || header->has_encryption)
		return "encryption";
	for (unsigned bit = 0; bit < 64; bit++) {
		if (!(header->incompatible & ~QCOW2_HAS_COMPRESSION & (uint64_t)1 << bit))
			continue;
		if (bit < sizeof(incompatible_names) / sizeof(incompatible_names[0]))
			return incompatible_names[bit];
		snprintf(unknown, sizeof(unknown), "incompatible feature bit %u", bit);
		return unknown;
	}
	if (header->has_data_file)
		return "an external data file";
	if (header->compression > QCOW2_ZSTD)
		return "a compression type other than zlib and zstd";
	if (!(header->incompatible & QCOW2_HAS_COMPRESSION) && header->compression != QCOW2_ZLIB)
		return "a compression type without its feature bit";
	return NULL;
}

/* --- the footer --- */

#define FOOTER_MAGIC   "COWLAYER"
#define FOOTER_VERSION 1u
#define FOOTER_CRC_AT  (CLUSTER - 4)

/* Fixed places, in the order of the struct. */
enum { FOOTER_IDS = 16, FOOTER_NUMBERS = 48 };

#define FOOTER_FIELDS(FIELD)                                                                      \
	FIELD(sequence), FIELD(parent_sequence), FIELD(length), FIELD(address), FIELD(page_size), \
		FIELD(time_ns), FIELD(virtual_size), FIELD(meta_clusters), FIELD(data_clusters),  \
		FIELD(compressed_bytes), FIELD(zero_clusters), FIELD(held_clusters),              \
		FIELD(state_length), FIELD(manifest_cluster), FIELD(crc_count)
#define FIELD_OFFSET(name) offsetof(struct footer, name)

static const size_t footer_numbers[] = { FOOTER_FIELDS(FIELD_OFFSET) };
#define FOOTER_NUMBER_COUNT (sizeof(footer_numbers) / sizeof(footer_numbers[0]))

void footer_encode(const struct footer *footer, unsigned char cluster[CLUSTER])
{
	unsigned char *at = cluster + FOOTER_NUMBERS;

	memset(cluster, 0, CLUSTER);
	memcpy(cluster, FOOTER_MAGIC, 8);
	put_be32(cluster + 8, FOOTER_VERSION);
	put_be32(cluster + 12, footer->flags);
	memcpy(cluster + FOOTER_IDS, footer->id.bytes, ID_BYTES);
	memcpy(cluster + FOOTER_IDS + ID_BYTES, footer->parent.bytes, ID_BYTES);
	for (size_t i = 0; i < FOOTER_NUMBER_COUNT; i++, at += 8) {
		uint64_t value;

		memcpy(&value, (const char *)footer + footer_numbers[i], sizeof(value));
		put_be64(at, value);
	}
	put_be32(at, footer->crc_of_array);
	put_be32(cluster + FOOTER_CRC_AT, crc32c(cluster, FOOTER_CRC_AT));
}

/* The region, and the guest that it is the beginning of. */
static bool is_guest_sane(const struct footer *footer, uint64_t unit)
{
	return footer->length > 0 && footer->length <= LENGTH_STORED_MAX &&
	       footer->length % CLUSTER == 0 && footer->page_size > 0 &&
	       footer->page_size % CLUSTER == 0 &&
	       footer->virtual_size > tail_start(footer->length) &&
	       footer->virtual_size <= LENGTH_STORED_MAX * 2 &&
	       footer->virtual_size % (unit * CLUSTER) == 0;
}

#define META_CLUSTERS_MIN 4u /* header, refcount table and block, L1 */

/* The parts of the file, which follow each other. */
static bool is_file_sane(const struct footer *footer, uint64_t unit)
{
	return footer->meta_clusters >= META_CLUSTERS_MIN && footer->meta_clusters % unit == 0 &&
	       footer->meta_clusters <= footer->manifest_cluster &&
	       footer->manifest_cluster <= LENGTH_STORED_MAX / CLUSTER * 2 &&
	       footer->manifest_cluster % unit == 0 && footer->state_length <= COW_STATE_MAX &&
	       footer->crc_count ==
		       footer->manifest_cluster + div_up(footer->state_length, CLUSTER);
}

/* What the numbers say of each other, so that whoever uses them need not look again. */
static bool footer_is_sane(const struct footer *footer)
{
	uint64_t unit = footer_is_packed(footer) ? PACKED_PAGES : 1;

	return footer->sequence <= SEQUENCE_MAX && is_guest_sane(footer, unit) &&
	       is_file_sane(footer, unit);
}

int footer_decode(const unsigned char cluster[CLUSTER], struct footer *ret_footer)
{
	const unsigned char *at = cluster + FOOTER_NUMBERS;
	struct footer footer = { .flags = get_be32(cluster + 12) };

	if (memcmp(cluster, FOOTER_MAGIC, 8) != 0 ||
	    get_be32(cluster + FOOTER_CRC_AT) != crc32c(cluster, FOOTER_CRC_AT) ||
	    get_be32(cluster + 8) != FOOTER_VERSION)
		return -EUCLEAN;
	memcpy(footer.id.bytes, cluster + FOOTER_IDS, ID_BYTES);
	memcpy(footer.parent.bytes, cluster + FOOTER_IDS + ID_BYTES, ID_BYTES);
	for (size_t i = 0; i < FOOTER_NUMBER_COUNT; i++, at += 8) {
		uint64_t value = get_be64(at);

		memcpy((char *)&footer + footer_numbers[i], &value, sizeof(value));
	}
	footer.crc_of_array = get_be32(at);
	if (!footer_is_sane(&footer))
		return -EUCLEAN;
	*ret_footer = footer;
	return 0;
}

/* --- names --- */

bool id_is_none(const struct layer_id *id)
{
	static const struct layer_id none;

	return id_equal(id, &none);
}

bool id_equal(const struct layer_id *a, const struct layer_id *b)
{
	return memcmp(a->bytes, b->bytes, ID_BYTES) == 0;
}

int id_new(struct layer_id *ret_id)
{
	struct layer_id id;
	int r = sys_random(id.bytes, sizeof(id.bytes));

	if (r < 0)
		return r;
	id.bytes[6] = (unsigned char)((id.bytes[6] & 0x0f) | 0x40);
	id.bytes[8] = (unsigned char)((id.bytes[8] & 0x3f) | 0x80);
	*ret_id = id;
	return 0;
}

static bool is_dash(size_t at)
{
	return at == 8 || at == 13 || at == 18 || at == 23;
}

void id_print(const struct layer_id *id, char text[COW_ID_LENGTH])
{
	static const char digits[] = "0123456789abcdef";
	size_t nibble = 0;

	for (size_t at = 0; at < COW_ID_LENGTH - 1; at++) {
		unsigned char byte = id->bytes[nibble / 2];

		if (is_dash(at)) {
			text[at] = '-';
			continue;
		}
		text[at] = digits[nibble % 2 ? byte & 15 : byte >> 4];
		nibble++;
	}
	text[COW_ID_LENGTH - 1] = '\0';
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool id_parse(const char *text, struct layer_id *ret_id)
{
	struct layer_id id = { { 0 } };
	size_t nibble = 0;

	for (size_t at = 0; at < COW_ID_LENGTH - 1; at++) {
		int digit = hex_digit(text[at]);

		if (is_dash(at) ? text[at] != '-' : digit < 0)
			return false;
		if (is_dash(at))
			continue;
		id.bytes[nibble / 2] = (unsigned char)(id.bytes[nibble / 2] << 4 | digit);
		nibble++;
	}
	if (text[COW_ID_LENGTH - 1] != '\0')
		return false;
	*ret_id = id;
	return true;
}

void layer_name(const struct layer_id *id, char name[LAYER_NAME_LENGTH])
{
	id_print(id, name);
	memcpy(name + COW_ID_LENGTH - 1, ".qcow2", sizeof(".qcow2"));
}

bool layer_name_parse(const char *name, struct layer_id *ret_id)
{
	char id[COW_ID_LENGTH];

	if (strlen(name) != LAYER_NAME_LENGTH - 1 ||
	    strcmp(name + COW_ID_LENGTH - 1, ".qcow2") != 0)
		return false;
	memcpy(id, name, COW_ID_LENGTH - 1);
	id[COW_ID_LENGTH - 1] = '\0';
	return id_parse(id, ret_id);
}

/* What no shell and no file system minds, and nobody takes for an identity or an option. */
bool tag_is_valid(const char *tag)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-_.+@";
	size_t length = strlen(tag);
	struct layer_id id;

	return length > 0 && length < COW_TAG_LENGTH && strspn(tag, allowed) == length &&
	       tag[0] != '-' && tag[0] != '.' && strcmp(tag, "HEAD") != 0 && !id_parse(tag, &id);
}
