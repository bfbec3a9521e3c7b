/* SPDX-License-Identifier: MIT */
/* The machine's side of reading: its frames, and the files that tell about each of them. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli/ps/pages.h"
#include "cli/ps/ps.h"
#include "cli/ps/reading.h"
#include "proc/areas.h"

static int read_frames_end(const struct proc_root *root, uint64_t *ret_end)
{
	struct proc_buffer buffer = { 0 };
	struct text text;
	int error = proc_root_read(root, "proc/zoneinfo", &buffer, &text);

	if (!error)
		error = proc_zoneinfo_end(text, ret_end);
	proc_buffer_free(&buffer);
	return error;
}

/* A page of our own, and what the pagemap says of it: 0 where it says nothing. */
struct own_page {
	void *at;
	uint64_t word;
};

static struct own_page own_page_make(const struct proc_root *root)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	struct own_page page = { .at = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) };
	int pagemap = proc_root_open_file(root, "proc/self/pagemap");

	if (page.at != MAP_FAILED && pagemap >= 0) {
		*(volatile char *)page.at = 1;
		if (page_words_read(pagemap, (uintptr_t)page.at / page_bytes, 1, &page.word) != 1)
			page.word = 0;
	}
	if (pagemap >= 0)
		close(pagemap);
	return page;
}

static void own_page_free(const struct own_page *page)
{
	if (page->at != MAP_FAILED)
		munmap(page->at, (size_t)sysconf(_SC_PAGESIZE));
}

bool ps_can_see_frames(const struct proc_root *root)
{
	struct own_page page;
	int counts;

	if (root->captured)
		return false;
	counts = proc_root_open_file(root, "proc/kpagecount");
	if (counts < 0)
		return false;
	close(counts);
	page = own_page_make(root);
	own_page_free(&page);
	return page.word & PAGEMAP_FRAME;
}

/*
 * From 6.9 on, until that was mended, kernels mark every anonymous page as a merged one: then a
 * fresh one of our own is, too. The sums of smaps have it right.
 */
static bool marks_all(const struct page_world *world)
{
	struct own_page page = own_page_make(world->root);
	uint64_t flags = 0;

	if (page.word & PAGEMAP_FRAME)
		page_words_read(world->kpageflags, page.word & PAGEMAP_FRAME, 1, &flags);
	own_page_free(&page);
	return flags & KPAGE_KSM;
}

int page_world_open(struct page_world *world, const struct proc_root *root)
{
	uint64_t frames, merged = 0;
	int error;

	*world = (struct page_world){
		.root = root,
		.page_bytes = (uint64_t)sysconf(_SC_PAGESIZE),
		.kpagecount = proc_root_open_file(root, "proc/kpagecount"),
		.kpageflags = proc_root_open_file(root, "proc/kpageflags"),
	};
	error = world->kpagecount < 0 ? world->kpagecount : read_frames_end(root, &frames);
	if (!error && world->kpageflags < 0)
		error = world->kpageflags;
	if (!error) {
		world->frames = frame_set_new(frames, world->page_bytes);
		error = world->frames ? 0 : -errno;
	}
	/* A kernel without KSM has no such file. */
	proc_root_read_u64(root, "sys/kernel/mm/ksm/pages_shared", &merged);
	world->merging = merged > 0;
	world->unmarked = !error && world->merging && marks_all(world);
	if (error)
		page_world_close(world);
	return error;
}

void page_world_close(struct page_world *world)
{
	if (world->kpagecount >= 0)
		close(world->kpagecount);
	if (world->kpageflags >= 0)
		close(world->kpageflags);
	frame_set_free(world->frames);
	strata_free(world->strata);
	*world = (struct page_world){ .kpagecount = -1, .kpageflags = -1 };
}

/*
 * Not by the C library's pread(): in a program with threads that is a cancellation point, which
 * costs a tenth of a short read.
 */
ssize_t page_words_read(int fd, uint64_t index, size_t count, uint64_t *words)
{
	ssize_t n;

	do
		n = syscall(SYS_pread64, fd, words, count * sizeof(*words),
			    (off_t)(index * sizeof(*words)));
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n / (ssize_t)sizeof(*words);
}

static int read_padded(int fd, uint64_t first, size_t count, uint64_t *words)
{
	ssize_t n = page_words_read(fd, first, count, words);

	if (n < 0)
		return (int)n;
	memset(words + n, 0, (count - (size_t)n) * sizeof(*words));
	return 0;
}

int page_world_counts(void *context, uint64_t first, size_t count, uint64_t *words)
{
	const struct page_world *world = context;

	return read_padded(world->kpagecount, first, count, words);
}

int page_world_flags(void *context, uint64_t first, size_t count, uint64_t *words)
{
	const struct page_world *world = context;

	return read_padded(world->kpageflags, first, count, words);
}
