/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <string.h>

#include "store/draft.h"
#include "store/io.h"
#include "store/writer.h"
#include "sys/sys.h"

#define GROUP_TABLES   256u         /* second-level tables written together */
#define WRITEBACK_STEP (8ull << 20) /* the disk begins its work this often */

/* Clusters of the first-level table of a guest. */
static uint64_t l1_clusters(uint64_t guest_bytes)
{
	return div_up(div_up(guest_bytes, SLICE_BYTES), TABLE_ENTRIES);
}

/* Where everything is in the file, in clusters. */
struct layout {
	uint64_t refcount_table, refcount_blocks, l1, l2, data;
	uint64_t refcount_table_count, refcount_block_count, l1_count, l2_count;
};

struct writer {
	struct writer_config config;
	struct layout layout;
	struct draft draft;
	uint64_t next;        /* where the next cluster of data goes */
	uint64_t flushed;     /* below it write-back has begun, bytes */
	uint64_t zeros, held; /* guest clusters of the region */
	uint64_t *l1;         /* as in the file; one entry a slice */
	unsigned char *group; /* tables [group_first, next_table) */
	uint64_t group_first, next_table;
	uint64_t slice; /* that the newest table is of, plus one */
};

/* --- the layout --- */

static uint64_t manifest_max(const struct writer_config *config, uint64_t data)
{
	uint64_t state = div_up(config->state_length, CLUSTER);

	/* The metadata is far less than as much again as the data and the touched tables. */
	return state +
	       div_up((2 * (data + config->slices_max) + state +
		       config->length / (SLICE_BYTES * TABLE_ENTRIES) + 4096) *
			      4,
		      CLUSTER) +
	       1;
}

static struct layout plan(const struct writer_config *config)
{
	uint64_t tail = manifest_max(config, config->clusters_max);
	uint64_t guest = tail_start(config->length) + tail * CLUSTER;
	struct layout layout = {
		.l1_count = l1_clusters(guest),
		.l2_count = config->slices_max + div_up(tail, SLICE),
	};
	uint64_t rest = 1 + layout.l1_count + layout.l2_count + config->clusters_max + tail;
	uint64_t before;

	/* The blocks count themselves, too: until nothing changes any more. */
	do {
		before = layout.refcount_block_count;
		layout.refcount_block_count = div_up(rest + before + layout.refcount_table_count,
						     REFCOUNTS);
		layout.refcount_table_count = div_up(layout.refcount_block_count, TABLE_ENTRIES);
	} while (layout.refcount_block_count != before);
	layout.refcount_table = 1;
	layout.refcount_blocks = layout.refcount_table + layout.refcount_table_count;
	layout.l1 = layout.refcount_blocks + layout.refcount_block_count;
	layout.l2 = layout.l1 + layout.l1_count;
	layout.data = layout.l2 + layout.l2_count;
	return layout;
}

/* --- second-level tables --- */

static int flush_group(struct writer *writer)
{
	uint64_t count = writer->next_table - writer->group_first;
	int r = 0;

	if (count > 0)
		r = draft_write(&writer->draft, writer->layout.l2 + writer->group_first,
				writer->group, count);
	writer->group_first = writer->next_table;
	return r;
}

static int enter(struct writer *writer, uint64_t guest, uint64_t entry)
{
	uint64_t slice = guest / SLICE;
	unsigned char *table;

	if (writer->slice != slice + 1) {
		assert(slice + 1 > writer->slice && writer->next_table < writer->layout.l2_count);
		if (writer->next_table - writer->group_first == GROUP_TABLES) {
			int r = flush_group(writer);

			if (r < 0)
				return r;
		}
		memset(writer->group + (writer->next_table - writer->group_first) * CLUSTER, 0,
		       CLUSTER);
		put_be64(&writer->l1[slice],
			 (writer->layout.l2 + writer->next_table) * CLUSTER | QCOW2_COPIED);
		writer->next_table++;
		writer->slice = slice + 1;
	}
	table = writer->group + (writer->next_table - 1 - writer->group_first) * CLUSTER;
	put_be64(table + guest % SLICE * 8, entry);
	return 0;
}

/* --- data --- */

/* Moves on behind the data that will be there. bytes NULL: there are no zeroes among them. */
static int enter_run(struct writer *writer, const uint64_t guest[], const void *const bytes[],
		     const uint32_t crcs[], unsigned count)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < count; i++) {
		if (bytes && !bytes[i]) {
			writer->zeros++;
			r = enter(writer, guest[i], QCOW2_ZERO);
			continue;
		}
		r = enter(writer, guest[i], writer->next * CLUSTER | QCOW2_COPIED);
		if (r == 0)
			r = draft_note(&writer->draft, writer->next, crcs[i]);
		writer->next++;
		writer->held++;
	}
	return r;
}

