/* SPDX-License-Identifier: MIT */
/*
 * Named snapshots and branches: making, dropping, listing them, and going back to one.
 *
 * A new name must be unused among the snapshots of its database and the branches of its family, so
 * that cow_drop('name') means one thing. What is read by an open past, or is the beginning of a
 * branch, cannot be dropped.
 */
#include <string.h>
#include <time.h>

#include "table.h"

enum { NAME_MAX_BYTES = 255 };

/* Formats the error and hands back its code; out of memory becomes the error itself. */
__attribute__((format(printf, 3, 4))) static int refuse(char **ret_error, int rc,
							const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	*ret_error = sqlite3_vmprintf(format, arguments);
	va_end(arguments);
	return *ret_error ? rc : SQLITE_NOMEM;
}

static int check_name(const char *name, char **ret_error)
{
	size_t length = name ? strlen(name) : 0;

	if (length == 0)
		return refuse(ret_error, SQLITE_ERROR, "a name must not be empty or NULL");
	if (length > NAME_MAX_BYTES)
		return refuse(ret_error, SQLITE_ERROR, "a name has at most %d bytes",
			      NAME_MAX_BYTES);
	return SQLITE_OK;
}

static int check_unused(const struct database *database, const char *name, char **ret_error)
{
	const struct database *branch;
	const char *taken = NULL;

	if (find_snapshot(database, name))
		taken = "snapshot";
	for (branch = database->family->branches; branch && !taken; branch = branch->next)
		if (strcmp(branch->name, name) == 0)
			taken = "branch";
	if (!taken)
		return SQLITE_OK;
	return refuse(ret_error, SQLITE_ERROR,
		      "a %s named '%s' exists: SELECT cow_drop('%s') first, or take another name",
		      taken, name, name);
}

static int no_snapshot(const char *name, char **ret_error)
{
	return refuse(ret_error, SQLITE_ERROR,
		      "no snapshot named '%s': SELECT name FROM cow_snapshots lists them", name);
}

static sqlite3_int64 now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (sqlite3_int64)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int database_add_snapshot(struct database *database, const char *name, char **ret_error)
{
	struct named_snapshot *named = NULL;
	int rc = check_name(name, ret_error);
	size_t room;

	if (rc != SQLITE_OK)
		return rc;
	room = strlen(name) + 1;
	named = sqlite3_malloc64(sizeof(*named) + room);
	if (!named)
		return SQLITE_NOMEM;
	memset(named, 0, sizeof(*named));
	memcpy(named->name, name, room);
	named->time_ms = now_ms();

	table_lock();
	rc = check_unused(database, name, ret_error);
	if (rc == SQLITE_OK)
		rc = database_cut(database, &named->snapshot, &named->size);
	if (rc == SQLITE_OK) {
		named->next = database->snapshots;
		database->snapshots = named;
		named = NULL;
	}
	table_unlock();
	named_snapshot_free(named);
	return rc;
}

int database_add_branch(struct database *database, const char *snapshot, const char *name,
			char **ret_error)
{
	struct family *family = database->family;
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	struct named_snapshot *origin;
	struct cow_region *region;
	struct database *branch;
	int rc = check_name(name, ret_error), result;

	if (rc != SQLITE_OK)
		return rc;
	options.trap = COW_TRAP_EXPLICIT;
	table_lock();
	origin = find_snapshot(database, snapshot);
	if (!origin) {
		rc = no_snapshot(snapshot, ret_error);
		goto out;
	}
	rc = check_unused(database, name, ret_error);
	if (rc != SQLITE_OK)
		goto out;
	result = cow_snapshot_branch(origin->snapshot, &options, &region);
	if (result) {
		rc = refuse(ret_error, sqlite_code(result, SQLITE_ERROR),
			    "'%s' cannot be branched: %s", snapshot, strerror(-result));
		goto out;
	}
	rc = database_new(region, family, name, origin->size, &branch);
	if (rc != SQLITE_OK)
		goto out;
	branch->parent = database;
	branch->origin = origin;
	origin->branches++;
	branch->next = family->branches;
	family->branches = branch;
out:
	table_unlock();
	return rc;
}

static int drop_snapshot(struct database *database, struct named_snapshot *named,
			 struct named_snapshot **ret_dropped, char **ret_error)
{
	struct named_snapshot **link = &database->snapshots;

	if (named->opens)
		return refuse(ret_error, SQLITE_BUSY,
			      "snapshot '%s' is open in %u place(s): DETACH or close them first",
			      named->name, named->opens);
	if (named->branches)
		return refuse(ret_error, SQLITE_BUSY,
			      "snapshot '%s' has %u branch(es): drop them first", named->name,
			      named->branches);
	while (*link != named)
		link = &(*link)->next;
	*link = named->next;
	*ret_dropped = named;
	return SQLITE_OK;
}

static int drop_branch(struct database *branch, struct database **ret_dropped, char **ret_error)
{
	struct database **link = &branch->family->branches;
	struct named_snapshot *named;

	if (branch->opens)
		return refuse(ret_error, SQLITE_BUSY,
			      "branch '%s' is open in %u place(s): DETACH or close them first",
			      branch->name, branch->opens);
	for (named = branch->snapshots; named; named = named->next)
		if (named->branches)
			return refuse(
				ret_error, SQLITE_BUSY,
				"branch '%s' has a snapshot '%s' with branches of its own: drop "
				"them first",
				branch->name, named->name);
	while (*link != branch)
		link = &(*link)->next;
	*link = branch->next;
	branch->origin->branches--;
	*ret_dropped = branch;
	return SQLITE_OK;
}

