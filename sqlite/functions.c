/* SPDX-License-Identifier: MIT */
/*
 * The SQL functions:
 *
 *	cow_snapshot(name [, schema])            names the committed state; returns the name
 *	cow_rollback(name [, schema])            goes back to it; returns the name
 *	cow_drop(name [, schema])                drops a snapshot or a branch; returns the name
 *	cow_branch(snapshot, branch [, schema])  returns the URI that opens the branch
 *	cow_export(snapshot, path [, schema])    NULL: the present; returns the bytes written
 *	cow_save(snapshot, store [, tag [, schema]])  NULL: the present; gives the layer's id
 *	cow_version()
 *
 * Each takes effect at once, outside transactions, and so refuses to run within one of the caller's
 * that it could not be part of. All but cow_version() may be called from top-level SQL only, not
 * from triggers and views that a file may bring along (SQLITE_DIRECTONLY).
 */
#include <string.h>

#include "export.h"
#include "file.h"
#include "functions.h"
#include "store.h"

enum needs {
	NEEDS_LIVE = 1,      /* not a past */
	NEEDS_NO_WRITER = 2, /* the caller has no write transaction */
	NEEDS_IDLE = 4,      /* the caller has no transaction at all */
};

struct function {
	const char *name;
	int arguments; /* without the schema */
	int optional;  /* of these, that may be left out together with the schema */
	unsigned int needs;
	int (*run)(struct file *file, int count, sqlite3_value **values, sqlite3_context *context,
		   char **ret_error); /* count: of the arguments without the schema */
};

static const char *text(sqlite3_value *value)
{
	return (const char *)sqlite3_value_text(value);
}

static int refuse(char **ret_error, int rc, const char *why)
{
	*ret_error = sqlite3_mprintf("%s", why);
	return *ret_error ? rc : SQLITE_NOMEM;
}

struct file *file_of_schema(sqlite3 *connection, const char *schema, char **ret_error)
{
	sqlite3_file *handle = NULL;
	struct file *file;

	if (sqlite3_file_control(connection, schema, SQLITE_FCNTL_FILE_POINTER, (void *)&handle)) {
		*ret_error = sqlite3_mprintf(
			"no schema named '%s': PRAGMA database_list lists them", schema);
		return NULL;
	}
	file = file_of_handle(handle);
	if (!file)
		*ret_error = sqlite3_mprintf("'%s' is not a cow database: open it as "
					     "file:PATH?vfs=cow",
					     schema);
	return file;
}

static int check_state(sqlite3 *connection, const char *schema, const struct file *file,
		       unsigned int needs, char **ret_error)
{
	int state = sqlite3_txn_state(connection, schema);

	if (file->epoch != database_epoch())
		return refuse(ret_error, SQLITE_IOERR,
			      "the database belongs to the process that forked this one");
	if (needs & NEEDS_LIVE && file->past)
		return refuse(
			ret_error, SQLITE_READONLY,
			"the schema is a snapshot, which is read-only: name the live database");
	if (needs & NEEDS_IDLE && (state != SQLITE_TXN_NONE || !sqlite3_get_autocommit(connection)))
		return refuse(ret_error, SQLITE_ERROR,
			      "a transaction of this connection is open: COMMIT or ROLLBACK, and "
			      "finish its statements, first");
	if (needs & NEEDS_NO_WRITER && state == SQLITE_TXN_WRITE)
		return refuse(ret_error, SQLITE_ERROR,
			      "this connection has changes that are not committed: COMMIT or "
			      "ROLLBACK first");
	if (needs & NEEDS_IDLE && file->lock >= SQLITE_LOCK_RESERVED)
		return refuse(
			ret_error, SQLITE_ERROR,
			"this connection keeps its lock: PRAGMA locking_mode=NORMAL, then read "
			"once, first");
	return SQLITE_OK;
}