static void begin_writeback(struct writer *writer)
{
	uint64_t end = writer->next * CLUSTER;

	if (end - writer->flushed < WRITEBACK_STEP)
		return;
	sys_start_writeback(writer->draft.fd, writer->flushed, end - writer->flushed);
	writer->flushed = end;
}

/* Neighbours in memory become one piece. */
static int gather(const void *const bytes[], unsigned count, struct iovec pieces[])
{
	int used = 0;

	for (unsigned i = 0; i < count; i++) {
		const struct iovec *last = used ? &pieces[used - 1] : NULL;

		if (!bytes[i])
			continue;
		if (last && (const char *)last->iov_base + last->iov_len == bytes[i])
			pieces[used - 1].iov_len += CLUSTER;
		else
			pieces[used++] = (struct iovec){ (void *)(uintptr_t)bytes[i], CLUSTER };
	}
	return used;
}

int writer_write(struct writer *writer, const uint64_t guest[], const void *const bytes[],
		 const uint32_t crcs[], unsigned count, uint64_t *ret_first)
{
	struct iovec pieces[WRITER_BATCH];
	int r;

	assert(count <= WRITER_BATCH);
	*ret_first = writer->next;
	r = enter_run(writer, guest, bytes, crcs, count);
	if (r == 0)
		r = io_write(writer->draft.fd, pieces, gather(bytes, count, pieces),
			     *ret_first * CLUSTER);
	if (r == 0)
		begin_writeback(writer);
	return r;
}

int writer_mend(struct writer *writer, uint64_t file_cluster, const void *bytes)
{
	int r = draft_note(&writer->draft, file_cluster, crc32c(bytes, CLUSTER));

	return r < 0 ? r : io_write_bytes(writer->draft.fd, bytes, CLUSTER, file_cluster * CLUSTER);
}

static int copy_run(struct writer *writer, uint64_t to, int from, uint64_t from_offset,
		    unsigned count)
{
	unsigned char *buffer = sys_alloc((size_t)count * CLUSTER);
	int r = buffer ? io_read(from, buffer, (size_t)count * CLUSTER, from_offset) : -ENOMEM;

	if (r == 0)
		r = io_write_bytes(writer->draft.fd, buffer, (size_t)count * CLUSTER, to * CLUSTER);
	sys_free(buffer);
	return r;
}

int writer_clone(struct writer *writer, const uint64_t guest[], unsigned count, int from,
		 uint64_t from_offset, const uint32_t crcs[], uint64_t *cloned_bytes)
{
	uint64_t length = (uint64_t)count * CLUSTER, to = writer->next;
	int r = enter_run(writer, guest, NULL, crcs, count);

	if (r < 0)
		return r;
	if (io_clone(writer->draft.fd, to * CLUSTER, from, from_offset, length) < 0)
		return copy_run(writer, to, from, from_offset, count);
	*cloned_bytes += length;
	return 0;
}

/* --- beginning and end --- */

void writer_abort(struct writer *writer)
{
	if (!writer)
		return;
	draft_drop(&writer->draft);
	sys_free(writer->l1);
	sys_free(writer->group);
	sys_free(writer);
}

int writer_new(struct cow_store *store, const struct writer_config *config,
	       struct writer **ret_writer)
{
	struct writer *writer = sys_alloc(sizeof(*writer));
	int r = -ENOMEM;

	if (!writer)
		return -ENOMEM;
	writer->config = *config;
	writer->layout = plan(config);
	writer->next = writer->layout.data;
	writer->flushed = writer->next * CLUSTER;
	writer->draft.fd = -1;
	writer->l1 = sys_alloc(writer->layout.l1_count * CLUSTER);
	writer->group = sys_alloc_array(
		writer->layout.l2_count < GROUP_TABLES ? writer->layout.l2_count : GROUP_TABLES,
		CLUSTER);
	if (writer->l1 && writer->group)
		r = draft_open(&writer->draft, store, &config->id);
	if (r < 0) {
		writer_abort(writer);
		return r;
	}
	*ret_writer = writer;
	return 0;
}

/* It is covered by the array. */
static int write_state(struct writer *writer, uint64_t tail)
{
	uint64_t clusters = div_up(writer->config.state_length, CLUSTER);
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < clusters; i++)
		r = enter(writer, tail + i, (writer->next + i) * CLUSTER | QCOW2_COPIED);
	if (r == 0)
		r = draft_write_padded(&writer->draft, writer->next, writer->config.state,
				       writer->config.state_length);
	writer->next += clusters;
	return r;
}

