/* SPDX-License-Identifier: MIT */
/*
 * The registry of traps: which one an address belongs to. It is read in signal handlers, without a
 * lock: its places are never given back to the system, so a handler may walk them at any time. A
 * place is free when its trap is NULL.
 */
#ifndef COW_MMU_REGISTRY_H
#define COW_MMU_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

struct trap;

/* Does nothing for one that is there. -ENOMEM. */
int registry_add(struct trap *trap);
void registry_remove(struct trap *trap);

/* NULL: none's. */
struct trap *registry_find(uintptr_t address);

/* Places come and go by single stores, so they are in order at any moment. */
void registry_after_fork(void);

/* For a child of fork(): nobody else is there. */
void registry_each(void (*visit)(struct trap *trap));

/* Whether stores may trap anywhere in this process. */
bool registry_has_traps(void);

#endif
