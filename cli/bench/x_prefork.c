/* SPDX-License-Identifier: MIT */
/*
 * prefork: what nginx's master and its workers have together. The real server, with a configuration
 * large enough for a master of some size, by number of workers, after each has answered requests.
 */
#include <errno.h>
#include <math.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench/bench.h"
#include "cli/bench/service.h"

#define MIB         ((uint64_t)1 << 20)
#define WORKERS_MAX 100
#define SOCKET      "web"

/* --- the configuration --- */

/* A map is read before the fork and kept in the master's heap: about 190 bytes an entry. */
static char *make_configuration(struct bench *bench, const struct service *service,
				unsigned int workers, unsigned int entries)
{
	size_t room = 4096 + (size_t)entries * 40, at = 0;
	const char *directory = service->directory;
	char *text = malloc(room);
	unsigned int i;

	if (!text) {
		bench_fail(bench, -ENOMEM, "cannot make a configuration");
		return NULL;
	}
	at += (size_t)snprintf(text, room,
			       "daemon off;\nmaster_process on;\nworker_processes %u;\n"
			       "pid %s/pid;\nerror_log %s/errors;\n"
			       "events { worker_connections 64; }\n"
			       "http {\naccess_log off;\nclient_body_temp_path %s/1;\n"
			       "proxy_temp_path %s/2;\nfastcgi_temp_path %s/3;\n"
			       "uwsgi_temp_path %s/4;\nscgi_temp_path %s/5;\n"
			       "map_hash_max_size %u;\nmap_hash_bucket_size 128;\n"
			       "map $uri $mapped {\ndefault none;\n",
			       workers, directory, directory, directory, directory, directory,
			       directory, directory, entries * 2 + 2048);
	for (i = 0; i < entries; i++)
		at += (size_t)snprintf(text + at, room - at, "/page%u value%u;\n", i, i);
	snprintf(text + at, room - at,
		 "}\nserver {\nlisten unix:%s/" SOCKET ";\n"
		 "location / { return 200 \"$mapped\\n\"; }\n}\n}\n",
		 directory);
	return text;
}

static bool ask_pages(struct bench *bench, const struct service *service, unsigned int requests)
{
	char request[64], answer[1024];
	unsigned int i;
	int fd;

	for (i = 0; i < requests; i++) {
		fd = service_connect(bench, service, SOCKET);
		if (fd < 0)
			return false;
		snprintf(request, sizeof(request), "GET /page%u HTTP/1.0\r\n\r\n", i % 100);
		if (service_ask(fd, request, "", answer, sizeof(answer)) < 0 ||
		    !strstr(answer, "value")) {
			bench_fail(bench, 0, "nginx gave no answer");
			close(fd);
			return false;
		}
		close(fd);
	}
	return true;
}

/* --- measuring --- */

struct crowd {
	struct bench_samples rss, pss, uss;
	struct bench_memory master;
	double total_rss, total_pss;
};

static void add_rows(struct bench *bench, unsigned int workers, const struct crowd *crowd)
{
	const char *n = bench_text(bench, "%u worker%s", workers, workers == 1 ? "" : "s");
	bool most = workers == WORKERS_MAX;

	bench_add_value(bench,
			&(struct bench_row){ bench_text(bench, "%u/master/rss", workers),
					     bench_text(bench, "RSS of the master, %s", n),
					     BENCH_BYTES, "10 MiB" },
			(double)crowd->master.rss);
	bench_add(bench,
		  &(struct bench_row){ bench_text(bench, "%u/worker/rss", workers),
				       bench_text(bench, "RSS of a worker, %s", n), BENCH_BYTES,
				       "12 MiB" },
		  &crowd->rss);
	bench_add(bench,
		  &(struct bench_row){ bench_text(bench, "%u/worker/pss", workers),
				       bench_text(bench, "PSS of a worker, %s", n), BENCH_BYTES },
		  &crowd->pss);
	bench_add(bench,
		  &(struct bench_row){ bench_text(bench, "%u/worker/uss", workers),
				       bench_text(bench, "USS of a worker, %s", n), BENCH_BYTES,
				       "3 MiB (12, of which 9 shared)" },
		  &crowd->uss);
	bench_add_value(bench,
			&(struct bench_row){
				bench_text(bench, "%u/sum/rss", workers),
				bench_text(bench, "all of them, each counted in full (RSS), %s", n),
				BENCH_BYTES, most ? "> 10 GiB without COW" : NULL, "total",
				"without sharing", workers },
			crowd->total_rss);
	bench_add_value(bench,
			&(struct bench_row){ bench_text(bench, "%u/sum/pss", workers),
					     bench_text(bench,
							"all of them, what is shared counted once "
							"(PSS), %s",
							n),
					     BENCH_BYTES, most ? "~1.2 GiB" : NULL, "total",
					     "shared", workers },
			crowd->total_pss);
}

