/* SPDX-License-Identifier: MIT */
/*
 * Processes that take turns, and what their turns gave.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench-traps.h"

/* --- processes that take turns --- */

enum { READY = 'r', NOT_HERE = 'n', TURN = 't' };

static bool trap_is_here(const struct variant *variant)
{
	struct cow_region_options o = COW_REGION_OPTIONS_INIT;
	struct cow_region *region;
	int r;

	o.trap = variant->trap;
	r = cow_region_new(PAGE, &o, &region);
	if (r == -EOPNOTSUPP)
		return false;
	check_errno(r, "cow_region_new");
	cow_region_free(region);
	return true;
}

static void send_all(int fd, const void *bytes, size_t count)
{
	check(write(fd, bytes, count) == (ssize_t)count, "a process of the benchmark is gone");
}

static bool receive_all(int fd, void *bytes, size_t count)
{
	size_t got = 0;
	ssize_t r;

	while (got < count) {
		r = read(fd, (char *)bytes + got, count - got);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return false;
		got += (size_t)r;
	}
	return true;
}

static _Noreturn void serve(const struct job *job, int from, int to)
{
	char answer = READY, order;
	void *state;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (job->variant && job->variant->tune)
		setenv("COW_TUNE", job->variant->tune, 1);
	if (job->variant && !trap_is_here(job->variant)) {
		answer = NOT_HERE;
		send_all(to, &answer, 1);
		_exit(0);
	}
	state = job->prepare(job);
	send_all(to, &answer, 1);
	while (receive_all(from, &order, 1)) {
		double figures[FIGURES] = { 0 };

		job->turn(state, figures);
		send_all(to, figures, sizeof(figures));
	}
	_exit(0);
}

bool worker_start(struct worker *worker, const struct job *job)
{
	int there[2], back[2];
	char answer = 0;

	check(pipe(there) == 0 && pipe(back) == 0, "pipe");
	worker->pid = fork();
	check(worker->pid >= 0, "fork");
	if (worker->pid == 0) {
		close(there[1]);
		close(back[0]);
		serve(job, there[0], back[1]);
	}
	close(there[0]);
	close(back[1]);
	worker->to = there[1];
	worker->from = back[0];
	check(receive_all(worker->from, &answer, 1), "a process of the benchmark failed");
	if (answer == READY)
		return true;
	bench_note("%s: not to be had here", job->variant->name);
	worker_stop(worker);
	return false;
}

void worker_turn(struct worker *worker, double figures[FIGURES])
{
	char order = TURN;

	send_all(worker->to, &order, 1);
	check(receive_all(worker->from, figures, FIGURES * sizeof(figures[0])),
	      "a process of the benchmark failed");
}

/* Another process may hold its pipe's end, too, so it would not see that we close ours. */
void worker_stop(struct worker *worker)
{
	close(worker->to);
	close(worker->from);
	kill(worker->pid, SIGKILL);
	waitpid(worker->pid, NULL, 0);
}

/* --- what they gave --- */

unsigned turns_of(const struct variant *variant)
{
	return variant->binds ? options.runs : (options.runs + 2) / 3;
}

void turns_add(struct turns *turns, const double ours[FIGURES], const double theirs[FIGURES])
{
	turns->figures = realloc(turns->figures, (turns->count + 1) * sizeof(turns->figures[0]));
	check(turns->figures, "out of memory");
	memcpy(turns->figures[turns->count], ours, FIGURES * sizeof(double));
	memcpy(turns->figures[turns->count] + FIGURES, theirs, FIGURES * sizeof(double));
	turns->count++;
}

bool turns_take(struct turns *turns, const struct job *job, struct worker *baseline)
{
	unsigned count = turns_of(job->variant) * (job->times ? job->times : 1);
	double ours[FIGURES], theirs[FIGURES] = { 0 };
	struct worker worker;

	*turns = (struct turns){ .binds = job->variant->binds };
	if (!worker_start(&worker, job))
		return false;
	for (unsigned turn = 0; turn < count + BENCH_WARM_UP; turn++) {
		if (baseline)
			worker_turn(baseline, theirs);
		worker_turn(&worker, ours);
		if (turn >= BENCH_WARM_UP)
			turns_add(turns, ours, theirs);
	}
	worker_stop(&worker);
	return true;
}

void turns_free(struct turns *turns)
{
	free(turns->figures);
	*turns = (struct turns){ 0 };
}

struct samples turns_figure(const struct turns *turns, unsigned figure)
{
	struct samples samples = { 0 };

	for (unsigned turn = 0; turn < turns->count; turn++)
		samples_add(&samples, turns->figures[turn][figure]);
	return samples;
}

struct samples turns_ratio(const struct turns *turns, unsigned over, unsigned under)
{
	struct samples samples = { 0 };

	for (unsigned turn = 0; turn < turns->count; turn++)
		samples_add(&samples, turns->figures[turn][over] / turns->figures[turn][under]);
	return samples;
}

void show_figure(const struct turns *turns, const char *name, const char *unit, unsigned figure)
{
	struct samples samples = turns_figure(turns, figure);

	bench_result(name, unit, &samples, BOUND_NONE, 0);
	samples_free(&samples);
}

void show_ratio(const struct turns *turns, const char *name, unsigned over, unsigned under,
		enum bench_bound kind, double bound)
{
	struct samples samples = turns_ratio(turns, over, under);

	bench_result(name, "x", &samples, turns->binds && bound > 0 ? kind : BOUND_NONE, bound);
	samples_free(&samples);
}

void each_variant(const char *part, const struct variant variants[], size_t count,
		  const struct job *baseline,
		  void (*measure)(const struct variant *variant, struct worker *baseline))
{
	struct worker worker;
	char name[100];

	worker_start(&worker, baseline);
	for (size_t i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "%s/%s", part, variants[i].name);
		if (bench_wants(name))
			measure(&variants[i], &worker);
	}
	worker_stop(&worker);
}
