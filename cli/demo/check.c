/* SPDX-License-Identifier: MIT */
/*
 * A check is a child process, sqlite3, that reads questions from a file and answers into a pipe:
 *
 *	ok                      findings of PRAGMA integrity_check, a line each
 *	state
 *	1042|1042|...           struct model_state, in its order
 *	data
 *	...                     what the load leaves alone: as in the database that it began with
 */
#include "cli/demo/check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/demo/dataset.h"
#include "cli/output.h"
#include "cli/progress.h"

enum {
	ANSWER_MOST = 1 << 20, /* bytes; tables give a line each */
	AT_ONCE_MOST = 4,
	POLL_MS = 100,
};

struct check {
	struct cut *cut; /* NULL: the slot is free */
	char about[16];
	pid_t pid;
	int fd;
	char *answer; /* text, whole or not */
	size_t length;
};

/* What there is to say about an answer. */
struct verdict {
	char integrity[160]; /* "ok", or the first finding, or why there is no answer */
	bool has_state, same_data;
	struct model_state state;
};

/* The answer of the database that everything began with, from "data" on. */
static char *base_data;

/* What this process ignores, the program is not to inherit. */
static void set_default_signals(posix_spawnattr_t *attributes)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGPIPE);
	sigaddset(&signals, SIGXFSZ);
	posix_spawnattr_setsigdefault(attributes, &signals);
	posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGDEF);
}

static bool spawn(struct check *check, char *const arguments[], const char *input)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int ends[2], error;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, input, O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
	posix_spawnattr_init(&attributes);
	set_default_signals(&attributes);
	error = posix_spawnp(&check->pid, "sqlite3", &actions, &attributes, arguments, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	if (error) {
		close(ends[0]);
		errno = error;
		return false;
	}
	check->fd = ends[0];
	check->length = 0;
	check->answer = output_realloc(check->answer, ANSWER_MOST);
	check->answer[0] = '\0';
	return true;
}

/* Reads what there is; false at the end. */
static bool read_some(struct check *check)
{
	size_t room = ANSWER_MOST - 1 - check->length;
	char surplus[4096];
	ssize_t n = room ? read(check->fd, check->answer + check->length, room) :
			   read(check->fd, surplus, sizeof(surplus));

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	if (room) {
		check->length += (size_t)n;
		check->answer[check->length] = '\0';
	}
	return n > 0;
}

