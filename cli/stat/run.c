/* SPDX-License-Identifier: MIT */
#include "cli/stat/run.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/stat/live.h"
#include "cli/stat/processes.h"
#include "cli/stat/session.h"

#define FIRST_LOOK_NS   UINT64_C(50000000)
#define LONGEST_LOOK_NS UINT64_C(100000000)
#define DRAIN_MS        100 /* buffers hold much more than what comes in that time */
#define TITLES_EVERY    25

int run_failure(const struct stat_options *options)
{
	return options->command ? COMMAND_NOT_RUN : COMMAND_FAILED;
}

static uint64_t since_start(const struct run *run)
{
	return monotonic_ns() - run->began_ns;
}

/* Memory of those alive, looked at now. */
static void look_at_sharing(struct run *run)
{
	struct sharing sharing = { .at_ns = since_start(run) };
	const struct processes *processes = run->session.processes;
	size_t i;

	for (i = 0; i < processes_count(processes); i++)
		if (!processes_at(processes, i)->ended)
			sharing_add(&sharing, processes_at(processes, i)->pid);
	/* A command that has ended leaves what was seen of it last. */
	if (!sharing.processes && run->result.sharing.processes)
		return;
	/* Nor does one tell much that is just about to: a loss of half has to be seen twice. */
	run->shrunk = !run->shrunk && sharing.rss_bytes < run->result.sharing.rss_bytes / 2;
	if (!run->shrunk)
		run->result.sharing = sharing;
}

/*
 * When a command has ended, its memory has gone: what is told of the sharing "at the end" is the
 * last look while it lived. Looking takes the kernel a walk over all pages, so the next one comes
 * after 200 times as long, and none after one that took long enough to be felt.
 */
static void look_now_and_then(struct run *run)
{
	uint64_t began = since_start(run), took;

	if (!run->next_look_ns || began < run->next_look_ns)
		return;
	session_read(&run->session);
	look_at_sharing(run);
	took = since_start(run) - began;
	run->next_look_ns = took > LONGEST_LOOK_NS ? 0 :
						     since_start(run) + FIRST_LOOK_NS + 200 * took;
}

static void print_interval(struct run *run)
{
	struct counts delta = run->session.totals;
	uint64_t at_ns = since_start(run);
	char rises[256];
	size_t i;

	for (i = 0; i < METRICS; i++)
		delta.value[i] -= run->last.value[i] < delta.value[i] ? run->last.value[i] :
									delta.value[i];
	run->last = run->session.totals;
	rise_look(&run->rise, run->session.counted, &delta, rises, sizeof(rises));
	if (run->intervals)
		interval_report(run->intervals, &run->session, &delta, at_ns, rises);
	if (!run->stream)
		return;
	if (run->lines++ % TITLES_EVERY == 0)
		interval_print_titles(run->stream, &run->session);
	interval_print(run->stream, &run->session, &delta, at_ns, rises);
}

static void end_interval(struct run *run)
{
	session_read(&run->session);
	print_interval(run);
	if (!run->session.whole_system)
		look_at_sharing(run);
	while (run->next_interval_ns <= since_start(run))
		run->next_interval_ns += run->options->interval_ns;
}

static void take_signals(struct run *run)
{
	int number;

	while ((number = child_next_signal(run->signals, &run->child))) {
		if (number != SIGCHLD) {
			/* With a command, it is the command's to decide. */
			run->over |= !run->child.pid;
			continue;
		}
		if (run->child.pid && wait4(run->child.pid, &run->wait_status, WNOHANG,
					    &run->result.usage) == run->child.pid) {
			run->result.elapsed_ns = since_start(run);
			run->result.has_exit_status = true;
			run->result.exit_status = child_exit_status(run->wait_status);
			run->child.pid = 0;
			run->over = true;
		}
	}
}

/* Whether at least one of the given processes is alive; a descriptor that is readable has ended. */
static bool targets_alive(struct run *run)
{
	bool alive = false;
	size_t i;

	for (i = 0; i < run->pid_count; i++) {
		if (run->targets[i].fd < 0)
			continue;
		if (run->targets[i].revents) {
			close(run->targets[i].fd);
			run->targets[i].fd = -1;
		} else {
			alive = true;
		}
	}
	return alive;
}

static int next_timeout(const struct run *run)
{
	uint64_t now = since_start(run), until = now + DRAIN_MS * UINT64_C(1000000);

	if (run->options->interval_ns && run->next_interval_ns < until)
		until = run->next_interval_ns;
	if (run->options->duration_ns && run->options->duration_ns < until)
		until = run->options->duration_ns;
	if (run->next_look_ns && run->next_look_ns < until)
		until = run->next_look_ns;
	return until > now ? (int)((until - now + 999999) / 1000000) : 0;
}

