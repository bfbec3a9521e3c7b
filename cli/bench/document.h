/* SPDX-License-Identifier: MIT */
/*
 * A run of cow bench as a document ("cow-bench/1"): the machine, and what each experiment found.
 * Everything that is printed is printed from documents, so that a run, a file read back, and
 * several of them side by side are one thing.
 *
 * A document that comes from a file may say anything: the look-ups below give NULL, NaN or 0 for
 * what is not there or is of another type, and the writers live with that.
 */
#ifndef CLI_BENCH_DOCUMENT_H
#define CLI_BENCH_DOCUMENT_H

#include "cli/bench/run.h"
#include "cli/report.h"

#define DOCUMENTS_MAX 8 /* side by side */

struct documents {
	json_object *at[DOCUMENTS_MAX];
	char labels[DOCUMENTS_MAX][64]; /* what tells them apart: a kernel's release */
	size_t count;
};

/* A document with its machine, without experiments. */
json_object *document_new(const struct bench_options *options);
void document_add(json_object *document, json_object *experiment);
/* Says how much of the smallest interval the harness's own overhead is. */
void document_finish(json_object *document, uint64_t shortest_ns);

/* Reads files, also merged ones; false after a message. */
bool documents_read(struct documents *documents, char *const paths[], size_t count);
void documents_add(struct documents *documents, json_object *document);
void documents_label(struct documents *documents);
void documents_free(struct documents *documents);
/* One document as it is, several as "cow-bench-merged/1". */
bool documents_write_json(const struct documents *documents, const char *path);

/* --- look-ups --- */

json_object *document_get(json_object *object, const char *key);
const char *document_string(json_object *object, const char *key); /* or NULL */
const char *document_text(json_object *object, const char *key);   /* or "" */
double document_number(json_object *object, const char *key);      /* or NaN */
size_t document_count(json_object *object, const char *key);
json_object *document_element(json_object *object, const char *key, size_t i);
const char *document_line(json_object *object, const char *key, size_t i); /* of texts; or "" */

/* The element of an array with such a member, or NULL. */
json_object *document_find(json_object *object, const char *array, const char *key,
			   const char *value);

/*
 * An experiment, or a row of one, of each document; NULL where a document has none. The first that
 * is there speaks for all of them where it is about texts.
 */
struct across {
	json_object *at[DOCUMENTS_MAX];
	json_object *first;
	size_t count;
};

/* Calls visit for each element of any document's array, matched by the member key. */
void documents_each_experiment(const struct documents *documents,
			       void (*visit)(const struct documents *documents,
					     const struct across *experiment, void *context),
			       void *context);
void across_each(const struct across *across, const char *array, const char *key,
		 void (*visit)(const struct across *element, void *context), void *context);

/* "holds", "skipped", "failed", "not judged"; and why it was skipped or failed, or "". */
const char *document_outcome(json_object *experiment);
const char *document_why(json_object *experiment);
/* Of a part of the claim: "not judged" where there is none. */
const char *document_verdict(json_object *part);

/* Whether it failed, or a check of it does not hold. */
bool document_is_failure(json_object *experiment);

#endif
