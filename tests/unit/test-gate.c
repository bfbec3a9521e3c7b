/* SPDX-License-Identifier: MIT */
/* The gate and grace periods: who passes in which state; that nobody is inside a sealed gate. */
#include <pthread.h>

#include "core/gate.h"
#include "core/grace.h"
#include "tests/tap.h"

TEST(sealing)
{
	static struct gate gate;

	ok(gate_seal(&gate), "an empty gate");
	gate_open(&gate);
	gate_enter(&gate, 3, false);
	ok(!gate_seal(&gate), "not while somebody is inside");
	gate_unseal(&gate);
	ok(!gate_drain(&gate, host_now() + 1000000), "a drain gives up at its deadline");
	gate_enter(&gate, 4, true);
	gate_leave(&gate, 4);
	ok(true, "a nested writer passes a draining gate");
	gate_leave(&gate, 3);
	ok(gate_drain(&gate, 0), "drained");
	ok(gate_seal(&gate), "sealed");
	gate_open(&gate);
	gate_enter(&gate, 0, false);
	gate_leave(&gate, 0);
	ok(gate_seal(&gate), "and again");
	gate_open(&gate);
}

/* Writers count two numbers up, of which the cutter sees the same whenever the gate is sealed. */
static struct {
	struct gate gate;
	uint64_t first[HOST_SHARDS], second[HOST_SHARDS];
	_Atomic bool go;
} race = { .go = true };

static void *enter_and_leave(void *context)
{
	unsigned shard = (unsigned)(uintptr_t)context;

	while (race.go) {
		gate_enter(&race.gate, shard, false);
		race.first[shard]++;
		race.second[shard]++;
		gate_leave(&race.gate, shard);
	}
	return NULL;
}

static void close_gate(void)
{
	while (!gate_seal(&race.gate)) {
		gate_unseal(&race.gate);
		gate_drain(&race.gate, 0);
	}
}

TEST(nobody_is_inside_a_sealed_gate)
{
	enum { THREADS = 3, CUTS = 3000 };
	pthread_t threads[THREADS];
	unsigned torn = 0, busy = 0;

	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, enter_and_leave, (void *)i);
	for (unsigned i = 0; i < CUTS || busy < THREADS; i++) {
		close_gate();
		busy = 0;
		for (unsigned shard = 0; shard < THREADS; shard++) {
			torn += race.first[shard] != race.second[shard];
			busy += race.first[shard] > 100;
		}
		gate_open(&race.gate);
	}
	race.go = false;
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	is_u64(torn, 0, "writers seen inside");
}

TEST(grace_periods)
{
	static struct grace grace;
	struct grace_section before, after;

	ok(grace_advance(&grace) && grace_advance(&grace), "without readers it goes on");
	before = grace_enter(&grace);
	ok(grace_advance(&grace), "one step beside a reader");
	after = grace_enter(&grace);
	ok(!grace_advance(&grace), "but not two");
	grace_leave(before);
	ok(grace_advance(&grace), "until it has left");
	ok(!grace_advance(&grace), "then the later one is waited for");
	grace_leave(after);
	ok(grace_advance(&grace), "and gone");
	is_u64(atomic_load(&grace.generation), 5, "generations");
}

TAP_MAIN(CASE(sealing), CASE(nobody_is_inside_a_sealed_gate), CASE(grace_periods))