static void watch(struct run *run)
{
	struct pollfd waits[MOST_PIDS + 2];
	size_t i;

	run->next_interval_ns = run->options->interval_ns;
	/* With intervals it is looked at in each of them; of given processes, at the end. */
	run->next_look_ns = run->session.child && !run->session.whole_system &&
					    !run->options->interval_ns ?
				    FIRST_LOOK_NS :
				    0;
	while (!run->over) {
		waits[0] = (struct pollfd){ .fd = run->signals, .events = POLLIN };
		waits[1] = (struct pollfd){ .fd = session_wakeups(&run->session),
					    .events = POLLIN };
		memcpy(waits + 2, run->targets, run->pid_count * sizeof(waits[0]));
		poll(waits, 2 + run->pid_count, next_timeout(run));
		for (i = 0; i < run->pid_count; i++)
			run->targets[i].revents = waits[2 + i].revents;
		take_signals(run);
		if (run->pid_count && !targets_alive(run) && !run->child.pid)
			run->over = true;
		if (run->options->duration_ns && since_start(run) >= run->options->duration_ns)
			run->over = true;
		if (run->options->interval_ns && since_start(run) >= run->next_interval_ns &&
		    !run->over)
			end_interval(run);
		else
			session_drain(&run->session);
		if (!run->over)
			look_now_and_then(run);
	}
}

static void open_targets(struct run *run)
{
	size_t i;

	for (i = 0; i < run->pid_count; i++)
		run->targets[i] = (struct pollfd){
			.fd = (int)syscall(SYS_pidfd_open, run->pids[i], 0), .events = POLLIN
		};
}

static void close_targets(struct run *run)
{
	size_t i;

	for (i = 0; i < run->pid_count; i++)
		if (run->targets[i].fd >= 0)
			close(run->targets[i].fd);
}

static void finish(struct run *run)
{
	struct result *result = &run->result;
	struct session *session = &run->session;

	if (!result->elapsed_ns)
		result->elapsed_ns = since_start(run);
	session_read(session);
	session_settle(session);
	if (vmstat_read(&result->after) != 0)
		result->after = result->before;
	/* Without events the kernel's sum for the command and those it waited for has to do. */
	if (strcmp(session->backend, "rusage") == 0 && result->has_exit_status) {
		session->totals.value[METRIC_MINOR_FAULTS] += (uint64_t)result->usage.ru_minflt;
		session->totals.value[METRIC_MAJOR_FAULTS] += (uint64_t)result->usage.ru_majflt;
	}
	if (run->options->interval_ns)
		print_interval(run);
	if (!session->whole_system)
		look_at_sharing(run);
	result->counted = session->counted;
	result->totals = session->totals;
	result->lost = session->lost;
	result->fork_ns.count = session->fork_ns.total;
	result->fork_ns.p50 = histogram_quantile(&session->fork_ns, 0.5);
	result->fork_ns.p99 = histogram_quantile(&session->fork_ns, 0.99);
	result->fork_ns.max = session->fork_ns.max;
	result->fork_ns.sum = session->fork_ns_sum;
}

static int complain_exec(const char *program, int error)
{
	if (error == -ENOENT) {
		complain("there is no program '%s'; see that its name and PATH are right", program);
		return COMMAND_NOT_FOUND;
	}
	complain_errno(error, "cannot execute '%s'", program);
	return COMMAND_NOT_EXEC;
}

/* Starts everything: COMMAND_OK, or the status with which to end. */
static int begin(struct run *run)
{
	struct session *session = &run->session;
	int error;

	if (run->options->command) {
		error = child_start(&run->child, run->options->command);
		if (error) {
			complain_errno(error, "cannot start a process");
			return COMMAND_NOT_RUN;
		}
	}
	session->options = run->options;
	session->pids = run->pids;
	session->pid_count = run->pid_count;
	session->whole_system = run->options->whole_system;
	/* With -p the command only says for how long. */
	session->child = run->pid_count ? 0 : run->child.pid;
	if (session_start(session) != 0)
		return run_failure(run->options);
	if (vmstat_read(&run->result.before) != 0)
		complain("cannot read /proc/vmstat; the system's counters are left out");
	open_targets(run);
	run->began_ns = monotonic_ns();
	if (!run->options->command)
		return COMMAND_OK;
	error = child_release(&run->child);
	return error ? complain_exec(run->options->command[0], error) : COMMAND_OK;
}

int run_once(struct run *run)
{
	int status = begin(run);

	if (status == COMMAND_OK) {
		watch(run);
		finish(run);
	}
	close_targets(run);
	child_abandon(&run->child);
	return status;
}