struct footer writer_footer(const struct writer_config *config)
{
	return (struct footer){
		.id = config->id,
		.parent = config->parent,
		.sequence = config->sequence,
		.parent_sequence = config->parent_sequence,
		.length = config->length,
		.address = config->address,
		.page_size = config->page_size,
		.time_ns = config->time_ns,
		.state_length = config->state_length,
	};
}

static void fill_footer(const struct writer *writer, uint64_t manifest, struct footer *footer)
{
	*footer = writer_footer(&writer->config);
	footer->meta_clusters = writer->layout.data;
	footer->data_clusters = writer->held;
	footer->zero_clusters = writer->zeros;
	footer->held_clusters = writer->held;
	footer->manifest_cluster = manifest;
	footer->crc_count = writer->next;
}

/* Of array and footer: guest entries, before any metadata is written. */
static int enter_manifest(struct writer *writer, uint64_t tail, uint64_t manifest,
			  uint64_t clusters)
{
	uint64_t state = writer->next - manifest;
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < clusters; i++)
		r = enter(writer, tail + state + i, (writer->next + i) * CLUSTER | QCOW2_COPIED);
	return r;
}

/* Whether a cluster lies in room that turned out not to be needed. */
static bool is_spare(const struct writer *writer, uint64_t cluster, uint64_t blocks, uint64_t l1)
{
	const struct layout *layout = &writer->layout;

	return (cluster >= layout->refcount_blocks + blocks && cluster < layout->l1) ||
	       (cluster >= layout->l1 + l1 && cluster < layout->l2) ||
	       (cluster >= layout->l2 + writer->next_table && cluster < layout->data);
}

/* Of the clusters before end; l1: how many of the first-level table are needed. */
static int write_refcounts(struct writer *writer, uint64_t end, uint64_t l1)
{
	const struct layout *layout = &writer->layout;
	uint64_t blocks = div_up(end, REFCOUNTS);
	unsigned char *bytes = sys_alloc((layout->refcount_table_count + blocks) * CLUSTER);
	unsigned char *counts;
	int r;

	if (!bytes)
		return -ENOMEM;
	counts = bytes + layout->refcount_table_count * CLUSTER;
	for (uint64_t i = 0; i < blocks; i++)
		put_be64(bytes + i * 8, (layout->refcount_blocks + i) * CLUSTER);
	for (uint64_t i = 0; i < end; i++)
		if (!is_spare(writer, i, blocks, l1))
			put_be16(counts + i * 2, 1);
	r = draft_write(&writer->draft, layout->refcount_table, bytes,
			layout->refcount_table_count + blocks);
	sys_free(bytes);
	return r;
}

static int write_header(struct writer *writer, uint64_t virtual_size)
{
	struct qcow2_header header = {
		.cluster_bits = CLUSTER_BITS,
		.size = virtual_size,
		.l1_offset = writer->layout.l1 * CLUSTER,
		.l1_entries = (uint32_t)div_up(virtual_size, SLICE_BYTES),
		.refcount_offset = writer->layout.refcount_table * CLUSTER,
		.refcount_clusters = (uint32_t)writer->layout.refcount_table_count,
	};

	return draft_write_header(&writer->draft, &header, &writer->config.parent);
}

static int write_manifest(struct writer *writer, struct footer *footer)
{
	uint64_t tail = tail_start(writer->config.length) / CLUSTER, manifest = writer->next;
	uint64_t clusters, end;
	int r;

	r = write_state(writer, tail);
	if (r < 0)
		return r;
	fill_footer(writer, manifest, footer);
	clusters = div_up(footer->crc_count * 4, CLUSTER) + 1;
	end = writer->next + clusters;
	footer->virtual_size = (tail + end - manifest) * CLUSTER;
	r = enter_manifest(writer, tail, manifest, clusters);
	if (r == 0)
		r = flush_group(writer);
	if (r == 0)
		r = write_refcounts(writer, end, l1_clusters(footer->virtual_size));
	/* Sparse, so a large region costs only what was touched of it. */
	if (r == 0)
		r = draft_write_sparse(&writer->draft, writer->layout.l1,
				       (unsigned char *)writer->l1, writer->layout.l1_count);
	if (r == 0)
		r = write_header(writer, footer->virtual_size);
	return r < 0 ? r : draft_publish(&writer->draft, footer, clusters);
}

int writer_finish(struct writer *writer, struct footer *ret_footer)
{
	struct footer footer;
	int r;

	/* A hole at the end of the room for metadata has no checksum of its own yet. */
	r = draft_note(&writer->draft, writer->next, crc32c_of_zero_cluster());
	if (r == 0)
		r = write_manifest(writer, &footer);
	writer_abort(writer);
	if (r == 0)
		*ret_footer = footer;
	return r;
}
