/* SPDX-License-Identifier: MIT */
/*
 * store-work DIR REFERENCES SEED STEPS [MIX]
 *
 * Runs a workload (workload.h) on the store DIR and writes down what it has to hold, for tests in
 * other languages: REFERENCES/ID.raw, a layer's content as it should read, and on standard output a
 * line of JSON: the region's length, the offsets of the pages that are ever written, HEAD, tags,
 * and for each layer the version of each of these pages (0: all zero).
 *
 * MIX: "chain": saves alone; "no-compact"; otherwise a bit of everything.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/store/workload.h"

static void fail(const char *what, int r)
{
	fprintf(stderr, "store-work: %s: %s\n", what, strerror(-r));
	exit(1);
}

static void write_reference(const char *directory, const struct work_layer *layer)
{
	static unsigned char content[WORK_LENGTH];
	char path[4096];
	FILE *file;

	for (unsigned i = 0; i < WORK_PAGES; i++)
		work_fill(content + work_offset(i), i, layer->version[i]);
	snprintf(path, sizeof(path), "%s/%s.raw", directory, layer->id);
	file = fopen(path, "wbe");
	if (!file || fwrite(content, WORK_LENGTH, 1, file) != 1 || fclose(file) != 0)
		fail(path, -errno);
}

static void print_layer(const struct work_layer *layer)
{
	printf("\"%s\": [", layer->id);
	for (unsigned i = 0; i < WORK_PAGES; i++)
		printf("%s%u", i ? ", " : "", layer->version[i]);
	printf("]");
}

static void print_model(const struct work_state *state)
{
	const char *comma = "";

	printf("{\"length\": %zu, \"head\": \"%s\", \"offsets\": [", WORK_LENGTH, state->head);
	for (unsigned i = 0; i < WORK_PAGES; i++)
		printf("%s%zu", i ? ", " : "", work_offset(i));
	printf("], \"tags\": {");
	for (size_t i = 0; i < WORK_TAGS; i++)
		if (state->tags[i].id[0]) {
			printf("%s\"%s\": \"%s\"", comma, state->tags[i].name, state->tags[i].id);
			comma = ", ";
		}
	printf("}, \"layers\": {");
	for (size_t i = 0; i < state->count; i++) {
		printf("%s", i ? ", " : "");
		print_layer(&state->layers[i]);
	}
	printf("}}\n");
}

int main(int argc, char **argv)
{
	struct work_options options = { 0 };
	static struct work work;
	char why[256];
	unsigned steps;
	int r;

	if (argc < 5) {
		fprintf(stderr, "usage: store-work DIR REFERENCES SEED STEPS [MIX]\n");
		return 2;
	}
	options.seed = strtoull(argv[3], NULL, 10);
	steps = (unsigned)strtoul(argv[4], NULL, 10);
	if (argc > 5 && strcmp(argv[5], "chain") == 0)
		options.weight[WORK_SAVE] = 1;
	if (argc > 5 && strcmp(argv[5], "no-compact") == 0)
		memcpy(options.weight, (unsigned[WORK_KINDS]){ 8, 1, 1, 0, 0, 2, 1 },
		       sizeof(options.weight));
	r = work_open(&work, argv[1], &options);
	for (unsigned i = 0; i < steps && r == 0; i++)
		r = work_step(&work);
	if (r < 0)
		fail(work_kind_names[work.kind], r);
	if (!work_holds(&work, why))
		fail(why, -EUCLEAN);
	for (size_t i = 0; i < work.state.count; i++)
		write_reference(argv[2], &work.state.layers[i]);
	print_model(&work.state);
	work_close(&work);
	return 0;
}