/* The exit status, or -1. */
static int finish(struct check *check)
{
	int status;

	close(check->fd);
	while (waitpid(check->pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void abandon(struct check *check)
{
	kill(check->pid, SIGKILL);
	finish(check);
}

/* Runs to its end in the foreground; -1: interrupted, or not started. */
static int run_alone(struct check *check, char *const arguments[], const char *input)
{
	struct pollfd poll_fd;

	if (!spawn(check, arguments, input))
		return -1;
	poll_fd = (struct pollfd){ .fd = check->fd, .events = POLLIN };
	for (;;) {
		if (demo_interrupted) {
			abandon(check);
			return -1;
		}
		if (poll(&poll_fd, 1, POLL_MS) > 0 && !read_some(check))
			return finish(check);
	}
}

bool check_find_program(char version[32])
{
	char program[] = "sqlite3", option[] = "--version";
	char *const arguments[] = { program, option, NULL };
	struct check check = { 0 };
	int status = run_alone(&check, arguments, "/dev/null");
	bool ok = status == 0 && check.length > 0;

	if (ok)
		snprintf(version, 32, "%.*s", (int)strcspn(check.answer, " \n"), check.answer);
	else if (!demo_interrupted)
		complain("the sqlite3 program, which checks every export, cannot be run; install "
			 "the package sqlite3, or put it in PATH");
	free(check.answer);
	return ok;
}

/* With no start-up file of the user's, which could change what it prints. */
static void make_arguments(char *arguments[], char *path)
{
	static char words[][16] = { "sqlite3",   "-batch", "-init", "/dev/null",
				    "-noheader", "-list",  "-bail", "-readonly" };
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		arguments[i] = words[i];
	arguments[i++] = path;
	arguments[i] = NULL;
}

/* Returns the line after the one that text begins with. */
static char *cut_line(char *text)
{
	char *end = text + strcspn(text, "\n");

	if (!*end)
		return end;
	*end = '\0';
	return end + 1;
}

static bool parse_state(const char *line, struct model_state *ret_state)
{
	int64_t values[MODEL_COLUMNS] = { 0 };
	char *end;
	size_t i;

	for (i = 0; i < MODEL_COLUMNS; i++) {
		values[i] = strtoll(line, &end, 10);
		if (end == line || *end != (i + 1 < MODEL_COLUMNS ? '|' : '\0'))
			return false;
		line = end + 1;
	}
	memcpy(ret_state, values, sizeof(*ret_state));
	return true;
}

/* Takes an answer apart; returns what stands behind "data", or NULL. */
static char *judge(struct check *check, int status, struct verdict *ret_verdict)
{
	char *line = check->answer, *next = cut_line(line), *data = NULL;

	*ret_verdict = (struct verdict){ 0 };
	snprintf(ret_verdict->integrity, sizeof(ret_verdict->integrity), "%s",
		 line[0] ? line : "no answer");
	while (*next && strcmp(line, "state") != 0) {
		line = next;
		next = cut_line(line);
	}
	if (strcmp(line, "state") == 0) {
		line = next;
		next = cut_line(line);
		ret_verdict->has_state = parse_state(line, &ret_verdict->state);
		line = next;
		next = cut_line(line);
		if (strcmp(line, "data") == 0)
			data = next;
	}
	if ((status != 0 || !ret_verdict->has_state || !data) &&
	    strcmp(ret_verdict->integrity, "ok") == 0)
		snprintf(ret_verdict->integrity, sizeof(ret_verdict->integrity),
			 "sqlite3 ended with status %d: %.100s", status, line);
	return data;
}

bool check_base(struct demo *demo)
{
	char *arguments[16], path[DEMO_PATH_LENGTH], questions[DEMO_PATH_LENGTH], *data;
	struct check check = { 0 };
	struct verdict verdict;
	bool ok = false;
	int status;

	if (!demo_path(demo, DATASET_FILE, path) || !demo_path(demo, DATASET_CHECK, questions))
		return false;
	make_arguments(arguments, path);
	status = run_alone(&check, arguments, questions);
	if (demo_interrupted)
		goto out;
	data = judge(&check, status, &verdict);
	ok = data && strcmp(verdict.integrity, "ok") == 0;
	if (ok) {
		base_data = output_realloc(NULL, strlen(data) + 1);
		memcpy(base_data, data, strlen(data) + 1);
	} else {
		complain("%s: the stock sqlite3 finds fault with it before libcow touches it: %s",
			 demo->options->database ? demo->options->database : "the database",
			 verdict.integrity);
	}
out:
	free(check.answer);
	return ok;
}

static bool begin(struct demo *demo, struct check *check, struct cut *cut, const char *about)
{
	char *arguments[16], questions[DEMO_PATH_LENGTH];
	struct stat status;

	if (!demo_path(demo, DATASET_CHECK, questions))
		return false;
	cut->bytes = stat(cut->path, &status) == 0 ? (uint64_t)status.st_size : 0;
	snprintf(check->about, sizeof(check->about), "%s", about);
	make_arguments(arguments, cut->path);
	if (!spawn(check, arguments, questions)) {
		complain_errno(-errno, "cannot run sqlite3");
		return false;
	}
	check->cut = cut;
	return true;
}

static void add_proofs(struct demo *demo, const struct check *check, const struct verdict *verdict)
{
	const struct model_state *state = &verdict->state;
	struct proof_list *proofs = &demo->shared->proofs;
	const struct cut *cut = check->cut;
	struct model_state expected;
	enum proof_kind kind;
	bool inside;

	model_begin(&demo->shared->data.shape, &expected);
	proof_add(proofs, PROOF_INTEGRITY, check->about, strcmp(verdict->integrity, "ok") == 0,
		  "%s", verdict->integrity);
	if (!verdict->has_state) {
		for (kind = PROOF_INVARIANT; kind <= PROOF_CONTENT; kind++)
			proof_add(proofs, kind, check->about, false,
				  "sqlite3 could not read the file");
		return;
	}
	proof_add(proofs, PROOF_INVARIANT, check->about,
		  state->accounts == expected.accounts && state->amounts == expected.amounts,
		  "%lld accounts sum up to %lld, expected %lld and %lld",
		  (long long)state->accounts, (long long)state->amounts,
		  (long long)expected.accounts, (long long)expected.amounts);
	inside = state->last == state->transactions && (uint64_t)state->transactions >= cut->low &&
		 (uint64_t)state->transactions <= cut->high;
	proof_add(proofs, PROOF_ROWS, check->about, inside && verdict->same_data,
		  "%lld transfers; %llu to %llu transactions were committed around the cut; the "
		  "other tables have %s",
		  (long long)state->transactions, (unsigned long long)cut->low,
		  (unsigned long long)cut->high,
		  verdict->same_data ? "the rows that they began with" : "CHANGED");
	if (inside)
		model_advance(&demo->shared->data.shape, &expected, (uint64_t)state->transactions);
	proof_add(proofs, PROOF_CONTENT, check->about,
		  inside && memcmp(&expected, state, sizeof(expected)) == 0,
		  "digests of accounts, transfers and touched rows: %lld %lld %lld, transactions 1 "
		  "to %lld give %lld %lld %lld",
		  (long long)state->amounts_digest, (long long)state->transfers_digest,
		  (long long)state->touched_digest, (long long)expected.transactions,
		  (long long)expected.amounts_digest, (long long)expected.transfers_digest,
		  (long long)expected.touched_digest);
}

static void end(struct demo *demo, struct check *check)
{
	struct verdict verdict;
	char *data = judge(check, finish(check), &verdict);

	verdict.same_data = data && strcmp(data, base_data) == 0;
	check->cut->transactions = (uint64_t)verdict.state.transactions;
	add_proofs(demo, check, &verdict);
	if (!demo->options->keep)
		unlink(check->cut->path);
	check->cut = NULL;
}

/* Every file that is to be checked, one after another; NULL at the end. */
static struct cut *next_cut(struct demo *demo, size_t *position)
{
	struct demo_shared *shared = demo->shared;
	struct round *last = &shared->rounds[SIDE_FORK][DEMO_ROUNDS - 1];
	size_t index = (*position)++, round;

	for (round = 0; round < DEMO_ROUNDS; round++) {
		if (index < shared->rounds[SIDE_LIBCOW][round].cuts)
			return &shared->rounds[SIDE_LIBCOW][round].cut[index];
		index -= shared->rounds[SIDE_LIBCOW][round].cuts;
	}
	switch (index) {
	case 0:
		return &shared->past;
	case 1:
		return &shared->restored;
	case 2:
		return &shared->stored;
	case 3:
		return last->cuts ? &last->cut[last->cuts - 1] : NULL;
	default:
		return NULL;
	}
}

static size_t count_cuts(struct demo *demo)
{
	size_t position = 0;

	while (next_cut(demo, &position))
		;
	return position - 1;
}

/* Waits for any of the checks to say something. */
static void attend(struct demo *demo, struct check checks[], size_t count, size_t *done)
{
	struct pollfd fds[AT_ONCE_MOST];
	size_t i;

	for (i = 0; i < count; i++)
		fds[i] = (struct pollfd){ .fd = checks[i].cut ? checks[i].fd : -1,
					  .events = POLLIN };
	if (poll(fds, count, POLL_MS) <= 0)
		return;
	for (i = 0; i < count; i++) {
		if (!checks[i].cut || !fds[i].revents || read_some(&checks[i]))
			continue;
		end(demo, &checks[i]);
		progress_update(++*done);
	}
}

static size_t at_once(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	return cpus < 1 ? 1 : cpus > AT_ONCE_MOST ? AT_ONCE_MOST : (size_t)cpus;
}

static bool overwrite_page(struct demo *demo, const char *path)
{
	unsigned char page[512];
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok;

	memset(page, 0xff, sizeof(page));
	ok = fd >= 0 && pwrite(fd, page, sizeof(page), (off_t)demo->shared->data.page_size) ==
				(ssize_t)sizeof(page);
	if (fd >= 0)
		close(fd);
	return ok;
}

/*
 * For the tests: damages the first export, so that it is seen that the checks find it. Variable
 * COW_DEMO_DAMAGE: "page" overwrites the second page, "amount" changes an account and "transfer"
 * loses a row, both through the stock sqlite3.
 */
static bool damage(struct demo *demo)
{
	static char program[] = "sqlite3",
		    amount[] = "UPDATE cow_demo_accounts SET amount = 0 "
			       "WHERE id = (SELECT max(id) FROM "
			       "cow_demo_accounts WHERE amount <> 0)",
		    transfer[] = "DELETE FROM cow_demo_transfers WHERE id = 1";
	const char *wanted = getenv("COW_DEMO_DAMAGE");
	struct cut *cut = &demo->shared->rounds[SIDE_LIBCOW][0].cut[0];
	char *arguments[] = { program, cut->path,
			      wanted && strcmp(wanted, "amount") == 0 ? amount : transfer, NULL };
	struct check check = { 0 };
	bool ok;

	if (!wanted)
		return true;
	if (strcmp(wanted, "page") == 0)
		return overwrite_page(demo, cut->path);
	ok = run_alone(&check, arguments, "/dev/null") == 0;
	free(check.answer);
	return ok;
}

bool check_exports(struct demo *demo)
{
	size_t slots = at_once(), position = 0, done = 0, total = count_cuts(demo), i;
	struct check checks[AT_ONCE_MOST] = { 0 };
	struct cut *cut;
	bool ok = damage(demo);

	progress_begin("exports checked", total);
	while (ok && done < total && !demo_interrupted) {
		for (i = 0; ok && i < slots; i++) {
			cut = checks[i].cut ? NULL : next_cut(demo, &position);
			if (cut)
				ok = begin(demo, &checks[i], cut, cut->name);
		}
		if (ok)
			attend(demo, checks, slots, &done);
	}
	progress_end();
	for (i = 0; i < slots; i++) {
		if (checks[i].cut)
			abandon(&checks[i]);
		free(checks[i].answer);
	}
	free(base_data);
	return ok && !demo_interrupted;
}
