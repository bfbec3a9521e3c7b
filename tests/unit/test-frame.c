/* SPDX-License-Identifier: MIT */
/* The pool of frames: counts, limits, reuse, what goes back to the system, and the choice of
 * victims. */
#include "core/frame.h"
#include "tests/tap.h"

#define SHIFT 12u
#define PAGE  ((size_t)1 << SHIFT)

static size_t header_bytes(void)
{
	return (sizeof(struct chunk) + PAGE - 1) / PAGE * PAGE;
}

static size_t frames_in_a_chunk(void)
{
	return FRAMES_PER_CHUNK - header_bytes() / PAGE;
}

TEST(a_frame_is_counted)
{
	struct pool pool;
	void *frame;

	pool_init(&pool, SHIFT, 0, SIZE_MAX);
	frame = frame_alloc(&pool, NULL);
	ok((uintptr_t)frame % PAGE == 0, "aligned");
	memset(frame, 0xff, PAGE);
	is_u64(frame_descriptor(&pool, frame)->refs, 1, "references");
	frame_get(&pool, frame);
	frame_put(&pool, frame);
	is_u64(pool.used_frames, 1, "one reference is left");
	pool_validate(&pool);
	frame_put(&pool, frame);
	is_u64(pool.used_frames, 0, "none is");
	is_u64(pool.idle_frames, 1, "kept for reuse");
	ok(frame_alloc(&pool, NULL) == frame, "and reused");
	pool_validate(&pool);
	pool_destroy(&pool);
}

TEST(the_limit_counts_headers_and_idle_frames)
{
	enum { FRAMES = 20 };
	struct pool pool;
	void *frames[FRAMES] = { NULL };
	size_t got = 0;

	pool_init(&pool, SHIFT, FRAMES * PAGE, SIZE_MAX);
	while (got < FRAMES && (frames[got] = frame_alloc(&pool, NULL)))
		got++;
	is_u64(got, FRAMES - header_bytes() / PAGE, "frames within the limit");
	is_u64(pool.committed, FRAMES * PAGE, "all of it is accounted for");
	ok(!frame_alloc(&pool, NULL), "none beyond");
	frame_put(&pool, frames[3]);
	is_u64(pool.committed, FRAMES * PAGE, "an idle frame counts, too");
	ok(frame_alloc(&pool, NULL) == frames[3], "and is given out again");
	pool_validate(&pool);
	pool_destroy(&pool);
}

TEST(a_limit_without_room_for_a_header)
{
	struct pool pool;

	pool_init(&pool, SHIFT, header_bytes(), SIZE_MAX);
	ok(!frame_alloc(&pool, NULL), "no frame");
	is_u64(pool.committed, 0, "and nothing was taken for it");
	pool_validate(&pool);
	pool_destroy(&pool);
}

TEST(empty_chunks_go_back)
{
	size_t count = 3 * frames_in_a_chunk();
	void **frames = calloc(count, sizeof(*frames));
	struct pool pool;

	pool_init(&pool, SHIFT, 0, 10 * PAGE);
	for (size_t i = 0; i < count; i++)
		frames[i] = frame_alloc(&pool, NULL);
	is_u64(pool.committed, 3 * FRAMES_PER_CHUNK * PAGE, "three full chunks");
	pool_validate(&pool);
	for (size_t i = 0; i < count; i += 2)
		frame_put(&pool, frames[i]);
	is_u64(pool.committed, 3 * FRAMES_PER_CHUNK * PAGE, "none is empty: nothing to give back");
	pool_validate(&pool);
	for (size_t i = 1; i < count; i += 2)
		frame_put(&pool, frames[i]);
	is_u64(pool.used_frames, 0, "all are free");
	is_u64(pool.committed, 0, "and above the idle limit: given back");
	pool_validate(&pool);
	free(frames);
	pool_destroy(&pool);
}

TEST(partly_used_chunks_first)
{
	size_t count = frames_in_a_chunk() + 1;
	void **frames = calloc(count, sizeof(*frames));
	struct pool pool;

	pool_init(&pool, SHIFT, 0, SIZE_MAX);
	for (size_t i = 0; i < count; i++)
		frames[i] = frame_alloc(&pool, NULL);
	frame_put(&pool, frames[count - 1]); /* the second chunk is empty now */
	frame_put(&pool, frames[5]);
	ok(frame_alloc(&pool, NULL) == frames[5], "a hole in a used chunk before an empty chunk");
	pool_validate(&pool);
	free(frames);
	pool_destroy(&pool);
}

TEST(victims)
{
	enum { FRAMES = 12 };
	struct version *version = (struct version *)(uintptr_t)64; /* never followed */
	struct pool pool;
	void *frames[FRAMES], *chosen[FRAMES];

	pool_init(&pool, SHIFT, 0, SIZE_MAX);
	is_u64(pool_select(&pool, chosen, FRAMES), 0, "an empty pool has none");
	for (size_t i = 0; i < FRAMES; i++)
		frames[i] = frame_alloc(&pool, i % 3 == 0 ? NULL : version);
	frame_get(&pool, frames[1]); /* shared */
	is_u64(pool_select(&pool, chosen, 3), 3, "as many as were asked for");
	ok(chosen[0] == frames[2] && chosen[1] == frames[4] && chosen[2] == frames[5],
	   "in order, without metadata and shared ones");
	is_u64(pool_select(&pool, chosen + 3, FRAMES), 4, "the rest, none twice");
	is_u64(frame_descriptor(&pool, chosen[0])->refs, 2, "each is held");
	pool_destroy(&pool);
}

TEST(random_use)
{
	enum { FRAMES = 1500, STEPS = 60000 };
	struct pool pool;
	void **frames = calloc(FRAMES, sizeof(*frames));
	uint64_t random = 1, used = 0;

	pool_init(&pool, SHIFT, (size_t)1200 * PAGE, 100 * PAGE);
	for (unsigned i = 0; i < STEPS; i++) {
		void **slot;

		random = random * 6364136223846793005u + 1442695040888963407u;
		slot = &frames[(random >> 33) % FRAMES];
		if (*slot) {
			frame_put(&pool, *slot);
			*slot = NULL;
			used--;
		} else if ((*slot = frame_alloc(&pool, NULL))) {
			used++;
		}
		if (i % 500 == 0)
			pool_validate(&pool);
	}
	pool_validate(&pool);
	is_u64(pool.used_frames, used, "frames in use");
	free(frames);
	pool_destroy(&pool);
}

TAP_MAIN(CASE(a_frame_is_counted), CASE(the_limit_counts_headers_and_idle_frames),
	 CASE(a_limit_without_room_for_a_header), CASE(empty_chunks_go_back),
	 CASE(partly_used_chunks_first), CASE(victims), CASE(random_use))
