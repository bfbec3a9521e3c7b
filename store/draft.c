/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "core/copy.h"
#include "store/draft.h"
#include "store/io.h"
#include "sys/sys.h"

int draft_open(struct draft *draft, struct cow_store *store, const struct layer_id *id)
{
	*draft = (struct draft){ .store = store };
	layer_name(id, draft->name);
	snprintf(draft->temporary, sizeof(draft->temporary), "%s" NEW_SUFFIX, draft->name);
	draft->fd = io_open(store->directory, draft->temporary, O_RDWR | O_CREAT | O_EXCL);
	return draft->fd < 0 ? draft->fd : 0;
}

void draft_drop(struct draft *draft)
{
	if (draft->fd >= 0) {
		io_close(draft->fd);
		(void)io_unlink(draft->store->directory, draft->temporary);
		draft->fd = -1;
	}
	sys_free(draft->crcs);
	draft->crcs = NULL;
}

static int make_room(struct draft *draft, uint64_t clusters)
{
	uint64_t room = clusters + clusters / 2 + 1024;
	uint32_t *more = sys_alloc_array(room, sizeof(more[0]));

	if (!more)
		return -ENOMEM;
	if (draft->crcs_room > 0)
		memcpy(more, draft->crcs, draft->crcs_room * sizeof(more[0]));
	for (uint64_t i = draft->crcs_room; i < room; i++)
		more[i] = __builtin_bswap32(crc32c_of_zero_cluster());
	sys_free(draft->crcs);
	draft->crcs = more;
	draft->crcs_room = room;
	return 0;
}

int draft_note(struct draft *draft, uint64_t cluster, uint32_t crc)
{
	int r = cluster < draft->crcs_room ? 0 : make_room(draft, cluster);

	if (r == 0)
		draft->crcs[cluster] = __builtin_bswap32(crc);
	return r;
}

int draft_write(struct draft *draft, uint64_t cluster, const unsigned char *bytes, uint64_t count)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < count; i++)
		r = draft_note(draft, cluster + i, crc32c(bytes + i * CLUSTER, CLUSTER));
	return r < 0 ? r : io_write_bytes(draft->fd, bytes, count * CLUSTER, cluster * CLUSTER);
}

int draft_write_padded(struct draft *draft, uint64_t cluster, const void *bytes, size_t length)
{
	uint64_t count = div_up(length, CLUSTER);
	unsigned char *padded;
	int r;

	if (count == 0)
		return 0;
	padded = sys_alloc(count * CLUSTER);
	if (!padded)
		return -ENOMEM;
	memcpy(padded, bytes, length);
	r = draft_write(draft, cluster, padded, count);
	sys_free(padded);
	return r;
}

int draft_write_sparse(struct draft *draft, uint64_t cluster, const unsigned char *bytes,
		       uint64_t count)
{
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < count; i++)
		if (!page_is_zero(bytes + i * CLUSTER, CLUSTER))
			r = draft_write(draft, cluster + i, bytes + i * CLUSTER, 1);
	return r;
}

int draft_write_header(struct draft *draft, struct qcow2_header *header,
		       const struct layer_id *parent)
{
	unsigned char cluster[CLUSTER];

	if (!id_is_none(parent))
		layer_name(parent, header->backing);
	qcow2_encode(header, cluster);
	return draft_write(draft, 0, cluster, 1);
}

static int write_array(struct draft *draft, struct footer *footer, uint64_t clusters)
{
	unsigned char *bytes = sys_alloc(clusters * CLUSTER);
	int r;

	if (!bytes)
		return -ENOMEM;
	memcpy(bytes, draft->crcs, footer->crc_count * 4);
	footer->crc_of_array = crc32c(bytes, (clusters - 1) * CLUSTER);
	footer_encode(footer, bytes + (clusters - 1) * CLUSTER);
	r = io_write_bytes(draft->fd, bytes, clusters * CLUSTER, footer->crc_count * CLUSTER);
	sys_free(bytes);
	return r;
}

int draft_publish(struct draft *draft, struct footer *footer, uint64_t clusters)
{
	int r = write_array(draft, footer, clusters);

	if (r == 0)
		r = io_sync_data(draft->fd);
	if (r == 0)
		r = io_rename(draft->store->directory, draft->temporary, draft->name);
	if (r < 0)
		return r;
	io_close(draft->fd);
	draft->fd = -1;
	return 0;
}
