/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <string.h>

#include "core/frame.h"

/* Most frames faulted in at once: it is done under the space's lock, so it must stay short. */
#define READY_STEP_MAX 32u

/* From here on a chunk is worth a huge page: what of it is not used yet stays below 1/64, and with
 * that many frames most accesses would miss the TLB. */
#define HUGE_FROM_BYTES ((size_t)128 << 20)

static size_t chunk_bytes(const struct pool *pool)
{
	return (size_t)FRAMES_PER_CHUNK << pool->page_shift;
}

static uint32_t header_frames(const struct pool *pool)
{
	return (uint32_t)((sizeof(struct chunk) + pool_page_size(pool) - 1) >> pool->page_shift);
}

static uint32_t frame_index(const struct pool *pool, const struct chunk *chunk, const void *frame)
{
	return (uint32_t)(((uintptr_t)frame - (uintptr_t)chunk) >> pool->page_shift);
}

static void *frame_memory(const struct pool *pool, struct chunk *chunk, uint32_t index)
{
	return (char *)chunk + ((size_t)index << pool->page_shift);
}

struct frame *frame_descriptor(const struct pool *pool, const void *frame)
{
	struct chunk *chunk = frame_chunk(pool, frame);

	return &chunk->frames[frame_index(pool, chunk, frame)];
}

static void list_add(struct chunk **head, struct chunk *chunk)
{
	chunk->prev = NULL;
	chunk->next = *head;
	if (*head)
		(*head)->prev = chunk;
	*head = chunk;
}

static void list_remove(struct chunk **head, struct chunk *chunk)
{
	if (chunk->prev)
		chunk->prev->next = chunk->next;
	else
		*head = chunk->next;
	if (chunk->next)
		chunk->next->prev = chunk->prev;
	chunk->next = chunk->prev = NULL;
}

static void ring_add(struct pool *pool, struct chunk *chunk)
{
	struct chunk *first = pool->all;

	if (!first) {
		pool->all = chunk->all_next = chunk->all_prev = chunk;
		return;
	}
	chunk->all_next = first;
	chunk->all_prev = first->all_prev;
	first->all_prev->all_next = chunk;
	first->all_prev = chunk;
}

static void ring_remove(struct pool *pool, struct chunk *chunk)
{
	if (pool->hand == chunk) {
		pool->hand = chunk->all_next == chunk ? NULL : chunk->all_next;
		pool->hand_index = 0;
	}
	if (pool->all == chunk)
		pool->all = chunk->all_next == chunk ? NULL : chunk->all_next;
	chunk->all_prev->all_next = chunk->all_next;
	chunk->all_next->all_prev = chunk->all_prev;
}

void pool_init(struct pool *pool, unsigned page_shift, size_t limit, size_t idle_limit)
{
	*pool = (struct pool){ .page_shift = page_shift, .limit = limit, .idle_limit = idle_limit };
}

void pool_destroy(struct pool *pool)
{
	if (pool->spare)
		host_unmap(pool->spare, chunk_bytes(pool));
	while (pool->all) {
		struct chunk *chunk = pool->all;

		ring_remove(pool, chunk);
		host_unmap(chunk, chunk_bytes(pool));
	}
}

static bool within_limit(const struct pool *pool, size_t more)
{
	return pool->limit == 0 || pool->committed + more <= pool->limit;
}

/* What a spare takes from the system may not go beyond the limit, either: with it and the chunk
 * that has just been begun there must be room. */
static bool wants_spare(const struct pool *pool)
{
	return !pool->spare && within_limit(pool, 2 * chunk_bytes(pool));
}

static struct chunk *chunk_map(struct pool *pool)
{
	struct chunk *chunk = host_map(chunk_bytes(pool), chunk_bytes(pool));

	if (chunk && pool->used_frames << pool->page_shift >= HUGE_FROM_BYTES)
		host_advise_huge(chunk, chunk_bytes(pool));
	return chunk;
}

static struct chunk *take_spare(struct pool *pool)
{
	struct chunk *chunk = pool->spare;

	pool->spare = NULL;
	if (chunk)
		chunk->ready = FRAMES_PER_CHUNK;
	return chunk;
}

