/* SPDX-License-Identifier: MIT */
/*
 * An explicit-state model checker for C code that runs as it is.
 *
 * Model
 * - Every thread of the program under test is a coroutine. It gives control back at model_step(),
 *   and where it sleeps (host_wait() of core/host.h); between two such points it runs alone. So
 *   what is explored is every interleaving of the pieces between steps, under sequential
 *   consistency: the code has a step before each access to shared memory whose order matters.
 *   Reordering by the processor is not explored.
 * - All that the threads can change stands in one arena at a fixed address: shared data, a small
 *   heap, the stacks. A state is the bytes of the arena, of the stacks the part in use. A state is
 *   restored by copying it back, run on by one thread to its next step, and compared by a 128-bit
 *   hash with those seen before; the search goes depth first, since then only the states on the
 *   current path are kept.
 * - Equal states may differ in bytes (a dead local variable, two frames exchanged): they are
 *   explored twice, which costs time and loses nothing. Different states with one hash would lose
 *   something: among a million states the chance is 1e-27.
 * - No partial-order reduction.
 *
 * What is found: a check that fails (model_fail(), assert(), a crash), a deadlock (nobody can run,
 * not all have ended; a sleeper is woken by host_wake() alone, so a lost wake-up is one), and, when
 * asked for, states from which the end cannot be reached any more: a livelock. A thread that could
 * run for ever only because the scheduler never lets another one run is none.
 */
#ifndef TESTS_MODEL_EXPLORE_H
#define TESTS_MODEL_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_THREADS 5u
#define MODEL_NOBODY  (MODEL_THREADS + 1)

/* A host_wait() with this deadline may time out whenever its thread is chosen to run. */
#define MODEL_SOON 1u

struct model_program {
	unsigned threads;
	size_t shared_bytes; /* of the shared area, zeroed at the start */
	void (*start)(void); /* builds the first state; steps are passed over */
	void (*body)(unsigned thread);
	void (*scrub)(void);  /* removes what makes no difference, before states are compared */
	void (*finish)(void); /* all threads have ended: what must hold; steps are passed over */
};

struct model_result {
	bool failed;
	bool complete; /* the frontier ended empty */
	uint64_t states, transitions, ends;
	unsigned depth;     /* of the longest path */
	uint64_t stuck;     /* states from which the end cannot be reached */
	size_t state_bytes; /* of the largest state */
	char message[256];
	char path[8192]; /* the thread chosen at each step of the failed run, as digits */
};

/* At most so many states; check_ends looks for livelocks, too, and for that remembers every
 * transition. */
void model_explore(const struct model_program *program, const char *mutant, uint64_t most_states,
		   bool check_ends, struct model_result *result);

/* Runs one path again and prints each step. */
void model_replay(const struct model_program *program, const char *mutant, const char *path,
		  const char *const names[]);

/* --- for the program under test --- */
void *model_shared(void);
unsigned model_thread(void);        /* who runs; MODEL_NOBODY - 1: start or finish */
void model_act_as(unsigned thread); /* in start and finish: whose number host_shard() follows */
size_t model_heap_blocks(void);
__attribute__((format(printf, 1, 2), noreturn)) void model_fail(const char *format, ...);

#endif
