/* SPDX-License-Identifier: MIT */
#include "tests/store/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef COW_HAVE_ZSTD
#include <zstd.h>
#endif

/* The header, by the specification; all big-endian. */
enum {
	AT_MAGIC = 0,
	AT_VERSION = 4,
	AT_BACKING_OFFSET = 8,
	AT_BACKING_LENGTH = 16,
	AT_CLUSTER_BITS = 20,
	AT_SIZE = 24,
	AT_CRYPT = 32,
	AT_L1_ENTRIES = 36,
	AT_L1_OFFSET = 40,
	AT_REFCOUNT_OFFSET = 48,
	AT_REFCOUNT_CLUSTERS = 56,
	AT_SNAPSHOTS = 60,
	AT_INCOMPATIBLE = 72,
	AT_REFCOUNT_ORDER = 96,
	AT_COMPRESSION = 104,
};

#define HEADER_LENGTH    104u
#define ENTRY_OFFSET     UINT64_C(0x00fffffffffffe00)
#define ENTRY_COPIED     (UINT64_C(1) << 63)
#define ENTRY_ZERO       UINT64_C(1)
#define ENTRY_COMPRESSED (UINT64_C(1) << 62)
#define WITH_COMPRESSION (UINT64_C(1) << 3) /* incompatible feature */
#define ZSTD             1u

static uint64_t be(const struct image *image, uint64_t offset, unsigned bytes)
{
	uint64_t value = 0;

	if (offset > image->length || image->length - offset < bytes)
		return 0;
	for (unsigned i = 0; i < bytes; i++)
		value = value << 8 | image->bytes[offset + i];
	return value;
}

static uint64_t cluster_size(const struct image *image)
{
	return UINT64_C(1) << image->cluster_bits;
}

static int refuse(const struct image *image, const char *why, uint64_t number)
{
	printf("# %s: %s (%#llx)\n", image->name, why, (unsigned long long)number);
	return -EUCLEAN;
}

static int pass(const struct image *image, const char *why)
{
	printf("# %s: not read by this reader: %s\n", image->name, why);
	return -EOPNOTSUPP;
}

static int load(const char *directory, const char *name, struct image *image)
{
	struct stat status;
	char path[4096];
	uint64_t done = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	snprintf(image->name, sizeof(image->name), "%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status) < 0) {
		printf("# %s: %s\n", path, strerror(errno));
		return -ENOENT;
	}
	image->length = (uint64_t)status.st_size;
	image->bytes = malloc(image->length + 1);
	while (image->bytes && done < image->length) {
		ssize_t n = read(fd, image->bytes + done, image->length - done);

		if (n <= 0)
			break;
		done += (uint64_t)n;
	}
	close(fd);
	return image->bytes && done == image->length ? 0 : -EIO;
}

static int check_header(struct image *image)
{
	image->cluster_bits = (unsigned)be(image, AT_CLUSTER_BITS, 4);
	image->virtual_size = be(image, AT_SIZE, 8);
	if (image->length < HEADER_LENGTH || be(image, AT_MAGIC, 4) != 0x514649fb)
		return refuse(image, "not qcow2", be(image, AT_MAGIC, 4));
	if (be(image, AT_VERSION, 4) != 3)
		return refuse(image, "version", be(image, AT_VERSION, 4));
#ifdef COW_HAVE_ZSTD
	image->packed = be(image, AT_INCOMPATIBLE, 8) == WITH_COMPRESSION &&
			be(image, AT_COMPRESSION, 1) == ZSTD;
#endif
	if (be(image, AT_INCOMPATIBLE, 8) != 0 && !image->packed)
		return pass(image, "incompatible features");
	if (image->cluster_bits < 9 || image->cluster_bits > 21)
		return refuse(image, "cluster bits", image->cluster_bits);
	if (be(image, AT_CRYPT, 4) != 0 || be(image, AT_SNAPSHOTS, 4) != 0)
		return refuse(image, "encryption, or internal snapshots", 0);
	if (be(image, AT_REFCOUNT_ORDER, 4) != 4)
		return refuse(image, "refcount order", be(image, AT_REFCOUNT_ORDER, 4));
	return 0;
}

/* --- who uses which cluster --- */

struct usage {
	const struct image *image;
	uint16_t *used;        /* how often */
	unsigned char *shared; /* by compressed clusters */
	uint64_t clusters;
	int result;
};

static void use(struct usage *usage, uint64_t offset, uint64_t clusters, const char *what)
{
	uint64_t first = offset >> usage->image->cluster_bits;

	if (usage->result)
		return;
	if (offset & (cluster_size(usage->image) - 1)) {
		usage->result = refuse(usage->image, what, offset);
		return;
	}
	for (uint64_t i = first; i < first + clusters && usage->result == 0; i++) {
		if (i >= usage->clusters)
			usage->result = refuse(usage->image, "past the end of the file", offset);
		else if (usage->used[i]++)
			usage->result = refuse(usage->image, "used twice", offset);
	}
}

