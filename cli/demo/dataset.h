/* SPDX-License-Identifier: MIT */
/*
 * The database that the demo works on, as a file: this machine's files, or a copy of the user's
 * database, and in both the demo's own tables:
 *
 *	cow_demo_accounts(id, amount)                   the invariant: the sum of the amounts
 *	cow_demo_transfers(id, source, target, amount)  a row for each transaction
 *	cow_demo_touched(id, row, touched)              with --db: a counter for each row of the
 *	                                                largest table
 *
 * The user's own tables are left alone, even in the copy.
 */
#ifndef CLI_DEMO_DATASET_H
#define CLI_DEMO_DATASET_H

#include "cli/demo/demo.h"

#define DATASET_FILE  "database.db"
#define DATASET_CHECK "check.sql" /* what the stock sqlite3 is asked about a database file */

/* Steps, for worker_run(): make both files in the scratch directory, and describe them in
 * demo->shared->data. Progress counts rows. */
int dataset_from_files(struct demo *demo);
int dataset_from_database(struct demo *demo);

#endif
