/* SPDX-License-Identifier: MIT */
/*
 * Time travel in SQL, proved against the model. One snapshot, "before"; the writer goes on until
 * the rollback:
 *
 *	past      ATTACH '...&snapshot=before' AS past; one statement counts what differs
 *	branch    cow_branch(), opened writable, emptied of its amounts and transfers
 *	rollback  the writer stops; cow_rollback(); the file exported then is the snapshot's, byte
 *	          for byte but for the change counters
 *	resume    the load goes on from the transaction that the snapshot held
 *	store     it is saved as it goes on, each time what has changed; what was saved last is
 *	          opened from the store, and exported for the stock sqlite3 to check
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/demo/measure.h"
#include "cli/demo/sides.h"
#include "cli/demo/sql.h"
#include "cli/output.h"

#define BEFORE "before"

enum {
	TRANSACTIONS = 1000, /* that a step waits for the writer to commit */
	BETWEEN_SAVES = 100, /* likewise */
	SAVES = 8,
	CHUNK = 64 * 1024,
};

struct travel {
	struct demo *demo;
	struct load *load;
	sqlite3 *connection; /* the traveller's, not the writer's */
	const char *path;    /* of the database */
	uint64_t then;       /* how many transactions the snapshot holds */
};

static struct proof_list *proofs(struct travel *travel)
{
	return &travel->demo->shared->proofs;
}

static uint64_t committed(struct travel *travel)
{
	return atomic_load(&travel->load->committed);
}

static void let_writer_go_on(struct travel *travel)
{
	load_wait_until(travel->load, committed(travel) + TRANSACTIONS);
}

static int read_state(struct travel *travel, sqlite3 *connection, const char *schema,
		      struct model_state *ret_state)
{
	char *query = model_query(schema, travel->demo->shared->data.table);
	int64_t values[MODEL_COLUMNS];
	int result = query ? sql_row(travel->demo, connection, values, MODEL_COLUMNS, "%s", query) :
			     demo_fail(travel->demo, "out of memory");

	sqlite3_free(query);
	if (result == 0)
		memcpy(ret_state, values, sizeof(*ret_state));
	return result;
}

/* Whether a state is what the model says of that many transactions. */
static bool is_state_of(struct travel *travel, const struct model_state *state,
			uint64_t transactions)
{
	struct model_state expected;

	model_begin(travel->load->shape, &expected);
	model_advance(travel->load->shape, &expected, transactions);
	return memcmp(&expected, state, sizeof(expected)) == 0;
}

static int take(struct travel *travel)
{
	struct demo *demo = travel->demo;
	struct cut *cut = &demo->shared->past;
	uint64_t begin;

	snprintf(cut->name, sizeof(cut->name), BEFORE);
	if (!demo_path(demo, BEFORE ".db", cut->path))
		return -1;
	cut->low = committed(travel);
	begin = now_ns();
	if (sql_exec(demo, travel->connection, "SELECT cow_snapshot('" BEFORE "')") < 0)
		return -1;
	cut->stall_ns = now_ns() - begin;
	cut->high = committed(travel) + 1;
	return sql_exec(demo, travel->connection, "SELECT cow_export('" BEFORE "', %Q)", cut->path);
}

static int attach_past(struct travel *travel)
{
	char *uri = sql_uri(travel->path, "vfs=cow&snapshot=" BEFORE);
	struct model_state state = { 0 };
	int result;

	if (!uri)
		return demo_fail(travel->demo, "out of memory");
	result = sql_exec(travel->demo, travel->connection, "ATTACH %Q AS past", uri);
	sqlite3_free(uri);
	if (result == 0)
		result = read_state(travel, travel->connection, "past", &state);
	travel->then = (uint64_t)state.transactions;
	return result;
}

