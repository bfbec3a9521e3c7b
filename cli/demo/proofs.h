/* SPDX-License-Identifier: MIT */
/* What was checked, and how it came out. The demo succeeds when every proof holds. */
#ifndef CLI_DEMO_PROOFS_H
#define CLI_DEMO_PROOFS_H

#include <stdbool.h>
#include <stddef.h>

enum { PROOFS_MAX = 2048, PROOF_DETAIL_LENGTH = 480 };

/* Proofs of a kind are summed up in one line. */
enum proof_kind {
	PROOF_INTEGRITY,
	PROOF_INVARIANT,
	PROOF_ROWS,
	PROOF_CONTENT,
	PROOF_PAST,
	PROOF_BRANCH,
	PROOF_ROLLBACK,
	PROOF_RESUME,
	PROOF_STORE,
	PROOF_KINDS,
};

struct proof {
	enum proof_kind kind;
	char name[64]; /* the kind's name and what it is about */
	bool ok;
	char detail[PROOF_DETAIL_LENGTH];
};

struct proof_list {
	size_t count;
	struct proof items[PROOFS_MAX];
	bool overflow; /* a proof found no room: counts as one that failed */
};

__attribute__((format(printf, 5, 6))) void proof_add(struct proof_list *list, enum proof_kind kind,
						     const char *about, bool ok, const char *detail,
						     ...);

/* "integrity_check", and what a proof of that kind says, in a few words. */
const char *proof_kind_name(enum proof_kind kind);
const char *proof_kind_claim(enum proof_kind kind);

/* Also false for an empty list: nothing was proved. */
bool proofs_hold(const struct proof_list *list);

#endif