static int run_snapshot(struct file *file, int count, sqlite3_value **values,
			sqlite3_context *context, char **ret_error)
{
	int rc = database_add_snapshot(file->database, text(values[0]), ret_error);

	if (rc == SQLITE_OK)
		sqlite3_result_value(context, values[0]);
	return rc;
}

static int run_rollback(struct file *file, int count, sqlite3_value **values,
			sqlite3_context *context, char **ret_error)
{
	int rc = database_rollback(file->database, text(values[0]), ret_error);

	if (rc == SQLITE_OK)
		sqlite3_result_value(context, values[0]);
	return rc;
}

static int run_drop(struct file *file, int count, sqlite3_value **values, sqlite3_context *context,
		    char **ret_error)
{
	int rc = database_drop(file->database, text(values[0]), ret_error);

	if (rc == SQLITE_OK)
		sqlite3_result_value(context, values[0]);
	return rc;
}

/* Of anything that would end or change a part of a URI. */
static void append_escaped(sqlite3_str *uri, const char *part, const char *kept)
{
	static const char hex[] = "0123456789ABCDEF";

	for (; *part; part++) {
		unsigned char c = (unsigned char)*part;
		char escaped[3] = { '%', hex[c >> 4], hex[c & 15] };
		bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
			     (c >= 'a' && c <= 'z') || strchr(kept, c);

		sqlite3_str_append(uri, plain ? part : escaped, plain ? 1 : 3);
	}
}

static int result_uri(const struct database *database, const char *branch, sqlite3_context *context)
{
	sqlite3_str *uri = sqlite3_str_new(sqlite3_context_db_handle(context));
	bool store;
	const char *tag = database_tag(database, &store);
	char *result;

	sqlite3_str_appendall(uri, "file:");
	append_escaped(uri, database_path(database), "-._~/");
	sqlite3_str_appendall(uri, store ? "?vfs=cow&store=1" : "?vfs=cow");
	if (tag) {
		sqlite3_str_appendall(uri, "&tag=");
		append_escaped(uri, tag, "-._~");
	}
	sqlite3_str_appendall(uri, "&branch=");
	append_escaped(uri, branch, "-._~");
	result = sqlite3_str_finish(uri);
	if (!result)
		return SQLITE_NOMEM;
	sqlite3_result_text(context, result, -1, sqlite3_free);
	return SQLITE_OK;
}

static int run_branch(struct file *file, int count, sqlite3_value **values,
		      sqlite3_context *context, char **ret_error)
{
	const char *snapshot = text(values[0]), *name = text(values[1]);
	int rc;

	if (!snapshot)
		return refuse(ret_error, SQLITE_ERROR, "the snapshot to branch from is NULL");
	rc = database_add_branch(file->database, snapshot, name, ret_error);
	if (rc != SQLITE_OK)
		return rc;
	return result_uri(file->database, name, context);
}

static int export_taken(struct cow_snapshot *snapshot, sqlite3_int64 size, const char *path,
			sqlite3_context *context, char **ret_error)
{
	int rc = export_snapshot(snapshot, size, path, ret_error);

	if (rc == SQLITE_OK)
		sqlite3_result_int64(context, size);
	return rc;
}

/* A named snapshot, or with NULL the present; that of a past is what it shows. */
static int take(struct file *file, const char *name, struct cow_snapshot **ret_snapshot,
		sqlite3_int64 *ret_size, char **ret_error)
{
	if (!file->past || name)
		return database_take(file->database, name, ret_snapshot, ret_size, ret_error);
	*ret_snapshot = cow_snapshot_ref(file->past->snapshot);
	*ret_size = file->past->size;
	return SQLITE_OK;
}

static int run_export(struct file *file, int count, sqlite3_value **values,
		      sqlite3_context *context, char **ret_error)
{
	struct cow_snapshot *snapshot;
	sqlite3_int64 size;
	int rc;

	if (!text(values[1]) || !text(values[1])[0])
		return refuse(ret_error, SQLITE_ERROR, "the path to export to is empty or NULL");
	rc = take(file, text(values[0]), &snapshot, &size, ret_error);
	if (rc != SQLITE_OK)
		return rc;
	rc = export_taken(snapshot, size, text(values[1]), context, ret_error);
	cow_snapshot_unref(snapshot);
	return rc;
}

