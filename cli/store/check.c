/* SPDX-License-Identifier: MIT */
/* verify and diff: 1 where there is damage, or a difference. */
#include <errno.h>
#include <string.h>

#include "cli/store/store.h"
#include "cli/table.h"

/* --- verify --- */

struct damage {
	struct store_run *run;
	json_object *array;
	size_t count;
};

static int found_damage(const char *id, uint64_t offset, uint64_t length, const char *what,
			void *context)
{
	struct damage *damage = context;
	json_object *object;

	damage->count++;
	if (damage->array) {
		object = report_add_object(damage->array, NULL);
		report_add_string(object, "id", id[0] ? id : NULL);
		report_add_unsigned(object, "offset", offset);
		report_add_unsigned(object, "length_bytes", length);
		report_add_string(object, "what", what);
		return 0;
	}
	if (id[0] && length)
		printf("%sdamaged%s %s.qcow2, bytes %" PRIu64 " to %" PRIu64 ": %s\n",
		       style(stdout, STYLE_BAD), style(stdout, STYLE_NONE), id, offset,
		       offset + length - 1, what);
	else
		printf("%sdamaged%s %s%s: %s\n", style(stdout, STYLE_BAD),
		       style(stdout, STYLE_NONE), id[0] ? id : damage->run->directory,
		       id[0] ? ".qcow2" : "", what);
	return 0;
}

static void print_verdict(const struct store_run *run, const struct cow_layer_info *layer,
			  size_t damages)
{
	char bytes[UNIT_LENGTH];
	uint64_t sum = 0;
	size_t i;

	if (damages) {
		printf("%zu piece%s of damage\n", damages, damages == 1 ? "" : "s");
		return;
	}
	for (i = 0; i < run->found.count; i++)
		sum += run->found.layers[i].file_bytes;
	if (layer)
		printf("%.*s and the %u below it are %sgood%s\n", STORE_SHORT_ID, layer->id,
		       layer->depth, style(stdout, STYLE_GOOD), style(stdout, STYLE_NONE));
	else
		printf("%zu layer%s, %s of files: all %sgood%s\n", run->found.count,
		       run->found.count == 1 ? "" : "s", format_bytes(bytes, sum),
		       style(stdout, STYLE_GOOD), style(stdout, STYLE_NONE));
}

int store_verify(struct store_run *run, int count, char **operands)
{
	const struct cow_layer_info *layer = NULL;
	struct damage damage = { .run = run };
	int r;

	if (!layers_read(run->store, &run->found) && count)
		return COMMAND_FAILED;
	if (count) {
		layer = layers_find(run, operands[0]);
		if (!layer)
			return COMMAND_FAILED;
	}
	if (run->json)
		damage.array = report_add_array(run->json, "damage");
	r = cow_store_verify(run->store, layer ? layer->id : NULL, found_damage, store_progress,
			     &damage);
	if (r < 0 && r != -EUCLEAN)
		return store_result(r, "cannot verify");
	store_result(0, "verify");
	if (r == -EUCLEAN && damage.count == 0)
		found_damage(layer ? layer->id : "", 0, 0, "unreadable", &damage);
	if (run->json)
		report_add_bool(run->json, "good", damage.count == 0);
	else
		print_verdict(run, layer, damage.count);
	return damage.count ? COMMAND_FAILED : COMMAND_OK;
}

/* --- diff --- */

struct difference {
	json_object *array;
	uint64_t bytes;
	size_t ranges;
};

static int found_range(size_t offset, size_t length, void *context)
{
	struct difference *difference = context;
	json_object *object;
	char bytes[UNIT_LENGTH];

	difference->bytes += length;
	difference->ranges++;
	if (difference->array) {
		object = report_add_object(difference->array, NULL);
		report_add_unsigned(object, "offset", offset);
		report_add_unsigned(object, "length_bytes", length);
	} else {
		if (difference->ranges == 1)
			printf("%14s  %s\n", "offset", "length");
		printf("%#14zx  %s\n", offset, format_bytes(bytes, length));
	}
	return 0;
}

int store_diff(struct store_run *run, int count, char **operands)
{
	const struct cow_layer_info *older = layers_find(run, operands[0]);
	const struct cow_layer_info *newer =
		older ? layers_find(run, count > 1 ? operands[1] : NULL) : NULL;
	struct difference difference = { 0 };
	char bytes[UNIT_LENGTH];
	int r;

	if (!older || !newer)
		return COMMAND_FAILED;
	if (run->json) {
		report_add_string(run->json, "older", older->id);
		report_add_string(run->json, "newer", newer->id);
		difference.array = report_add_array(run->json, "ranges");
	}
	r = cow_store_diff(run->store, older->id, newer->id, found_range, &difference);
	if (r < 0)
		return store_result(r, "cannot compare");
	if (run->json)
		report_add_unsigned(run->json, "different_bytes", difference.bytes);
	else if (!difference.ranges)
		printf("nothing differs between %.*s and %.*s\n", STORE_SHORT_ID, older->id,
		       STORE_SHORT_ID, newer->id);
	else
		printf("%s in %zu range%s differ between %.*s and %.*s\n",
		       format_bytes(bytes, difference.bytes), difference.ranges,
		       difference.ranges == 1 ? "" : "s", STORE_SHORT_ID, older->id, STORE_SHORT_ID,
		       newer->id);
	return difference.ranges ? COMMAND_FAILED : COMMAND_OK;
}
