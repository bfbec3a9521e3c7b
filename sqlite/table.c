/* SPDX-License-Identifier: MIT */
/*
 * The table of families: opening, waiting for the opener that loads, closing with the last file.
 */
#include <errno.h>
#include <string.h>

#include "load.h"
#include "store.h"
#include "table.h"

/* Addresses only; memory follows what is written. Halved where they are not to be had. */
#define RESERVE_DEFAULT ((sqlite3_int64)64 << 30)
#define RESERVE_LEAST   ((sqlite3_int64)64 << 20)

static pthread_mutex_t table_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t table_changed = PTHREAD_COND_INITIALIZER; /* a family is loaded, or gone */
static struct family *families;
static sqlite3_vfs *loader_vfs;
static atomic_uint epoch;

/* What another thread was about to do to the table will never end in the child: start anew. What it
 * held is lost, as is all memory of a parent that a child has no use for. */
static void start_anew_in_child(void)
{
	pthread_mutex_init(&table_mutex, NULL);
	pthread_cond_init(&table_changed, NULL);
	families = NULL;
	atomic_fetch_add(&epoch, 1);
}

int database_init(sqlite3_vfs *loader)
{
	loader_vfs = loader;
	return pthread_atfork(NULL, NULL, start_anew_in_child) ? SQLITE_NOMEM : SQLITE_OK;
}

sqlite3_vfs *database_loader(void)
{
	return loader_vfs;
}

unsigned int database_epoch(void)
{
	return atomic_load_explicit(&epoch, memory_order_relaxed);
}

void table_lock(void)
{
	pthread_mutex_lock(&table_mutex);
}

void table_unlock(void)
{
	pthread_mutex_unlock(&table_mutex);
}

const char *database_path(const struct database *database)
{
	return database->family->path;
}

const char *database_tag(const struct database *database, bool *ret_store)
{
	*ret_store = database->family->store;
	return database->family->tag;
}

static bool is_same_tag(const char *one, const char *other)
{
	return one && other ? strcmp(one, other) == 0 : one == other;
}

static struct family **find_family(const struct database_request *request)
{
	struct family **link;

	for (link = &families; *link; link = &(*link)->next)
		if (strcmp((*link)->path, request->path) == 0 && (*link)->store == request->store &&
		    is_same_tag((*link)->tag, request->tag))
			break;
	return link;
}

static void remove_family(const struct family *family)
{
	struct family **link = &families;

	while (*link != family)
		link = &(*link)->next;
	*link = family->next;
}

struct database *find_branch(const struct family *family, const char *name)
{
	struct database *branch;

	for (branch = family->branches; branch; branch = branch->next)
		if (strcmp(branch->name, name) == 0)
			break;
	return branch;
}

struct named_snapshot *find_snapshot(const struct database *database, const char *name)
{
	struct named_snapshot *named;

	for (named = database->snapshots; named; named = named->next)
		if (strcmp(named->name, name) == 0)
			break;
	return named;
}

static void family_free(struct family *family)
{
	if (!family)
		return;
	while (family->branches) {
		struct database *branch = family->branches;

		family->branches = branch->next;
		database_free(branch);
	}
	database_free(family->root);
	sqlite3_free(family);
}

int database_reserve_region(sqlite3_int64 length, struct cow_region **ret_region)
{
	struct cow_region_options options = COW_REGION_OPTIONS_INIT;
	bool wanted = length > 0;
	int result;

	options.trap = COW_TRAP_EXPLICIT;
	if (!wanted)
		length = RESERVE_DEFAULT;
	for (;;) {
		result = cow_region_new((size_t)length, &options, ret_region);
		if (result != -ENOMEM || wanted || length <= RESERVE_LEAST)
			break;
		length /= 2;
	}
	if (result)
		sqlite3_log(SQLITE_CANTOPEN,
			    "cow: no region of %lld bytes (errno %d); open with a smaller "
			    "&reserve=BYTES",
			    (long long)length, -result);
	return result == -ENOMEM ? SQLITE_NOMEM : sqlite_code(result, SQLITE_CANTOPEN);
}

static int family_new(const struct database_request *request, struct family **ret_family)
{
	size_t length = strlen(request->path) + 1;
	size_t tag_length = request->tag ? strlen(request->tag) + 1 : 0;
	struct cow_region *region;
	struct family *family;
	sqlite3_int64 size = 0;
	int rc;

	family = sqlite3_malloc64(sizeof(*family) + length + tag_length);
	if (!family)
		return SQLITE_NOMEM;
	memset(family, 0, sizeof(*family));
	memcpy(family->path, request->path, length);
	family->store = request->store;
	if (request->tag)
		family->tag = memcpy(family->path + length, request->tag, tag_length);
	if (request->store)
		rc = store_load_database(request->path, request->tag, request->reserve, &region,
					 &size);
	else
		rc = database_reserve_region(request->reserve, &region);
	if (rc == SQLITE_OK)
		rc = database_new(region, family, "", size, &family->root);
	if (rc == SQLITE_OK)
		*ret_family = family;
	else
		family_free(family);
	return rc;
}

