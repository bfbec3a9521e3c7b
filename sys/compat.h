/* SPDX-License-Identifier: MIT */
/* Kernel definitions that Debian 12's headers (6.1) lack, with the kernel that brought them. */
#ifndef COW_SYS_COMPAT_H
#define COW_SYS_COMPAT_H

#include <linux/userfaultfd.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_READ /* 5.14 */
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE /* 5.14 */
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MAP_FIXED_NOREPLACE /* 4.17 */
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef UFFD_USER_MODE_ONLY /* 5.11 */
#define UFFD_USER_MODE_ONLY 1
#endif

#endif
