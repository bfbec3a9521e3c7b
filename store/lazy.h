/* SPDX-License-Identifier: MIT */
/*
 * Bringing in a window under the traps that do not see first touches: a thread serves the window's
 * missing pages through userfaultfd, from an image. Only where that serves the kernel's own
 * accesses, too: else a system call on a page that nobody has touched would fail.
 */
#ifndef COW_STORE_LAZY_H
#define COW_STORE_LAZY_H

#include "lib/pager.h"
#include "store/image.h"

/* Maps the image over the window and serves it. The image stays the caller's, and has to outlive
 * the pager. An errno: not to be had here, the window is as it was. */
int lazy_new(struct image *image, unsigned char *window, size_t length, struct pager **ret_pager);

#endif
