/* SPDX-License-Identifier: MIT */
/* The picture of a history: a chain, branches that meet, roots, deleted layers, in both
 * alphabets. */
#include "cli/store/store.h"
#include "tests/tap.h"

struct drawn {
	const char *id, *parent;
	uint32_t flags;
};

/* Newest first; identities of one letter. */
static char *draw(const struct drawn *layers, size_t count, bool unicode)
{
	static char text[4096];
	struct graph *graph = graph_new(unicode);
	char *at = text;

	for (size_t i = 0; i < count; i++) {
		struct cow_layer_info info = COW_LAYER_INFO_INIT;
		const char *joint, *line;

		snprintf(info.id, sizeof(info.id), "%s", layers[i].id);
		snprintf(info.parent, sizeof(info.parent), "%s", layers[i].parent);
		info.flags = layers[i].flags;
		line = graph_next(graph, &info, &joint);
		if (joint)
			at += sprintf(at, "%s\n", joint);
		at += sprintf(at, "%s %s\n", line, layers[i].id);
	}
	graph_free(graph);
	return text;
}

#define DRAW(unicode, ...)                    \
	draw((struct drawn[]){ __VA_ARGS__ }, \
	     sizeof((struct drawn[]){ __VA_ARGS__ }) / sizeof(struct drawn), unicode)

TEST(a_chain)
{
	is_str(DRAW(false, { "c", "b", 0 }, { "b", "a", 0 }, { "a", "", 0 }), "* c\n* b\n* a\n",
	       "one column");
	is_str(DRAW(true, { "c", "b", 0 }, { "b", "a", COW_LAYER_DELETED }, { "a", "", 0 }),
	       "● c\n○ b\n● a\n", "a deleted layer");
}

TEST(branches)
{
	is_str(DRAW(false, { "d", "b", 0 }, { "c", "a", 0 }, { "b", "a", 0 }, { "a", "", 0 }),
	       "* d\n| * c\n* | b\n+-'\n* a\n", "two lines that began from one layer");
	is_str(DRAW(true, { "d", "a", 0 }, { "c", "a", 0 }, { "b", "a", 0 }, { "a", "", 0 }),
	       "● d\n│ ● c\n│ │ ● b\n├─┴─╯\n● a\n", "three");
	is_str(DRAW(true, { "e", "a", 0 }, { "d", "b", 0 }, { "c", "a", 0 }, { "a", "", 0 },
		    { "b", "", 0 }),
	       "● e\n│ ● d\n│ │ ● c\n"
	       "├─┼─╯\n● │ a\n  ● b\n",
	       "one that passes by");
}

TEST(roots)
{
	is_str(DRAW(false, { "c", "", 0 }, { "b", "a", 0 }, { "a", "", 0 }), "* c\n* b\n* a\n",
	       "a column is free again after a root");
	is_str(DRAW(false, { "e", "c", 0 }, { "d", "", 0 }, { "c", "b", 0 }, { "b", "", 0 }),
	       "* e\n| * d\n* c\n* b\n", "a root beside a chain");
	is_str(DRAW(false, { "f", "a", 0 }, { "e", "b", 0 }, { "d", "a", 0 }, { "b", "", 0 },
		    { "c", "", 0 }, { "a", "", 0 }),
	       "* f\n| * e\n| | * d\n| * | b\n| * | c\n+---'\n* a\n", "a free column is crossed");
}

TEST(many_columns)
{
	struct drawn layers[41];
	char ids[41][8];
	unsigned lines = 0;

	for (unsigned i = 0; i < 41; i++) {
		snprintf(ids[i], sizeof(ids[i]), "%u", i);
		layers[i] = (struct drawn){ ids[i], i < 40 ? "40" : "", 0 };
	}
	for (char *at = draw(layers, 41, true); *at; at++)
		lines += *at == '\n';
	is_u64(lines, 42, "forty branches of one layer: a line each, and one that joins them");
}

TAP_MAIN(CASE(a_chain), CASE(branches), CASE(roots), CASE(many_columns))
