/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "lib/internal.h"
#include "store/foreign.h"
#include "store/io.h"
#include "store/unpack.h"

#define HEADER_BYTES_MAX 65536u
#define L1_BYTES_MAX     ((uint64_t)32 << 20)

struct foreign {
	struct foreign *backing;
	int fd;
	uint64_t file_bytes, size;
	bool raw;
	struct qcow2_header header;
	unsigned char *l1, *l2;          /* l2: the table that was looked at last */
	uint64_t l2_offset;              /* 0: none */
	unsigned char *packed, *cluster; /* the cluster that was unpacked last */
	uint64_t cluster_entry;          /* its entry, 0: none */
	char path[PATH_MAX];
};

int foreign_complain(const struct foreign *foreign, int error, const char *what)
{
	log_message(LOG_ERR, "libcow: import: %s: %s", foreign->path, what);
	return error;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t cluster_bytes(const struct foreign *foreign)
{
	return (uint64_t)1 << foreign->header.cluster_bits;
}

/* How much of the guest one L2 table is for. */
static uint64_t table_reach(const struct foreign *foreign)
{
	return cluster_bytes(foreign) / 8 << foreign->header.cluster_bits;
}

void foreign_close(struct foreign *foreign)
{
	while (foreign) {
		struct foreign *backing = foreign->backing;

		io_close(foreign->fd);
		sys_free(foreign->l1);
		sys_free(foreign->l2);
		sys_free(foreign->packed);
		sys_free(foreign->cluster);
		sys_free(foreign);
		foreign = backing;
	}
}

uint64_t foreign_size(const struct foreign *foreign)
{
	return foreign->size;
}

/* --- opening --- */

static int read_l1(struct foreign *foreign)
{
	const struct qcow2_header *header = &foreign->header;
	uint64_t needed = div_up(header->size, table_reach(foreign));
	uint64_t bytes = (uint64_t)header->l1_entries * 8;

	if (header->l1_entries < needed || bytes > L1_BYTES_MAX ||
	    header->l1_offset % cluster_bytes(foreign) != 0 ||
	    header->l1_offset > foreign->file_bytes ||
	    bytes > foreign->file_bytes - header->l1_offset)
		return foreign_complain(foreign, -EUCLEAN,
					"damaged: its first-level table is out of place");
	foreign->l1 = sys_alloc(bytes + 8);
	foreign->l2 = sys_alloc(cluster_bytes(foreign));
	if (!foreign->l1 || !foreign->l2)
		return -ENOMEM;
	return io_read(foreign->fd, foreign->l1, bytes, header->l1_offset);
}

static int read_header(struct foreign *foreign)
{
	size_t bytes = least(foreign->file_bytes, HEADER_BYTES_MAX);
	unsigned char *start = sys_alloc(bytes + 1);
	struct qcow2_header *header = &foreign->header;
	const char *refused;
	int r;

	if (!start)
		return -ENOMEM;
	r = io_read(foreign->fd, start, bytes, 0);
	if (r == 0)
		r = qcow2_decode(start, bytes, header);
	sys_free(start);
	if (r == -EINVAL)
		return foreign_complain(foreign, r, "it is no qcow2 image");
	if (r < 0)
		return foreign_complain(foreign, r,
					r == -EUCLEAN ? "its header is damaged" : strerror(-r));
	header->incompatible &= ~QCOW2_DIRTY; /* refcounts are not looked at */
	refused = qcow2_refusal(header);
	if (!refused && !can_unpack((enum qcow2_compression)header->compression))
		refused = "zstd compression, which was not built in";
	if (refused) {
		log_message(LOG_ERR, "libcow: import: %s: not supported: %s", foreign->path,
			    refused);
		return -EOPNOTSUPP;
	}
	foreign->size = header->size;
	return read_l1(foreign);
}

static int is_qcow2(struct foreign *foreign, const char *format, bool *ret_qcow2)
{
	unsigned char magic[4] = { 0 };
	int r = 0;

	if (format && strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0) {
		log_message(LOG_ERR, "libcow: import: %s: not supported: the format %s",
			    foreign->path, format);
		return -EOPNOTSUPP;
	}
	if (!format && foreign->file_bytes >= sizeof(magic))
		r = io_read(foreign->fd, magic, sizeof(magic), 0);
	*ret_qcow2 = format ? strcmp(format, "qcow2") == 0 : get_be32(magic) == QCOW2_MAGIC;
	return r;
}

static int open_one(const char *path, const char *format, struct foreign **ret_foreign)
{
	struct foreign *foreign = sys_alloc(sizeof(*foreign));
	uint64_t links;
	bool qcow2;
	int r;

	if (!foreign)
		return -ENOMEM;
	snprintf(foreign->path, sizeof(foreign->path), "%s", path);
	/* Not to wait for who writes a pipe; of no consequence for a file. */
	r = foreign->fd = io_open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK);
	if (r >= 0)
		r = sys_file_size(foreign->fd, &foreign->file_bytes, &links);
	if (r < 0)
		foreign_complain(foreign, r, r == -EINVAL ? "it is no regular file" : strerror(-r));
	if (r == 0)
		r = is_qcow2(foreign, format, &qcow2);
	if (r == 0) {
		foreign->raw = !qcow2;
		foreign->size = foreign->file_bytes;
		r = qcow2 ? read_header(foreign) : 0;
	}
	if (r < 0) {
		foreign_close(foreign);
		return r;
	}
	*ret_foreign = foreign;
	return 0;
}

