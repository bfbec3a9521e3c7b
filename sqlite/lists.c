/* SPDX-License-Identifier: MIT */
/*
 * The table-valued functions cow_snapshots and cow_branches: eponymous, read-only virtual tables
 * whose hidden last column is the argument, the schema.
 *
 *	SELECT name, time FROM cow_snapshots;
 *	SELECT name FROM cow_snapshots('past');
 *
 * A scan lists what there is when it begins; what other threads add or drop meanwhile does not
 * matter.
 */
#include <string.h>

#include "file.h"
#include "functions.h"

typedef int (*list_fn)(struct database *database, struct listed_name **ret_list, size_t *ret_count);
typedef void (*column_fn)(sqlite3_context *context, const struct listed_name *listed, int column);

struct list_kind {
	const char *name;
	const char *declaration;
	int schema_column;
	list_fn list;
	column_fn column;
};

struct list_table {
	sqlite3_vtab base;
	sqlite3 *connection;
	const struct list_kind *kind;
};

struct list_cursor {
	sqlite3_vtab_cursor base;
	struct listed_name *list;
	size_t count, next;
	char *schema;
};

/* As SQLite writes dates: UTC, with milliseconds. */
static void result_time(sqlite3_context *context, sqlite3_int64 time_ms)
{
	time_t seconds = (time_t)(time_ms / 1000);
	char date[32], out[40];
	struct tm parts;

	gmtime_r(&seconds, &parts);
	strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &parts);
	sqlite3_snprintf(sizeof(out), out, "%s.%03d", date, (int)(time_ms % 1000));
	sqlite3_result_text(context, out, -1, SQLITE_TRANSIENT);
}

static void snapshot_column(sqlite3_context *context, const struct listed_name *listed, int column)
{
	switch (column) {
	case 0:
		sqlite3_result_text(context, listed->name, -1, SQLITE_TRANSIENT);
		break;
	case 1:
		result_time(context, listed->time_ms);
		break;
	case 2:
		sqlite3_result_int64(context, listed->shared_bytes);
		break;
	case 3:
		sqlite3_result_int64(context, listed->private_bytes);
		break;
	case 4:
		sqlite3_result_int64(context, listed->size);
		break;
	case 5:
		sqlite3_result_int64(context, listed->opens);
		break;
	case 6:
		sqlite3_result_int64(context, listed->branches);
		break;
	}
}

static void branch_column(sqlite3_context *context, const struct listed_name *listed, int column)
{
	switch (column) {
	case 0:
		sqlite3_result_text(context, listed->name, -1, SQLITE_TRANSIENT);
		break;
	case 1:
		sqlite3_result_text(context, listed->origin, -1, SQLITE_TRANSIENT);
		break;
	case 2:
		sqlite3_result_int64(context, listed->private_bytes);
		break;
	case 3:
		sqlite3_result_int64(context, listed->opens);
		break;
	}
}

static const struct list_kind kinds[] = {
	{ "cow_snapshots",
	  "CREATE TABLE x(name TEXT, time TEXT, shared_bytes INT, private_bytes INT, "
	  "database_bytes INT, opens INT, branches INT, schema HIDDEN)",
	  7, database_list_snapshots, snapshot_column },
	{ "cow_branches",
	  "CREATE TABLE x(name TEXT, snapshot TEXT, private_bytes INT, opens INT, schema HIDDEN)",
	  4, database_list_branches, branch_column },
};

static int list_connect(sqlite3 *connection, void *context, int count, const char *const *arguments,
			sqlite3_vtab **ret_table, char **ret_error)
{
	const struct list_kind *kind = context;
	struct list_table *table;
	int rc = sqlite3_declare_vtab(connection, kind->declaration);

	if (rc != SQLITE_OK)
		return rc;
	table = sqlite3_malloc64(sizeof(*table));
	if (!table)
		return SQLITE_NOMEM;
	memset(table, 0, sizeof(*table));
	table->connection = connection;
	table->kind = kind;
	*ret_table = &table->base;
	return SQLITE_OK;
}

static int list_disconnect(sqlite3_vtab *table)
{
	sqlite3_free(table);
	return SQLITE_OK;
}

