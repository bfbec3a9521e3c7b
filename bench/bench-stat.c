/* SPDX-License-Identifier: MIT */
/*
 * cow stat: is it right, and what does it cost?
 *
 * Right: 400,000 copies and as many reuses made on purpose, under each backend that works here;
 * Redis's own account of a save beside the copies counted. Cost: the same work with and without, in
 * turns; the work measures its own time, so that starting `cow` is measured apart. strace and
 * bpftrace (which needs a mounted tracefs) do the same beside it.
 *
 * Needs root for most backends, and COW_BENCH_ALLOW_TUNING=1 for taskstats: it sets
 * kernel.task_delayacct for the time of each run.
 */
#include <json-c/json.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/harness.h"

#define MOST_WORDS 40
#define OUTPUT     (1 << 20)
#define PORT       "17391"

static struct bench_options options;
static char cow[512], work[512], report[512];

static const char bpftrace_script[] =
	"tracepoint:exceptions:page_fault_user /args->error_code == 7/ "
	"{ @w[pid] = count(); } "
	"tracepoint:sched:sched_process_fork { @f[pid] = count(); }";

/* A way to run the work. */
struct way {
	const char *name, *piece; /* of --only */
	const char *words[16];
	double pages_bound, forks_bound; /* per cent over the plain run; 0: none */
	bool works;
	struct samples ratios;
};

static struct way ways[] = {
	{ .name = "cow stat, taskstats",
	  .piece = "taskstats",
	  .words = { cow, "stat", "-o", "/dev/null", "--backend", "taskstats", "--allow-tuning",
		     "--" },
	  .pages_bound = 3,
	  .forks_bound = 10 },
	{ .name = "cow stat, perf",
	  .piece = "perf",
	  .words = { cow, "stat", "-o", "/dev/null", "--backend", "perf", "--" },
	  .pages_bound = 10,
	  .forks_bound = 10 },
	{ .name = "cow stat, bpf",
	  .piece = "bpf",
	  .words = { cow, "stat", "-o", "/dev/null", "--backend", "bpf", "--" },
	  .pages_bound = 10,
	  .forks_bound = 10 },
	{ .name = "cow stat, basic",
	  .piece = "basic",
	  .words = { cow, "stat", "-o", "/dev/null", "--backend", "basic", "--" } },
	{ .name = "strace -f -c",
	  .piece = "strace",
	  .words = { "strace", "-f", "-c", "-o", "/dev/null" } },
	{ .name = "bpftrace, faults and forks counted",
	  .piece = "bpftrace",
	  .words = { "bpftrace", "-q", "-e", bpftrace_script, "-c" } },
};

#define WAYS (sizeof(ways) / sizeof(ways[0]))

static bool uses_tuning(const struct way *way)
{
	return way->name[strlen("cow stat, ")] == 't';
}

/* Runs a program; its standard output, cut to the size. Returns its wait status. */
static int run(const char *const words[], char *output, size_t size)
{
	int ends[2], status;
	char rest[4096];
	size_t used = 0;
	ssize_t length;
	pid_t child;

	check(pipe(ends) == 0, "pipe");
	child = fork();
	check(child >= 0, "fork");
	if (child == 0) {
		dup2(ends[1], STDOUT_FILENO);
		check(freopen("/dev/null", "w", stderr) != NULL, "/dev/null");
		close(ends[0]);
		close(ends[1]);
		execvp(words[0], (char *const *)words);
		_exit(127);
	}
	close(ends[1]);
	while ((length = read(ends[0], output + used, size - 1 - used)) > 0)
		used += (size_t)length;
	/* What does not fit is read all the same: a program that cannot write fails. */
	while (read(ends[0], rest, sizeof(rest)) > 0)
		;
	close(ends[0]);
	output[used] = '\0';
	check(waitpid(child, &status, 0) == child, "waitpid");
	return status;
}

/* The work under a way, or plain (NULL). Its first number, or -1. */
static double run_work(const struct way *way, const char *kind, const char *count)
{
	const char *words[MOST_WORDS] = { NULL };
	char output[4096], line[1024];
	size_t n = 0, i;

	for (i = 0; way && way->words[i]; i++)
		words[n++] = way->words[i];
	if (way && strncmp(way->name, "bpftrace", 8) == 0) {
		snprintf(line, sizeof(line), "%s %s %s", work, kind, count);
		words[n++] = line;
	} else {
		words[n++] = work;
		words[n++] = kind;
		words[n++] = count;
	}
	if (run(words, output, sizeof(output)) != 0)
		return -1;
	return strtod(output, NULL);
}

static void find_programs(void)
{
	ssize_t length = readlink("/proc/self/exe", work, sizeof(work) - 32);
	char *slash;

	check(length > 0, "/proc/self/exe");
	work[length] = '\0';
	slash = strrchr(work, '/');
	*slash = '\0';
	snprintf(cow, sizeof(cow), "%.450s/../cli/cow", work);
	snprintf(slash, 32, "/work-stat");
	if (getenv("COW"))
		snprintf(cow, sizeof(cow), "%s", getenv("COW"));
	check(access(cow, X_OK) == 0, "there is no cow beside the benchmark; set COW");
	check(access(work, X_OK) == 0, "there is no work-stat beside the benchmark");
	snprintf(report, sizeof(report), "%s/bench-stat-report.json", options.directory);
}

