/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <string.h>
#ifdef COW_HAVE_ZSTD
#include <zstd.h>
#endif

#include "store/draft.h"
#include "store/io.h"
#include "store/packer.h"
#include "sys/sys.h"

#define LEVEL     3           /* zstd's own default: higher ones gain little in 64 KiB */
#define BUFFER    (1ul << 20) /* written at a time */
#define ENTRIES   (PACKED_CLUSTER / 8)
#define PER_BLOCK (PACKED_CLUSTER / 2) /* refcounts */

/* Where everything is in the file, in clusters of 64 KiB. */
struct layout {
	uint64_t refcount_blocks, l1, l2, data;
	uint64_t block_count, l1_count, l2_count, data_count;
};

struct packer {
	struct writer_config config;
	struct layout layout;
	struct draft draft;
	void *zstd;
	uint64_t at;                    /* where the next packed cluster goes, bytes */
	unsigned char *buffer;          /* of the file, from `written` up to `at` */
	uint64_t written;               /* a multiple of CLUSTER */
	uint64_t zeros, held;           /* clusters of 64 KiB */
	uint64_t *l1;                   /* as in the file */
	unsigned char *tables;          /* as in the file */
	uint64_t table_count, table_of; /* the newest one's index in l1, plus one */
	uint16_t *uses; /* of the file's clusters, from layout.data on: packed clusters in each */
};

#ifdef COW_HAVE_ZSTD
bool packer_is_there(void)
{
	return true;
}

static void *zstd_new(void)
{
	return ZSTD_createCCtx();
}

static void zstd_free(void *zstd)
{
	ZSTD_freeCCtx(zstd);
}

static int zstd_pack(void *zstd, const unsigned char *bytes, unsigned char *to, uint64_t *ret_bytes)
{
	size_t n = ZSTD_compressCCtx(zstd, to, PACKED_MAX, bytes, PACKED_CLUSTER, LEVEL);

	if (ZSTD_isError(n))
		return -ENOMEM; /* the room is sufficient for anything */
	*ret_bytes = n;
	return 0;
}
#else
bool packer_is_there(void)
{
	return false;
}

static void *zstd_new(void)
{
	return NULL;
}

static void zstd_free(void *zstd)
{
	(void)zstd;
}

static int zstd_pack(void *zstd, const unsigned char *bytes, unsigned char *to, uint64_t *ret_bytes)
{
	(void)zstd;
	(void)bytes;
	(void)to;
	(void)ret_bytes;
	return -EOPNOTSUPP;
}
#endif

/* --- the layout --- */

/* Clusters of 64 KiB for state, checksums and footer at most. */
static uint64_t manifest_max(const struct writer_config *config, uint64_t data)
{
	uint64_t state = div_up(config->state_length, CLUSTER);
	/* The metadata is far less than as much again as the data and the touched tables. */
	uint64_t sums = 2 * (data + config->slices_max + 256) * PACKED_PAGES + state;

	return div_up(state + div_up(sums * 4, CLUSTER) + 1, PACKED_PAGES);
}

static struct layout plan(const struct writer_config *config)
{
	uint64_t data = div_up(config->clusters_max * PACKED_MAX, PACKED_CLUSTER);
	uint64_t tail = manifest_max(config, data);
	uint64_t first = tail_start(config->length) / PACKED_CLUSTER;
	struct layout layout = {
		.data_count = data,
		.l1_count = div_up(div_up(first + tail, ENTRIES), ENTRIES),
		.l2_count = config->slices_max + div_up(first % ENTRIES + tail, ENTRIES),
	};
	uint64_t rest = 2 + layout.l1_count + layout.l2_count + data + tail;

	/* The blocks count themselves, too. */
	layout.block_count = div_up(rest, PER_BLOCK - 1);
	layout.refcount_blocks = 2;
	layout.l1 = layout.refcount_blocks + layout.block_count;
	layout.l2 = layout.l1 + layout.l1_count;
	layout.data = layout.l2 + layout.l2_count;
	return layout;
}

/* --- data --- */

static void enter(struct packer *packer, uint64_t guest, uint64_t entry)
{
	uint64_t index = guest / ENTRIES;

	if (packer->table_of != index + 1) {
		assert(index + 1 > packer->table_of &&
		       packer->table_count < packer->layout.l2_count);
		put_be64(&packer->l1[index],
			 (packer->layout.l2 + packer->table_count) * PACKED_CLUSTER | QCOW2_COPIED);
		packer->table_count++;
		packer->table_of = index + 1;
	}
	put_be64(packer->tables + (packer->table_count - 1) * PACKED_CLUSTER + guest % ENTRIES * 8,
		 entry);
}

