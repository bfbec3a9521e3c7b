/* SPDX-License-Identifier: MIT */
#include "cli/demo/proofs.h"

#include <stdarg.h>
#include <stdio.h>

static const struct {
	const char *name, *claim;
} kinds[PROOF_KINDS] = {
	[PROOF_INTEGRITY] = { "integrity_check", "the stock sqlite3 finds every export sound" },
	[PROOF_INVARIANT] = { "invariant", "the accounts of each add up to the same sum" },
	[PROOF_ROWS] = { "row_counts", "all that was committed at the cut, no more" },
	[PROOF_CONTENT] = { "content", "amounts, transfers and rows as computed" },
	[PROOF_PAST] = { "past", "a query into the past, beside the writer" },
	[PROOF_BRANCH] = { "branch", "a branch and the main line stay apart" },
	[PROOF_ROLLBACK] = { "rollback", "the database is the snapshot's again" },
	[PROOF_RESUME] = { "resume", "and the load goes on from there" },
	[PROOF_STORE] = { "store", "saved bit by bit, opened as it was saved" },
};

const char *proof_kind_name(enum proof_kind kind)
{
	return kinds[kind].name;
}

const char *proof_kind_claim(enum proof_kind kind)
{
	return kinds[kind].claim;
}

void proof_add(struct proof_list *list, enum proof_kind kind, const char *about, bool ok,
	       const char *detail, ...)
{
	struct proof *proof;
	va_list arguments;

	if (list->count == PROOFS_MAX) {
		list->overflow = true;
		return;
	}
	proof = &list->items[list->count++];
	proof->kind = kind;
	proof->ok = ok;
	snprintf(proof->name, sizeof(proof->name), "%s %s", kinds[kind].name, about);
	va_start(arguments, detail);
	vsnprintf(proof->detail, sizeof(proof->detail), detail, arguments);
	va_end(arguments);
}

bool proofs_hold(const struct proof_list *list)
{
	size_t i;

	for (i = 0; i < list->count; i++)
		if (!list->items[i].ok)
			return false;
	return list->count > 0 && !list->overflow;
}
