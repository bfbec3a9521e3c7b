/* SPDX-License-Identifier: MIT */
/*
 * The walk as a picture: a band for each step, the kernel's tables on its left, libcow's on its
 * right. In a panel the parent's entries stand left, the child's right, and between them the frames
 * that they point at: one box where both have the same.
 *
 * Plain SVG 1.1 without a script, a style sheet or a font of its own, so that anything draws it. No
 * text comes from outside, hence nothing is escaped.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/report.h"
#include "cli/walk/walk.h"

#define WIDTH       1240
#define MARGIN      20
#define TOP         84
#define ROW         24
#define BOX         18 /* high */
#define BAND_HEAD   62
#define BAND_FOOT   14
#define PANEL       (WIDTH / 2)
#define LABEL_WIDTH 78
#define ENTRY_WIDTH 118
#define FRAME_WIDTH 96
#define GAP         28 /* for the arrows */

#define INK    "#1f2328"
#define FAINT  "#8b949e"
#define OPEN   "#1a7f37"
#define CLOSED "#bc4c00"
#define MARK   "#cf222e"

/* The left edges, within a panel. */
enum {
	PARENT_AT = LABEL_WIDTH,
	FRAMES_AT = PARENT_AT + ENTRY_WIDTH + GAP,
	FRAMES_GAP = 12,
	CHILD_AT = FRAMES_AT + 2 * FRAME_WIDTH + FRAMES_GAP + GAP,
};

/* An entry of either kind, as it is drawn. */
struct node {
	bool exists, present, writable, zero;
	char name[WALK_NAME]; /* of its frame */
	uint64_t count;       /* who maps or reads it; WALK_UNKNOWN: not shown */
	const char *mark;     /* what a write in this step did; NULL: none */
};

static void text(FILE *out, int x, int y, const char *color, const char *anchor,
		 const char *content)
{
	fprintf(out, "<text x='%d' y='%d' fill='%s' text-anchor='%s'>%s</text>\n", x, y, color,
		anchor, content);
}

static const char *color_of(const struct node *node)
{
	if (!node->present)
		return FAINT;
	return node->writable ? OPEN : CLOSED;
}

static void draw_entry(FILE *out, int x, int y, const struct node *node)
{
	char content[64];

	if (!node->exists)
		return;
	snprintf(content, sizeof(content), "%s%s%s",
		 !node->present ? "none" :
		 node->writable ? "writable" :
				  "read-only",
		 node->mark ? ", " : "", node->mark ? node->mark : "");
	fprintf(out,
		"<rect x='%d' y='%d' width='%d' height='%d' rx='3' fill='%s' stroke='%s'%s/>\n", x,
		y, ENTRY_WIDTH, BOX, node->mark ? "#ffebe9" : "#ffffff", color_of(node),
		node->present ? "" : " stroke-dasharray='2 3'");
	text(out, x + ENTRY_WIDTH / 2, y + 13, node->mark ? MARK : color_of(node), "middle",
	     content);
}

static void draw_frame(FILE *out, int x, int y, const struct node *node)
{
	char content[64];

	if (node->count == WALK_UNKNOWN || node->zero)
		snprintf(content, sizeof(content), "%s", node->name);
	else
		snprintf(content, sizeof(content), "%s \303\227%" PRIu64, node->name, node->count);
	fprintf(out, "<rect x='%d' y='%d' width='%d' height='%d' fill='%s' stroke='%s'%s/>\n", x, y,
		FRAME_WIDTH, BOX, node->zero ? "#f6f8fa" : "#ddf4ff", FAINT,
		node->zero ? " stroke-dasharray='4 2'" : "");
	text(out, x + FRAME_WIDTH / 2, y + 13, INK, "middle", content);
}

static void draw_arrow(FILE *out, int from, int to, int y, const struct node *node)
{
	fprintf(out,
		"<path d='M%d %d H%d' stroke='%s' stroke-width='1.5'%s marker-end='url(#%s)'/>\n",
		from, y + BOX / 2, to, color_of(node),
		node->writable ? "" : " stroke-dasharray='5 3'",
		node->writable ? "open" : "closed");
}

/* Hidden frames have no numbers to tell them by, but then only these two can share one. */
static bool is_same_frame(const struct node *parent, const struct node *child)
{
	return parent->present && child->present && strcmp(parent->name, child->name) == 0 &&
	       strcmp(parent->name, "alone") != 0;
}

static void draw_pair(FILE *out, int x, int y, const struct node *parent, const struct node *child)
{
	int left = x + FRAMES_AT, right = left + FRAME_WIDTH + FRAMES_GAP;
	int both = left + (FRAME_WIDTH + FRAMES_GAP) / 2;
	bool same = is_same_frame(parent, child);

	draw_entry(out, x + PARENT_AT, y, parent);
	draw_entry(out, x + CHILD_AT, y, child);
	if (parent->present) {
		draw_arrow(out, x + PARENT_AT + ENTRY_WIDTH, same ? both : left, y, parent);
		draw_frame(out, same ? both : left, y, parent);
	}
	if (child->present) {
		draw_arrow(out, x + CHILD_AT, (same ? both : right) + FRAME_WIDTH, y, child);
		if (!same)
			draw_frame(out, right, y, child);
	}
}

/* --- what is drawn --- */

static const struct walk_write *find_write(const struct walk_step *step, unsigned who,
					   unsigned page)
{
	unsigned i;

	for (i = 0; i < step->write_count; i++)
		if ((unsigned)step->writes[i].who == who && (unsigned)step->writes[i].page == page)
			return &step->writes[i];
	return NULL;
}