static int load_if_there(struct family *family, bool create)
{
	int rc, exists = 0;

	if (family->store)
		return SQLITE_OK; /* it came with its region */
	rc = loader_vfs->xAccess(loader_vfs, family->path, SQLITE_ACCESS_EXISTS, &exists);
	if (rc != SQLITE_OK)
		return rc;
	if (exists)
		return load_file(family->root, family->path);
	if (create)
		return SQLITE_OK;
	sqlite3_log(SQLITE_CANTOPEN, "cow: %s does not exist, and may not be created",
		    family->path);
	return SQLITE_CANTOPEN;
}

/* Makes the family and loads it, with the table locked at both ends but not in between: SQLite is
 * called. Others that want it wait; on failure each of them tries itself. */
static int family_create(const struct database_request *request, struct family **ret_family)
{
	struct family *family;
	int rc = family_new(request, &family);

	if (rc != SQLITE_OK)
		return rc;
	family->state = FAMILY_LOADING;
	family->next = families;
	families = family;
	table_unlock();
	rc = load_if_there(family, request->create);
	table_lock();
	family->state = FAMILY_READY;
	if (rc == SQLITE_OK) {
		*ret_family = family;
	} else {
		remove_family(family);
		family_free(family);
	}
	pthread_cond_broadcast(&table_changed);
	return rc;
}

/* With the table locked. */
static int family_get(const struct database_request *request, struct family **ret_family)
{
	struct family *family;

	while ((family = *find_family(request)) && family->state == FAMILY_LOADING)
		pthread_cond_wait(&table_changed, &table_mutex);
	if (family) {
		*ret_family = family;
		return SQLITE_OK;
	}
	if (request->branch || request->snapshot) {
		sqlite3_log(
			SQLITE_CANTOPEN,
			"cow: %s is not open in this process, so it has no snapshots or branches: "
			"keep a connection to file:%s?vfs=cow open",
			request->path, request->path);
		return SQLITE_CANTOPEN;
	}
	return family_create(request, ret_family);
}

static int pick_member(const struct family *family, const struct database_request *request,
		       struct database **ret_database, struct named_snapshot **ret_past)
{
	struct database *database = family->root;
	struct named_snapshot *past = NULL;

	if (request->branch)
		database = find_branch(family, request->branch);
	if (!database) {
		sqlite3_log(
			SQLITE_CANTOPEN,
			"cow: no branch named '%s' in %s; SELECT name FROM cow_branches lists them",
			request->branch, family->path);
		return SQLITE_CANTOPEN;
	}
	if (request->snapshot)
		past = find_snapshot(database, request->snapshot);
	if (request->snapshot && !past) {
		sqlite3_log(SQLITE_CANTOPEN,
			    "cow: no snapshot named '%s' in %s%s%s; SELECT name FROM cow_snapshots "
			    "lists them",
			    request->snapshot, family->path, request->branch ? ", branch " : "",
			    request->branch ? request->branch : "");
		return SQLITE_CANTOPEN;
	}
	*ret_database = database;
	*ret_past = past;
	return SQLITE_OK;
}

int database_open(const struct database_request *request, struct database **ret_database,
		  struct named_snapshot **ret_past)
{
	struct database *loading = load_target();
	struct family *family = NULL;
	int rc;

	table_lock();
	if (loading) {
		*ret_database = loading;
		*ret_past = NULL;
		rc = SQLITE_OK;
	} else {
		rc = family_get(request, &family);
		if (rc == SQLITE_OK)
			rc = pick_member(family, request, ret_database, ret_past);
	}
	if (rc == SQLITE_OK) {
		(*ret_database)->family->opens++;
		(*ret_database)->opens++;
		if (*ret_past)
			(*ret_past)->opens++;
	}
	table_unlock();
	return rc;
}

void database_close(struct database *database, struct named_snapshot *past)
{
	struct family *family = database->family;

	table_lock();
	if (past)
		past->opens--;
	database->opens--;
	if (--family->opens > 0 || family->state == FAMILY_LOADING)
		family = NULL;
	else
		remove_family(family);
	table_unlock();
	family_free(family);
}
