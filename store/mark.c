/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "store/mark.h"

struct marks {
	struct attachment attachment; /* first */
	struct layer_id store;
	struct mark *marks; /* in order of their epochs */
	size_t count, room;
	struct known *known;
};

static void marks_free(struct attachment *attachment)
{
	struct marks *marks = (struct marks *)(void *)attachment;

	known_free(marks->known);
	sys_free(marks->marks);
	sys_free(marks);
}

static struct marks *find_marks(struct cow_region *region, const struct layer_id *store)
{
	struct attachment *at = atomic_load(&region->attachments);

	for (; at; at = at->next) {
		struct marks *marks = (struct marks *)(void *)at;

		if (at->free == marks_free && id_equal(&marks->store, store))
			return marks;
	}
	return NULL;
}

static struct marks *make_marks(struct cow_region *region, const struct layer_id *store)
{
	struct marks *marks = sys_alloc(sizeof(*marks));

	if (!marks)
		return NULL;
	marks->attachment.free = marks_free;
	marks->store = *store;
	marks->attachment.next = atomic_load(&region->attachments);
	while (!atomic_compare_exchange_weak(&region->attachments, &marks->attachment.next,
					     &marks->attachment))
		;
	return marks;
}

/* How many marks are at or before epoch. */
static size_t count_until(const struct marks *marks, uint64_t epoch)
{
	size_t count = marks->count;

	while (count > 0 && marks->marks[count - 1].epoch > epoch)
		count--;
	return count;
}

const struct mark *mark_find(struct cow_region *region, const struct layer_id *store,
			     uint64_t epoch)
{
	const struct marks *marks = find_marks(region, store);
	size_t count = marks ? count_until(marks, epoch) : 0;

	return count > 0 ? &marks->marks[count - 1] : NULL;
}

#define MARKS_MAX 8192u

static int make_room(struct marks *marks)
{
	size_t room = marks->room * 2 + 8;
	struct mark *more;

	if (marks->count >= MARKS_MAX) {
		marks->count -= MARKS_MAX / 2;
		memmove(marks->marks, marks->marks + MARKS_MAX / 2,
			marks->count * sizeof(marks->marks[0]));
	}
	if (marks->count < marks->room)
		return 0;
	more = sys_alloc_array(room, sizeof(more[0]));
	if (!more)
		return -ENOMEM;
	if (marks->count > 0)
		memcpy(more, marks->marks, marks->count * sizeof(more[0]));
	sys_free(marks->marks);
	marks->marks = more;
	marks->room = room;
	return 0;
}

int mark_add(struct cow_region *region, const struct layer_id *store, const struct mark *mark)
{
	struct marks *marks = find_marks(region, store) ?: make_marks(region, store);
	size_t at;
	int r = marks ? make_room(marks) : -ENOMEM;

	if (r < 0)
		return r;
	at = count_until(marks, mark->epoch);
	if (at > 0 && marks->marks[at - 1].epoch == mark->epoch) {
		marks->marks[at - 1] = *mark;
		return 0;
	}
	memmove(marks->marks + at + 1, marks->marks + at, (marks->count - at) * sizeof(*mark));
	marks->marks[at] = *mark;
	marks->count++;
	return 0;
}

struct known *mark_known(struct cow_region *region, const struct layer_id *store)
{
	struct marks *marks = find_marks(region, store) ?: make_marks(region, store);

	if (marks && !marks->known)
		(void)known_new(region->length, &marks->known);
	return marks ? marks->known : NULL;
}
