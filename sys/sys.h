/* SPDX-License-Identifier: MIT */
/*
 * Every kernel call and every allocation of the library goes through here: the one seam at which
 * tests inject failures. All return 0 (or a result) or a negative errno; EINTR is retried where the
 * call can be repeated.
 */
#ifndef COW_SYS_SYS_H
#define COW_SYS_SYS_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "sys/compat.h"

enum sys_call {
	SYS_CALL_ALLOC,
	SYS_CALL_MAP,
	SYS_CALL_UNMAP,
	SYS_CALL_PROTECT,
	SYS_CALL_ADVISE,
	SYS_CALL_MEMFD,
	SYS_CALL_TRUNCATE,
	SYS_CALL_OPEN,
	SYS_CALL_STATFS,
	SYS_CALL_READ_AT,
	SYS_CALL_WRITE_AT,
	SYS_CALL_EVENTFD,
	SYS_CALL_EPOLL,
	SYS_CALL_USERFAULTFD,
	SYS_CALL_UFFD_IOCTL,
	SYS_CALL_PAGEMAP,
	SYS_CALL_SIGACTION,
	SYS_CALL_THREAD,
	SYS_CALL_SYNC,
	SYS_CALL_RENAME,
	SYS_CALL_UNLINK,
	SYS_CALL_LOCK,
	SYS_CALL_CLONE_RANGE,
	SYS_CALL_RANDOM,
	SYS_CALLS,
};

/* For tests: called before each call; a negative errno is returned in its place. NULL in
 * production. */
extern int (*sys_injector)(enum sys_call call);
const char *sys_call_name(enum sys_call call);

/* --- memory.c --- */

void *sys_alloc(size_t bytes); /* zeroed, NULL on failure */
void *sys_alloc_array(size_t count, size_t bytes);
void *sys_alloc_page(size_t page_size); /* aligned, contents undefined */
void sys_free(void *memory);

int sys_map(void *address, size_t length, int protection, int flags, int fd, void **ret_address);
int sys_map_at(void *address, size_t length, int protection, int flags, int fd, uint64_t offset,
	       void **ret_address); /* from an offset in the file */
int sys_unmap(void *address, size_t length);
int sys_protect(void *address, size_t length, int protection);
int sys_advise(void *address, size_t length, int advice);
bool sys_is_mapped(const void *address, size_t length);
size_t sys_page_size(void);

/* --- file.c --- */

int sys_memfd(const char *name, size_t length); /* a descriptor */
int sys_seal(int fd);                           /* nobody can change it any more */
int sys_truncate(int fd, uint64_t length);
int sys_open_unlinked(const char *directory, int flags); /* a descriptor of a nameless file */
int sys_is_tmpfs(int fd);                                /* 1, 0 */
ssize_t sys_read_at(int fd, void *buffer, size_t length, uint64_t offset);
ssize_t sys_write_some_at(int fd, const struct iovec *pieces, int count, uint64_t offset);
/* All of it; a short write ends in the error that cut it short, or -ENOSPC. */
int sys_write_at(int fd, const struct iovec *pieces, int count, uint64_t offset);
void sys_drop_cache(int fd, uint64_t offset, size_t length); /* written back first */
/* The first data of a file in [offset, end), and where it ends; both end where there is none. */
int sys_file_data(int fd, uint64_t offset, uint64_t end, uint64_t *ret_data, uint64_t *ret_hole);
void sys_close(int fd);

/* Of files with names, in a directory that is open. */
int sys_make_directory(const char *path); /* 0 also where it is there already */
int sys_open_directory(const char *path);
int sys_open_at(int directory, const char *name, int flags, unsigned mode);
int sys_sync_data(int fd); /* fdatasync() */
int sys_sync(int fd);      /* fsync(), of directories too */
int sys_rename_at(int directory, const char *from, const char *to);
int sys_unlink_at(int directory, const char *name);
/* One byte of a file, for as long as it is open (F_OFD_SETLK): F_RDLCK, F_WRLCK, F_UNLCK.
 * -EBUSY. */
