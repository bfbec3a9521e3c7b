/* SPDX-License-Identifier: MIT */
#include "core/gate.h"

static bool may_pass(uint32_t state, bool nested)
{
	return state == GATE_OPEN || (nested && state == GATE_DRAINING);
}

#define GATE_LOOKS 200u

/* The sleeper counts itself before it looks at the state for the last time, in the futex; whoever
 * changes the state looks for sleepers afterwards. One of the two sees the other. */
static void sleep_on(struct gate *gate, uint32_t state)
{
	/* A sealed gate opens within less than a microsecond; a sleep costs many. */
	for (unsigned looks = SPINS(GATE_LOOKS); looks > 0; looks--) {
		if (atomic_load_explicit(&gate->state, memory_order_relaxed) != state)
			return;
		host_pause();
	}
	if (!MUTANT("sleep-uncounted"))
		atomic_fetch_add(&gate->sleepers, 1);
	STEP("gate: sleep");
	host_wait(&gate->state, state, 0);
	if (!MUTANT("sleep-uncounted"))
		atomic_fetch_sub(&gate->sleepers, 1);
}

/* Looks before it adds, too: writers that are woken at a gate that is still closed would otherwise
 * disturb the count that seal takes, again and again. */
void gate_enter(struct gate *gate, unsigned shard, bool nested)
{
	_Atomic uint32_t *inside = &gate->shards[shard].inside;
	uint32_t state;

	for (;;) {
		STEP("gate: enter");
		state = atomic_load(&gate->state);
		if (MUTANT("nested-waits"))
			nested = false;
		if (may_pass(state, nested)) {
			STEP("gate: add");
			atomic_fetch_add(inside, 1);
			STEP("gate: look");
			state = atomic_load(&gate->state);
			if (may_pass(state, nested) || MUTANT("gate-no-second-look"))
				return;
			gate_leave(gate, shard);
		}
		sleep_on(gate, state);
	}
}

void gate_leave(struct gate *gate, unsigned shard)
{
	_Atomic uint32_t *inside = &gate->shards[shard].inside;

	STEP("gate: leave");
	if (atomic_fetch_sub(inside, 1) != 1)
		return;
	STEP("gate: left");
	if (atomic_load(&gate->state) != GATE_OPEN && !MUTANT("leave-no-wake"))
		host_wake(inside);
}

static void gate_set(struct gate *gate, enum gate_state state)
{
	STEP("gate: set");
	atomic_store(&gate->state, state);
	STEP("gate: sleepers");
	if (atomic_load(&gate->sleepers) != 0 && !MUTANT("open-no-wake"))
		host_wake(&gate->state);
}

bool gate_drain(struct gate *gate, uint64_t deadline_ns)
{
	uint32_t inside;

	if (MUTANT("no-drain"))
		return true;
	for (unsigned i = 0; i < HOST_SHARDS; i++) {
		STEP("gate: drain");
		while ((inside = atomic_load(&gate->shards[i].inside)) != 0)
			if (!host_wait(&gate->shards[i].inside, inside, deadline_ns))
				return false;
	}
	return true;
}

/* Who is inside for the length of a trap will be gone in a moment: waiting for it sealed spares the
 * cut a sleep, and keeps a stream of traps from holding it up for ever. */
#define SEALED_LOOKS 2000u

bool gate_seal(struct gate *gate)
{
	if (!MUTANT("gate-stays-open"))
		gate_set(gate, GATE_SEALED);
	if (MUTANT("no-drain") || MUTANT("seal-no-look"))
		return true;
	for (unsigned i = 0, looks = SPINS(SEALED_LOOKS); i < HOST_SHARDS; i++) {
		STEP("gate: seal look");
		while (atomic_load(&gate->shards[i].inside) != 0) {
			if (looks-- == 0)
				return false;
			host_pause();
		}
	}
	return true;
}

void gate_unseal(struct gate *gate)
{
	gate_set(gate, GATE_DRAINING);
}

void gate_open(struct gate *gate)
{
	gate_set(gate, GATE_OPEN);
}
