/* SPDX-License-Identifier: MIT */
/*
 * The thread back end: a thread that writes to an armed page sleeps in the kernel, and a handler
 * thread of the library does what has to be done, then wakes it. So no signal is involved, and
 * where the process may (CAP_SYS_PTRACE, vm.unprivileged_userfaultfd, or /dev/userfaultfd) the
 * kernel's own writes wait in the same way: system calls into the region work as ever.
 *
 * A few threads share the work: one that waits for room at the limit must not keep the others'
 * writers waiting.
 */
#include <errno.h>

#include "mmu/uffd.h"
#include "sys/sys.h"

#define HANDLERS      4u
#define WAKE_ATTEMPTS 4u /* who is not woken sleeps for ever */

struct service {
	struct uffd uffd; /* first */
	int stop;         /* eventfd: readable when it is time to go */
	int epoll;
	unsigned started;
	pthread_t threads[HANDLERS];
};

static struct service *service_of(struct trap *trap)
{
	return (struct service *)(void *)trap;
}

static void wake(struct trap *trap, uintptr_t address)
{
	size_t page = space_page_size(trap->space);

	for (unsigned i = 0; i < WAKE_ATTEMPTS; i++)
		if (sys_uffd_wake(trap->uffd, (void *)(address & ~(uintptr_t)(page - 1)), page) ==
		    0)
			break;
}

static void *serve(void *context)
{
	struct service *service = context;
	struct trap *trap = &service->uffd.trap;
	uint64_t which, address;

	for (;;) {
		if (sys_epoll_wait(service->epoll, &which) < 0 || which == (uint64_t)service->stop)
			return NULL;
		/* Whose fault it is may have a bracket open, and a cut wait for its end. Where it
		 * could not be resolved (no memory) it is woken as well, and traps again: asleep it
		 * would stay for ever. */
		while (sys_uffd_read(trap->uffd, &address) == 1) {
			(void)trap_handle(trap, (uintptr_t)address, true);
			wake(trap, (uintptr_t)address);
		}
	}
}

static void service_stop(struct trap *trap)
{
	struct service *service = service_of(trap);

	if (service->started > 0)
		sys_eventfd_signal(service->stop);
	while (service->started > 0)
		pthread_join(service->threads[--service->started], NULL);
	sys_close(service->stop);
	sys_close(service->epoll);
	uffd_destroy(trap);
}

static int service_start(struct trap *trap)
{
	struct service *service = service_of(trap);
	int r = 0;

	while (r == 0 && service->started < HANDLERS) {
		r = sys_thread_start(&service->threads[service->started], serve, service);
		if (r == 0)
			service->started++;
	}
	if (service->started > 0)
		r = 0;
	return r < 0 ? r : uffd_start(trap);
}

static const struct trap_ops thread_ops = {
	.protect = uffd_protect,
	.unprotect = uffd_unprotect,
	.start = service_start,
	.stop = service_stop,
	.covers = uffd_covers,
	.convert = uffd_convert,
};

int trap_new_thread(struct space *space, const struct trap_policy *policy, int file,
		    struct trap **ret_trap)
{
	struct service *service = sys_alloc(sizeof(*service));
	int r;

	if (!service)
		return -ENOMEM;
	service->stop = service->epoll = -1;
	r = uffd_init(&service->uffd, &thread_ops, false, space, policy, file);
	if (r == 0)
		r = service->stop = sys_eventfd();
	if (r >= 0)
		r = service->epoll = sys_epoll_new();
	if (r >= 0)
		r = sys_epoll_add(service->epoll, service->uffd.trap.uffd,
				  (uint64_t)service->uffd.trap.uffd);
	if (r >= 0)
		r = sys_epoll_add(service->epoll, service->stop, (uint64_t)service->stop);
	if (r < 0)
		trap_free(&service->uffd.trap);
	else
		*ret_trap = &service->uffd.trap;
	return r;
}