int database_drop(struct database *database, const char *name, char **ret_error)
{
	struct named_snapshot *named, *dropped = NULL;
	struct database *branch, *dropped_branch = NULL;
	int rc = check_name(name, ret_error);

	if (rc != SQLITE_OK)
		return rc;
	table_lock();
	named = find_snapshot(database, name);
	branch = find_branch(database->family, name);
	if (named)
		rc = drop_snapshot(database, named, &dropped, ret_error);
	else if (branch)
		rc = drop_branch(branch, &dropped_branch, ret_error);
	else
		rc = refuse(ret_error, SQLITE_ERROR,
			    "no snapshot or branch named '%s': SELECT name FROM cow_snapshots and "
			    "FROM cow_branches list them",
			    name);
	table_unlock();
	named_snapshot_free(dropped);
	database_free(dropped_branch);
	return rc;
}

int database_take(struct database *database, const char *name, struct cow_snapshot **ret_snapshot,
		  sqlite3_int64 *ret_size, char **ret_error)
{
	struct named_snapshot *named;
	int rc = SQLITE_OK;

	if (!name)
		return database_cut(database, ret_snapshot, ret_size);
	table_lock();
	named = find_snapshot(database, name);
	if (named) {
		*ret_snapshot = cow_snapshot_ref(named->snapshot);
		*ret_size = named->size;
	}
	table_unlock();
	if (!named)
		rc = no_snapshot(name, ret_error);
	return rc;
}

/* A transaction of its own that replaces everything. Readers go on in the generation they are in.
 */
static int replace_live(struct database *database, struct cow_snapshot *snapshot,
			sqlite3_int64 size)
{
	struct generation *next = generation_new();
	int rc = next ? database_begin_write(database) : SQLITE_NOMEM;

	if (rc == SQLITE_OK)
		rc = database_make_live(database);
	if (rc != SQLITE_OK)
		goto out;
	rc = sqlite_code(cow_region_rollback(database->region, snapshot), SQLITE_IOERR);
	if (rc != SQLITE_OK)
		goto out;
	database->size = size;
	database->rewound = true;
	rc = database_publish(database, next);
out:
	generation_unref(next);
	return rc;
}

int database_rollback(struct database *database, const char *name, char **ret_error)
{
	struct cow_snapshot *snapshot = NULL;
	sqlite3_int64 size = 0;
	int rc = check_name(name, ret_error);

	if (rc == SQLITE_OK)
		rc = database_take(database, name, &snapshot, &size, ret_error);
	if (rc != SQLITE_OK)
		return rc;
	/* The address of a local variable is nobody else's mark. */
	rc = database_reserve(database, &snapshot, NULL, false);
	if (rc == SQLITE_OK) {
		rc = replace_live(database, snapshot, size);
		database_release(database, &snapshot);
	} else {
		rc = refuse(ret_error, rc,
			    "the database is locked: another connection is writing, or reads in "
			    "locking_mode=EXCLUSIVE; try again when it is done");
	}
	cow_snapshot_unref(snapshot);
	return rc;
}

static void list_stats(struct listed_name *listed, struct cow_snapshot *snapshot)
{
	struct cow_snapshot_stats stats = COW_SNAPSHOT_STATS_INIT;

	if (cow_snapshot_get_stats(snapshot, &stats))
		return;
	listed->shared_bytes = (sqlite3_int64)stats.shared_bytes;
	listed->private_bytes = (sqlite3_int64)stats.private_bytes;
}

static char *append_text(char **end, const char *text)
{
	char *start = *end;
	size_t length = strlen(text) + 1;

	memcpy(start, text, length);
	*end += length;
	return start;
}

int database_list_snapshots(struct database *database, struct listed_name **ret_list,
			    size_t *ret_count)
{
	const struct named_snapshot *named;
	struct listed_name *list;
	size_t count = 0, bytes = 0;
	char *text;

	table_lock();
	for (named = database->snapshots; named; named = named->next, count++)
		bytes += sizeof(*list) + strlen(named->name) + 1;
	list = sqlite3_malloc64(bytes + 1);
	if (!list)
		goto out;
	memset(list, 0, bytes + 1);
	text = (char *)(list + count);
	*ret_count = count;
	/* The newest stands first in the list of the database, last in the one that is shown. */
	for (named = database->snapshots; named; named = named->next) {
		struct listed_name *listed = &list[--count];

		listed->name = append_text(&text, named->name);
		listed->time_ms = named->time_ms;
		listed->size = named->size;
		listed->opens = named->opens;
		listed->branches = named->branches;
		list_stats(listed, named->snapshot);
	}
	*ret_list = list;
out:
	table_unlock();
	return list ? SQLITE_OK : SQLITE_NOMEM;
}

int database_list_branches(struct database *database, struct listed_name **ret_list,
			   size_t *ret_count)
{
	const struct database *branch;
	struct listed_name *list;
	size_t count = 0, bytes = 0;
	char *text;

	table_lock();
	for (branch = database->family->branches; branch; branch = branch->next, count++)
		bytes += sizeof(*list) + strlen(branch->name) + strlen(branch->origin->name) + 2;
	list = sqlite3_malloc64(bytes + 1);
	if (!list)
		goto out;
	memset(list, 0, bytes + 1);
	text = (char *)(list + count);
	*ret_count = count;
	for (branch = database->family->branches; branch; branch = branch->next) {
		struct cow_region_stats stats = COW_REGION_STATS_INIT;
		struct listed_name *listed = &list[--count];

		listed->name = append_text(&text, branch->name);
		listed->origin = append_text(&text, branch->origin->name);
		listed->opens = branch->opens;
		if (cow_region_get_stats(branch->region, &stats) == 0)
			listed->private_bytes = (sqlite3_int64)stats.present_pages *
						stats.page_size;
	}
	*ret_list = list;
out:
	table_unlock();
	return list ? SQLITE_OK : SQLITE_NOMEM;
}
