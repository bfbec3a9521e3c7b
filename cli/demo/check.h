/* SPDX-License-Identifier: MIT */
/*
 * The stock sqlite3 program as the judge of database files: it opens each one read-only and answers
 * the questions that dataset.c wrote down. Nothing of libcow takes part.
 */
#ifndef CLI_DEMO_CHECK_H
#define CLI_DEMO_CHECK_H

#include "cli/demo/demo.h"

/* False after a message: there is no sqlite3 in PATH. version: its first word, "3.40.1". */
bool check_find_program(char version[32]);

/* The database that the demo begins with: what it answers is what exports are compared with. False
 * after a message. */
bool check_base(struct demo *demo);

/* Every export of libcow, and the last one of fork(): adds proofs, removes the files that are not
 * kept. As many at once as there are processors. False after a message, or an interruption. */
bool check_exports(struct demo *demo);

#endif
