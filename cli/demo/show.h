/* SPDX-License-Identifier: MIT */
/* What the demo found, for a person and as JSON. */
#ifndef CLI_DEMO_SHOW_H
#define CLI_DEMO_SHOW_H

#include <json-c/json_object.h>

#include "cli/demo/demo.h"
#include "cli/machine.h"

void show_machine(struct demo *demo, const struct machine *machine, const char *sqlite);
void show_start(struct demo *demo); /* before what takes a while */
void show_data(struct demo *demo);
void show_round(struct demo *demo, enum side side);
void show_results(struct demo *demo);
void show_proofs(struct demo *demo);

/* The caller frees it with json_object_put(). */
json_object *show_json(struct demo *demo, const struct machine *machine, const char *sqlite);

#endif