static void find_ways(void)
{
	const char *tuning = getenv("COW_BENCH_ALLOW_TUNING");
	size_t i;

	for (i = 0; i < WAYS; i++) {
		if (uses_tuning(&ways[i]) && !(tuning && strcmp(tuning, "1") == 0)) {
			bench_note("%s: left out; it sets kernel.task_delayacct, which "
				   "COW_BENCH_ALLOW_TUNING=1 allows",
				   ways[i].name);
			continue;
		}
		ways[i].works = run_work(&ways[i], "timed-pages", "10") > 0;
		if (!ways[i].works)
			bench_note("%s: does not work here", ways[i].name);
	}
}

/* --- accuracy --- */

static struct json_object *run_report(const struct way *way, const char *kind, const char *count)
{
	const char *words[MOST_WORDS] = { NULL };
	struct json_object *found;
	char output[4096];
	size_t n, i;

	for (n = 0; way->words[n]; n++)
		words[n] = way->words[n];
	/* Before the "--". */
	words[n - 1] = "--json";
	words[n++] = report;
	words[n++] = "--";
	words[n++] = work;
	words[n++] = kind;
	words[n++] = count;
	i = (size_t)run(words, output, sizeof(output));
	found = i == 0 ? json_object_from_file(report) : NULL;
	unlink(report);
	return found;
}

/* A number of the report's "cow"; -1 where it was not counted. */
static double cow_number(struct json_object *found, const char *key)
{
	struct json_object *group, *value;

	if (!json_object_object_get_ex(found, "cow", &group) ||
	    !json_object_object_get_ex(group, key, &value))
		return -1;
	return (double)json_object_get_int64(value);
}

static void show_deviation(const struct way *way, struct json_object *found, const char *key,
			   double expected, const char *what)
{
	double value = cow_number(found, key);
	char name[128];

	if (value < 0)
		return;
	snprintf(name, sizeof(name), "%s: %s, off by", way->name + strlen("cow stat, "), what);
	bench_value(name, "%", 100 * fabs(value - expected) / expected, AT_MOST, 0.1);
}

static void measure_accuracy(const char *count)
{
	double pages = strtod(count, NULL);
	struct json_object *found;
	size_t i;

	bench_section("right: %s copies, as many reuses and zero-fills made on purpose", count);
	for (i = 0; i < 3; i++) {
		found = ways[i].works ? run_report(&ways[i], "pages", count) : NULL;
		if (!found)
			continue;
		show_deviation(&ways[i], found, "copied_pages", pages, "copies");
		show_deviation(&ways[i], found, "reused_pages", pages, "reuses");
		show_deviation(&ways[i], found, "zero_filled_pages", pages, "zero-fills");
		show_deviation(&ways[i], found, "protected_writes", 2 * pages, "copies and reuses");
		json_object_put(found);
	}
}

/* --- cost --- */

static bool wants(const char *part, const struct way *way)
{
	char name[64];

	snprintf(name, sizeof(name), "%s/%s", part, way->piece);
	return way->works && bench_wants(name);
}

static void measure_cost(const char *part, const char *kind, const char *count, bool forks)
{
	double plain, time;
	unsigned turn;
	size_t i;

	for (turn = 0; turn < options.runs + 2; turn++) {
		for (i = 0; i < WAYS; i++) {
			if (!wants(part, &ways[i]))
				continue;
			/* A plain run beside each: what else the machine does changes. */
			plain = run_work(NULL, kind, count);
			time = run_work(&ways[i], kind, count);
			check(plain > 0 && time > 0, "the work failed");
			if (turn >= 2)
				samples_add(&ways[i].ratios, 100 * (time / plain - 1));
		}
	}
	for (i = 0; i < WAYS; i++) {
		double bound = forks ? ways[i].forks_bound : ways[i].pages_bound;

		if (wants(part, &ways[i]))
			bench_result(ways[i].name, "%", &ways[i].ratios,
				     bound > 0 ? AT_MOST : BOUND_NONE, bound);
		samples_free(&ways[i].ratios);
	}
}

/* From the start of `cow` to the command's main(), and the whole of an empty run. */
static void measure_start(void)
{
	struct samples start = { 0 }, whole = { 0 };
	double began, first;
	char name[96];
	unsigned turn;
	size_t i;

	bench_section("start-up: until the command runs, and all of a run of nothing");
	for (i = 0; i < 4; i++) {
		if (!ways[i].works)
			continue;
		for (turn = 0; turn < options.runs + 2; turn++) {
			began = now_us();
			first = run_work(&ways[i], "now", "0") * 1e6;
			if (turn < 2)
				continue;
			samples_add(&whole, (now_us() - began) / 1e3);
			samples_add(&start, (first - began) / 1e3);
		}
		bench_result(ways[i].name, "ms", &start, AT_MOST, 50);
		snprintf(name, sizeof(name), "%s, whole run", ways[i].name);
		bench_result(name, "ms", &whole, BOUND_NONE, 0);
		samples_free(&start);
		samples_free(&whole);
	}
}

