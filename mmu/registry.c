/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "mmu/registry.h"
#include "mmu/trap.h"
#include "sys/sys.h"

struct place {
	struct place *next; /* set before it is published */
	_Atomic(struct trap *) trap;
	_Atomic uintptr_t start, end;
};

static _Atomic(struct place *) places;
static struct lock places_lock; /* guards changes */

#define PLACES_BYTES 4096u

static struct place *free_place(void)
{
	struct place *place;
	void *memory;

	for (place = atomic_load(&places); place; place = place->next)
		if (!atomic_load(&place->trap))
			return place;
	/* Unlike host_map()'s, this memory goes to children, too: their handlers walk it, and
	 * mprotect_after_fork(). */
	if (sys_map(NULL, PLACES_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    &memory) < 0)
		return NULL;
	place = memory;
	for (size_t i = 0; i < PLACES_BYTES / sizeof(*place); i++) {
		place[i].next = atomic_load(&places);
		atomic_store(&places, &place[i]);
	}
	return atomic_load(&places);
}

static struct place *place_of(const struct trap *trap)
{
	struct place *place = atomic_load(&places);

	while (place && atomic_load(&place->trap) != trap)
		place = place->next;
	return place;
}

/* A child of fork() may make a region of what it inherited: the parent's trap is not its own. */
static void clear_inherited(const struct trap *trap)
{
	uintptr_t start = (uintptr_t)trap->base, end = start + trap->length;

	for (struct place *place = atomic_load(&places); place; place = place->next)
		if (atomic_load(&place->trap) != trap && start < atomic_load(&place->end) &&
		    atomic_load(&place->start) < end)
			atomic_store(&place->trap, NULL);
}

/* Once it is in it stays, also when its start fails: a trap may be on its way to the handler. */
int registry_add(struct trap *trap)
{
	struct place *place;

	lock_take(&places_lock);
	clear_inherited(trap);
	place = place_of(trap);
	if (!place)
		place = free_place();
	if (place) {
		atomic_store(&place->start, (uintptr_t)trap->base);
		atomic_store(&place->end, (uintptr_t)trap->base + trap->length);
		atomic_store(&place->trap, trap);
	}
	lock_drop(&places_lock);
	return place ? 0 : -ENOMEM;
}

void registry_remove(struct trap *trap)
{
	lock_take(&places_lock);
	for (struct place *place = atomic_load(&places); place; place = place->next)
		if (atomic_load(&place->trap) == trap)
			atomic_store(&place->trap, NULL);
	lock_drop(&places_lock);
}

/* The address is one that the caller just used, so its region is not being freed, and its place not
 * taken over; another place's may be, hence the trap is read first and last. */
struct trap *registry_find(uintptr_t address)
{
	for (struct place *place = atomic_load(&places); place; place = place->next) {
		struct trap *trap = atomic_load(&place->trap);

		if (trap && address >= atomic_load(&place->start) &&
		    address < atomic_load(&place->end) && atomic_load(&place->trap) == trap)
			return trap;
	}
	return NULL;
}

bool registry_has_traps(void)
{
	return atomic_load_explicit(&places, memory_order_relaxed) != NULL;
}

void registry_after_fork(void)
{
	places_lock = (struct lock){ 0 };
}

void registry_each(void (*visit)(struct trap *trap))
{
	for (struct place *place = atomic_load(&places); place; place = place->next) {
		struct trap *trap = atomic_load(&place->trap);

		if (trap)
			visit(trap);
	}
}
