/* SPDX-License-Identifier: MIT */
/*
 * The perf ring buffers of all processors, merged by time.
 *
 * Records of one processor are in order, those of several are not. So a drain copies all of them
 * out, and hands on those that are older than the drain itself; younger ones wait for the next.
 */
#ifndef CLI_STAT_RING_H
#define CLI_STAT_RING_H

#include <stddef.h>
#include <stdint.h>

#include <linux/perf_event.h>

/* Of the events of all rings: what a sample begins with, and every other record ends with. */
#define RING_SAMPLE_TYPE (PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU)

/* Of the events that rings are mapped from: half of the smallest ring. */
#define RING_WATERMARK (128 << 10)

struct rings;

struct rings *rings_new(void);
void rings_free(struct rings *rings);

/* Maps the ring of an event of this processor: 0 or a negative errno. */
int rings_add(struct rings *rings, int fd, int cpu);
/* The event of a ring, for others of the same processor to be sent there. */
int rings_fd(const struct rings *rings, size_t index);
int rings_cpu(const struct rings *rings, size_t index);
size_t rings_count(const struct rings *rings);

/* A descriptor that polls readable when a ring has come to its watermark. */
int rings_wakeups(const struct rings *rings);

/* Calls visit for every record, oldest first. */
void rings_drain(struct rings *rings,
		 void (*visit)(const struct perf_event_header *record, uint64_t time_ns,
			       void *context),
		 void *context);

#endif