/* --- Redis --- */

static char *ask_redis(const char *command)
{
	static char output[OUTPUT];
	const char *words[] = { "redis-cli", "-p", PORT, command, NULL };

	run(words, output, sizeof(output));
	return output;
}

static double redis_number(const char *key)
{
	char *at = strstr(ask_redis("info"), key);

	return at ? strtod(at + strlen(key) + 1, NULL) : -1;
}

static void write_redis(const char *count, const char *keys)
{
	const char *words[] = { "redis-benchmark",
				"-p",
				PORT,
				"-q",
				"-t",
				"set",
				"-d",
				"1000",
				"-P",
				"16",
				"-r",
				keys,
				"-n",
				count,
				NULL };
	char output[4096];

	run(words, output, sizeof(output));
}

static pid_t start_redis(const char *directory)
{
	pid_t child = fork();

	if (child == 0) {
		check(freopen("/dev/null", "w", stdout) && freopen("/dev/null", "w", stderr),
		      "/dev/null");
		execlp(cow, cow, "stat", "--json", report, "-o", "/dev/null", "--", "redis-server",
		       "--port", PORT, "--save", "", "--dir", directory, "--rdb-key-save-delay",
		       "20", "--bind", "127.0.0.1", (char *)NULL);
		_exit(127);
	}
	return child;
}

static bool wait_for_redis(const char *key, double value)
{
	unsigned i;

	for (i = 0; i < 600; i++) {
		if (fabs(redis_number(key) - value) < 0.5)
			return true;
		usleep(50000);
	}
	return false;
}

/* One server, one save, so many writes while it runs. */
static void save_under_writes(const char *writes, const char *keys)
{
	char name[128], file[640];
	struct json_object *found;
	double reported, counted;
	pid_t server;
	int status;

	server = start_redis(options.directory);
	if (!wait_for_redis("loading", 0)) {
		bench_note("Redis did not start");
		kill(server, SIGKILL);
		waitpid(server, &status, 0);
		return;
	}
	write_redis(options.quick ? "200000" : "1000000", keys);
	ask_redis("bgsave");
	write_redis(writes, keys);
	wait_for_redis("rdb_bgsave_in_progress", 0);
	reported = redis_number("rdb_last_cow_size");
	kill(server, SIGTERM);
	waitpid(server, &status, 0);
	snprintf(file, sizeof(file), "%s/dump.rdb", options.directory);
	unlink(file);
	found = json_object_from_file(report);
	unlink(report);
	check(found, "no report of Redis");
	counted = cow_number(found, "copied_bytes");
	json_object_put(found);
	if (counted < 0 || reported <= 0) {
		bench_note("%s writes: copies are not counted here", writes);
		return;
	}
	snprintf(name, sizeof(name), "%s writes during the save: Redis reports", writes);
	bench_value(name, "MiB", reported / 1048576, BOUND_NONE, 0);
	bench_value("  cow stat counted", "MiB", counted / 1048576, BOUND_NONE, 0);
	bench_value("  they differ by", "%", 100 * fabs(counted - reported) / reported, AT_MOST,
		    10);
}

static void measure_redis(void)
{
	static const char *const writes[] = { "10000", "50000", "200000" };
	char output[256];
	const char *words[] = { "redis-server", "--version", NULL };
	size_t i;

	bench_section("Redis BGSAVE: copies beside rdb_last_cow_size (what its child holds alone)");
	if (run(words, output, sizeof(output)) != 0 || !ways[2].works) {
		bench_note("redis-server or the bpf backend does not work here");
		return;
	}
	for (i = 0; i < (options.quick ? 1 : 3); i++)
		save_under_writes(writes[i], options.quick ? "20000" : "200000");
}

int main(int argc, char **argv)
{
	bench_begin("bench-stat", "Accuracy and cost of cow stat.", argc, argv, &options);
	find_programs();
	find_ways();
	if (bench_wants("accuracy"))
		measure_accuracy(options.quick ? "100000" : "400000");
	if (bench_wants("pages")) {
		bench_section("cost: 400,000 copies and as many reuses, over the plain run");
		measure_cost("pages", "timed-pages", options.quick ? "20000" : "400000", false);
	}
	if (bench_wants("large-forks")) {
		bench_section("cost: 300 forks of a process of 64 MiB, over the plain run");
		measure_cost("large-forks", "timed-large-forks", options.quick ? "20" : "300",
			     true);
	}
	if (bench_wants("forks")) {
		bench_section("cost: 2,000 forks of the smallest process, over the plain run");
		measure_cost("forks", "timed-forks", options.quick ? "100" : "2000", true);
	}
	if (bench_wants("start"))
		measure_start();
	if (bench_wants("redis"))
		measure_redis();
	return bench_end();
}
