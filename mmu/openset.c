/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <errno.h>

#include "mmu/openset.h"

int openset_init(struct openset *set, uint64_t pages)
{
	uint64_t bits = pages, total = 0;
	_Atomic uint64_t *memory;

	*set = (struct openset){ 0 };
	do {
		set->words[set->height] = (bits + 63) / 64;
		total += set->words[set->height];
		bits = set->words[set->height++];
	} while (bits > 1 && set->height < OPENSET_LEVELS);
	set->bytes = (total * sizeof(uint64_t) + 4095) & ~(size_t)4095;
	set->memory = host_map(set->bytes, 4096);
	if (!set->memory)
		return -ENOMEM;
	memory = set->memory;
	for (unsigned level = 0; level < set->height; level++) {
		set->levels[level] = memory;
		memory += set->words[level];
	}
	return 0;
}

void openset_destroy(struct openset *set)
{
	if (set->memory)
		host_unmap(set->memory, set->bytes);
}

static void add_bits(struct openset *set, uint64_t word, uint64_t bits)
{
	for (unsigned level = 0; level < set->height; level++, word /= 64) {
		if (atomic_fetch_or(&set->levels[level][word], bits) != 0)
			return; /* so the word's own bit above is set, or being taken together with
				   ours */
		bits = (uint64_t)1 << (word % 64);
	}
}

void openset_add(struct openset *set, uint64_t page)
{
	add_bits(set, page / 64, (uint64_t)1 << (page % 64));
}

void openset_add_run(struct openset *set, uint64_t first, uint64_t count)
{
	while (count > 0) {
		uint64_t piece = 64 - first % 64 < count ? 64 - first % 64 : count;

		/* cppcheck-suppress shiftTooManyBits ; a piece has a page at least */
		add_bits(set, first / 64, (~(uint64_t)0 >> (64 - piece)) << (first % 64));
		first += piece;
		count -= piece;
	}
}

bool openset_has(const struct openset *set, uint64_t page)
{
	return atomic_load(&set->levels[0][page / 64]) >> (page % 64) & 1;
}

void openset_remove(struct openset *set, uint64_t page)
{
	atomic_fetch_and(&set->levels[0][page / 64], ~((uint64_t)1 << (page % 64)));
}

/* The bits above go first, see the header. Left set, they would have the next cut look at every
 * word that this one emptied. */
void openset_take(struct openset *set, uint64_t word, unsigned count, uint64_t ret_bits[])
{
	uint64_t bits;

	assert(count > 0 && word % 64 + count <= 64);
	bits = (~(uint64_t)0 >> (64 - count)) << (word % 64);
	if (set->height > 1 && (atomic_load(&set->levels[1][word / 64]) & bits))
		atomic_fetch_and(&set->levels[1][word / 64], ~bits);
	for (unsigned i = 0; i < count; i++)
		ret_bits[i] = word + i < set->words[0] && atomic_load(&set->levels[0][word + i]) ?
				      atomic_exchange(&set->levels[0][word + i], 0) :
				      0;
}

static uint64_t bits_from(uint64_t word, uint64_t at)
{
	return word & (~(uint64_t)0 << (at % 64));
}

/* The first non-empty word of a level at or after *word: asks the level above which ones may be. A
 * bit above whose word turns out empty is cleared, and set again should something have been added
 * in between. */
static bool next_word(struct openset *set, unsigned level, uint64_t *word, uint64_t *ret_bits)
{
	while (*word < set->words[level]) {
		_Atomic uint64_t *here = &set->levels[level][*word];
		uint64_t above_word = *word / 64, above_bits, candidates;

		*ret_bits = atomic_load(here);
		if (*ret_bits)
			return true;
		/* The second is what the first implies, for compilers that inline the recursion. */
		if (level + 1 == set->height || level + 1 == OPENSET_LEVELS) {
			++*word;
			continue;
		}
		atomic_fetch_and(&set->levels[level + 1][above_word],
				 ~((uint64_t)1 << (*word % 64)));
		if (atomic_load(here)) {
			atomic_fetch_or(&set->levels[level + 1][above_word],
					(uint64_t)1 << (*word % 64));
			continue;
		}
		candidates = bits_from(atomic_load(&set->levels[level + 1][above_word]), *word);
		if (!candidates) {
			above_word++;
			if (!next_word(set, level + 1, &above_word, &above_bits))
				return false;
			candidates = above_bits;
		}
		*word = above_word * 64 + (uint64_t)__builtin_ctzll(candidates);
	}
	return false;
}

bool openset_after(struct openset *set, uint64_t page, uint64_t *ret_page)
{
	uint64_t word = page / 64, bits;

	for (; next_word(set, 0, &word, &bits); word++) {
		if (word == page / 64)
			bits = bits_from(bits, page);
		if (bits) {
			*ret_page = word * 64 + (uint64_t)__builtin_ctzll(bits);
			return true;
		}
	}
	return false;
}

bool openset_before(const struct openset *set, uint64_t page, uint64_t *ret_page)
{
	for (uint64_t word = (page + 63) / 64; word-- > 0;) {
		uint64_t bits = atomic_load(&set->levels[0][word]);

		if (word == page / 64)
			bits &= ~bits_from(~(uint64_t)0, page);
		if (bits) {
			*ret_page = word * 64 + 63 - (uint64_t)__builtin_clzll(bits);
			return true;
		}
	}
	return false;
}

bool openset_next(struct openset *set, uint64_t *word, uint64_t *ret_bits)
{
	return next_word(set, 0, word, ret_bits);
}

void openset_clear(struct openset *set)
{
	uint64_t bits;

	for (uint64_t word = 0; openset_next(set, &word, &bits); word++)
		atomic_store(&set->levels[0][word], 0);
}
