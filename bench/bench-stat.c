/* SPDX-License-Identifier: MIT */
/*
 * cow stat: is it right, and what does it cost?
 *
 * Right: 400,000 copies and as many reuses made on purpose, under each backend that works here;
 * Redis's own account of its saves beside the copies counted, and beside what cow doctor said of
 * them before. Cost: the same work with and without, in turns, and without once more as a control;
 * the work measures its own time, so that starting `cow` is measured apart. strace and bpftrace
 * (which needs a mounted tracefs) do the same beside it.
 *
 * Needs root for most backends, and COW_BENCH_ALLOW_TUNING=1 for taskstats: it sets
 * kernel.task_delayacct for the time of each run. With it perf knows copies from reuses, too.
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
	bool tunes;
	bool works;
	struct samples ratios;
};

static struct way ways[] = {
	{ .name = "cow stat, taskstats",
	  .piece = "taskstats",
	  .words = { cow, "stat", "-o", "/dev/null", "--backend", "taskstats", "--allow-tuning",
		     "--" },
	  .pages_bound = 3,
	  .forks_bound = 10,
	  .tunes = true },
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
	{ .name = "plain once more (A/A)", .piece = "control" },
};

#define WAYS     (sizeof(ways) / sizeof(ways[0]))
#define BACKENDS 4 /* the first of them, and of these the first three count copies */

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

static bool may_tune(void)
{
	const char *tuning = getenv("COW_BENCH_ALLOW_TUNING");

	return tuning && strcmp(tuning, "1") == 0;
}

