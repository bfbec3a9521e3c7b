/* SPDX-License-Identifier: MIT */
#include "cli/bench/document.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cow.h>
#include <json-c/json.h>

#include "cli/machine.h"
#include "cli/output.h"

#define SCHEMA        "cow-bench/1"
#define SCHEMA_MERGED "cow-bench-merged/1"

/* --- the machine --- */

static void add_setting(json_object *to, const char *key, const char *path)
{
	uint64_t number = KEYED_ABSENT;

	bench_read_number(path, NULL, &number);
	report_add_known(to, key, number);
}

static void add_machine(json_object *document)
{
	json_object *to = report_add_object(document, "machine");
	struct machine machine;

	machine_look(&machine);
	report_add_string(to, "kernel", machine.kernel.release);
	report_add_string(to, "architecture", machine.kernel.machine);
	report_add_word(to, "cpu", machine.cpu);
	report_add_signed(to, "cpus", machine.cpus);
	report_add_known(to, "memory_bytes", machine.memory_bytes);
	report_add_unsigned(to, "page_bytes", machine.page_bytes);
	report_add_known(to, "huge_page_bytes", machine.huge_page_bytes);
	report_add_word(to, "huge_pages", machine.huge_pages);
	add_setting(to, "overcommit_memory", "/proc/sys/vm/overcommit_memory");
	add_setting(to, "ksm_run", "/sys/kernel/mm/ksm/run");
	report_add_bool(to, "root", geteuid() == 0);
}

static void add_time(json_object *document)
{
	char text[64] = "";
	time_t now = time(NULL);
	struct tm utc;

	if (gmtime_r(&now, &utc))
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
	report_add_string(document, "time", text);
}

json_object *document_new(const struct bench_options *options)
{
	static const char *const scales[] = {
		[BENCH_TINY] = "tiny",
		[BENCH_QUICK] = "quick",
		[BENCH_NORMAL] = "normal",
		[BENCH_FULL] = "full",
	};
	json_object *document = report_new("bench");

	report_add_string(document, "cow_version", cow_version());
	add_time(document);
	add_machine(document);
	report_add_string(document, "scale", scales[options->scale]);
	report_add_unsigned(document, "runs", options->runs);
	report_add_unsigned(document, "warm_ups", options->warm_ups);
	report_add_unsigned(document, "seed", options->seed);
	report_add_unsigned(document, "memory_bytes", options->memory);
	report_add_array(document, "experiments");
	return document;
}

void document_add(json_object *document, json_object *experiment)
{
	json_object_array_add(document_get(document, "experiments"), experiment);
}

/* What timing nothing takes. */
static double measure_overhead(void)
{
	enum { TIMES = 20000 };
	uint64_t start = bench_now();
	int i;

	for (i = 0; i < TIMES; i++)
		bench_lap(bench_now());
	return (double)(bench_now() - start) / TIMES;
}

void document_finish(json_object *document, uint64_t shortest_ns)
{
	json_object *harness = report_add_object(document, "harness");
	double overhead = measure_overhead();
	bool timed = shortest_ns != UINT64_MAX;

	report_add_double(harness, "overhead_ns", overhead, 1);
	report_add_double(harness, "shortest_interval_ns", timed ? (double)shortest_ns : NAN, 0);
	report_add_double(harness, "percent", timed ? 100 * overhead / (double)shortest_ns : NAN,
			  4);
}

/* --- look-ups --- */

json_object *document_get(json_object *object, const char *key)
{
	json_object *value = NULL;

	if (object && json_object_is_type(object, json_type_object))
		json_object_object_get_ex(object, key, &value);
	return value;
}

const char *document_string(json_object *object, const char *key)
{
	json_object *value = document_get(object, key);

	return value && json_object_is_type(value, json_type_string) ?
		       json_object_get_string(value) :
		       NULL;
}

const char *document_text(json_object *object, const char *key)
{
	const char *text = document_string(object, key);

	return text ? text : "";
}

double document_number(json_object *object, const char *key)
{
	json_object *value = document_get(object, key);

	if (!value || (!json_object_is_type(value, json_type_double) &&
		       !json_object_is_type(value, json_type_int)))
		return NAN;
	return json_object_get_double(value);
}

size_t document_count(json_object *object, const char *key)
{
	json_object *array = document_get(object, key);

	return array && json_object_is_type(array, json_type_array) ?
		       json_object_array_length(array) :
		       0;
}

json_object *document_element(json_object *object, const char *key, size_t i)
{
	return i < document_count(object, key) ?
		       json_object_array_get_idx(document_get(object, key), i) :
		       NULL;
}

const char *document_line(json_object *object, const char *key, size_t i)
{
	json_object *line = document_element(object, key, i);

	return line && json_object_is_type(line, json_type_string) ? json_object_get_string(line) :
								     "";
}

json_object *document_find(json_object *object, const char *array, const char *key,
			   const char *value)
{
	size_t i;

	for (i = 0; i < document_count(object, array); i++) {
		json_object *element = document_element(object, array, i);

		if (strcmp(document_text(element, key), value) == 0)
			return element;
	}
	return NULL;
}

const char *document_verdict(json_object *part)
{
	const char *verdict = document_string(part, "verdict");

	return verdict ? verdict : "not judged";
}

