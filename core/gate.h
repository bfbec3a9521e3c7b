/* SPDX-License-Identifier: MIT */
/*
 * The gate: what keeps writers and a cut apart.
 *
 * A writer is inside while it has a bracket open (explicit trap) or while its trap is handled (the
 * others). A cut seals the gate, does its work, and opens it again; while somebody is inside it
 * lets the gate drain first. Entering is one atomic add to a counter that few threads share, and
 * one load.
 *
 *   OPEN ---seal, counters zero---> SEALED ---open---> OPEN
 *                                   |    ^
 *           counters not zero: unseal    seal, counters zero
 *                                   v    |
 *                                 DRAINING
 *
 * Why no writer is inside a sealed gate: enter adds to its counter and then looks at the state; the
 * cut sets the state and then looks at the counters; all four are sequentially consistent, so at
 * least one of the two sees the other. A writer that may not pass steps back out and sleeps.
 *
 * A thread that is inside some gate already is nested and passes a draining gate: a cut over both
 * regions waits for its first bracket, so it must not wait for the cut. It does wait at a sealed
 * gate: a cut that has sealed its gates waits for nobody.
 */
#ifndef COW_CORE_GATE_H
#define COW_CORE_GATE_H

#include "core/host.h"

enum gate_state { GATE_OPEN, GATE_DRAINING, GATE_SEALED };

struct gate {
	_Alignas(64) _Atomic uint32_t state;
	_Atomic uint32_t
		sleepers; /* on state: so that a cut that kept nobody waiting makes no system call
			     */
	struct gate_shard {
		_Alignas(64) _Atomic uint32_t inside;
	} shards[HOST_SHARDS];
};

void gate_enter(struct gate *gate, unsigned shard, bool nested);
void gate_leave(struct gate *gate, unsigned shard); /* from the shard that was entered */

/* For a cut. The caller holds the lock that orders the cuts of this region. */
bool gate_seal(struct gate *gate);   /* false: somebody is inside; unseal, drain, seal again */
void gate_unseal(struct gate *gate); /* nobody new comes in, nested writers apart */
bool gate_drain(struct gate *gate, uint64_t deadline_ns); /* false: the deadline passed */
void gate_open(struct gate *gate);

#endif