static struct chunk *chunk_new(struct pool *pool)
{
	size_t header = (size_t)header_frames(pool) << pool->page_shift;
	struct chunk *chunk;

	if (!within_limit(pool, header + pool_page_size(pool)))
		return NULL;
	chunk = pool->spare ? take_spare(pool) : chunk_map(pool);
	if (!chunk)
		return NULL;
	chunk->pool = pool;
	chunk->fresh = header_frames(pool);
	if (chunk->ready < chunk->fresh)
		chunk->ready = chunk->fresh;
	atomic_store_explicit(&pool->wants_spare, wants_spare(pool), memory_order_relaxed);
	pool->committed += header;
	ring_add(pool, chunk);
	list_add(&pool->empty, chunk);
	return chunk;
}

/* Faults in the next frames together: one by one each costs a trap, but what is faulted in and not
 * yet used is memory above what was asked for, so the step follows what is in use. */
static void chunk_make_ready(struct pool *pool, struct chunk *chunk)
{
	size_t step = pool->used_frames / 64;
	size_t left = FRAMES_PER_CHUNK - chunk->ready;

	if (step < 4)
		step = 4;
	if (step > READY_STEP_MAX)
		step = READY_STEP_MAX;
	if (step > left)
		step = left;
	if (!within_limit(pool, step << pool->page_shift))
		step = 1;
	host_populate(frame_memory(pool, chunk, chunk->ready), step << pool->page_shift);
	chunk->ready += (uint32_t)step;
}

static bool chunk_has_room(const struct pool *pool, const struct chunk *chunk)
{
	return chunk->idle_head != 0 ||
	       (chunk->fresh < FRAMES_PER_CHUNK && within_limit(pool, pool_page_size(pool)));
}

static uint32_t chunk_take(struct pool *pool, struct chunk *chunk)
{
	uint32_t index = chunk->idle_head;

	if (index != 0) {
		chunk->idle_head = chunk->frames[index].next_idle;
		chunk->idle--;
		pool->idle_frames--;
	} else {
		index = chunk->fresh;
		if (index == chunk->ready)
			chunk_make_ready(pool, chunk);
		chunk->fresh++;
		pool->committed += pool_page_size(pool);
	}
	chunk->used++;
	pool->used_frames++;
	return index;
}

static bool chunk_is_full(const struct chunk *chunk)
{
	return chunk->idle_head == 0 && chunk->fresh == FRAMES_PER_CHUNK;
}

/* Partly used chunks first, so that empty ones can go back to the system. */
static struct chunk *chunk_with_room(struct pool *pool)
{
	for (struct chunk *chunk = pool->partial; chunk; chunk = chunk->next)
		if (chunk_has_room(pool, chunk))
			return chunk;
	for (struct chunk *chunk = pool->empty; chunk; chunk = chunk->next)
		if (chunk_has_room(pool, chunk))
			return chunk;
	return chunk_new(pool);
}

void *frame_alloc(struct pool *pool, struct version *version)
{
	struct chunk *chunk = chunk_with_room(pool);
	bool was_empty;
	uint32_t index;

	if (!chunk)
		return NULL;
	was_empty = chunk->used == 0;
	index = chunk_take(pool, chunk);
	chunk->frames[index] = (struct frame){ .version = version, .refs = 1 };
	if (chunk_is_full(chunk)) {
		list_remove(was_empty ? &pool->empty : &pool->partial, chunk);
	} else if (was_empty) {
		list_remove(&pool->empty, chunk);
		list_add(&pool->partial, chunk);
	}
	return frame_memory(pool, chunk, index);
}

static void chunk_release(struct pool *pool, struct chunk *chunk)
{
	list_remove(&pool->empty, chunk);
	ring_remove(pool, chunk);
	pool->idle_frames -= chunk->idle;
	pool->committed -= (size_t)chunk->fresh << pool->page_shift;
	host_unmap(chunk, chunk_bytes(pool));
}

struct chunk *pool_make_spare(const struct pool *pool)
{
	struct chunk *chunk = host_map(chunk_bytes(pool), chunk_bytes(pool));

