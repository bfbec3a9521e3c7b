/* SPDX-License-Identifier: MIT */
/*
 * Views where userfaultfd is refused, or fails its service thread.
 *
 * Without userfaultfd a view is filled at once. A page that the service thread cannot fill raises
 * SIGBUS for whoever touches it, and for nobody else.
 */
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "lib/internal.h"
#include "tests/fault/injector.h"
#include "tests/fault/script.h"
#include "tests/tap.h"

/* Without userfaultfd a view is filled at once, which its size in memory shows. */
TEST(views_without_userfaultfd)
{
	struct cow_region_options options = options_for(PLAIN);
	struct cow_region *region = NULL;
	struct cow_snapshot *snapshot = NULL;
	unsigned char residency[PAGES];
	const void *view = NULL;
	unsigned there = 0;

	is_errno(cow_region_new(PAGES * PAGE, &options, &region), 0, "new");
	memset(residency, 9, sizeof(residency));
	is_errno(cow_region_write(region, 7 * PAGE, residency, 1), 0, "write");
	is_errno(cow_region_snapshot(region, &snapshot), 0, "snapshot");
	sys_injector = inject;
	plan.only = SYS_CALL_USERFAULTFD;
	plan.left = plan.for_good = 1; /* by whatever way */
	observed = true;
	is_errno(cow_snapshot_map(snapshot, 0, &view), 0, "map");
	observed = false;
	sys_injector = NULL;
	plan.only = -1;
	plan.left = plan.for_good = 0;
	mincore((void *)(uintptr_t)view, PAGES * PAGE, residency);
	for (unsigned i = 0; i < PAGES; i++)
		there += residency[i] & 1;
	is_u64(there, PAGES, "pages that are there already");
	is_int(((const unsigned char *)view)[7 * PAGE], 9, "with the snapshot's content");
	is_errno(cow_snapshot_map(snapshot, COW_MAP_POPULATE, &view), 0,
		 "populate has nothing to do");
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}

/* --- failures of a view's service thread --- */

static _Atomic int copies_to_fail;
static sigjmp_buf out;

static int fail_copies(enum sys_call call)
{
	if (call != SYS_CALL_UFFD_IOCTL || observed || copies_to_fail <= 0)
		return 0;
	copies_to_fail--;
	return -ENOMEM;
}

static void jump(int signal)
{
	siglongjmp(out, signal);
}

/* The byte, or minus the signal that reading it raised. */
static int look(const unsigned char *address)
{
	struct sigaction act = { .sa_handler = jump }, before;
	volatile int result = 0;

	sigaction(SIGBUS, &act, &before);
	if (sigsetjmp(out, 1) == 0)
		result = *(const volatile unsigned char *)address;
	else
		result = -SIGBUS;
	sigaction(SIGBUS, &before, NULL);
	return result;
}

TEST(a_service_thread_that_cannot_fill_a_page)
{
	struct cow_region_options options = options_for(PLAIN);
	struct cow_region *region = NULL;
	struct cow_snapshot *snapshot = NULL;
	unsigned char nine = 9;
	const void *view = NULL;
	const unsigned char *bytes;

	is_errno(cow_region_new(PAGES * PAGE, &options, &region), 0, "new");
	for (unsigned page = 0; page < PAGES; page++)
		is_errno(cow_region_write(region, page * PAGE, &nine, 1), 0, "write");
	is_errno(cow_region_snapshot(region, &snapshot), 0, "snapshot");
	observed = true;
	sys_injector = fail_copies;
	if (cow_snapshot_map(snapshot, 0, &view) < 0 || !snapshot->view || snapshot->view == NULL) {
		skip("no userfaultfd here");
	} else {
		bytes = view;
		copies_to_fail = 1;
		is_int(look(bytes), 9, "one failure is made good page by page");
		copies_to_fail = 2;
		is_int(look(bytes + 40 * PAGE), -SIGBUS,
		       "a page that cannot be filled raises SIGBUS");
		is_int(look(bytes + 41 * PAGE), 9, "its neighbour does not");
		is_int(look(bytes + 80 * PAGE), 9, "nor do others");
	}
	sys_injector = NULL;
	observed = false;
	cow_snapshot_unref(snapshot);
	cow_region_free(region);
}
TAP_MAIN(CASE(views_without_userfaultfd), CASE(a_service_thread_that_cannot_fill_a_page))