static struct node kernel_node(const struct walk_step *step, unsigned who, unsigned page)
{
	const struct walk_entry *entry = &step->entries[who][page];
	const struct walk_write *write = find_write(step, who, page);
	struct node node = {
		.exists = entry->exists,
		.present = entry->present,
		.writable = entry->writable,
		.zero = entry->zero,
		.count = entry->maps,
		.mark = write ? walk_outcome_names[write->outcome] : NULL,
	};

	walk_frame_name(entry, node.name);
	return node;
}

static struct node sim_node(const struct walk_step *step, unsigned who, unsigned page)
{
	const struct walk_write *write = find_write(step, who, page);
	const struct sim_entry *entry = &step->sim[who][page];
	struct node node = {
		.exists = step->in_sim[who],
		.present = step->in_sim[who],
		.writable = entry->writable,
		.zero = entry->place == SIM_ZERO,
		.count = entry->readers,
		.mark = write ? walk_sim_outcome_names[write->sim.outcome] : NULL,
	};

	walk_sim_name(entry, node.name);
	return node;
}

static void draw_row(FILE *out, const struct walk_step *step, unsigned page, int y)
{
	struct node parent = kernel_node(step, WALK_BY_PARENT, page);
	struct node child = kernel_node(step, WALK_BY_CHILD, page);

	text(out, MARGIN, y + 13, INK, "start", walk_page_kinds[page].name);
	draw_pair(out, MARGIN, y, &parent, &child);
	if (!walk_page_kinds[page].anonymous)
		return;
	parent = sim_node(step, WALK_BY_PARENT, page);
	child = sim_node(step, WALK_BY_CHILD, page);
	text(out, PANEL + MARGIN, y + 13, INK, "start", walk_page_kinds[page].name);
	draw_pair(out, PANEL + MARGIN, y, &parent, &child);
}

static void draw_titles(FILE *out, int x, int y, const char *whose)
{
	text(out, x, y, FAINT, "start", whose);
	text(out, x + PARENT_AT + ENTRY_WIDTH / 2, y, FAINT, "middle", "parent");
	text(out, x + FRAMES_AT + FRAME_WIDTH + FRAMES_GAP / 2, y, FAINT, "middle", "frames");
	text(out, x + CHILD_AT + ENTRY_WIDTH / 2, y, FAINT, "middle", "child");
}

static int band_height(const struct walk *walk)
{
	return BAND_HEAD + (int)walk->pages * ROW + BAND_FOOT;
}

static void draw_step(FILE *out, const struct walk *walk, unsigned number, int y)
{
	const struct walk_step *step = &walk->steps[number];
	unsigned page;

	fprintf(out, "<path d='M%d %d H%d' stroke='#d0d7de'/>\n", MARGIN, y, WIDTH - MARGIN);
	fprintf(out,
		"<text x='%d' y='%d' fill='%s'><tspan font-size='15' font-weight='bold'>%u. %s"
		"</tspan>: %s</text>\n",
		MARGIN, y + 24, INK, number + 1, step->name, step->what);
	draw_titles(out, MARGIN, y + 48, "Linux");
	draw_titles(out, PANEL + MARGIN, y + 48, "libcow");
	for (page = 0; page < walk->pages; page++)
		draw_row(out, step, page, y + BAND_HEAD - 6 + (int)page * ROW);
}

static void draw_arrow_head(FILE *out, const char *name, const char *color)
{
	fprintf(out,
		"<marker id='%s' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='6' "
		"markerHeight='6' orient='auto'><path d='M0 0 L8 4 L0 8 z' fill='%s'/></marker>\n",
		name, color);
}

#define RIGHT                                                                                  \
	"Right libcow's core on its software MMU: window (the parent's memory), kept copies, " \
	"the child's own; \303\227 how many read it."

static void draw_head(FILE *out, const struct walk *walk, int height)
{
	fprintf(out,
		"<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' "
		"viewBox='0 0 %d %d' font-family='sans-serif' font-size='11'>\n<defs>\n",
		WIDTH, height, WIDTH, height);
	draw_arrow_head(out, "open", OPEN);
	draw_arrow_head(out, "closed", CLOSED);
	fprintf(out, "</defs>\n<rect width='%d' height='%d' fill='#ffffff'/>\n", WIDTH, height);
	fprintf(out,
		"<text x='%d' y='36' fill='%s' font-size='20' font-weight='bold'>A fork, step by "
		"step</text>\n",
		MARGIN, INK);
	text(out, MARGIN, 58, INK, "start",
	     walk->sees_frames ?
		     "Left the kernel: frames by number, \303\227 how often each is mapped. "
		     "" RIGHT :
		     "Left the kernel, frame numbers hidden (they need CAP_SYS_ADMIN). " RIGHT);
	text(out, MARGIN, 74, walk->contradictions ? MARK : FAINT, "start",
	     walk->contradictions ?
		     "Some writes did not fault as was inferred." :
		     "Read-only was inferred, and proven by the fault of the write that came.");
}

static void draw(FILE *out, const struct walk *walk)
{
	int band = band_height(walk);
	unsigned i;

	draw_head(out, walk, TOP + WALK_STEPS * band);
	for (i = 0; i < WALK_STEPS; i++)
		draw_step(out, walk, i, TOP + (int)i * band);
	fputs("</svg>\n", out);
}

bool walk_draw(const struct walk *walk, const char *path)
{
	struct report_text picture;

	report_text_begin(&picture);
	draw(picture.out, walk);
	return report_text_end(&picture, path);
}
