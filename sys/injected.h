/* SPDX-License-Identifier: MIT */
/* For the files of this directory: asked before each call; a negative errno is its result. */
#ifndef COW_SYS_INJECTED_H
#define COW_SYS_INJECTED_H

#include "sys/sys.h"

static inline int injected(enum sys_call call)
{
	return sys_injector ? sys_injector(call) : 0;
}

#endif
