/* SPDX-License-Identifier: MIT */
#include "cli/stat/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/output.h"
#include "cli/stat/stat.h"

/* The second is within what users may lock: perf_event_mlock_kb, 516 by default. */
static const size_t ring_pages[] = { 256, 64 };

struct ring {
	int fd, cpu;
	struct perf_event_mmap_page *control;
	size_t length;
};

/* A record that was copied out. */
struct kept {
	uint64_t time_ns;
	uint64_t order;
	size_t offset; /* in bytes */
};

struct rings {
	struct ring *rings;
	size_t count;
	int wakeups; /* an epoll descriptor, or -1 */
	struct kept *kept;
	size_t kept_count, kept_room;
	unsigned char *bytes;
	size_t used, room;
	uint64_t next_order;
};

struct rings *rings_new(void)
{
	struct rings *rings = output_realloc(NULL, sizeof(*rings));

	*rings = (struct rings){ .wakeups = epoll_create1(EPOLL_CLOEXEC) };
	return rings;
}

void rings_free(struct rings *rings)
{
	size_t i;

	if (!rings)
		return;
	for (i = 0; i < rings->count; i++)
		munmap(rings->rings[i].control, rings->rings[i].length);
	if (rings->wakeups >= 0)
		close(rings->wakeups);
	free(rings->rings);
	free(rings->kept);
	free(rings->bytes);
	free(rings);
}

int rings_add(struct rings *rings, int fd, int cpu)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), length = 0, i;
	struct epoll_event wanted = { .events = EPOLLIN };
	void *control = MAP_FAILED;

	for (i = 0; i < sizeof(ring_pages) / sizeof(ring_pages[0]) && control == MAP_FAILED; i++) {
		length = (ring_pages[i] + 1) * page;
		control = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	}
	if (control == MAP_FAILED)
		return -errno;
	/* Without it rings are still drained now and then. */
	(void)epoll_ctl(rings->wakeups, EPOLL_CTL_ADD, fd, &wanted);
	rings->rings = output_realloc(rings->rings, (rings->count + 1) * sizeof(struct ring));
	rings->rings[rings->count++] = (struct ring){ fd, cpu, control, length };
	/* The table has the mapping now. */
	/* cppcheck-suppress memleak */
	return 0;
}

int rings_fd(const struct rings *rings, size_t index)
{
	return rings->rings[index].fd;
}

int rings_cpu(const struct rings *rings, size_t index)
{
	return rings->rings[index].cpu;
}

int rings_wakeups(const struct rings *rings)
{
	return rings->wakeups;
}

size_t rings_count(const struct rings *rings)
{
	return rings->count;
}

/* Records may wrap around the end of the ring. */
static void copy_out(const unsigned char *ring, size_t size, uint64_t at, void *to, size_t length)
{
	size_t offset = at & (size - 1);
	size_t first = size - offset < length ? size - offset : length;

	memcpy(to, ring + offset, first);
	memcpy((unsigned char *)to + first, ring, length - first);
}

static uint64_t time_of(const unsigned char *record, const struct perf_event_header *header)
{
	/* A sample begins with process, thread, time, processor; the others end with them. */
	size_t at = header->type == PERF_RECORD_SAMPLE ? sizeof(*header) + 8 : header->size - 16u;
	uint64_t time_ns;

	memcpy(&time_ns, record + at, sizeof(time_ns));
	return time_ns;
}

static void keep(struct rings *rings, const unsigned char *ring, size_t size, uint64_t at,
		 const struct perf_event_header *header)
{
	struct kept *kept;

	if (rings->used + header->size > rings->room) {
		rings->room = 2 * (rings->used + header->size) + 4096;
		rings->bytes = output_realloc(rings->bytes, rings->room);
	}
	if (rings->kept_count == rings->kept_room) {
		rings->kept_room = 2 * rings->kept_room + 64;
		rings->kept = output_realloc(rings->kept, rings->kept_room * sizeof(struct kept));
	}
	copy_out(ring, size, at, rings->bytes + rings->used, header->size);
	kept = &rings->kept[rings->kept_count++];
	kept->offset = rings->used;
	kept->order = rings->next_order++;
	kept->time_ns = time_of(rings->bytes + rings->used, header);
	rings->used += header->size;
}

static void copy_ring(struct rings *rings, const struct ring *ring)
{
	uint64_t head = __atomic_load_n(&ring->control->data_head, __ATOMIC_ACQUIRE);
	uint64_t tail = ring->control->data_tail;
	const unsigned char *data = (const unsigned char *)ring->control +
				    ring->control->data_offset;
	size_t size = ring->control->data_size;
	struct perf_event_header header;

	while (tail < head) {
		copy_out(data, size, tail, &header, sizeof(header));
		if (header.size < sizeof(header) + 24)
			break; /* no record of ours */
		keep(rings, data, size, tail, &header);
		tail += header.size;
	}
	__atomic_store_n(&ring->control->data_tail, head, __ATOMIC_RELEASE);
}

static int by_time(const void *left, const void *right)
{
	const struct kept *a = left, *b = right;

	if (a->time_ns != b->time_ns)
		return a->time_ns < b->time_ns ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

/* Keeps what was not handed on, packed. */
static void forget(struct rings *rings, size_t done)
{
	unsigned char *bytes = NULL;
	struct perf_event_header header;
	size_t used = 0, i;

	for (i = done; i < rings->kept_count; i++) {
		memcpy(&header, rings->bytes + rings->kept[i].offset, sizeof(header));
		bytes = output_realloc(bytes, used + header.size);
		memcpy(bytes + used, rings->bytes + rings->kept[i].offset, header.size);
		rings->kept[i - done] = rings->kept[i];
		rings->kept[i - done].offset = used;
		used += header.size;
	}
	rings->kept_count -= done;
	if (used) {
		free(rings->bytes);
		rings->bytes = bytes;
		rings->room = used;
	}
	rings->used = used;
}

void rings_drain(struct rings *rings,
		 void (*visit)(const struct perf_event_header *record, uint64_t time_ns,
			       void *context),
		 void *context)
{
	uint64_t now = monotonic_ns();
	size_t i;

	for (i = 0; i < rings->count; i++)
		copy_ring(rings, &rings->rings[i]);
	if (rings->kept_count)
		qsort(rings->kept, rings->kept_count, sizeof(struct kept), by_time);
	for (i = 0; i < rings->kept_count && rings->kept[i].time_ns < now; i++)
		/* The sizes of records are multiples of eight, so each is aligned. */
		visit((const void *)(rings->bytes + rings->kept[i].offset), rings->kept[i].time_ns,
		      context);
	forget(rings, i);
}
