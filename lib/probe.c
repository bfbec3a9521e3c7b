/* SPDX-License-Identifier: MIT */
/*
 * What can be had here: the kernel, the container and the user each may forbid something. Every
 * answer is an attempt with the calls that a region makes, on a page of our own; nothing of it
 * stays, and no signal handler is installed. The pages' contents have to be found in /proc, too,
 * which a program that changed its user may not read, nor one in a root directory without it.
 */
#include "lib/internal.h"

static int try_way(enum sys_uffd_way way)
{
	int fd = sys_uffd_open(way);

	if (fd < 0)
		return fd;
	sys_close(fd);
	return 0;
}

/* As a region's start and its first cut. */
static int protect_a_page(int uffd, void *page, size_t length)
{
	int r = sys_uffd_register(uffd, page, length, true);

	if (r == 0)
		r = sys_uffd_unregister(uffd, page, length);
	if (r == 0)
		r = sys_uffd_register(uffd, page, length, false);
	if (r == 0)
		r = sys_advise(page, length, MADV_POPULATE_READ);
	return r < 0 ? r : sys_uffd_protect(uffd, page, length, true, false);
}

static int try_userfaultfd(bool deliver_signal, bool *ret_kernel_faults)
{
	int pagemap = sys_pagemap_open(), uffd = -1, r = pagemap;
	bool kernel_faults = false;
	size_t length = sys_page_size();
	uint32_t features;
	void *page = NULL;

	if (r >= 0)
		r = uffd = sys_uffd_write_protect_new(deliver_signal, &kernel_faults, &features);
	if (r >= 0)
		r = sys_map(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    &page);
	if (r >= 0)
		r = protect_a_page(uffd, page, length);
	if (r == 0)
		*ret_kernel_faults = kernel_faults;
	sys_close(uffd);
	sys_close(pagemap);
	if (page)
		sys_unmap(page, length);
	return r;
}

static bool is_shortage(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOMEM;
}

/* The thread trap serves the kernel's own writes as well, where the process may have it do so; the
 * signal trap is the faster one where not; mprotect() is always there. That there is no room for
 * one more says nothing about what is allowed. */
static int best_of(const struct cow_system *probe, enum cow_trap *ret_trap)
{
	int thread = probe->trap_error[COW_TRAP_THREAD];
	int signal = probe->trap_error[COW_TRAP_SIGNAL];

	if (is_shortage(thread) || is_shortage(signal))
		return is_shortage(thread) ? thread : signal;
	*ret_trap = thread == 0 && probe->kernel_faults ? COW_TRAP_THREAD :
		    signal == 0                         ? COW_TRAP_SIGNAL :
							  COW_TRAP_MPROTECT;
	return 0;
}

static void try_traps(struct cow_system *probe)
{
	bool kernel_faults = false, none;

	probe->trap_error[COW_TRAP_THREAD] = try_userfaultfd(false, &kernel_faults);
	probe->trap_error[COW_TRAP_SIGNAL] = try_userfaultfd(true, &none);
	probe->kernel_faults = kernel_faults;
}

int probe_auto(enum cow_trap *ret_trap)
{
	struct cow_system probe = { 0 };

	try_traps(&probe);
	return best_of(&probe, ret_trap);
}

static const struct {
	uint64_t kernels;
	uint32_t ours;
} features[] = {
	{ UFFD_FEATURE_PAGEFAULT_FLAG_WP, COW_FEATURE_WRITE_PROTECT },
	{ UFFD_FEATURE_WP_HUGETLBFS_SHMEM, COW_FEATURE_WRITE_PROTECT_SHARED },
	{ UFFD_FEATURE_WP_UNPOPULATED, COW_FEATURE_WRITE_PROTECT_EMPTY },
	{ UFFD_FEATURE_WP_ASYNC, COW_FEATURE_WRITE_PROTECT_ASYNC },
	{ UFFD_FEATURE_SIGBUS, COW_FEATURE_SIGBUS },
	{ UFFD_FEATURE_MINOR_SHMEM, COW_FEATURE_MINOR },
	{ UFFD_FEATURE_MOVE, COW_FEATURE_MOVE },
};

/* The kernel's list is the same by whatever way one gets to it. */
static uint32_t userfaultfd_features(void)
{
	static const enum sys_uffd_way ways[] = { SYS_UFFD_CALL_USER, SYS_UFFD_DEVICE,
						  SYS_UFFD_CALL };
	uint64_t kernels = 0;
	uint32_t ours = 0;

	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]) && kernels == 0; i++) {
		int fd = sys_uffd_open(ways[i]);

		if (fd >= 0 && sys_uffd_features(fd, &kernels) < 0)
			kernels = 0;
		sys_close(fd);
	}
	for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		if (kernels & features[i].kernels)
			ours |= features[i].ours;
	return ours;
}

static uint32_t pagemap_features(int *ret_error)
{
	int pagemap = sys_pagemap_open();
	uint32_t ours = 0;

	*ret_error = pagemap < 0 ? pagemap : 0;
	if (pagemap >= 0 && sys_pagemap_scans(pagemap) == 0)
		ours = COW_FEATURE_PAGEMAP_SCAN;
	sys_close(pagemap);
	return ours;
}

int cow_system_probe(struct cow_system *ret_system)
{
	struct cow_system probe = { 0 };
	size_t room;
	int r;

	r = stats_room(ret_system, sizeof(*ret_system), sizeof(*ret_system), &room);
	if (r < 0)
		return r;
	try_traps(&probe);
	r = best_of(&probe, &probe.auto_trap);
	if (r < 0)
		return r;
	probe.size = room;
	probe.page_size = (uint32_t)sys_page_size();
	probe.call_error = try_way(SYS_UFFD_CALL);
	probe.user_call_error = try_way(SYS_UFFD_CALL_USER);
	probe.device_error = try_way(SYS_UFFD_DEVICE);
	probe.features = userfaultfd_features() | pagemap_features(&probe.pagemap_error);
	memcpy(ret_system, &probe, room);
	return 0;
}
