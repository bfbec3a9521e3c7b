/* SPDX-License-Identifier: MIT */
/*
 * What the core asks of the world: memory, waiting, and the number of the running thread.
 *
 * The core makes no system calls. These functions are bound at link time: sys/host.c gives the real
 * ones, tests/model gives a deterministic scheduler under which every interleaving can be explored.
 * All of them may be called from a trap: they allocate nothing on the C heap and take no lock.
 */
#ifndef COW_CORE_HOST_H
#define COW_CORE_HOST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed memory, aligned to align (a power of two of at least a page), or NULL. Absent after
 * fork. */
void *host_map(size_t bytes, size_t align);
void host_unmap(void *memory, size_t bytes);

/* A hint: fault the memory in now. */
void host_populate(void *memory, size_t bytes);
void host_advise_huge(void *memory, size_t bytes); /* another: huge pages are welcome */

/* Sleeps while *word is value; may return early. A deadline (host_now() time, 0: none) that has
 * passed gives false. */
bool host_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns);
void host_wake(_Atomic uint32_t *word);
void host_pause(void); /* in a spin loop */
uint64_t host_now(void);

/* A small number that differs between running threads as far as possible: which counter to use. */
unsigned host_shard(void);
#ifdef COW_MODEL
#define HOST_SHARDS 2u
#else
#define HOST_SHARDS 8u
#endif

/*
 * Points at which the model checker may switch threads, and places where a mutant leaves out what
 * the protocol needs so that the checks can be seen to fail. Both vanish from the library.
 */
#ifdef COW_MODEL
void model_step(const char *where);
bool model_mutant(const char *name);
void model_poison(void *memory, size_t bytes);
#define STEP(where)  model_step(where)
#define MUTANT(name) model_mutant(name)
#define POISON(memory, size) \
	model_poison(memory, size) /* freed: whoever still reads it is found out */
#define SPINS(count) 1u            /* nobody gets anywhere while a thread spins there */
#else
#define STEP(where)          ((void)0)
#define MUTANT(name)         false
#define POISON(memory, size) ((void)0)
#define SPINS(count)         (count)
#endif

#if defined(__SANITIZE_THREAD__)
#define COW_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define COW_TSAN 1
#endif
#endif

#endif