	if (chunk) {
		host_advise_huge(chunk, chunk_bytes(pool));
		host_populate(chunk, chunk_bytes(pool));
	}
	return chunk;
}

void pool_discard_spare(const struct pool *pool, struct chunk *chunk)
{
	host_unmap(chunk, chunk_bytes(pool));
}

bool pool_give_spare(struct pool *pool, struct chunk *chunk)
{
	bool wanted = wants_spare(pool);

	atomic_store_explicit(&pool->wants_spare, false, memory_order_relaxed);
	if (wanted)
		pool->spare = chunk;
	return wanted;
}

void pool_trim(struct pool *pool, size_t idle_limit)
{
	while (pool->empty && pool->idle_frames << pool->page_shift > idle_limit)
		chunk_release(pool, pool->empty);
}

void frame_get(struct pool *pool, void *memory)
{
	frame_descriptor(pool, memory)->refs++;
}

void frame_put(struct pool *pool, void *memory)
{
	struct chunk *chunk = frame_chunk(pool, memory);
	uint32_t index = frame_index(pool, chunk, memory);
	struct frame *frame = &chunk->frames[index];
	bool was_full = chunk_is_full(chunk);

	assert(frame->refs > 0);
	if (--frame->refs > 0)
		return;
	POISON(memory, pool_page_size(pool));
	frame->version = NULL;
	frame->flags = 0;
	frame->next_idle = chunk->idle_head;
	chunk->idle_head = (uint16_t)index;
	chunk->idle++;
	chunk->used--;
	pool->idle_frames++;
	pool->used_frames--;
	if (chunk->used == 0) {
		if (!was_full)
			list_remove(&pool->partial, chunk);
		list_add(&pool->empty, chunk);
		pool_trim(pool, pool->idle_limit);
	} else if (was_full) {
		list_add(&pool->partial, chunk);
	}
}

static bool selectable(const struct frame *frame)
{
	return frame->refs == 1 && frame->version && !(frame->flags & FRAME_HELD);
}

/* The hand goes round the chunks like a clock's, so that what it meets is roughly the oldest
 * first. */
unsigned pool_select(struct pool *pool, void *frames[], unsigned most)
{
	size_t looks = pool->committed >> pool->page_shift;
	unsigned count = 0;

	if (!pool->hand)
		pool->hand = pool->all;
	while (looks > 0 && count < most) {
		struct chunk *chunk = pool->hand;
		uint32_t index = pool->hand_index++;

		if (index >= chunk->fresh) {
			pool->hand = chunk->all_next;
			pool->hand_index = 0;
			continue;
		}
		looks--;
		if (index < header_frames(pool) || !selectable(&chunk->frames[index]))
			continue;
		chunk->frames[index].flags |= FRAME_HELD;
		chunk->frames[index].refs++;
		frames[count++] = frame_memory(pool, chunk, index);
	}
	return count;
}

void pool_validate(const struct pool *pool)
{
	size_t used = 0, idle = 0, committed = 0;
	const struct chunk *chunk = pool->all;

	while (chunk) {
		uint32_t chunk_used = 0, chunk_idle = 0;

		for (uint32_t i = header_frames(pool); i < chunk->fresh; i++)
			chunk_used += chunk->frames[i].refs > 0;
		for (uint32_t i = chunk->idle_head; i != 0; i = chunk->frames[i].next_idle) {
			assert(chunk->frames[i].refs == 0);
			chunk_idle++;
		}
		assert(chunk_used == chunk->used && chunk_idle == chunk->idle);
		assert(chunk_used + chunk_idle + header_frames(pool) == chunk->fresh);
		used += chunk_used;
		idle += chunk_idle;
		committed += (size_t)chunk->fresh << pool->page_shift;
		chunk = chunk->all_next == pool->all ? NULL : chunk->all_next;
	}
	assert(used == pool->used_frames && idle == pool->idle_frames);
	assert(committed == pool->committed);
	assert(pool->limit == 0 || pool->committed <= pool->limit);
	for (chunk = pool->empty; chunk; chunk = chunk->next)
		assert(chunk->used == 0);
	for (chunk = pool->partial; chunk; chunk = chunk->next)
		assert(chunk->used > 0 && !chunk_is_full(chunk));
}
