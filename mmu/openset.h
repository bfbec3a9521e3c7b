/* SPDX-License-Identifier: MIT */
/*
 * Which pages may be writable: a bitmap with a bitmap of its words above it, and so on, so that a
 * cut finds a thousand open pages among a million by looking at a few words.
 *
 * A page is added before it is opened, and taken out before it is armed; so a page that is not in
 * the set cannot be written without a trap. One that is in it may be armed all the same.
 *
 * Any number of threads may add; one at a time takes. Who adds sets the bit, then, if the word was
 * empty, the word's bit above; who takes clears the bit above first, then takes the word. So a bit
 * that is missed in the word finds it empty and sets the bit above again.
 */
#ifndef COW_MMU_OPENSET_H
#define COW_MMU_OPENSET_H

#include "core/host.h"

#define OPENSET_LEVELS 6u /* 64^6 pages: more than there are addresses */

struct openset {
	_Atomic uint64_t *levels[OPENSET_LEVELS]; /* [0]: a bit for each page */
	uint64_t words[OPENSET_LEVELS];
	unsigned height;
	void *memory;
	size_t bytes;
};

int openset_init(struct openset *set, uint64_t pages); /* 0 or -ENOMEM */
void openset_destroy(struct openset *set);

void openset_add(struct openset *set, uint64_t page);
void openset_add_run(struct openset *set, uint64_t first, uint64_t count);
bool openset_has(const struct openset *set, uint64_t page);

/* The next page in the set at or after this one, and the last one before it. */
bool openset_after(struct openset *set, uint64_t page, uint64_t *ret_page);
bool openset_before(const struct openset *set, uint64_t page, uint64_t *ret_page);

/* Takes out everything; nobody adds meanwhile. */
void openset_clear(struct openset *set);

/* Takes out one page that is known to be in no other hand. */
void openset_remove(struct openset *set, uint64_t page);

/* The first word at or after *word that is not empty, and its bits; false: there is none. Words
 * that were found empty are not looked at again until something is added to them. */
bool openset_next(struct openset *set, uint64_t *word, uint64_t *ret_bits);

/* Takes the bits of whole words out; these are not looked at again until something is added. Words
 * past the end have none. They share the word above: they cross no multiple of 64. */
void openset_take(struct openset *set, uint64_t word, unsigned count, uint64_t ret_bits[]);

#endif