/* Where a compressed cluster begins, and up to the end of which sector it may reach. */
static void find_packed(const struct image *image, uint64_t entry, uint64_t *offset, uint64_t *end)
{
	unsigned bits = 62 - (image->cluster_bits - 8);
	uint64_t more = (entry & (ENTRY_COMPRESSED - 1)) >> bits;

	*offset = entry & ((UINT64_C(1) << bits) - 1);
	*end = (*offset / 512 + more + 1) * 512;
}

/* Many share a cluster of the file, but with nothing else. */
static void use_packed(struct usage *usage, uint64_t entry)
{
	uint64_t offset, end;

	find_packed(usage->image, entry, &offset, &end);
	for (uint64_t i = offset >> usage->image->cluster_bits;
	     usage->result == 0 && i <= (end - 1) >> usage->image->cluster_bits; i++) {
		if (i >= usage->clusters)
			usage->result = refuse(usage->image, "past the end of the file", offset);
		else if (usage->used[i]++ && !usage->shared[i])
			usage->result = refuse(usage->image, "used otherwise", offset);
		else
			usage->shared[i] = 1;
	}
}

static uint64_t to_clusters(const struct image *image, uint64_t bytes)
{
	return (bytes + cluster_size(image) - 1) >> image->cluster_bits;
}

static void use_l2(struct usage *usage, uint64_t table)
{
	const struct image *image = usage->image;

	for (uint64_t i = 0; i < cluster_size(image) / 8 && usage->result == 0; i++) {
		uint64_t entry = be(image, table + 8 * i, 8);

		if ((entry & ENTRY_COMPRESSED) && !image->packed)
			usage->result = pass(image, "a compressed cluster");
		else if ((entry & ENTRY_COMPRESSED) && (entry & ENTRY_COPIED))
			usage->result = refuse(image, "a compressed cluster of its own", entry);
		else if (entry & ENTRY_COMPRESSED)
			use_packed(usage, entry);
		else if ((entry & ENTRY_OFFSET) && !(entry & ENTRY_COPIED))
			usage->result = refuse(image, "a cluster that is not its own", entry);
		else if (entry & ENTRY_OFFSET)
			use(usage, entry & ENTRY_OFFSET, 1, "a cluster off its boundary");
	}
}

static void use_tables(struct usage *usage)
{
	const struct image *image = usage->image;
	uint64_t l1 = be(image, AT_L1_OFFSET, 8), entries = be(image, AT_L1_ENTRIES, 4);

	use(usage, 0, 1, "the header");
	use(usage, l1, to_clusters(image, 8 * entries), "the L1 table");
	for (uint64_t i = 0; i < entries && usage->result == 0; i++) {
		uint64_t entry = be(image, l1 + 8 * i, 8);

		if (entry == 0)
			continue;
		if (!(entry & ENTRY_COPIED))
			usage->result = refuse(image, "an L2 table that is not its own", entry);
		use(usage, entry & ENTRY_OFFSET, 1, "an L2 table");
		use_l2(usage, entry & ENTRY_OFFSET);
	}
}

static void use_refcounts(struct usage *usage)
{
	const struct image *image = usage->image;
	uint64_t table = be(image, AT_REFCOUNT_OFFSET, 8);
	uint64_t clusters = be(image, AT_REFCOUNT_CLUSTERS, 4);

	use(usage, table, clusters, "the refcount table");
	for (uint64_t i = 0; i < clusters * cluster_size(image) / 8 && usage->result == 0; i++)
		if (be(image, table + 8 * i, 8))
			use(usage, be(image, table + 8 * i, 8), 1, "a refcount block");
}

static uint64_t refcount(const struct image *image, uint64_t cluster)
{
	uint64_t per_block = cluster_size(image) / 2;
	uint64_t block = be(image, be(image, AT_REFCOUNT_OFFSET, 8) + 8 * (cluster / per_block), 8);

	return block ? be(image, block + 2 * (cluster % per_block), 2) : 0;
}

static int check_usage(const struct image *image)
{
	struct usage usage = { .image = image, .clusters = to_clusters(image, image->length) };

	usage.used = calloc(usage.clusters + 1, sizeof(usage.used[0]));
	usage.shared = calloc(usage.clusters + 1, 1);
	if (!usage.used || !usage.shared)
		usage.result = -ENOMEM;
	if (usage.result)
		goto out;
	use_tables(&usage);
	use_refcounts(&usage);
	for (uint64_t i = 0; i < usage.clusters && usage.result == 0; i++)
		if (refcount(image, i) != usage.used[i])
			usage.result = refuse(image, "refcount", i << image->cluster_bits);
out:
	free(usage.used);
	free(usage.shared);
	return usage.result;
}

/* --- the chain --- */