/* Whole clusters of 4 KiB of what is in the buffer; what remains goes to its beginning. */
static int flush(struct packer *packer)
{
	uint64_t bytes = packer->at - packer->written, whole = bytes / CLUSTER * CLUSTER;
	int r;

	if (whole == 0)
		return 0;
	r = draft_write(&packer->draft, packer->written / CLUSTER, packer->buffer, whole / CLUSTER);
	if (r < 0)
		return r;
	sys_start_writeback(packer->draft.fd, packer->written, whole);
	memmove(packer->buffer, packer->buffer + whole, bytes - whole);
	packer->written += whole;
	return 0;
}

/* Every cluster of the file that its sectors lie in is used once more. */
static void count_uses(struct packer *packer, uint64_t entry)
{
	uint64_t first = packed_offset(entry), last = first + packed_bytes(entry) - 1;

	for (uint64_t i = first / PACKED_CLUSTER; i <= last / PACKED_CLUSTER; i++)
		packer->uses[i - packer->layout.data]++;
}

int packer_write(struct packer *packer, uint64_t guest, const unsigned char *bytes)
{
	unsigned char *to = packer->buffer + (packer->at - packer->written);
	uint64_t packed, entry;
	int r;

	if (!bytes) {
		packer->zeros++;
		enter(packer, guest, QCOW2_ZERO);
		return 0;
	}
	r = zstd_pack(packer->zstd, bytes, to, &packed);
	if (r < 0)
		return r;
	entry = packed_entry(packer->at, packed);
	enter(packer, guest, entry);
	count_uses(packer, entry);
	packer->held++;
	packer->at += packed;
	return packer->at - packer->written < BUFFER ? 0 : flush(packer);
}

/* --- beginning and end --- */

void packer_abort(struct packer *packer)
{
	if (!packer)
		return;
	draft_drop(&packer->draft);
	zstd_free(packer->zstd);
	sys_free(packer->buffer);
	sys_free(packer->l1);
	sys_free(packer->tables);
	sys_free(packer->uses);
	sys_free(packer);
}

static bool allocate(struct packer *packer)
{
	const struct layout *layout = &packer->layout;

	packer->zstd = zstd_new();
	packer->buffer = sys_alloc(BUFFER + PACKED_MAX + CLUSTER);
	packer->l1 = sys_alloc_array(layout->l1_count, PACKED_CLUSTER);
	packer->tables = sys_alloc_array(layout->l2_count, PACKED_CLUSTER);
	packer->uses = sys_alloc_array(layout->data_count + 1, sizeof(packer->uses[0]));
	return packer->zstd && packer->buffer && packer->l1 && packer->tables && packer->uses;
}

int packer_new(struct cow_store *store, const struct writer_config *config,
	       struct packer **ret_packer)
{
	struct packer *packer = sys_alloc(sizeof(*packer));
	int r;

	if (!packer)
		return -ENOMEM;
	packer->config = *config;
	packer->layout = plan(config);
	packer->at = packer->written = packer->layout.data * PACKED_CLUSTER;
	packer->draft.fd = -1;
	r = allocate(packer) ? draft_open(&packer->draft, store, &config->id) : -ENOMEM;
	if (r < 0) {
		packer_abort(packer);
		return r;
	}
	*ret_packer = packer;
	return 0;
}

/* What is left in the buffer, and the state behind it, at the next boundary. */
static int write_rest(struct packer *packer, uint64_t manifest)
{
	int r;

	memset(packer->buffer + (packer->at - packer->written), 0, CLUSTER);
	packer->at = div_up(packer->at, CLUSTER) * CLUSTER;
	r = flush(packer);
	/* Checksums also of the hole that may follow. */
	if (r == 0)
		r = draft_note(&packer->draft, manifest * PACKED_PAGES, crc32c_of_zero_cluster());
	return r < 0 ? r :
		       draft_write_padded(&packer->draft, manifest * PACKED_PAGES,
					  packer->config.state, packer->config.state_length);
}

static struct footer make_footer(const struct packer *packer, uint64_t manifest, uint64_t count)
{
	const struct writer_config *config = &packer->config;
	struct footer footer = writer_footer(config);

	footer.flags = FOOTER_COMPRESSED;
	footer.virtual_size = tail_start(config->length) + count * PACKED_CLUSTER;
	footer.meta_clusters = packer->layout.data * PACKED_PAGES;
	footer.compressed_bytes = packer->at - packer->layout.data * PACKED_CLUSTER;
	footer.zero_clusters = packer->zeros * PACKED_PAGES;
	footer.held_clusters = packer->held * PACKED_PAGES;
	footer.manifest_cluster = manifest * PACKED_PAGES;
	footer.crc_count = footer.manifest_cluster + div_up(config->state_length, CLUSTER);
	return footer;
}