int sys_lock(int fd, uint64_t byte, int kind);
int sys_clone_range(int to, uint64_t to_offset, int from, uint64_t from_offset, uint64_t length);
int sys_file_size(int fd, uint64_t *ret_bytes, uint64_t *ret_links);
/* Begins to write back, waits for nothing. */
void sys_start_writeback(int fd, uint64_t offset, uint64_t length);
/* Calls visit with each name but "." and ".."; non-zero stops. */
int sys_list_directory(int directory, int (*visit)(const char *name, void *context), void *context);

/* --- event.c --- */

int sys_eventfd(void);
int sys_eventfd_signal(int fd);
int sys_epoll_new(void);
int sys_epoll_add(int epoll, int fd, uint64_t data);
void sys_epoll_remove(int epoll, int fd);
int sys_epoll_wait(int epoll, int timeout_ms, uint64_t *ret_data); /* -1: for ever. 1, 0: timeout */

/* --- userfaultfd.c --- */

/* The ways to a userfaultfd, and a bare descriptor by one of them. */
enum sys_uffd_way {
	SYS_UFFD_CALL,      /* serves the kernel's own accesses, too: privilege, or the sysctl */
	SYS_UFFD_CALL_USER, /* those of user mode only: everybody, unless a filter forbids it */
	SYS_UFFD_DEVICE,    /* as SYS_UFFD_CALL, for whom /dev/userfaultfd's permissions let */
};
int sys_uffd_open(enum sys_uffd_way way);
int sys_uffd_features(int fd, uint64_t *ret_features); /* all of the kernel's; fd is bare */

/* A userfaultfd for missing pages; *ret_kernel_faults says whether it serves system calls, too. */
int sys_userfaultfd(bool *ret_kernel_faults);
int sys_uffd_register_missing(int fd, void *address, size_t length);

/* A userfaultfd that write-protects. deliver_signal: SIGBUS in the thread that traps; else
 * messages, of which those for the kernel's own accesses need privilege (*ret_kernel_faults). */
#define SYS_UFFD_UNPOPULATED 0x1u /* protects pages without content, too */
int sys_uffd_write_protect_new(bool deliver_signal, bool *ret_kernel_faults,
			       uint32_t *ret_features);
int sys_uffd_register(int fd, void *address, size_t length, bool missing); /* writes always */
int sys_uffd_unregister(int fd, void *address, size_t length);
int sys_uffd_protect(int fd, void *address, size_t length, bool protect, bool wake);

int sys_uffd_read(int fd, uint64_t *ret_address); /* 1: a page fault, 0: nothing (more) */
/* -EEXIST: it is there already. */
int sys_uffd_copy(int fd, void *to, const void *from, size_t length);
int sys_uffd_wake(int fd, void *address, size_t length);

/* --- pagemap.c: which pages have content, in memory or swapped out --- */

int sys_pagemap_open(void);         /* a descriptor of /proc/self/pagemap */
int sys_pagemap_scans(int pagemap); /* 0: PAGEMAP_SCAN is known */
/* The first page at or after address, below end, that has content; end where there is none. */
int sys_pagemap_find(int pagemap, const void *address, const void *end, const void **ret_found);
/* A byte for each page, 1 or 0. */
int sys_pagemap_read(int pagemap, const void *address, size_t pages, unsigned char *ret_present);

/* --- thread.c --- */

/* A thread with all signals blocked. */
int sys_thread_start(pthread_t *ret_thread, void *(*run)(void *), void *context);

/* Whether the program has no thread but this one; the library's own do not count. */
bool sys_is_alone(void);

/* A handler for a synchronous signal, on an alternate stack where the thread has one, with all
 * signals blocked. */
int sys_signal_handler(int signal, void (*handler)(int, siginfo_t *, void *),
		       struct sigaction *ret_before);

/* Blocks the signals that may come at any time, not those that an instruction causes. */
void sys_signals_block(sigset_t *ret_before);
void sys_signals_restore(const sigset_t *before);

/* For one function; later calls do nothing, also while the first one is under way. */
int sys_at_fork_child(void (*function)(void));

/* --- sys.c --- */

int sys_random(void *buffer, size_t length);
unsigned sys_cpus(void); /* that this thread may run on; at least 1 */
int64_t sys_process_id(void);
uint64_t sys_monotonic_ns(void);
uint64_t sys_realtime_ns(void);

#endif
