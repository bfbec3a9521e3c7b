/* SPDX-License-Identifier: MIT */
/*
 * Three processes: the command (reads the result from a pipe), the supervisor, the experiment.
 *
 *	cow bench --- supervisor --- experiment --- whatever it starts
 *
 * The supervisor is the subreaper of everything below it. When the experiment has ended, or its
 * time is up, or a signal asks to stop, it kills all its descendants (servers that became daemons,
 * too), puts settings back and removes the directory. It does the same when the command is killed.
 * The result may be longer than a pipe, so the command reads while the experiment writes.
 *
 * What it cannot undo: settings changed, after a SIGKILL of the supervisor itself.
 */
#include "cli/bench/run.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli/bench/result.h"
#include "cli/fd.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "proc/process.h"
#include "proc/root.h"

#define TUNED_MAX 16

struct tuned {
	char path[160], old[96];
};

/* Seen by the supervisor, the experiment and its children. */
static struct shared {
	uint64_t shortest_ns; /* atomic */
	unsigned int tuned_count;
	struct tuned tuned[TUNED_MAX]; /* an entry is complete before it is counted */
} * shared;

struct running {
	const struct bench_experiment *experiment;
	const struct bench_options *options;
	char directory[4096];
	int pipe[2];
	sigset_t signals, before; /* those that ask to stop; the mask that was there */
};

/* How the supervisor ends. */
enum ending { ENDED, TIME_IS_UP, COULD_NOT_START, INTERRUPTED, DIED /* + signal */ };

void bench_shared_interval(uint64_t ns)
{
	uint64_t shortest;

	if (!shared)
		return;
	shortest = __atomic_load_n(&shared->shortest_ns, __ATOMIC_RELAXED);
	while (ns < shortest &&
	       !__atomic_compare_exchange_n(&shared->shortest_ns, &shortest, ns, true,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

/* --- settings --- */

int bench_setting_write(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), error = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		error = -errno;
	close(fd);
	return error;
}

int bench_setting_read(const char *path, char *value, size_t room)
{
	char line[256], *open_bracket, *at = line;
	FILE *file = fopen(path, "re");
	bool read;

	if (!file)
		return -errno;
	read = fgets(line, sizeof(line), file);
	fclose(file);
	if (!read)
		return -EIO;
	open_bracket = strchr(line, '[');
	if (open_bracket) {
		at = open_bracket + 1;
		at[strcspn(at, "]")] = '\0';
	}
	at[strcspn(at, "\n")] = '\0';
	return (size_t)snprintf(value, room, "%s", at) < room ? 0 : -E2BIG;
}

int bench_tune(struct bench *bench, const char *path, const char *value)
{
	struct tuned *tuned;
	int error;

	if (!bench->allow_tuning)
		return -EPERM;
	if (shared->tuned_count == TUNED_MAX)
		return -ENOSPC;
	tuned = &shared->tuned[shared->tuned_count];
	if ((size_t)snprintf(tuned->path, sizeof(tuned->path), "%s", path) >= sizeof(tuned->path))
		return -ENAMETOOLONG;
	error = bench_setting_read(path, tuned->old, sizeof(tuned->old));
	if (error)
		return error;
	__atomic_store_n(&shared->tuned_count, shared->tuned_count + 1, __ATOMIC_SEQ_CST);
	return bench_setting_write(path, value);
}

static void put_settings_back(void)
{
	const struct tuned *tuned;
	int error;

	while (shared->tuned_count) {
		tuned = &shared->tuned[--shared->tuned_count];
		error = bench_setting_write(tuned->path, tuned->old);
		if (error)
			complain_errno(error, "cannot put back %s; it was: %s", tuned->path,
				       tuned->old);
	}
}

/* --- the supervisor's cleaning --- */

struct process {
	pid_t pid, parent;
	bool below;
};

static size_t list_processes(const struct proc_root *root, struct process **ret_list)
{
	struct proc_buffer buffer = { 0 };
	struct proc_stat stat;
	struct text text;
	char path[64];
	pid_t *pids;
	size_t count, i, used = 0;

	if (proc_root_list(root, &pids, &count) < 0)
		return 0;
	*ret_list = output_realloc(NULL, count * sizeof(**ret_list));
	for (i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "proc/%d/stat", (int)pids[i]);
		if (proc_root_read(root, path, &buffer, &text) == 0 &&
		    proc_stat_parse(text, &stat) == 0)
			(*ret_list)[used++] = (struct process){ .pid = pids[i],
								.parent = (pid_t)stat.ppid };
	}
	proc_buffer_free(&buffer);
	free(pids);
	return used;
}

static bool is_below(const struct process *list, size_t count, pid_t parent)
{
	size_t i;

	if (parent == getpid())
		return true;
	for (i = 0; i < count; i++)
		if (list[i].pid == parent)
			return list[i].below;
	return false;
}

static void kill_below(const struct proc_root *root)
{
	struct process *list = NULL;
	size_t count = list_processes(root, &list), i;
	bool found;

	do {
		found = false;
		for (i = 0; i < count; i++)
			if (!list[i].below && is_below(list, count, list[i].parent))
				list[i].below = found = true;
	} while (found);
	for (i = 0; i < count; i++)
		if (list[i].below)
			kill(list[i].pid, SIGKILL);
	free(list);
}

/* Orphans become the supervisor's children: there may be new ones after each round. */
static void kill_all_below(void)
{
	const struct timespec moment = { .tv_nsec = 2000000 };
	struct proc_root root;
	pid_t pid;

	if (proc_root_open(NULL, &root) < 0)
		return;
	while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0) {
		if (pid > 0)
			continue;
		kill_below(&root);
		nanosleep(&moment, NULL);
	}
	proc_root_close(&root);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
	(void)status;
	(void)walk;
	return type == FTW_DP ? rmdir(path) : unlink(path);
}