static void look(struct bench *bench, const struct service *service, unsigned int workers)
{
	struct crowd crowd = { 0 };
	struct bench_memory memory;
	pid_t pids[WORKERS_MAX];
	size_t count = service_children(service->pid, pids, WORKERS_MAX), i;
	int error = bench_memory(service->pid, &crowd.master);

	bench_check(bench, count == workers, "nginx has its %u workers", workers);
	crowd.total_rss = (double)crowd.master.rss;
	crowd.total_pss = (double)crowd.master.pss;
	for (i = 0; i < count && !error; i++) {
		error = bench_memory(pids[i], &memory);
		bench_samples_add(&crowd.rss, (double)memory.rss);
		bench_samples_add(&crowd.pss, (double)memory.pss);
		bench_samples_add(&crowd.uss, (double)memory.uss);
		crowd.total_rss += (double)memory.rss;
		crowd.total_pss += (double)memory.pss;
	}
	if (error || !count)
		bench_fail(bench, error, "cannot read the memory of nginx");
	else
		add_rows(bench, workers, &crowd);
	bench_samples_free(&crowd.rss);
	bench_samples_free(&crowd.pss);
	bench_samples_free(&crowd.uss);
}

static void wait_for_workers(const struct service *service, unsigned int workers)
{
	pid_t pids[WORKERS_MAX];
	int tries;

	for (tries = 0; tries < 500; tries++) {
		if (service_children(service->pid, pids, WORKERS_MAX) == workers)
			return;
		usleep(10000);
	}
}

static void run_workers(struct bench *bench, unsigned int workers, unsigned int entries)
{
	struct service service;
	const char *nginx = bench_find_program(bench, "nginx"), *name;
	char *configuration;
	int fd;

	name = bench_text(bench, "nginx%u", workers);
	if (!service_prepare(bench, name, "www-data", &service))
		return;
	service.name = "nginx";
	configuration = make_configuration(bench, &service, workers, entries);
	if (configuration && service_write(bench, &service, "conf", configuration)) {
		const char *argv[] = { nginx,
				       "-p",
				       service.directory,
				       "-c",
				       bench_text(bench, "%s/conf", service.directory),
				       NULL };

		service_start(bench, &service, argv);
		fd = service_connect(bench, &service, SOCKET);
		if (fd >= 0) {
			close(fd);
			wait_for_workers(&service, workers);
			/* Which worker answers is chance: enough for each to have had its turn. */
			if (ask_pages(bench, &service, workers * 20))
				look(bench, &service, workers);
		}
		service_stop(&service);
	}
	free(configuration);
}

static void run(struct bench *bench)
{
	static const unsigned int tiny[] = { 1, 3 }, usual[] = { 1, 4, 10, WORKERS_MAX };
	const bool small = bench->scale == BENCH_TINY;
	const unsigned int *counts = small ? tiny : usual;
	const size_t count = small ? 2 : 4;
	/* 30,000 entries make a master of the text's size. */
	const unsigned int entries = BENCH_BY_SCALE(bench, 2000u, 30000u, 30000u, 30000u);
	size_t i;

	for (i = 0; i < count && !bench_over(bench); i++) {
		run_workers(bench, counts[i], entries);
		bench_progress(bench, i + 1, count);
	}
	bench_add_value(bench, &(struct bench_row){ "workers", "the most workers", BENCH_COUNT },
			counts[count - 1]);
	bench_check(bench,
		    bench_median(bench, bench_text(bench, "%u/sum/pss", counts[count - 1])) <
			    bench_median(bench, bench_text(bench, "%u/sum/rss", counts[count - 1])),
		    "master and workers share memory");
}

