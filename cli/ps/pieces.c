/* SPDX-License-Identifier: MIT */
/* The list of pieces that reading fills; pages.h says what they are. */
#include <errno.h>
#include <stdlib.h>

#include "cli/ps/pages.h"

int pages_make_room(struct pages *pages)
{
	pages->pieces = malloc((pages->room + 1) * sizeof(*pages->pieces));
	return pages->pieces ? 0 : -ENOMEM;
}

int pages_append(struct pages *to, const struct piece *piece)
{
	size_t room = to->room ? 2 * to->room : 1024;
	struct piece *grown;

	if (to->count == to->room) {
		grown = realloc(to->pieces, room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		to->pieces = grown;
		to->room = room;
	}
	to->pieces[to->count++] = *piece;
	return 0;
}

void pages_withdraw(const struct page_world *world, const struct pages *pages)
{
	size_t i;

	for (i = 0; i < pages->count; i++)
		if (pages->pieces[i].leaf)
			frame_set_again(world->frames, pages->pieces[i].leaf - 1, -1);
}

void pages_free(struct pages *pages)
{
	free(pages->pieces);
	*pages = (struct pages){ 0 };
}