static void remove_directory(const char *path)
{
	if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0 && errno != ENOENT)
		complain_errno(-errno, "cannot remove %s", path);
}

/* --- the experiment --- */

static void write_text(int fd, const char *text)
{
	size_t length = strlen(text);
	ssize_t n;

	for (; length; text += n, length -= (size_t)n) {
		n = write(fd, text, length);
		if (n < 0)
			_exit(1);
	}
}

/* Mounts that nobody else sees, and shared memory that goes with its users. */
static void separate(void)
{
	if (geteuid() == 0 && unshare(CLONE_NEWNS | CLONE_NEWIPC) == 0)
		mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

static void prepare(const struct running *running)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setpgid(0, 0);
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_SETMASK, &running->before, NULL);
	/* Should memory run out, then this goes first. */
	bench_setting_write("/proc/self/oom_score_adj", "800");
	separate();
}

static json_object *new_object(void)
{
	json_object *object = json_object_new_object();

	if (!object) {
		complain("out of memory");
		exit(1);
	}
	return object;
}

static void report(struct bench *bench, int fd, uint64_t started)
{
	json_object *object = new_object();

	bench_result_report(bench, object);
	report_add_double(object, "seconds", (double)(bench_now() - started) / 1e9, 2);
	write_text(fd, json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN));
}

__attribute__((noreturn)) static void experiment(const struct running *running)
{
	const struct bench_options *options = running->options;
	struct bench bench = {
		.experiment = running->experiment,
		.scale = options->scale,
		.runs = options->runs,
		.warm_ups = options->warm_ups,
		.seed = options->seed,
		.memory = options->memory,
		.allow_tuning = options->allow_tuning,
		.directory = running->directory,
		.result = bench_result_new(),
	};
	uint64_t started = bench_now();

	prepare(running);
	bench.experiment->run(&bench);
	if (!bench_over(&bench))
		bench.experiment->judge(&bench);
	report(&bench, running->pipe[1], started);
	_exit(0);
}

