/* SPDX-License-Identifier: MIT */
/*
 * Importing: an image that others wrote becomes a layer of its own, on nothing.
 *
 * A layer of another store is recognised by its footer, at the end of the guest: what is imported
 * then is the region, with its address, and not the manifest.
 *
 * The image is gone through twice: what may come is counted, since the writer keeps room for so
 * much, then it is read. Somebody may write it meanwhile; where there is more than was counted the
 * import fails.
 */
#include <string.h>

#include "core/copy.h"
#include "lib/internal.h"
#include "store/foreign.h"
#include "store/publish.h"
#include "store/writer.h"

static const struct cow_import_options default_options = COW_IMPORT_OPTIONS_INIT;

/* How much there is in runs, which come in ascending order. */
struct tally {
	uint64_t bytes, clusters, slices;
	uint64_t last_slice; /* plus one */
};

struct import {
	struct cow_store *store;
	struct cow_import_options options;
	struct foreign *foreign;
	struct writer *writer;
	struct writer_config config;
	struct tally planned, found;
	uint64_t done; /* bytes */
	unsigned char bytes[WRITER_BATCH * CLUSTER];
};

static int look_for_footer(struct import *import)
{
	uint64_t size = foreign_size(import->foreign);
	unsigned char cluster[CLUSTER];
	struct footer footer;
	int r;

	if (size < CLUSTER || size % CLUSTER != 0)
		return 0;
	r = foreign_read(import->foreign, size - CLUSTER, cluster, CLUSTER);
	if (r < 0 || footer_decode(cluster, &footer) < 0 || footer.virtual_size != size)
		return r;
	import->config.length = footer.length;
	import->config.address = footer.address;
	import->config.page_size = footer.page_size;
	import->config.time_ns = footer.time_ns;
	return 0;
}

/* Calls visit for every run of bytes that may have data, in whole clusters. */
static int for_each_run(struct import *import,
			int (*visit)(struct import *import, uint64_t offset, uint64_t length))
{
	uint64_t length = import->config.length, at = 0;
	int r = 0;

	while (r == 0 && at < length && at < foreign_size(import->foreign)) {
		uint64_t run, end;

		r = foreign_status(import->foreign, at, &run);
		if (r < 0)
			return r;
		end = div_up(at + run, CLUSTER) * CLUSTER;
		if (r > 0)
			r = visit(import, at / CLUSTER * CLUSTER,
				  (end < length ? end : length) - at / CLUSTER * CLUSTER);
		else if (at % CLUSTER != 0 || run < CLUSTER)
			r = visit(import, at / CLUSTER * CLUSTER, CLUSTER); /* part of one */
		else
			end = (at + run) / CLUSTER * CLUSTER;
		at = end;
	}
	return r;
}

static void add_run(struct tally *tally, uint64_t offset, uint64_t length)
{
	uint64_t first = offset / SLICE_BYTES, last = (offset + length - 1) / SLICE_BYTES;

	tally->bytes += length;
	tally->clusters += div_up(length, CLUSTER);
	tally->slices += last - first + (first + 1 != tally->last_slice);
	tally->last_slice = last + 1;
}

static int count_run(struct import *import, uint64_t offset, uint64_t length)
{
	add_run(&import->planned, offset, length);
	return 0;
}

/* Nothing lies below, so that what is zero need not be said. */
static int write_batch(struct import *import, uint64_t offset, unsigned clusters)
{
	const void *bytes[WRITER_BATCH];
	uint64_t guest[WRITER_BATCH], first;
	uint32_t crcs[WRITER_BATCH];
	unsigned count = 0;
	int r;

	r = foreign_read(import->foreign, offset, import->bytes, clusters * CLUSTER);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < clusters; i++) {
		const unsigned char *cluster = import->bytes + i * CLUSTER;

		if (page_is_zero(cluster, CLUSTER))
			continue;
		guest[count] = offset / CLUSTER + i;
		bytes[count] = cluster;
		crcs[count++] = crc32c(cluster, CLUSTER);
	}
	return count == 0 ? 0 : writer_write(import->writer, guest, bytes, crcs, count, &first);
}

static int report(struct import *import)
{
	const struct cow_import_options *options = &import->options;

	if (!options->progress)
		return 0;
	return options->progress(import->done, import->planned.bytes, options->context) ?
		       -ECANCELED :
		       0;
}

static int write_run(struct import *import, uint64_t offset, uint64_t length)
{
	int r = 0;

	add_run(&import->found, offset, length);
	if (import->found.clusters > import->planned.clusters ||
	    import->found.slices > import->planned.slices)
		return foreign_complain(import->foreign, -EBUSY,
					"it is being changed: import it when nobody writes it");
	while (r == 0 && length > 0) {
		uint64_t some = length < sizeof(import->bytes) ? length : sizeof(import->bytes);

		r = write_batch(import, offset, (unsigned)div_up(some, CLUSTER));
		offset += some;
		length -= some;
		import->done += some;
		if (r == 0)
			r = report(import);
	}
	return r;
}

static int write_layer(struct import *import)
{
	struct footer footer;
	int r = for_each_run(import, count_run);

	if (r < 0)
		return r;
	import->config.clusters_max = import->planned.clusters;
	import->config.slices_max = import->planned.slices;
	r = writer_new(import->store, &import->config, &import->writer);
	if (r < 0)
		return r;
	r = for_each_run(import, write_run);
	if (r < 0) {
		writer_abort(import->writer);
		return r;
	}
	return writer_finish(import->writer, &footer);
}

static int set_up(struct import *import, const char *path)
{
	uint64_t size;
	int r = foreign_open(path, import->options.format, &import->foreign);

	if (r < 0)
		return r;
	size = foreign_size(import->foreign);
	import->config = (struct writer_config){
		.length = div_up(size, CLUSTER) * CLUSTER,
		.page_size = sys_page_size(),
		.time_ns = sys_realtime_ns(),
	};
	if (size == 0 || size > LENGTH_STORED_MAX) {
		return foreign_complain(import->foreign, size == 0 ? -EINVAL : -EFBIG,
					size == 0 ? "it is empty" : "it is longer than 8 TiB");
	}
	r = look_for_footer(import);
	if (r == 0)
		r = next_sequence(import->store, &import->config.sequence);
	return r < 0 ? r : id_new(&import->config.id);
}

static int import_locked(struct import *import, const char *path)
{
	struct publication publication = { .tag = import->options.tag };
	int r = set_up(import, path);

	if (r == 0)
		r = write_layer(import);
	publication.id = import->config.id;
	publication.sequence = import->config.sequence;
	if (r == 0)
		r = publish_new(import->store, &publication);
	foreign_close(import->foreign);
	return r;
}

int cow_store_import(struct cow_store *store, const char *path,
		     const struct cow_import_options *options, char ret_id[COW_ID_LENGTH])
{
	struct import *import;
	int r = 0;

	if (!path)
		return -EINVAL;
	import = sys_alloc(sizeof(*import));
	if (!import)
		return -ENOMEM;
	import->store = store;
	import->options = default_options;
	if (options)
		r = options_read(&import->options, sizeof(import->options), sizeof(import->options),
				 options);
	if (r == 0 && import->options.flags != 0)
		r = log_refusal("flags 0x%x of an import: there are none", import->options.flags);
	if (r == 0)
		r = store_check_tag(import->options.tag);
	if (r == 0)
		r = store_begin(store, STORE_WRITES);
	if (r == 0) {
		r = import_locked(import, path);
		store_end(store);
	}
	if (r == 0 && ret_id)
		id_print(&import->config.id, ret_id);
	sys_free(import);
	return r;
}