static int run_save(struct file *file, int count, sqlite3_value **values, sqlite3_context *context,
		    char **ret_error)
{
	const char *path = text(values[1]), *tag = count > 2 ? text(values[2]) : NULL;
	struct cow_snapshot *snapshot;
	sqlite3_int64 size;
	char *id = NULL;
	int rc;

	if (!path || !path[0])
		return refuse(ret_error, SQLITE_ERROR, "the store to save into is empty or NULL");
	rc = take(file, text(values[0]), &snapshot, &size, ret_error);
	if (rc != SQLITE_OK)
		return rc;
	rc = store_save_database(snapshot, size, path, tag, &id, ret_error);
	cow_snapshot_unref(snapshot);
	if (rc == SQLITE_OK)
		sqlite3_result_text(context, id, -1, sqlite3_free);
	return rc;
}

static const struct function functions[] = {
	{ "cow_snapshot", 1, 0, NEEDS_LIVE | NEEDS_NO_WRITER | NEEDS_IDLE, run_snapshot },
	{ "cow_rollback", 1, 0, NEEDS_LIVE | NEEDS_NO_WRITER | NEEDS_IDLE, run_rollback },
	{ "cow_drop", 1, 0, NEEDS_LIVE, run_drop },
	{ "cow_branch", 2, 0, NEEDS_LIVE, run_branch },
	{ "cow_export", 2, 0, NEEDS_NO_WRITER, run_export },
	{ "cow_save", 3, 1, NEEDS_NO_WRITER, run_save },
};

static void report(sqlite3_context *context, const char *name, int rc, char *error)
{
	char *message = sqlite3_mprintf("%s: %s", name, error ? error : sqlite3_errstr(rc));

	if (rc == SQLITE_NOMEM || rc == SQLITE_IOERR_NOMEM || !message) {
		sqlite3_result_error_nomem(context);
	} else {
		sqlite3_result_error(context, message, -1);
		sqlite3_result_error_code(context, rc);
	}
	sqlite3_free(message);
	sqlite3_free(error);
}

static void call(sqlite3_context *context, int count, sqlite3_value **values)
{
	const struct function *function = sqlite3_user_data(context);
	sqlite3 *connection = sqlite3_context_db_handle(context);
	const char *schema = "main";
	char *error = NULL;
	struct file *file;
	int rc = SQLITE_ERROR;

	if (count > function->arguments)
		schema = text(values[function->arguments]);
	if (!schema)
		schema = "main";
	file = file_of_schema(connection, schema, &error);
	if (file)
		rc = check_state(connection, schema, file, function->needs, &error);
	if (file && rc == SQLITE_OK)
		rc = function->run(file, count > function->arguments ? function->arguments : count,
				   values, context, &error);
	if (rc != SQLITE_OK)
		report(context, function->name, rc, error);
}

static void call_version(sqlite3_context *context, int count, sqlite3_value **values)
{
	sqlite3_result_text(context, cow_version(), -1, SQLITE_STATIC);
}

int functions_register(sqlite3 *connection)
{
	size_t i;
	int rc;

	for (i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		const struct function *function = &functions[i];
		int more;

		for (more = -function->optional; more <= 1; more++) {
			rc = sqlite3_create_function_v2(connection, function->name,
							function->arguments + more,
							SQLITE_UTF8 | SQLITE_DIRECTONLY,
							(void *)(uintptr_t)function, call, NULL,
							NULL, NULL);
			if (rc != SQLITE_OK)
				return rc;
		}
	}
	return sqlite3_create_function_v2(connection, "cow_version", 0,
					  SQLITE_UTF8 | SQLITE_INNOCUOUS | SQLITE_DETERMINISTIC,
					  NULL, call_version, NULL, NULL, NULL);
}