/* One statement, so one state of the present, whatever the writer does meanwhile. */
static int count_differences(struct travel *travel, int64_t values[4])
{
	const char *table = travel->demo->shared->data.table;

	return sql_row(travel->demo, travel->connection, values, 4,
		       "SELECT (SELECT count(*) FROM main.cow_demo_transfers),"
		       " (SELECT count(*) FROM past.cow_demo_transfers),"
		       " (SELECT count(*) FROM main.%w n JOIN past.%w p ON p.id = n.id"
		       "  WHERE p.touched <> n.touched),"
		       " (SELECT count(*) FROM main.cow_demo_accounts n"
		       "  JOIN past.cow_demo_accounts p ON p.id = n.id WHERE p.amount <> n.amount)",
		       table, table);
}

static int prove_past(struct travel *travel)
{
	struct model_difference expected;
	uint64_t began, ended;
	int64_t values[4];
	bool ok;

	let_writer_go_on(travel);
	began = committed(travel);
	if (count_differences(travel, values) < 0)
		return -1;
	ended = committed(travel);
	if (model_compare(travel->load->shape, (uint64_t)values[1], (uint64_t)values[0],
			  &expected) < 0)
		return demo_fail(travel->demo, "out of memory");
	ok = (uint64_t)values[1] == travel->then && (uint64_t)values[0] >= began &&
	     (uint64_t)values[2] == expected.rows && (uint64_t)values[3] == expected.accounts;
	proof_add(proofs(travel), PROOF_PAST, BEFORE, ok,
		  "then %lld transactions, now %lld; %lld rows and %lld accounts differ (from the "
		  "transactions in between follow %llu and %llu); the writer committed %llu more "
		  "while the query ran",
		  (long long)values[1], (long long)values[0], (long long)values[2],
		  (long long)values[3], (unsigned long long)expected.rows,
		  (unsigned long long)expected.accounts, (unsigned long long)(ended - began));
	return 0;
}

/* Both lines change; each then has its own changes and none of the other's. */
static int prove_branch(struct travel *travel)
{
	struct demo *demo = travel->demo;
	struct model_state first = { 0 }, branch = { 0 }, now = { 0 };
	sqlite3 *connection = NULL;
	bool ok;
	int result = -1;

	if (sql_exec(demo, travel->connection, "SELECT cow_branch('" BEFORE "', 'what-if')") < 0 ||
	    sql_open_cow(demo, travel->path, "vfs=cow&branch=what-if", &connection) < 0 ||
	    read_state(travel, connection, "main", &first) < 0 ||
	    sql_exec(demo, connection,
		     "BEGIN; UPDATE cow_demo_accounts SET amount = 0;"
		     "DELETE FROM cow_demo_transfers; COMMIT") < 0)
		goto out;
	let_writer_go_on(travel);
	if (read_state(travel, connection, "main", &branch) < 0 ||
	    read_state(travel, travel->connection, "main", &now) < 0)
		goto out;
	ok = is_state_of(travel, &first, travel->then) && branch.amounts == 0 &&
	     branch.transactions == 0 && branch.touched_digest == first.touched_digest &&
	     is_state_of(travel, &now, (uint64_t)now.transactions);
	proof_add(proofs(travel), PROOF_BRANCH, "what-if", ok,
		  "began as the snapshot (%lld transactions), then lost its amounts and transfers: "
		  "the branch sums up to %lld, the main line still to %lld, with %lld transactions "
		  "of which the branch shows %lld",
		  (long long)first.transactions, (long long)branch.amounts, (long long)now.amounts,
		  (long long)now.transactions, (long long)branch.transactions);
	result = 0;
out:
	sqlite3_close(connection);
	if (result == 0)
		result = sql_exec(demo, travel->connection, "SELECT cow_drop('what-if')");
	return result;
}

/* The file change counter and the version-valid-for number: bytes 24 to 27 and 92 to 95. A rollback
 * has to lift them, so that no connection takes old cached pages for new ones. */
static void blank_counters(unsigned char *header, size_t length)
{
	if (length < 96)
		return;
	memset(header + 24, 0, 4);
	memset(header + 92, 0, 4);
}