/* --- judging --- */

static double figure(struct bench *bench, const char *what)
{
	return bench_median(bench,
			    bench_text(bench, "%.0f/%s", bench_median(bench, "workers"), what));
}

static void judge_shared(struct bench *bench)
{
	double rss = figure(bench, "worker/rss"), uss = figure(bench, "worker/uss");
	double shared = (rss - uss) / rss;

	bench_judge(bench, "a worker shares most of its memory (9 of 12 MiB)",
		    shared >= 0.5 ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		    "of %s of a worker %s are its own, %.0f %% are shared",
		    bench_figure(bench, BENCH_BYTES, rss), bench_figure(bench, BENCH_BYTES, uss),
		    100 * shared);
}

static void judge_total(struct bench *bench)
{
	double workers = bench_median(bench, "workers");
	double rss = figure(bench, "sum/rss"), pss = figure(bench, "sum/pss");

	bench_judge(
		bench, "100 workers of 12 MiB take 1.2 GiB in total",
		pss > 0.7 * rss ? BENCH_HOLDS : BENCH_DOES_NOT_HOLD,
		"%.0f workers and their master take %s; %s is the sum of their RSS, which counts "
		"what is shared %.0f times. By the text's own figures it would be 0.3 GiB",
		workers, bench_figure(bench, BENCH_BYTES, pss),
		bench_figure(bench, BENCH_BYTES, rss), workers + 1);
}

static void judge_without(struct bench *bench)
{
	double workers = bench_median(bench, "workers");
	double rss = figure(bench, "sum/rss"), pss = figure(bench, "sum/pss");
	double master = figure(bench, "master/rss");

	/* The text: 10 GiB for a hundred workers of a master of 10 MiB, ten masters for each. */
	bench_judge(
		bench, "without COW it would be more than 10 GiB",
		rss / master > 8 * workers ? BENCH_HOLDS :
		rss > 1.5 * pss            ? BENCH_HOLDS_IN_PART :
					     BENCH_DOES_NOT_HOLD,
		"with nothing shared %.0f workers would take %s, %.1f times as much as they do, "
		"but no more than %.1f masters: a worker is no larger than what it was forked "
		"from and what it adds",
		workers, bench_figure(bench, BENCH_BYTES, rss), rss / pss, rss / master);
}

static void judge(struct bench *bench)
{
	judge_shared(bench);
	judge_total(bench);
	judge_without(bench);
}

static const struct bench_plot plots[] = {
	{ "total", "Memory of nginx, by number of workers", "workers", "bytes", true, true },
	{ 0 },
};

static const struct bench_program programs[] = { { "nginx", "nginx-light" }, { 0 } };

const struct bench_experiment experiment_prefork = {
	.name = "prefork",
	.title = "nginx: a master and its workers",
	.source = BENCH_SOURCE_FORK,
	.claim =
		"nginx's master has an RSS of 10 MiB, each worker after warm-up 12 MiB, of which 9 "
		"are shared; 100 workers take about 1.2 GiB in total. Without copy-on-write the "
		"same would take more than 10 GiB.",
	.method =
		"The real nginx with a configuration of some size (a map of 30,000 entries), by "
		"number of workers, after requests to all of them: RSS, PSS and USS of the master "
		"and of each worker, from /proc/PID/smaps_rollup. The sum of PSS is what they "
		"take; the sum of RSS is what they would take with nothing shared.",
	.programs = programs,
	.plots = plots,
	.seconds = 30,
	.run = run,
	.judge = judge,
};