const char *document_outcome(json_object *experiment)
{
	if (document_string(experiment, "failed"))
		return "failed";
	if (document_string(experiment, "skipped"))
		return "skipped";
	return document_verdict(experiment);
}

const char *document_why(json_object *experiment)
{
	const char *failed = document_string(experiment, "failed");

	return failed ? failed : document_text(experiment, "skipped");
}

bool document_is_failure(json_object *experiment)
{
	size_t i;

	if (document_string(experiment, "failed"))
		return true;
	for (i = 0; i < document_count(experiment, "checks"); i++)
		if (!json_object_get_boolean(
			    document_get(document_element(experiment, "checks", i), "holds")))
			return true;
	return false;
}

/* --- several documents --- */

void documents_add(struct documents *documents, json_object *document)
{
	documents->at[documents->count++] = document;
}

void documents_free(struct documents *documents)
{
	while (documents->count)
		json_object_put(documents->at[--documents->count]);
}

static bool label_is_taken(const struct documents *documents, size_t end)
{
	size_t i;

	for (i = 0; i < end; i++)
		if (strcmp(documents->labels[i], documents->labels[end]) == 0)
			return true;
	return false;
}

void documents_label(struct documents *documents)
{
	size_t i;
	const char *kernel;

	for (i = 0; i < documents->count; i++) {
		kernel = document_text(document_get(documents->at[i], "machine"), "kernel");
		snprintf(documents->labels[i], sizeof(documents->labels[i]), "%.48s",
			 kernel[0] ? kernel : "?");
		if (label_is_taken(documents, i))
			snprintf(documents->labels[i], sizeof(documents->labels[i]), "%.48s #%zu",
				 kernel, i + 1);
	}
}

static bool add_read(struct documents *documents, json_object *document, const char *path)
{
	if (strcmp(document_text(document, "schema"), SCHEMA) != 0) {
		complain("%s is not a result of cow bench: its schema is '%s', not '" SCHEMA "'",
			 path, document_text(document, "schema"));
		return false;
	}
	if (documents->count == DOCUMENTS_MAX) {
		complain("%s: more than %d results; merge fewer at once", path, DOCUMENTS_MAX);
		return false;
	}
	documents_add(documents, json_object_get(document));
	return true;
}

static bool add_all(struct documents *documents, json_object *document, const char *path)
{
	size_t i;

	if (strcmp(document_text(document, "schema"), SCHEMA_MERGED) != 0)
		return add_read(documents, document, path);
	for (i = 0; i < document_count(document, "documents"); i++)
		if (!add_read(documents, document_element(document, "documents", i), path))
			return false;
	return true;
}

static bool read_document(struct documents *documents, const char *path)
{
	json_object *document = report_read(path, "cow bench --json");
	bool added = document && add_all(documents, document, path);

	json_object_put(document);
	return added;
}

bool documents_read(struct documents *documents, char *const paths[], size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (!read_document(documents, paths[i]))
			return false;
	return true;
}

bool documents_write_json(const struct documents *documents, const char *path)
{
	json_object *merged, *list;
	bool written;
	size_t i;

	if (documents->count == 1)
		return report_write(documents->at[0], path);
	merged = report_new("bench-merged");
	list = report_add_array(merged, "documents");
	for (i = 0; i < documents->count; i++)
		json_object_array_add(list, json_object_get(documents->at[i]));
	written = report_write(merged, path);
	json_object_put(merged);
	return written;
}

/* --- matching --- */

static bool was_before(json_object *const objects[], size_t document, size_t element,
		       const char *array, const char *key, const char *value)
{
	size_t i, j;

	for (i = 0; i <= document; i++)
		for (j = 0; j < document_count(objects[i], array); j++) {
			if (i == document && j == element)
				return false;
			if (strcmp(document_text(document_element(objects[i], array, j), key),
				   value) == 0)
				return true;
		}
	return false;
}

void across_each(const struct across *across, const char *array, const char *key,
		 void (*visit)(const struct across *element, void *context), void *context)
{
	size_t i, j, k;

	for (i = 0; i < across->count; i++)
		for (j = 0; j < document_count(across->at[i], array); j++) {
			json_object *element = document_element(across->at[i], array, j);
			struct across matched = { .first = element, .count = across->count };
			const char *value = document_text(element, key);

			if (was_before(across->at, i, j, array, key, value))
				continue;
			for (k = 0; k < across->count; k++)
				matched.at[k] = document_find(across->at[k], array, key, value);
			visit(&matched, context);
		}
}

struct each {
	const struct documents *documents;
	void (*visit)(const struct documents *documents, const struct across *experiment,
		      void *context);
	void *context;
};

static void visit_experiment(const struct across *experiment, void *context)
{
	const struct each *each = context;

	each->visit(each->documents, experiment, each->context);
}

void documents_each_experiment(const struct documents *documents,
			       void (*visit)(const struct documents *documents,
					     const struct across *experiment, void *context),
			       void *context)
{
	struct across across = { .count = documents->count };
	struct each each = { documents, visit, context };

	memcpy(across.at, documents->at, sizeof(across.at));
	across_each(&across, "experiments", "name", visit_experiment, &each);
}