/* What it came to, in clusters of 64 KiB. */
struct needed {
	uint64_t manifest; /* where it begins */
	uint64_t end, l1, blocks;
};

/* How often a cluster of the file is used; room that was not needed: not at all. */
static uint16_t uses_of(const struct packer *packer, uint64_t cluster, const struct needed *needed)
{
	const struct layout *layout = &packer->layout;

	if (cluster >= needed->manifest)
		return 1;
	if (cluster >= layout->data)
		return packer->uses[cluster - layout->data];
	if (cluster >= layout->l2)
		return cluster < layout->l2 + packer->table_count;
	if (cluster >= layout->l1)
		return cluster < layout->l1 + needed->l1;
	return cluster < layout->refcount_blocks + needed->blocks;
}

static int write_refcounts(struct packer *packer, const struct needed *needed)
{
	unsigned char *table = sys_alloc_array(needed->blocks + 1, PACKED_CLUSTER);
	unsigned char *blocks;
	int r;

	if (!table)
		return -ENOMEM;
	blocks = table + PACKED_CLUSTER;
	for (uint64_t i = 0; i < needed->blocks; i++)
		put_be64(table + i * 8, (packer->layout.refcount_blocks + i) * PACKED_CLUSTER);
	for (uint64_t i = 0; i < needed->end; i++)
		put_be16(blocks + i * 2, uses_of(packer, i, needed));
	r = draft_write_sparse(&packer->draft, PACKED_PAGES, table,
			       (needed->blocks + 1) * PACKED_PAGES);
	sys_free(table);
	return r;
}

static int write_header(struct packer *packer, uint64_t virtual_size)
{
	struct qcow2_header header = {
		.cluster_bits = PACKED_BITS,
		.size = virtual_size,
		.l1_offset = packer->layout.l1 * PACKED_CLUSTER,
		.l1_entries = (uint32_t)div_up(virtual_size, PACKED_TABLE_BYTES),
		.refcount_offset = PACKED_CLUSTER,
		.refcount_clusters = 1,
		.incompatible = QCOW2_HAS_COMPRESSION,
		.compression = QCOW2_ZSTD,
	};

	return draft_write_header(&packer->draft, &header, &packer->config.parent);
}

static int write_metadata(struct packer *packer, uint64_t manifest, uint64_t count,
			  uint64_t virtual_size)
{
	const struct layout *layout = &packer->layout;
	uint64_t tail = tail_start(packer->config.length) / PACKED_CLUSTER;
	uint64_t l1_entries = div_up(virtual_size, PACKED_TABLE_BYTES);
	struct needed needed = {
		.manifest = manifest,
		.end = manifest + count,
		.l1 = div_up(l1_entries, ENTRIES),
		.blocks = div_up(manifest + count, PER_BLOCK),
	};
	int r;

	for (uint64_t i = 0; i < count; i++)
		enter(packer, tail + i, (manifest + i) * PACKED_CLUSTER | QCOW2_COPIED);
	r = draft_write_sparse(&packer->draft, layout->l2 * PACKED_PAGES, packer->tables,
			       packer->table_count * PACKED_PAGES);
	if (r == 0)
		r = draft_write_sparse(&packer->draft, layout->l1 * PACKED_PAGES,
				       (unsigned char *)packer->l1,
				       layout->l1_count * PACKED_PAGES);
	if (r == 0)
		r = write_refcounts(packer, &needed);
	return r < 0 ? r : write_header(packer, virtual_size);
}

/* count: clusters of 64 KiB of the manifest, so that the footer is at the end of the last. */
static int write_all(struct packer *packer, struct footer *ret_footer)
{
	uint64_t manifest = div_up(packer->at, PACKED_CLUSTER);
	uint64_t state = div_up(packer->config.state_length, CLUSTER);
	uint64_t sums = div_up((manifest * PACKED_PAGES + state) * 4, CLUSTER);
	uint64_t count = div_up(state + sums + 1, PACKED_PAGES);
	struct footer footer = make_footer(packer, manifest, count);
	int r = write_rest(packer, manifest);

	if (r == 0)
		r = write_metadata(packer, manifest, count, footer.virtual_size);
	if (r == 0)
		r = draft_publish(&packer->draft, &footer, count * PACKED_PAGES - state);
	if (r == 0)
		*ret_footer = footer;
	return r;
}

int packer_finish(struct packer *packer, struct footer *ret_footer)
{
	int r = write_all(packer, ret_footer);

	packer_abort(packer);
	return r;
}
