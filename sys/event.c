/* SPDX-License-Identifier: MIT */
/* Descriptors to wait on. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "sys/injected.h"

int sys_eventfd(void)
{
	int r = injected(SYS_CALL_EVENTFD);
	int fd;

	if (r < 0)
		return r;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

int sys_epoll_new(void)
{
	int r = injected(SYS_CALL_EPOLL);
	int fd;

	if (r < 0)
		return r;
	fd = epoll_create1(EPOLL_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int sys_epoll_add(int epoll, int fd, uint64_t data)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = data };
	int r = injected(SYS_CALL_EPOLL);

	if (r < 0)
		return r;
	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void sys_epoll_remove(int epoll, int fd)
{
	epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
}

int sys_epoll_wait(int epoll, int timeout_ms, uint64_t *ret_data)
{
	struct epoll_event event;
	int n;

	do
		n = epoll_wait(epoll, &event, 1, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n > 0)
		*ret_data = event.data.u64;
	return n;
}

int sys_eventfd_signal(int fd)
{
	return eventfd_write(fd, 1) < 0 ? -errno : 0;
}