/* The one constraint that is used is the argument: equality on the hidden column. */
static int list_best_index(sqlite3_vtab *vtab, sqlite3_index_info *info)
{
	const struct list_table *table = (struct list_table *)(void *)vtab;
	int i;

	info->estimatedCost = 10;
	info->estimatedRows = 10;
	for (i = 0; i < info->nConstraint; i++) {
		const struct sqlite3_index_constraint *constraint = &info->aConstraint[i];

		if (constraint->iColumn != table->kind->schema_column ||
		    constraint->op != SQLITE_INDEX_CONSTRAINT_EQ)
			continue;
		if (!constraint->usable)
			return SQLITE_CONSTRAINT;
		info->aConstraintUsage[i].argvIndex = 1;
		info->aConstraintUsage[i].omit = 1;
		info->idxNum = 1;
		break;
	}
	return SQLITE_OK;
}

static int list_open(sqlite3_vtab *table, sqlite3_vtab_cursor **ret_cursor)
{
	struct list_cursor *cursor = sqlite3_malloc64(sizeof(*cursor));

	if (!cursor)
		return SQLITE_NOMEM;
	memset(cursor, 0, sizeof(*cursor));
	*ret_cursor = &cursor->base;
	return SQLITE_OK;
}

static int list_close(sqlite3_vtab_cursor *base)
{
	struct list_cursor *cursor = (struct list_cursor *)(void *)base;

	sqlite3_free(cursor->list);
	sqlite3_free(cursor->schema);
	sqlite3_free(cursor);
	return SQLITE_OK;
}

static int list_filter(sqlite3_vtab_cursor *base, int number, const char *string, int count,
		       sqlite3_value **values)
{
	struct list_cursor *cursor = (struct list_cursor *)(void *)base;
	struct list_table *table = (struct list_table *)(void *)base->pVtab;
	const char *schema = number == 1 ? (const char *)sqlite3_value_text(values[0]) : "main";
	char *error = NULL;
	struct file *file;

	sqlite3_free(cursor->list);
	sqlite3_free(cursor->schema);
	cursor->list = NULL;
	cursor->count = cursor->next = 0;
	cursor->schema = sqlite3_mprintf("%s", schema ? schema : "main");
	if (!cursor->schema)
		return SQLITE_NOMEM;
	file = file_of_schema(table->connection, cursor->schema, &error);
	if (!file) {
		sqlite3_free(table->base.zErrMsg);
		table->base.zErrMsg = sqlite3_mprintf("%s: %s", table->kind->name, error);
		sqlite3_free(error);
		return SQLITE_ERROR;
	}
	if (file->epoch != database_epoch())
		return SQLITE_IOERR;
	return table->kind->list(file->database, &cursor->list, &cursor->count);
}

static int list_next(sqlite3_vtab_cursor *base)
{
	((struct list_cursor *)(void *)base)->next++;
	return SQLITE_OK;
}

static int list_eof(sqlite3_vtab_cursor *base)
{
	const struct list_cursor *cursor = (struct list_cursor *)(void *)base;

	return cursor->next >= cursor->count;
}

static int list_column(sqlite3_vtab_cursor *base, sqlite3_context *context, int column)
{
	const struct list_cursor *cursor = (struct list_cursor *)(void *)base;
	const struct list_table *table = (struct list_table *)(void *)base->pVtab;

	if (column == table->kind->schema_column)
		sqlite3_result_text(context, cursor->schema, -1, SQLITE_TRANSIENT);
	else
		table->kind->column(context, &cursor->list[cursor->next], column);
	return SQLITE_OK;
}

static int list_rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *ret_rowid)
{
	*ret_rowid = (sqlite3_int64)((struct list_cursor *)(void *)base)->next + 1;
	return SQLITE_OK;
}

/* No xCreate: eponymous only, nothing is stored in a schema. */
static const sqlite3_module list_module = {
	.xConnect = list_connect,
	.xBestIndex = list_best_index,
	.xDisconnect = list_disconnect,
	.xOpen = list_open,
	.xClose = list_close,
	.xFilter = list_filter,
	.xNext = list_next,
	.xEof = list_eof,
	.xColumn = list_column,
	.xRowid = list_rowid,
};

int lists_register(sqlite3 *connection)
{
	size_t i;
	int rc = SQLITE_OK;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && rc == SQLITE_OK; i++)
		rc = sqlite3_create_module_v2(connection, kinds[i].name, &list_module,
					      (void *)(uintptr_t)&kinds[i], NULL);
	return rc;
}