static ssize_t read_chunk(int fd, unsigned char *chunk)
{
	size_t done = 0;
	ssize_t n;

	while (done < CHUNK) {
		n = read(fd, chunk + done, CHUNK - done);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			break;
		if (n > 0)
			done += (size_t)n;
	}
	return (ssize_t)done;
}

/* Bytes that two database files have in common; -1: they differ, or cannot be read. */
static int64_t compare_files(const char *left_path, const char *right_path)
{
	static unsigned char left[CHUNK], right[CHUNK];
	int left_fd = open(left_path, O_RDONLY | O_CLOEXEC);
	int right_fd = open(right_path, O_RDONLY | O_CLOEXEC);
	int64_t total = left_fd < 0 || right_fd < 0 ? -1 : 0;
	ssize_t n;

	while (total >= 0) {
		n = read_chunk(left_fd, left);
		if (n < 0 || read_chunk(right_fd, right) != n) {
			total = -1;
			break;
		}
		if (n == 0)
			break;
		if (total == 0) {
			blank_counters(left, (size_t)n);
			blank_counters(right, (size_t)n);
		}
		total = memcmp(left, right, (size_t)n) == 0 ? total + n : -1;
	}
	if (left_fd >= 0)
		close(left_fd);
	if (right_fd >= 0)
		close(right_fd);
	return total;
}

static int prove_rollback(struct travel *travel)
{
	struct demo *demo = travel->demo;
	struct cut *past = &demo->shared->past, *restored = &demo->shared->restored;
	struct model_state state = { 0 };
	uint64_t left = committed(travel);
	int64_t equal;

	snprintf(restored->name, sizeof(restored->name), "restored");
	restored->low = restored->high = travel->then;
	if (!demo_path(demo, "restored.db", restored->path) ||
	    sql_exec(demo, travel->connection, "SELECT cow_rollback('" BEFORE "')") < 0 ||
	    read_state(travel, travel->connection, "main", &state) < 0 ||
	    sql_exec(demo, travel->connection, "SELECT cow_export(NULL, %Q)", restored->path) < 0)
		return -1;
	equal = compare_files(past->path, restored->path);
	proof_add(proofs(travel), PROOF_ROLLBACK, BEFORE,
		  equal > 0 && is_state_of(travel, &state, travel->then),
		  "from %llu transactions back to %lld; the database exported then is %s",
		  (unsigned long long)left, (long long)state.transactions,
		  equal > 0 ? "the snapshot's, byte for byte but for its change counters" :
			      "not the snapshot's");
	return 0;
}

/* The writer's connection knows another history: it has to notice. */
static int prove_resume(struct travel *travel)
{
	uint64_t wanted = travel->then + TRANSACTIONS;
	struct model_state state = { 0 };

	atomic_store(&travel->load->committed, travel->then);
	if (load_run_until(travel->load, wanted) < 0 ||
	    read_state(travel, travel->connection, "main", &state) < 0)
		return -1;
	proof_add(proofs(travel), PROOF_RESUME, BEFORE, is_state_of(travel, &state, wanted),
		  "%d transactions more on top of the %llu: the content is that of %lld",
		  TRANSACTIONS, (unsigned long long)travel->then, (long long)state.transactions);
	return 0;
}

/* What the files of a directory take on disk. */
static uint64_t bytes_in(const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	struct stat status;
	uint64_t bytes = 0;

	while (directory && (entry = readdir(directory)))
		if (fstatat(dirfd(directory), entry->d_name, &status, 0) == 0 &&
		    S_ISREG(status.st_mode))
			bytes += (uint64_t)status.st_blocks * 512;
	if (directory)
		closedir(directory);
	return bytes;
}

struct saves {
	uint64_t first, last; /* bytes */
	uint64_t first_ns, last_ns;
};

