/* SPDX-License-Identifier: MIT */
/*
 * fork() in a program with threads. The child has every lock as it stood, but not the thread that
 * would have opened it. Locks of a region or a store do no harm, since a child may not use its
 * parent's (process.h). The few that all of them share are made anew in the child, where nobody
 * else is; each ..._after_fork() stands beside its lock and says why what that guards, perhaps half
 * way through a change, is of use or of no account.
 *
 * Nothing is taken before a fork, so that fork() may be called anywhere, in a signal handler or
 * with a bracket open. A child made by a bare clone() has no such help, as with the C library's own
 * locks.
 */
#ifndef COW_LIB_FORK_H
#define COW_LIB_FORK_H

/* From now on; before the first use of what is shared. -ENOMEM. */
int fork_is_coming(void);

#endif
