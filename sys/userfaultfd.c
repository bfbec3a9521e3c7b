/* SPDX-License-Identifier: MIT */
/* The ways to a userfaultfd, and what it is asked. */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys/injected.h"

int sys_uffd_open(enum sys_uffd_way way)
{
	int flags = O_CLOEXEC | O_NONBLOCK | (way == SYS_UFFD_CALL_USER ? UFFD_USER_MODE_ONLY : 0);
	int r = injected(SYS_CALL_USERFAULTFD);
	int device, fd;

	if (r < 0)
		return r;
	if (way != SYS_UFFD_DEVICE) {
		fd = (int)syscall(SYS_userfaultfd, flags);
		return fd < 0 ? -errno : fd;
	}
	device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return -errno;
	fd = ioctl(device, USERFAULTFD_IOC_NEW, flags);
	r = fd < 0 ? -errno : fd;
	close(device);
	return r;
}

static bool is_refusal(int error)
{
	return error == -EPERM || error == -EACCES || error == -ENOSYS || error == -ENOENT;
}

/* The device stands behind the call: it has permissions of its own, and filters of system calls do
 * not know it. What only serves user accesses comes last, unless nobody needs more. */
static int uffd_open(bool kernel_faults, bool *ret_kernel_faults)
{
	static const enum sys_uffd_way full[] = { SYS_UFFD_CALL, SYS_UFFD_DEVICE,
						  SYS_UFFD_CALL_USER };
	static const enum sys_uffd_way user[] = { SYS_UFFD_CALL_USER, SYS_UFFD_DEVICE };
	const enum sys_uffd_way *ways = kernel_faults ? full : user;
	unsigned count = kernel_faults ? 3 : 2;
	int first = 0;

	for (unsigned i = 0; i < count; i++) {
		int fd = sys_uffd_open(ways[i]);

		if (fd >= 0)
			*ret_kernel_faults = kernel_faults && ways[i] != SYS_UFFD_CALL_USER;
		if (fd >= 0 || !is_refusal(fd))
			return fd;
		first = first ?: fd;
	}
	return first;
}

static int uffd_new(bool kernel_faults, uint64_t features, bool *ret_kernel_faults)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = uffd_open(kernel_faults, ret_kernel_faults);
	int r;

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

int sys_userfaultfd(bool *ret_kernel_faults)
{
	return uffd_new(true, 0, ret_kernel_faults);
}

int sys_uffd_features(int fd, uint64_t *ret_features)
{
	struct uffdio_api api = { .api = UFFD_API };

	if (ioctl(fd, UFFDIO_API, &api) < 0)
		return -errno;
	*ret_features = api.features;
	return 0;
}

static int uffd_ioctl(int fd, unsigned long request, void *argument)
{
	int r = injected(SYS_CALL_UFFD_IOCTL);

	if (r < 0)
		return r;
	return ioctl(fd, request, argument) < 0 ? -errno : 0;
}

int sys_uffd_register_missing(int fd, void *address, size_t length)
{
	struct uffdio_register range = {
		.range = { .start = (uintptr_t)address, .len = length },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return uffd_ioctl(fd, UFFDIO_REGISTER, &range);
}

int sys_uffd_write_protect_new(bool deliver_signal, bool *ret_kernel_faults, uint32_t *ret_features)
{
	uint64_t wanted = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
			  (deliver_signal ? UFFD_FEATURE_SIGBUS : 0);
	uint32_t features = SYS_UFFD_UNPOPULATED;
	int fd;

	/* An unknown feature fails the call, and takes the descriptor with it. */
	fd = uffd_new(!deliver_signal, wanted | UFFD_FEATURE_WP_UNPOPULATED, ret_kernel_faults);
	if (fd == -EINVAL) {
		features = 0;
		fd = uffd_new(!deliver_signal, wanted, ret_kernel_faults);
	}
	*ret_features = features;
	return fd;
}

int sys_uffd_register(int fd, void *address, size_t length, bool missing)
{
	struct uffdio_register range = {
		.range = { .start = (uintptr_t)address, .len = length },
		.mode = UFFDIO_REGISTER_MODE_WP | (missing ? UFFDIO_REGISTER_MODE_MISSING : 0),
	};

	return uffd_ioctl(fd, UFFDIO_REGISTER, &range);
}

int sys_uffd_unregister(int fd, void *address, size_t length)
{
	struct uffdio_range range = { .start = (uintptr_t)address, .len = length };

	return uffd_ioctl(fd, UFFDIO_UNREGISTER, &range);
}

int sys_uffd_protect(int fd, void *address, size_t length, bool protect, bool wake)
{
	struct uffdio_writeprotect range = {
		.range = { .start = (uintptr_t)address, .len = length },
		.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP :
				  (wake ? 0 : UFFDIO_WRITEPROTECT_MODE_DONTWAKE),
	};
	int r;

	do
		r = uffd_ioctl(fd, UFFDIO_WRITEPROTECT, &range);
	while (r == -EAGAIN); /* the address space is being changed, by fork() say */
	return r;
}

int sys_uffd_read(int fd, uint64_t *ret_address)
{
	struct uffd_msg message;
	ssize_t n;

	do
		n = read(fd, &message, sizeof(message));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (n != sizeof(message) || message.event != UFFD_EVENT_PAGEFAULT)
		return 0;
	*ret_address = message.arg.pagefault.address;
	return 1;
}

int sys_uffd_copy(int fd, void *to, const void *from, size_t length)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)to,
		.src = (uintptr_t)from,
		.len = length,
	};

	return uffd_ioctl(fd, UFFDIO_COPY, &copy);
}

int sys_uffd_wake(int fd, void *address, size_t length)
{
	struct uffdio_range range = { .start = (uintptr_t)address, .len = length };

	return uffd_ioctl(fd, UFFDIO_WAKE, &range);
}
