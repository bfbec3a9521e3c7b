/* SPDX-License-Identifier: MIT */
/*
 * Page contents: copying them, and telling those that are all zero.
 *
 * Between the window and a frame a page is seldom in the cache, and mostly two misses wait for each
 * other: the core asks for both before it needs them, and copies as the kernel does, by the string
 * instruction, which on current processors does not read the lines that it will overwrite. Under a
 * sanitizer it is memcpy(), which the sanitizer sees; in the model it happens in pieces, so that a
 * torn page shows.
 */
#ifndef COW_CORE_COPY_H
#define COW_CORE_COPY_H

#include <string.h>

#include "core/host.h"

static inline void copy_page(void *to, const void *from, size_t bytes)
{
#if defined(COW_MODEL)
	STEP("copy: first half");
	memcpy(to, from, bytes / 2);
	STEP("copy: second half");
	memcpy((char *)to + bytes / 2, (const char *)from + bytes / 2, bytes - bytes / 2);
#elif defined(__x86_64__) && !defined(COW_TSAN) && !defined(__SANITIZE_ADDRESS__)
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
#else
	memcpy(to, from, bytes);
#endif
}

/*
 * Of the window, beside its writers: what was copied while somebody wrote is thrown away, and what
 * is compared has been protected by the kernel since its last write. ThreadSanitizer can know
 * neither, so there it is neither instrumented nor a function of the C library, which would be.
 */
#ifdef COW_TSAN
#define RACING __attribute__((no_sanitize("thread"), noinline, unused)) static

RACING void copy_racing(void *to, const void *from, size_t bytes)
{
	volatile unsigned char *out = to;
	const volatile unsigned char *in = from;

	while (bytes-- > 0)
		*out++ = *in++;
}

RACING bool equals_racing(const void *page, const void *other, size_t bytes)
{
	const volatile unsigned char *a = page, *b = other;

	while (bytes > 0 && *a++ == *b++)
		bytes--;
	return bytes == 0;
}
#else
static inline void copy_racing(void *to, const void *from, size_t bytes)
{
#ifdef COW_MODEL
	copy_page(to, from, bytes);
#else
	memcpy(to, from, bytes);
#endif
}

static inline bool equals_racing(const void *page, const void *other, size_t bytes)
{
	return memcmp(page, other, bytes) == 0;
}
#endif

/* Most pages that are not zero show it in their first word. */
static inline bool page_is_zero(const void *page, size_t bytes)
{
	const unsigned char *content = page;
	uint64_t first;

	memcpy(&first, content, sizeof(first));
	return first == 0 && memcmp(content, content + sizeof(first), bytes - sizeof(first)) == 0;
}

/* The first lines; the processor's own prefetcher goes on from there, but not into a new page. */
static inline void expect_read(const void *page)
{
	__builtin_prefetch(page, 0);
	__builtin_prefetch((const char *)page + 64, 0);
	__builtin_prefetch((const char *)page + 128, 0);
}

static inline void expect_write(void *page)
{
	__builtin_prefetch(page, 1);
	__builtin_prefetch((char *)page + 64, 1);
}

#endif