static void find_ways(void)
{
	size_t i;

	for (i = 0; i < WAYS; i++) {
		if (ways[i].tunes && !may_tune()) {
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
	size_t n;

	for (n = 0; way->words[n]; n++)
		words[n] = way->words[n];
	/* Before the "--". */
	words[n - 1] = "--json";
	words[n++] = report;
	if (may_tune())
		words[n++] = "--allow-tuning";
	words[n++] = "--";
	words[n++] = work;
	words[n++] = kind;
	words[n++] = count;
	found = run(words, output, sizeof(output)) == 0 ? json_object_from_file(report) : NULL;
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

	if (value < 0) {
		bench_note("%s: %s are not counted", way->piece, what);
		return;
	}
	snprintf(name, sizeof(name), "%s: %s, off by", way->piece, what);
	bench_value(name, "%", 100 * fabs(value - expected) / expected, AT_MOST, 0.1);
}

static void measure_accuracy(const char *count)
{
	double pages = strtod(count, NULL);
	struct json_object *found;
	size_t i;

	bench_section("right: %s copies, as many reuses and zero-fills made on purpose", count);
	for (i = 0; i < BACKENDS - 1; i++) {
		found = ways[i].works ? run_report(&ways[i], "pages", count) : NULL;
		if (!found)
			continue;
		show_deviation(&ways[i], found, "copied_pages", pages, "copies");
		show_deviation(&ways[i], found, "reused_pages", pages, "reuses");
		show_deviation(&ways[i], found, "zero_filled_pages", pages, "zero-fills");
		if (cow_number(found, "reused_pages") < 0 &&
		    cow_number(found, "protected_writes") >= 0)
			show_deviation(&ways[i], found, "protected_writes", 2 * pages,
				       "copies and reuses together");
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

	for (turn = 0; turn < options.runs + BENCH_WARM_UP; turn++) {
		for (i = 0; i < WAYS; i++) {
			if (!wants(part, &ways[i]))
				continue;
			/* A plain run beside each: what else the machine does changes. */
			plain = run_work(NULL, kind, count);
			time = run_work(&ways[i], kind, count);
			check(plain > 0 && time > 0, "the work failed");
			if (turn >= BENCH_WARM_UP)
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
	for (i = 0; i < BACKENDS; i++) {
		if (!ways[i].works)
			continue;
		for (turn = 0; turn < options.runs + BENCH_WARM_UP; turn++) {
			began = now_us();
			first = run_work(&ways[i], "now", "0") * 1e6;
			if (turn < BENCH_WARM_UP)
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

/* Starts a program that says nothing. */
static pid_t start(const char *const words[])
{
	pid_t child = fork();

	check(child >= 0, "fork");
	if (child == 0) {
		check(freopen("/dev/null", "w", stdout) && freopen("/dev/null", "w", stderr),
		      "/dev/null");
		execvp(words[0], (char *const *)words);
		_exit(127);
	}
	return child;
}

static void stop(pid_t child, int with)
{
	kill(child, with);
	waitpid(child, NULL, 0);
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

/* The process that writes the file, or 0. */
static pid_t find_saver(pid_t server)
{
	char path[64];
	int pid = 0;
	unsigned i;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", server, server);
	for (i = 0; i < 500 && pid == 0; i++) {
		file = fopen(path, "re");
		if (!file || fscanf(file, "%d", &pid) != 1)
			pid = 0;
		if (file)
			fclose(file);
		usleep(2000);
	}
	return pid;
}

struct save {
	double counted, reported; /* bytes; the first -1 where copies are not counted here */
};

/* One save, and so many writes while it runs: its process waits until they are done. */
static struct save save_under_writes(pid_t server, const char *writes, const char *keys)
{
	struct save save = { .counted = -1 };
	struct json_object *found;
	char pid[16];
	const char *words[] = { cow,  "stat",      "--backend", "bpf", "--json", report,
				"-o", "/dev/null", "-p",        pid,   NULL };
	pid_t watch, saver;

	snprintf(pid, sizeof(pid), "%d", server);
	watch = start(words);
	sleep(1); /* it has no way to say that it began: this is many times what it takes */
	ask_redis("bgsave");
	saver = find_saver(server);
	check(saver > 0, "Redis did not save");
	kill(saver, SIGSTOP);
	write_redis(writes, keys);
	kill(saver, SIGCONT);
	wait_for_redis("rdb_bgsave_in_progress", 0);
	save.reported = redis_number("rdb_last_cow_size");
	stop(watch, SIGINT);
	found = json_object_from_file(report);
	if (found)
		save.counted = cow_number(found, "copied_bytes");
	json_object_put(found);
	return save;
}

/* What cow doctor says of the server, after a save that the report is about. */
static bool ask_doctor(pid_t server, double *ret_estimate, double *ret_worst)
{
	static char output[OUTPUT];
	char pid[16];
	const char *words[] = { cow, "doctor", "--json", "--pid", pid, "--earlier", report, NULL };
	struct json_object *found, *fork_cost, *estimate, *worst;
	bool told;

	snprintf(pid, sizeof(pid), "%d", server);
	run(words, output, sizeof(output)); /* its status is the worst finding */
	found = json_tokener_parse(output);
	told = found && json_object_object_get_ex(found, "fork", &fork_cost) &&
	       json_object_object_get_ex(fork_cost, "estimated_bytes", &estimate) &&
	       json_object_object_get_ex(fork_cost, "worst_bytes", &worst);
	if (told) {
		*ret_estimate = json_object_get_double(estimate);
		*ret_worst = json_object_get_double(worst);
	}
	json_object_put(found);
	return told;
}

static void show_save(const char *which, const struct save *save)
{
	char name[128];

	snprintf(name, sizeof(name), "  the %s save: Redis reports", which);
	bench_value(name, "MiB", save->reported / 1048576, BOUND_NONE, 0);
	bench_value("  cow stat counted", "MiB", save->counted / 1048576, BOUND_NONE, 0);
	bench_value("  they differ by", "%",
		    100 * fabs(save->counted - save->reported) / save->reported, AT_MOST, 10);
}

/* Two saves at one rate of writes: what Redis says, and what the first tells of the second. */
static void compare_saves(pid_t server, const char *writes, const char *keys)
{
	double estimate = 0, worst = 0;
	struct save first, second;
	bool told;

	first = save_under_writes(server, writes, keys);
	told = ask_doctor(server, &estimate, &worst);
	second = save_under_writes(server, writes, keys);
	unlink(report);
	if (first.counted < 0 || second.counted <= 0 || first.reported <= 0 ||
	    second.reported <= 0) {
		bench_note("%s writes: copies are not counted here", writes);
		return;
	}
	bench_note("%s writes while it saves:", writes);
	show_save("first", &first);
	show_save("second", &second);
	check(told, "cow doctor did not tell");
	bench_value("  cow doctor's estimate of it", "MiB", estimate / 1048576, BOUND_NONE, 0);
	bench_value("  it is off by", "%", 100 * fabs(estimate - second.counted) / second.counted,
		    AT_MOST, 15);
	bench_value("  copied, of what it says at worst", "%", 100 * second.counted / worst,
		    AT_MOST, 100);
}

static void measure_redis(void)
{
	static const char *const writes[] = { "10000", "50000", "200000" };
	const char *keys = options.quick ? "20000" : "200000";
	const char *version[] = { "redis-server", "--version", NULL };
	const char *words[] = { "redis-server", "--port",          PORT,     "--save",    "",
				"--dir",        options.directory, "--bind", "127.0.0.1", NULL };
	char output[256], file[640];
	pid_t server;
	size_t i;

	bench_section("Redis BGSAVE: copies beside rdb_last_cow_size (what its child holds alone, "
		      "and has written itself), and cow doctor's estimate of the next");
	if (run(version, output, sizeof(output)) != 0 || !ways[2].works) {
		bench_note("redis-server or the bpf backend does not work here");
		return;
	}
	server = start(words);
	if (wait_for_redis("loading", 0)) {
		write_redis(options.quick ? "60000" : "600000", keys);
		for (i = 0; i < (options.quick ? 1 : 3); i++)
			compare_saves(server, writes[i], keys);
	} else {
		bench_note("Redis did not start");
	}
	stop(server, SIGKILL);
	snprintf(file, sizeof(file), "%s/dump.rdb", options.directory);
	unlink(file);
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
