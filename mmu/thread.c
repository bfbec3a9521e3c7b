/* SPDX-License-Identifier: MIT */
/*
 * The thread back end: a thread that writes to an armed page sleeps in the kernel, and a handler
 * thread of the library does what has to be done, then wakes it. So no signal is involved, and
 * where the process may (CAP_SYS_PTRACE, vm.unprivileged_userfaultfd, or /dev/userfaultfd) the
 * kernel's own writes wait in the same way: system calls into the region work as ever.
 *
 * The threads are shared by all regions: see workers.h.
 */
#include <errno.h>

#include "mmu/uffd.h"
#include "mmu/workers.h"
#include "sys/sys.h"

#define WAKE_ATTEMPTS 4u /* who is not woken sleeps for ever */

struct service {
	struct uffd uffd; /* first */
	struct worker_client client;
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

/* Whose fault it is may have a bracket open, and a cut wait for its end. Where it could not be
 * resolved (no memory) it is woken as well, and traps again: asleep it would stay for ever. */
static int serve(struct worker_client *client, uintptr_t address, uint64_t *deadline_ns)
{
	struct service *service =
		(struct service *)(void *)((char *)client - offsetof(struct service, client));
	struct trap *trap = &service->uffd.trap;
	int r = trap_try(trap, address, deadline_ns);

	if (r != -EBUSY)
		wake(trap, address);
	return r;
}

static void service_stop(struct trap *trap)
{
	workers_remove(&service_of(trap)->client);
	uffd_destroy(trap);
}

static int service_start(struct trap *trap)
{
	struct service *service = service_of(trap);
	int r = 0;

	if (service->client.id == 0)
		r = workers_add(&service->client);
	return r < 0 ? r : uffd_start(trap);
}

static const struct trap_ops thread_ops = {
	.protect = uffd_protect,
	.unprotect = uffd_unprotect,
	.start = service_start,
	.stop = service_stop,
	.covers = uffd_covers,
	.await = uffd_await,
	.convert = uffd_convert,
};

int trap_new_thread(struct space *space, const struct trap_policy *policy, int file,
		    struct trap **ret_trap)
{
	struct service *service = sys_alloc(sizeof(*service));
	int r;

	if (!service)
		return -ENOMEM;
	r = uffd_init(&service->uffd, &thread_ops, false, space, policy, file);
	service->client = (struct worker_client){
		.uffd = service->uffd.trap.uffd,
		.serve = serve,
	};
	if (r < 0)
		trap_free(&service->uffd.trap);
	else
		*ret_trap = &service->uffd.trap;
	return r;
}