static unsigned int seconds_allowed(const struct running *running)
{
	static const unsigned int factors[] = {
		[BENCH_TINY] = 1,
		[BENCH_QUICK] = 1,
		[BENCH_NORMAL] = 6,
		[BENCH_FULL] = 30,
	};
	unsigned int seconds = running->experiment->seconds * factors[running->options->scale];

	/* What is promised of an idle machine may take longer on a busy one. */
	return seconds * 4 < 300 ? 300 : seconds * 4;
}

/* Waits for the experiment, for a signal, for its time to be up. */
static int watch(const struct running *running, pid_t pid)
{
	uint64_t end = bench_now() + (uint64_t)seconds_allowed(running) * 1000000000, now;
	struct timespec left;
	int signal_number, status;
	pid_t ended;

	while ((now = bench_now()) < end) {
		left = (struct timespec){ .tv_sec = (time_t)((end - now) / 1000000000),
					  .tv_nsec = (long)((end - now) % 1000000000) };
		signal_number = sigtimedwait(&running->signals, NULL, &left);
		if (signal_number > 0 && signal_number != SIGCHLD)
			return INTERRUPTED;
		/* Others are orphans that the experiment has left. */
		while ((ended = waitpid(-1, &status, WNOHANG)) > 0)
			if (ended == pid)
				return WIFSIGNALED(status) ? DIED + WTERMSIG(status) : ENDED;
	}
	return TIME_IS_UP;
}

__attribute__((noreturn)) static void supervise(const struct running *running, pid_t parent)
{
	pid_t pid, me = getpid();
	int ending = COULD_NOT_START;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (getppid() != parent)
		raise(SIGTERM);
	close(running->pipe[0]);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == me)
			experiment(running);
		_exit(1);
	}
	close(running->pipe[1]);
	if (pid > 0)
		ending = watch(running, pid);
	kill_all_below();
	put_settings_back();
	remove_directory(running->directory);
	_exit(ending);
}

/* --- the command's side --- */

/* Until the supervisor and all below it have let go of the pipe. */
static int receive_all(const struct running *running, pid_t supervisor, struct fd_text *received)
{
	struct pollfd polled[2] = { { running->pipe[0], POLLIN, 0 }, { -1, POLLIN, 0 } };
	struct signalfd_siginfo info;
	int asked_to_stop = 0;
	sigset_t signals = running->signals;

	sigdelset(&signals, SIGCHLD);
	polled[1].fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	for (;;) {
		if (poll(polled, 2, -1) < 0)
			continue;
		if (polled[1].revents && read(polled[1].fd, &info, sizeof(info)) > 0) {
			asked_to_stop = (int)info.ssi_signo;
			kill(supervisor, SIGTERM);
		}
		if (polled[0].revents && !fd_take(running->pipe[0], received))
			break;
	}
	if (polled[1].fd >= 0)
		close(polled[1].fd);
	return asked_to_stop;
}

/* An experiment that never ran, or did not live to say what it found. */
static json_object *report_without_run(const struct bench_experiment *experiment, bool skipped,
				       const char *reason)
{
	json_object *object = new_object();
	struct bench bench = { .experiment = experiment, .result = bench_result_new() };

	if (skipped)
		bench_skip(&bench, "%s", reason);
	else
		bench_fail(&bench, 0, "%s", reason);
	bench_result_report(&bench, object);
	report_add_double(object, "seconds", 0, 2);
	bench_result_free(bench.result);
	return object;
}

static json_object *report_ending(const struct running *running, int ending)
{
	char text[200];

	if (ending == TIME_IS_UP)
		snprintf(text, sizeof(text), "it did not end within %u s",
			 seconds_allowed(running));
	else if (ending == DIED + SIGKILL)
		snprintf(text, sizeof(text), "it was killed: out of memory?");
	else if (ending > DIED)
		snprintf(text, sizeof(text), "it died: %s", strsignal(ending - DIED));
	else
		snprintf(text, sizeof(text), "it could not be started");
	return report_without_run(running->experiment, false, text);
}