/* A snapshot, saved under its name as a tag, and dropped: the store has it now. */
static int save(struct travel *travel, unsigned int number, const char *store, struct saves *saves)
{
	uint64_t before = bytes_in(store), begin, taken;
	struct demo *demo = travel->demo;
	char name[16];

	snprintf(name, sizeof(name), "saved-%u", number);
	if (sql_exec(demo, travel->connection, "SELECT cow_snapshot(%Q)", name) < 0)
		return -1;
	begin = now_ns();
	if (sql_exec(demo, travel->connection, "SELECT cow_save(%Q, %Q, %Q)", name, store, name) <
	    0)
		return -1;
	taken = now_ns() - begin;
	*(number ? &saves->last : &saves->first) = bytes_in(store) - before;
	*(number ? &saves->last_ns : &saves->first_ns) = taken;
	return sql_exec(demo, travel->connection, "SELECT cow_drop(%Q)", name);
}

static int save_all(struct travel *travel, const char *store, struct saves *saves)
{
	unsigned int number;

	for (number = 0; number < SAVES; number++)
		if ((number &&
		     load_run_until(travel->load, committed(travel) + BETWEEN_SAVES) < 0) ||
		    save(travel, number, store, saves) < 0)
			return -1;
	return 0;
}

/* What was saved last, as it is found there, and as a file for the stock sqlite3. */
static int open_stored(struct travel *travel, const char *store, struct model_state *ret_state,
		       uint64_t *ret_ns)
{
	struct cut *stored = &travel->demo->shared->stored;
	sqlite3 *connection = NULL;
	uint64_t begin = now_ns();
	int result;

	snprintf(stored->name, sizeof(stored->name), "stored");
	stored->low = stored->high = committed(travel);
	result = sql_open_cow(travel->demo, store, "vfs=cow&store=1", &connection);
	if (result == 0)
		result = sql_exec(travel->demo, connection, "SELECT 1 FROM sqlite_schema");
	*ret_ns = now_ns() - begin;
	if (result == 0)
		result = read_state(travel, connection, "main", ret_state);
	if (result == 0)
		result = sql_exec(travel->demo, connection, "SELECT cow_export(NULL, %Q)",
				  stored->path);
	sqlite3_close(connection);
	return result;
}

static int prove_store(struct travel *travel)
{
	char store[DEMO_PATH_LENGTH], first[UNIT_LENGTH], last[UNIT_LENGTH];
	char first_time[UNIT_LENGTH], last_time[UNIT_LENGTH], open_time[UNIT_LENGTH];
	struct model_state state = { 0 };
	struct saves saves = { 0 };
	uint64_t opened = 0;

	if (!demo_path(travel->demo, "store", store) ||
	    !demo_path(travel->demo, "stored.db", travel->demo->shared->stored.path) ||
	    save_all(travel, store, &saves) < 0 || open_stored(travel, store, &state, &opened) < 0)
		return -1;
	proof_add(proofs(travel), PROOF_STORE, "saved",
		  is_state_of(travel, &state, committed(travel)),
		  "%d saves, %d transactions between two: the first wrote %s in %s, the last %s in "
		  "%s; opened from the store in %s, it has %lld transactions",
		  SAVES, BETWEEN_SAVES, format_bytes(first, saves.first),
		  format_ns(first_time, saves.first_ns), format_bytes(last, saves.last),
		  format_ns(last_time, saves.last_ns), format_ns(open_time, opened),
		  (long long)state.transactions);
	return 0;
}

int travel(struct demo *demo, struct load *load, sqlite3 *connection, const char *path)
{
	struct travel travel = {
		.demo = demo, .load = load, .connection = connection, .path = path
	};
	int result = -1;

	if (load_start(load, NULL) < 0)
		return -1;
	if (take(&travel) == 0 && attach_past(&travel) == 0 && prove_past(&travel) == 0 &&
	    prove_branch(&travel) == 0)
		result = sql_exec(demo, connection, "DETACH past");
	if (load_stop(load) < 0)
		result = -1;
	if (result == 0)
		result = prove_rollback(&travel);
	if (result == 0)
		result = prove_resume(&travel);
	return result == 0 ? prove_store(&travel) : result;
}