static int open_at(const char *directory, const char *name, unsigned depth,
		   struct image **ret_image)
{
	struct image *image = calloc(1, sizeof(*image));
	uint64_t offset, length;
	char backing[1024];
	int r;

	if (!image)
		return -ENOMEM;
	r = depth > IMAGE_CHAIN ? -ELOOP : load(directory, name, image);
	r = r ? r : check_header(image);
	r = r ? r : check_usage(image);
	if (r)
		goto out;
	offset = be(image, AT_BACKING_OFFSET, 8);
	length = be(image, AT_BACKING_LENGTH, 4);
	if (offset) {
		if (length >= sizeof(backing) || offset + length > image->length) {
			r = refuse(image, "the backing file's name", offset);
			goto out;
		}
		memcpy(backing, image->bytes + offset, length);
		backing[length] = '\0';
		r = open_at(directory, backing, depth + 1, &image->backing);
	}
out:
	if (r)
		image_free(image);
	else
		*ret_image = image;
	return r;
}

int image_open(const char *directory, const char *name, struct image **ret_image)
{
	return open_at(directory, name, 0, ret_image);
}

void image_free(struct image *image)
{
	while (image) {
		struct image *backing = image->backing;

		free(image->bytes);
		free(image);
		image = backing;
	}
}

/* --- content --- */

static uint64_t l2_entry(const struct image *image, uint64_t offset)
{
	uint64_t per_table = cluster_size(image) / 8, cluster = offset >> image->cluster_bits;
	uint64_t l1_index = cluster / per_table, table;

	if (offset >= image->virtual_size || l1_index >= be(image, AT_L1_ENTRIES, 4))
		return 0;
	table = be(image, be(image, AT_L1_OFFSET, 8) + 8 * l1_index, 8) & ENTRY_OFFSET;
	return table ? be(image, table + 8 * (cluster % per_table), 8) : 0;
}

enum image_status image_status(const struct image *image, uint64_t offset)
{
	uint64_t entry = l2_entry(image, offset);

	if (entry & ENTRY_COMPRESSED)
		return IMAGE_DATA;
	if (entry & ENTRY_ZERO)
		return IMAGE_ZERO;
	return entry & ENTRY_OFFSET ? IMAGE_DATA : IMAGE_ABSENT;
}

/* What cannot be unpacked reads as something that nobody wrote. */
static void unpack(const struct image *image, uint64_t entry, unsigned char *cluster)
{
	memset(cluster, 0xee, cluster_size(image));
#ifdef COW_HAVE_ZSTD
	uint64_t offset, end;
	ZSTD_inBuffer in = { image->bytes, 0, 0 };
	ZSTD_outBuffer out = { cluster, cluster_size(image), 0 };
	ZSTD_DStream *stream = ZSTD_createDStream();
	size_t r;

	find_packed(image, entry, &offset, &end);
	in.pos = offset;
	in.size = end < image->length ? end : image->length;
	do
		r = ZSTD_decompressStream(stream, &out, &in);
	while (r > 0 && !ZSTD_isError(r) && in.pos < in.size && out.pos < out.size);
	ZSTD_freeDStream(stream);
	if (r != 0 || out.pos != out.size)
		refuse(image, "a compressed cluster that cannot be unpacked", offset);
#endif
}

static void read_packed(const struct image *image, uint64_t entry, uint64_t within,
			unsigned char *to, size_t length)
{
	unsigned char *cluster = malloc(cluster_size(image));

	if (!cluster)
		abort();
	unpack(image, entry, cluster);
	memcpy(to, cluster + within, length);
	free(cluster);
}

/* Within one cluster of this image. */
static void read_piece(const struct image *image, uint64_t offset, unsigned char *to, size_t length)
{
	uint64_t within = offset & (cluster_size(image) - 1), at;
	uint64_t entry = l2_entry(image, offset);

	if (entry & ENTRY_COMPRESSED) {
		read_packed(image, entry, within, to, length);
		return;
	}
	switch (image_status(image, offset)) {
	case IMAGE_DATA:
		at = (entry & ENTRY_OFFSET) + within;
		for (size_t i = 0; i < length; i++)
			to[i] = at + i < image->length ? image->bytes[at + i] : 0;
		break;
	case IMAGE_ABSENT:
		if (image->backing && offset < image->backing->virtual_size) {
			image_read(image->backing, offset, to, length);
			break;
		}
		__attribute__((fallthrough));
	case IMAGE_ZERO:
		memset(to, 0, length);
		break;
	}
}

void image_read(const struct image *image, uint64_t offset, void *buffer, size_t length)
{
	unsigned char *to = buffer;

	while (length > 0) {
		uint64_t within = offset & (cluster_size(image) - 1);
		size_t piece = cluster_size(image) - within;

		if (piece > length)
			piece = length;
		read_piece(image, offset, to, piece);
		offset += piece;
		to += piece;
		length -= piece;
	}
}
