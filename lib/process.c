/* SPDX-License-Identifier: MIT */
#include <stdatomic.h>
#include <stddef.h>

#include "lib/fork.h"
#include "lib/process.h"
#include "sys/sys.h"

#ifndef MADV_WIPEONFORK /* 4.14 */
#define MADV_WIPEONFORK 18
#endif

static _Atomic(_Atomic uint64_t *) page;

/* Two threads may both make a page; the first one to publish it wins. No mutex: a fork() at the
 * wrong moment would leave it held in the child for ever. */
static int make_page(void)
{
	_Atomic uint64_t *none = NULL;
	void *memory;
	int r;

	r = sys_map(NULL, sys_page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    &memory);
	if (r < 0)
		return r;
	r = sys_advise(memory, sys_page_size(), MADV_WIPEONFORK);
	if (r < 0) {
		sys_unmap(memory, sys_page_size());
		return r;
	}
	if (!atomic_compare_exchange_strong(&page, &none, (_Atomic uint64_t *)memory))
		sys_unmap(memory, sys_page_size());
	return 0;
}

int process_mark(uint64_t *ret_mark)
{
	uint64_t unmarked = 0;
	int r = fork_is_coming();

	if (r == 0 && !atomic_load(&page))
		r = make_page();
	if (r < 0)
		return r;
	atomic_compare_exchange_strong(atomic_load(&page), &unmarked, sys_monotonic_ns() | 1);
	*ret_mark = atomic_load(atomic_load(&page));
	return 0;
}

bool process_is(uint64_t mark)
{
	_Atomic uint64_t *mine = atomic_load_explicit(&page, memory_order_acquire);

	return mine && atomic_load_explicit(mine, memory_order_relaxed) == mark;
}
