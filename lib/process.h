/* SPDX-License-Identifier: MIT */
/*
 * Which process an object belongs to. A child made by fork(), or by a bare clone(), has copies of
 * all objects, but not their threads and not their kept pages, and must not touch them. A page that
 * the kernel empties in every child tells them apart without a system call and without a fork
 * handler.
 */
#ifndef COW_LIB_PROCESS_H
#define COW_LIB_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

/* This process's mark, never 0; or a negative errno. */
int process_mark(uint64_t *ret_mark);
bool process_is(uint64_t mark);

#endif