/* The path of the image below, relative to the one that names it. */
static int backing_path(const struct foreign *foreign, char path[PATH_MAX])
{
	const char *name = foreign->header.backing, *slash = strrchr(foreign->path, '/');
	const char *colon = strchr(name, ':');
	int directory = slash ? (int)(slash - foreign->path) + 1 : 0;
	int length;

	if (strncmp(name, "file:", 5) == 0)
		name += 5;
	else if (colon && (size_t)(colon - name) < strcspn(name, "/"))
		return foreign_complain(foreign, -EOPNOTSUPP,
					"not supported: a backing file that is not a file's name");
	length = snprintf(path, PATH_MAX, "%.*s%s", name[0] == '/' ? 0 : directory, foreign->path,
			  name);
	return length < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int foreign_open(const char *path, const char *format, struct foreign **ret_foreign)
{
	struct foreign *top = NULL, **link = &top;
	char next[PATH_MAX];
	unsigned depth = 0;
	int r;

	r = open_one(path, format, link);
	while (r == 0 && !(*link)->raw && (*link)->header.backing[0]) {
		const struct qcow2_header *header = &(*link)->header;

		if (++depth > FOREIGN_DEPTH_MAX) {
			r = foreign_complain(
				top, -ELOOP,
				"its backing files run in a circle, or are more than 256");
			break;
		}
		r = backing_path(*link, next);
		if (r == 0)
			r = open_one(next,
				     header->backing_format[0] ? header->backing_format : NULL,
				     &(*link)->backing);
		link = &(*link)->backing;
	}
	if (r < 0) {
		foreign_close(top);
		return r;
	}
	*ret_foreign = top;
	return 0;
}

/* --- tables --- */

/* The entry of a cluster; 0: nothing. *ret_reach: from offset on, up to where it holds. */
static int find_entry(struct foreign *foreign, uint64_t offset, uint64_t *ret_entry,
		      uint64_t *ret_reach)
{
	uint64_t reach = table_reach(foreign), cluster = cluster_bytes(foreign);
	uint64_t table = get_be64(foreign->l1 + offset / reach * 8) & QCOW2_OFFSET_MASK;
	int r;

	if (table == 0) {
		*ret_entry = 0;
		*ret_reach = reach - offset % reach;
		return 0;
	}
	if (table % cluster != 0)
		return foreign_complain(foreign, -EUCLEAN,
					"damaged: a second-level table is out of place");
	if (foreign->l2_offset != table) {
		foreign->l2_offset = 0;
		r = io_read(foreign->fd, foreign->l2, cluster, table);
		if (r < 0)
			return foreign_complain(foreign, r,
						"damaged: a second-level table cannot be read");
		foreign->l2_offset = table;
	}
	*ret_entry = get_be64(foreign->l2 + offset % reach / cluster * 8);
	*ret_reach = cluster - offset % cluster;
	return 0;
}

static bool is_nothing(uint64_t entry)
{
	return !(entry & QCOW2_COMPRESSED) && !(entry & QCOW2_ZERO) &&
	       (entry & QCOW2_OFFSET_MASK) == 0;
}

static bool is_zero_entry(uint64_t entry)
{
	return !(entry & QCOW2_COMPRESSED) && (entry & QCOW2_ZERO);
}

static int raw_status(struct foreign *foreign, uint64_t offset, uint64_t *length)
{
	uint64_t end = least(offset + *length, foreign->size), data, hole;

	if (sys_file_data(foreign->fd, offset, end, &data, &hole) < 0)
		return 1; /* a file system that cannot tell */
	*length = data > offset ? data - offset : hole - offset;
	return data <= offset;
}

int foreign_status(struct foreign *foreign, uint64_t offset, uint64_t *ret_length)
{
	uint64_t length = foreign_size(foreign) - offset, entry, reach;
	int r = 0;

	for (; foreign && offset < foreign->size; foreign = foreign->backing) {
		length = least(length, foreign->size - offset);
		if (foreign->raw) {
			r = raw_status(foreign, offset, &length);
			break;
		}
		r = find_entry(foreign, offset, &entry, &reach);
		if (r < 0)
			return r;
		length = least(length, reach);
		r = !is_zero_entry(entry);
		if (!is_nothing(entry))
			break;
		r = 0;
	}
	*ret_length = length;
	return r;
}

/* --- reading --- */

/* Where the file ends, zeroes follow, as other readers have it. */
static int read_padded(struct foreign *foreign, uint64_t offset, unsigned char *buffer,
		       size_t length)
{
	uint64_t there = offset < foreign->file_bytes ? foreign->file_bytes - offset : 0;

	if (there < length) {
		memset(buffer + there, 0, length - there);
		length = there;
	}
	return length == 0 ? 0 : io_read(foreign->fd, buffer, length, offset);
}

/* Offset and length of a compressed cluster share the entry; the length is in sectors. */
static int read_packed(struct foreign *foreign, uint64_t entry)
{
	unsigned shift = 62 - (foreign->header.cluster_bits - 8);
	uint64_t offset = entry & (((uint64_t)1 << shift) - 1);
	uint64_t sectors = (entry >> shift & (((uint64_t)1 << (62 - shift)) - 1)) + 1;
	size_t bytes = (size_t)(sectors * 512 - offset % 512);
	int r;

	if (!foreign->packed) {
		foreign->packed = sys_alloc(2 * cluster_bytes(foreign) + 1024);
		foreign->cluster = sys_alloc(cluster_bytes(foreign));
	}
	if (!foreign->packed || !foreign->cluster)
		return -ENOMEM;
	if (offset >= foreign->file_bytes || bytes > 2 * cluster_bytes(foreign) + 1024)
		return foreign_complain(foreign, -EUCLEAN,
					"damaged: a compressed cluster is out of place");
	foreign->cluster_entry = 0;
	r = read_padded(foreign, offset, foreign->packed, bytes);
	if (r == 0)
		r = unpack((enum qcow2_compression)foreign->header.compression, foreign->packed,
			   bytes, foreign->cluster, cluster_bytes(foreign));
	if (r == -EUCLEAN)
		return foreign_complain(foreign, r,
					"damaged: a compressed cluster cannot be unpacked");
	if (r == 0)
		foreign->cluster_entry = entry;
	return r;
}

static int read_qcow2(struct foreign *foreign, uint64_t entry, uint64_t offset,
		      unsigned char *buffer, size_t length)
{
	uint64_t in_cluster = offset % cluster_bytes(foreign);
	uint64_t at = entry & QCOW2_OFFSET_MASK;
	int r = 0;

	if (entry & QCOW2_COMPRESSED) {
		if (foreign->cluster_entry != entry)
			r = read_packed(foreign, entry);
		if (r == 0)
			memcpy(buffer, foreign->cluster + in_cluster, length);
		return r;
	}
	if (at % cluster_bytes(foreign) != 0 || at >= foreign->file_bytes)
		return foreign_complain(foreign, -EUCLEAN, "damaged: data is out of place");
	return read_padded(foreign, at + in_cluster, buffer, length);
}

/* From one image; 1: it lies below. */
static int read_here(struct foreign *foreign, uint64_t offset, unsigned char *buffer,
		     size_t *length)
{
	uint64_t entry, reach;
	int r;

	*length = least(*length, foreign->size - offset);
	if (foreign->raw)
		return read_padded(foreign, offset, buffer, *length);
	r = find_entry(foreign, offset, &entry, &reach);
	if (r < 0)
		return r;
	*length = least(*length, reach);
	if (is_nothing(entry))
		return 1;
	if (is_zero_entry(entry)) {
		memset(buffer, 0, *length);
		return 0;
	}
	return read_qcow2(foreign, entry, offset, buffer, *length);
}

static int read_piece(struct foreign *foreign, uint64_t offset, unsigned char *buffer,
		      size_t *length)
{
	int r = 1;

	for (; r == 1 && foreign && offset < foreign->size; foreign = foreign->backing)
		r = read_here(foreign, offset, buffer, length);
	if (r != 1)
		return r;
	memset(buffer, 0, *length);
	return 0;
}

int foreign_read(struct foreign *foreign, uint64_t offset, unsigned char *buffer, size_t length)
{
	int r = 0;

	while (r == 0 && length > 0) {
		size_t piece = length;

		r = read_piece(foreign, offset, buffer, &piece);
		offset += piece;
		buffer += piece;
		length -= piece;
	}
	return r;
}