static json_object *parse(const struct running *running, struct fd_text *received, int status)
{
	json_object *object = NULL;
	int ending = WIFEXITED(status) ? WEXITSTATUS(status) : COULD_NOT_START;

	if (received->text && ending == ENDED)
		object = json_tokener_parse(received->text);
	return object ? object : report_ending(running, ending);
}

static json_object *start(struct running *running, int *ret_signal)
{
	struct fd_text received = { 0 };
	json_object *object = NULL;
	pid_t pid, me = getpid();
	int status = 0;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		supervise(running, me);
	close(running->pipe[1]);
	if (pid > 0) {
		*ret_signal = receive_all(running, pid, &received);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		/* The supervisor alone was asked. */
		if (WIFEXITED(status) && WEXITSTATUS(status) == INTERRUPTED && !*ret_signal)
			*ret_signal = SIGTERM;
	} else {
		remove_directory(running->directory);
	}
	close(running->pipe[0]);
	if (!*ret_signal)
		object = pid > 0 ? parse(running, &received, status) :
				   report_ending(running, COULD_NOT_START);
	free(received.text);
	return object;
}

static void block_signals(struct running *running)
{
	static const int asking[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD };
	size_t i;

	sigemptyset(&running->signals);
	for (i = 0; i < sizeof(asking) / sizeof(asking[0]); i++)
		sigaddset(&running->signals, asking[i]);
	sigprocmask(SIG_BLOCK, &running->signals, &running->before);
}

/* What the record says that it cannot do without; false: ret_why says what lacks. */
static bool has_needs(const struct bench_experiment *experiment,
		      const struct bench_options *options, char *why, size_t room)
{
	struct bench bench = { .experiment = experiment, .result = bench_result_new() };
	const struct bench_program *program;

	why[0] = '\0';
	if (experiment->needs & (BENCH_NEEDS_ROOT | BENCH_NEEDS_LOOP) && geteuid() != 0)
		snprintf(why, room, "needs root: run it with sudo");
	else if (experiment->needs & BENCH_NEEDS_LOOP && access("/dev/loop-control", W_OK) < 0)
		snprintf(why, room, "needs loop devices: modprobe loop");
	else if (experiment->needs & BENCH_NEEDS_TUNING && !options->allow_tuning)
		snprintf(why, room, "changes settings of the system: allow it with --allow-tuning");
	for (program = experiment->programs; program && program->name && !why[0]; program++)
		if (!bench_find_program(&bench, program->name))
			snprintf(why, room, "needs %s: apt install %s", program->name,
				 program->package);
	bench_result_free(bench.result);
	return !why[0];
}

static bool map_shared(void)
{
	if (!shared) {
		shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (shared == MAP_FAILED)
			shared = NULL;
	}
	if (shared)
		shared->shortest_ns = UINT64_MAX;
	return shared;
}

json_object *bench_run_experiment(const struct bench_experiment *experiment,
				  const struct bench_options *options, uint64_t *ret_shortest_ns,
				  int *ret_signal)
{
	struct running running = { .experiment = experiment, .options = options };
	json_object *object;
	char why[256];

	*ret_signal = 0;
	if (!has_needs(experiment, options, why, sizeof(why)))
		return report_without_run(experiment, true, why);
	if (snprintf(running.directory, sizeof(running.directory), "%s/cow-bench.XXXXXX",
		     options->directory) >= (int)sizeof(running.directory) ||
	    !mkdtemp(running.directory))
		return report_without_run(experiment, false,
					  "cannot make a directory; give another --directory");
	if (!map_shared() || pipe2(running.pipe, O_CLOEXEC) < 0) {
		remove_directory(running.directory);
		return report_without_run(experiment, false, strerror(errno));
	}
	block_signals(&running);
	progress_begin(experiment->name, 0);
	object = start(&running, ret_signal);
	progress_end();
	sigprocmask(SIG_SETMASK, &running.before, NULL);
	if (shared->shortest_ns < *ret_shortest_ns)
		*ret_shortest_ns = shared->shortest_ns;
	return object;
}
